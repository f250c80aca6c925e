"""The bound against sums written out by hand.

Every way to it (Pyro's traces, the direct sum, SVI, the ELBO module) is held to the same number and
the same gradients as a loop over categories in plain PyTorch under the same seed.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
import re
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from torch import Tensor, nn

from guides.guide import Guide, Posterior, normal
from guides.relaxed import Gumbel, Relaxed, SoftCode
from models import CatVAE
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective import ELBO_SIGNS, elbo_of
from pyro_infocat.objective.bound import direct_terms
from tests.pyro_infocat.objective.by_hand import (
    bound_by_hand,
    information_by_hand,
    kl_normal,
    latent_by_hand,
    log_category_by_hand,
    loss_by_hand,
    prior_by_hand,
)
from tests.pyro_infocat.objective.programs import (
    LIKELIHOODS,
    PRIORS,
    B,
    D,
    K,
    X,
    combinations,
    encoder,
    make_programs,
    parameters,
)
from tests.pyro_infocat.objective.ways import WAYS, assert_same, through_loss, with_gradients

pytestmark = pytest.mark.usefixtures("double")


def assert_every_way(model: CatVAE, guide: Guide, x: Tensor, gamma: float) -> None:
    by_hand = loss_by_hand(model, guide, x, gamma)
    for direct in (False, True):
        for name, way in WAYS.items():
            ours = way(InfoCatELBO(gamma, direct=direct), model, guide, x)
            assert_same(ours, by_hand, f"{name}, direct={direct}")


@pytest.mark.parametrize(
    ("prior", "guide", "likelihood", "kl"),
    combinations(PRIORS, ["enumerated", "shared"], LIKELIHOODS, ["analytic", "sampled"]),
)
def test_enumerated_sum(prior: str, guide: str, likelihood: str, kl: str) -> None:
    """Loss and gradients, through every way, are those of the loop over categories."""
    assert_every_way(*make_programs(prior, guide, likelihood, kl=kl), gamma=0.7)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("guide", ["enumerated", "shared"])
def test_enumerated_sum_without_information(guide: str, kl: str) -> None:
    assert_every_way(*make_programs("mixture", guide, kl=kl), gamma=0)


@pytest.mark.parametrize(("prior", "likelihood"), combinations(PRIORS, LIKELIHOODS))
def test_marginal_sum(prior: str, likelihood: str) -> None:
    """With c left out of the guide the model's prior on z is log sum_c p(c) p(z | c)."""
    assert_every_way(*make_programs(prior, "bayes", likelihood, kl="sampled"), gamma=0.7)


# Bayes has no analytic KL: its prior is the mixture.
GUIDES = ["enumerated analytic", "enumerated sampled", "shared analytic", "shared sampled"]
GUIDES += ["bayes sampled"]


@pytest.mark.parametrize(
    ("network", "likelihood", "guide_and_kl"),
    combinations(["convolutional", "recurrent"], LIKELIHOODS, GUIDES),
)
def test_images(network: str, likelihood: str, guide_and_kl: str) -> None:
    guide, kl = guide_and_kl.split()
    assert_every_way(*make_programs("orthogonal", guide, likelihood, network, kl), gamma=0.7)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("prior", "guide", "way"), combinations(PRIORS, ["enumerated", "bayes"], WAYS)
)
def test_sampled_bound_is_that_of_pyro(prior: str, guide: str, way: str, direct: bool) -> None:
    """CatVAE with a sampled KL is TraceEnum_ELBO itself."""
    programs = make_programs(prior, guide, kl="sampled")
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1), *programs)
    assert_same(WAYS[way](InfoCatELBO(0, direct=direct), *programs), plain)


RELAXED: dict[str, Callable[..., Relaxed]] = {
    "soft": SoftCode,
    "gumbel": lambda *arguments, **options: Gumbel(*arguments, **options, temperature=0.7),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("relaxed", RELAXED)
def test_relaxed_sum(relaxed: str, shared: bool) -> None:
    """One decoding of the mixed code; the KLs as in the bound."""
    model, _, x = make_programs("weighted")
    guide = RELAXED[relaxed](encoder(), K, D, hidden=5, shared=shared)
    torch.manual_seed(1)
    log_q = log_category_by_hand(model, guide, x)
    weights = log_q.exp()
    if relaxed == "gumbel":
        noise = -torch.empty(B, K).exponential_().log()
        weights = torch.softmax((log_q + noise) / 0.7, -1)
    log_p, means, scales = prior_by_hand(model.prior)
    loss, mixed, log_scale = torch.zeros(()), torch.zeros(B, D), torch.zeros(B, D)
    for k in range(K):
        mean, scale = latent_by_hand(guide, x, k)
        mixed = mixed + weights[:, k : k + 1] * mean
        log_scale = log_scale + weights[:, k : k + 1] * scale.log()
        kl = kl_normal(mean, scale, means[k], scales[k]) + log_q[:, k] - log_p[k]
        loss = loss + (log_q[:, k].exp() * kl).sum()
    z = mixed + log_scale.exp() * torch.randn(B, D)
    loss = loss - model.decoder(z).log_prob(x).sum()
    loss = loss - 0.7 * information_by_hand(model, guide, B)
    by_hand = with_gradients(loss, model, guide)
    for name, way in WAYS.items():
        assert_same(way(InfoCatELBO(0.7), model, guide, x), by_hand, name)

    # Evaluation goes without the relaxation.
    torch.manual_seed(1)
    expected = bound_by_hand(model, guide, x)
    torch.manual_seed(1)
    terms = direct_terms(model, guide.posterior(x), x)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, rtol=1e-9, atol=0)


class Own(Guide):
    """A user's guide: ``posterior`` alone."""

    def __init__(self) -> None:
        super().__init__(K)
        self.odds, self.latent = nn.Linear(X, K), nn.Linear(X + K, 2 * D)

    def posterior(self, x: Tensor) -> Posterior:
        def latent(c: Tensor) -> dist.Distribution:
            c, left = (
                nn.functional.one_hot(c, K).to(x),
                torch.broadcast_shapes(c.shape, x.shape[:-1]),
            )
            both = [x.expand(*left, X), c.expand(*left, K)]
            return normal(self.latent(torch.cat(both, -1)))

        return Posterior(dist.Categorical(logits=self.odds(x)), latent)


@pytest.mark.parametrize("way", WAYS)
def test_a_guide_of_ones_own_needs_posterior_alone(way: str) -> None:
    """Pyro's path and the direct one agree on it, and with Pyro's own bound."""
    model, _, x = make_programs(kl="sampled")
    guide = Own()
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1), model, guide, x)
    for direct in (False, True):
        assert_same(WAYS[way](InfoCatELBO(0, direct=direct), model, guide, x), plain)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
@pytest.mark.parametrize("gamma", [0, 0.7])
def test_terms_add_up(guide: str, gamma: float, direct: bool) -> None:
    model, guide, x = make_programs("weighted", guide, kl="sampled")
    torch.manual_seed(1)
    expected = bound_by_hand(model, guide, x)
    if gamma:
        expected["information_bound"] = information_by_hand(model, guide, B)
    objective = InfoCatELBO(gamma, direct=direct)
    torch.manual_seed(1)
    loss = objective.differentiable_loss(model, guide, x)
    assert objective.terms.keys() == expected.keys()
    for name, term in expected.items():
        assert not objective.terms[name].requires_grad
        torch.testing.assert_close(objective.terms[name], term.detach(), rtol=1e-9, atol=0)
    information = gamma * objective.terms.get("information_bound", torch.zeros(()))
    total = elbo_of(objective.terms) + information
    torch.testing.assert_close(loss.detach(), -total, rtol=1e-9, atol=0)


@pytest.mark.parametrize("direct", [False, True])
def test_weights_anneal_terms(direct: bool) -> None:
    model, guide, x = make_programs("weighted")
    objective = InfoCatELBO(0.7, direct=direct)
    objective.weights |= {"kl_z": 0.3, "kl_c": 0.0, "information_bound": 2.0}
    loss = objective.loss(model, guide, x)
    terms = {name: float(term) for name, term in objective.terms.items()}
    expected = -terms["reconstruction"] + 0.3 * terms["kl_z"] - 2 * terms["information_bound"]
    assert loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("direct", [False, True])
def test_loss_needs_no_gradients(direct: bool) -> None:
    model, guide, x = make_programs("vamp")
    objective = InfoCatELBO(0.7, direct=direct)
    expected, _ = through_loss(objective, model, guide, x)
    torch.manual_seed(1)
    with torch.no_grad():
        loss = objective.loss(model, guide, x)
    assert isinstance(loss, float)
    assert loss == pytest.approx(float(expected), rel=1e-9)
    torch.manual_seed(1)
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective)
    assert svi.evaluate_loss(x) == pytest.approx(loss, rel=1e-9)
    assert all(parameter.grad is None for parameter in parameters(model, guide).values())


@pytest.mark.parametrize("direct", [False, True])
def test_loss_and_grads_adds_to_gradients(direct: bool) -> None:
    """As Pyro's losses do, so that a caller can accumulate batches."""
    model, guide, x = make_programs()
    objective = InfoCatELBO(0.7, direct=direct)
    loss, gradients = through_loss(objective, model, guide, x)
    for _ in range(2):
        torch.manual_seed(1)
        assert objective.loss_and_grads(model, guide, x) == pytest.approx(float(loss), rel=1e-9)
    for name, parameter in parameters(model, guide).items():
        expected = 2 * gradients[name]
        grad = torch.zeros_like(expected) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["loss", "bound_terms"])
@pytest.mark.parametrize("given", ["by name", "in place", "nothing"])
def test_what_a_program_does_not_take_is_not_passed_over(method: str, given: str) -> None:
    model, guide, x = make_programs()
    named = {"y": x} if given == "by name" else {}
    arguments = {"by name": [x], "in place": [x, x], "nothing": []}[given]
    with pytest.raises(TypeError, match="forward"):
        getattr(InfoCatELBO(0), method)(model, guide, *arguments, **named)


@pytest.mark.parametrize("method", ["loss", "loss_and_grads", "bound_terms"])
@pytest.mark.parametrize("guide", ["enumerated", "bayes", "soft"])
@pytest.mark.parametrize("shape", [(K, 1, X), (1, K, X), (X,), ()])
def test_x_is_one_row_an_example(shape: tuple[int, ...], guide: str, method: str) -> None:
    """With an axis more, as of one channel, example i would be paired with category i alone."""
    model, chosen, x = make_programs(guide=guide, kl="sampled")
    if guide == "soft":
        chosen = SoftCode(encoder(), K, D, hidden=5)
    given = x.flatten()[: math.prod(shape)].reshape(shape)
    message = f"x must have shape (B, X), not {shape}; flatten each example"
    for weights in ({}, dict.fromkeys(ELBO_SIGNS, 0.0) | {"marginal_entropy": 1.0}):
        objective = InfoCatELBO(0, weights=weights)
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            getattr(objective, method)(model, chosen, given)
        assert math.isfinite(objective.loss(model, chosen, x))
