"""Plates that stand for more than they hold, and plates in one another.

Shapes: B batch, K categories, D latent dimensions, X features, G groups.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from guides import Enumerated
from models import CatVAE
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective import elbo_of
from tests.pyro_infocat.objective.by_hand import log_normal
from tests.pyro_infocat.objective.programs import B, D, K, X, encoder, make_programs
from tests.pyro_infocat.objective.ways import assert_equals_pyro, assert_same, through_loss

pytestmark = pytest.mark.usefixtures("double")

N, G = 40, 2
"""Examples in all, of which a batch holds B; groups of examples."""


class Subsampled(CatVAE):
    """The program in a plate over all N examples."""

    def forward(self, x: Tensor) -> None:
        pyro.module("model", self)
        with pyro.plate("batch", N, subsample=torch.arange(len(x))):
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c), infer={"kl": self.kl})
            pyro.sample("x", self.decoder(z), obs=x)


class SubsampledGuide(Enumerated):
    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        category, latent = self.posterior(x)
        with pyro.plate("batch", N, subsample=torch.arange(len(x))):
            c = pyro.sample("c", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(c))


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_a_batch_counts_for_all_examples(kl: str) -> None:
    """N / B times the loss and the gradients of the batch, term by term."""
    model, guide, x = make_programs(kl=kl)
    whole = Subsampled(model.prior, model.decoder, kl)
    of_whole = SubsampledGuide(encoder(), K, D, hidden=5)
    of_whole.load_state_dict(guide.state_dict())
    one, other = InfoCatELBO(0), InfoCatELBO(0)
    loss, gradients = through_loss(one, model, guide, x)
    times = N / B
    scaled = times * loss, {name: times * each for name, each in gradients.items()}
    assert_same(through_loss(other, whole, of_whole, x), scaled)
    for name, term in one.terms.items():
        torch.testing.assert_close(other.terms[name], times * term, rtol=1e-9, atol=1e-12)
    if kl == "sampled":
        assert_equals_pyro(whole, of_whole, x)


def test_where_the_model_alone_counts_for_all_it_is_as_in_pyro() -> None:
    model, guide, x = make_programs(kl="sampled")
    assert_equals_pyro(Subsampled(model.prior, model.decoder, "sampled"), guide, x)


@pytest.mark.parametrize("nested", [1, 2])
def test_a_plate_around_the_loss_fails_as_in_pyro(nested: int) -> None:
    """The axis of the examples is another one then; written out, it would be passed by."""
    model, guide, x = make_programs(kl="sampled")
    said = []
    for objective in (
        InfoCatELBO(0, max_plate_nesting=nested),
        TraceEnum_ELBO(max_plate_nesting=nested),
    ):
        with pytest.raises(ValueError, match="hape") as caught, pyro.plate("data", N, B):
            objective.loss(model, guide, x)
        said.append(str(caught.value).splitlines()[0])
    assert said[0] == said[1]


def grouped(kl: str) -> tuple[Callable, Callable]:
    """Images in groups, each image with a kind and a code: two plates in one another."""
    modes, weight = torch.randn(K, D), torch.randn(X, D)
    odds, mean = torch.randn(X, K), torch.randn(K, X, D)

    def model(x: Tensor) -> None:
        with pyro.plate("groups", G, dim=-2), pyro.plate("images", B, dim=-1):
            kind = pyro.sample("kind", dist.Categorical(logits=torch.tensor([0.1, 0.2, 0.3])))
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1), infer={"kl": kl})
            pyro.sample("image", dist.Normal(code @ weight.mT, 0.5).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("groups", G, dim=-2), pyro.plate("images", B, dim=-1):
            kind = pyro.sample(
                "kind", dist.Categorical(logits=x @ odds), infer={"enumerate": "parallel"}
            )
            centre = (x.unsqueeze(-2) @ mean[kind]).squeeze(-2)
            pyro.sample("code", dist.Normal(centre, 0.7).to_event(1))

    model.held = modes, weight, odds, mean  # type: ignore[attr-defined]
    return model, guide


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_plates_in_one_another(kl: str) -> None:
    """The sum over every kind by hand, and Pyro's own where it has the same estimate."""
    model, guide = grouped(kl)
    modes, weight, odds, mean = model.held  # type: ignore[attr-defined]
    x = torch.randn(G, B, X)
    torch.manual_seed(1)
    objective = InfoCatELBO(0, max_plate_nesting=2)
    loss = objective.loss(model, guide, x)
    torch.manual_seed(1)
    log_q = (x @ odds).log_softmax(-1)
    log_p = torch.tensor([0.1, 0.2, 0.3]).log_softmax(0)
    unit, scale = torch.ones(D), torch.full((D,), 0.7)
    bound = torch.zeros(G, B)
    for k, noise in enumerate(torch.randn(K, G, B, D)):
        centre = x @ mean[k]
        z = centre + scale * noise
        cost = log_normal(z, centre, scale) - log_normal(z, modes[k], unit)
        if kl == "analytic":
            square = scale**2 + (centre - modes[k]) ** 2
            cost = ((square - 1) / 2 - scale.log()).sum(-1)
        fit = log_normal(x, z @ weight.mT, torch.full((X,), 0.5))
        bound = bound + log_q[..., k].exp() * (fit - cost - log_q[..., k] + log_p[k])
    assert loss == pytest.approx(-bound.sum().item(), rel=1e-9)
    assert elbo_of(objective.terms).item() == pytest.approx(-loss, rel=1e-9)
    if kl == "sampled":
        assert_equals_pyro(model, guide, x, max_plate_nesting=2)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_scaled_programs_of_this_project(scale: float) -> None:
    """Around the programs a handler is part of them: nothing is written out."""
    model, guide, x = make_programs()
    scaled = [poutine.scale(program, scale) for program in (model, guide)]
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(*scaled, x)
    torch.manual_seed(1)
    assert loss == pytest.approx(scale * InfoCatELBO(0).loss(model, guide, x), rel=1e-9)
