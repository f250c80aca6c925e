"""The information bound against the mutual information of a model whose x has 8 states.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-5 each.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from guides import Enumerated
from guides import encoders as enc
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective.terms import information_bound
from tests.pyro_infocat.objective.by_hand import loss_by_hand
from tests.pyro_infocat.objective.programs import LIKELIHOODS, K, make_programs
from tests.pyro_infocat.objective.ways import expect

pytestmark = pytest.mark.usefixtures("double")

STATES = 8
"""x has 3 binary features in the exact case."""


def small_model() -> tuple[CatVAE, Tensor, Tensor]:
    """A model with D = 2 and 8 states of x, its p(c) p(x | c) (K, 8), and the states (8, 3).

    p(x | c) is integrated over z with the trapezoid rule.
    """
    prior = priors.Simplex(K, 2, scale=2, weights=[1, 2, 3])
    model = CatVAE(prior, decoders.MLP(2, 3, likelihoods.Bernoulli(), [8]))
    with torch.no_grad():
        # A fresh decoder hardly looks at z: there would be no information to bound.
        model.decoder.network[-1].weight.mul_(8)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    axis = torch.linspace(-9, 9, 121)
    z = torch.cartesian_prod(axis, axis)
    volume = float(axis[1] - axis[0]) ** 2
    with torch.no_grad():
        p_x = model.decoder(z.unsqueeze(1)).log_prob(states).exp()
        p_z = torch.exp(-(torch.cdist(prior.modes, z) ** 2) / 2) / (2 * math.pi) * volume
        joint = torch.tensor([1.0, 2, 3]).unsqueeze(1) / 6 * (p_z @ p_x)
    torch.testing.assert_close(joint.sum(), torch.tensor(1.0), rtol=0, atol=1e-9)
    return model, joint, states


class Table(nn.Module):
    """A critic that looks q(c | x) up: log_q (8, K)."""

    def __init__(self, log_q: Tensor) -> None:
        super().__init__()
        self.log_q = log_q

    def critic(self, x: Tensor) -> dist.Categorical:
        state = x @ torch.tensor([4.0, 2, 1])
        return dist.Categorical(logits=self.log_q[state.round().long()])


def mutual_information(joint: Tensor) -> float:
    independent = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    return float((joint * (joint / independent).log()).sum())


def average_bound(model: CatVAE, guide: Any) -> tuple[float, float]:
    """The information bound of an example and its standard error, from 40 batches of 500."""
    with torch.no_grad():
        draws = torch.stack([information_bound(model, guide, 500) / 500 for _ in range(40)])
    return float(draws.mean()), float(draws.std()) / math.sqrt(len(draws))


def test_information_bound_is_tight_for_the_true_posterior() -> None:
    """With q = p(c | x) the bound is I(c; x): |t| of 39 degrees exceeds 5.5 once in 4e5 seeds."""
    model, joint, _ = small_model()
    information = mutual_information(joint)
    assert 0.1 < information < math.log(K)
    mean, error = average_bound(model, Table((joint / joint.sum(0)).log().mT))
    assert abs(mean - information) < 5.5 * error
    assert error < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_information_bound_of_any_classifier(seed: int) -> None:
    """It falls short of I(c; x) by E KL(p(c | x) || q(c | x)), so it is never above."""
    torch.manual_seed(seed)
    model, joint, states = small_model()
    guide = Enumerated(lambda: enc.MLP(3, [6]), K, 2, hidden=5)
    with torch.no_grad():
        log_q = guide.category(states).logits.mT
        gap = float((joint * ((joint / joint.sum(0)).log() - log_q)).sum())
    information = mutual_information(joint)
    mean, error = average_bound(model, guide)
    assert gap > 0
    assert abs(mean - (information - gap)) < 5.5 * error
    assert mean < information + 5.5 * error


def test_training_the_bound_approaches_the_information() -> None:
    """Raising the bound by the classifier alone brings it near I(c; x) from below.

    Of 14 seeds the widest gap was 0.009.
    """
    model, joint, states = small_model()
    guide = Enumerated(lambda: enc.MLP(3, [16]), K, 2, hidden=5)
    optimiser = torch.optim.Adam(guide.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        (-information_bound(model, guide, 200)).backward()
        optimiser.step()
    with torch.no_grad():
        log_q = guide.category(states).logits.mT
        gap = float((joint * ((joint / joint.sum(0)).log() - log_q)).sum())
    assert 0 <= gap < 0.05


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_information_bound_trains_decoder_and_classifier(likelihood: str) -> None:
    model, guide, _ = make_programs("mixture", "shared", likelihood)
    information_bound(model, guide, 100).backward()
    assert model.prior.mean.grad.abs().max() > 0
    for module in (model.decoder, guide.encoder, guide.classifier):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("missing", ["generate", "prior", "critic"])
def test_information_bound_says_what_it_needs(missing: str) -> None:
    model, guide, x = make_programs(kl="sampled")
    message = (
        "the information bound needs model.generate(number), model.prior and guide.critic(x), "
        "as models.CatVAE and guides.guide.Guide have them; information_weight=0 needs none"
    )

    def program(x: Tensor) -> Tensor:
        """Runs the model, without its methods."""
        return model(x)

    def inference(x: Tensor) -> None:
        """Runs the guide, without its methods."""
        guide(x)

    pair = (program, guide) if missing == "generate" else (model, inference)
    with expect(TypeError, message):
        InfoCatELBO(0.1).loss(*pair, x)
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(*pair, x)
    assert loss == pytest.approx(float(loss_by_hand(model, guide, x, 0)[0]), rel=1e-9)
