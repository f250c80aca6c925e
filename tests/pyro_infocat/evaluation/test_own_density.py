"""The importance-weighted likelihood of a generative program of a user's own.

Shapes: B batch, D latent dimensions, K categories, X features.
"""

import math
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.dataset import Split
from pyro_infocat.evaluation.likelihood import importance_weights, knows_its_density
from pyro_infocat.evaluation.metrics import evaluate

pytestmark = pytest.mark.usefixtures("double")

B, K, X = 6, 2, 4


class Doubled(CatVAE):
    """Decodes 2 z, and does not say what that makes of the density."""

    def forward(self, x: Tensor) -> Tensor:
        pyro.module("model", self)
        with pyro.plate("batch", x.shape[0]):
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c), infer={"kl": self.kl})
            return pyro.sample("x", self.decoder(2 * z), obs=x)


class Known(Doubled):
    """Says it."""

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        return self.decoder(2 * z).log_prob(x) + self.prior.log_prob(z)


class ChangedAgain(Known):
    """Another program, of which the density that it inherits is none."""

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.forward(self, x)


class Faster(CatVAE):
    """This project's program, its density computed in another way."""

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_joint(x, z)


class Generates(CatVAE):
    def generate(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return super().generate(number)


KNOWN = {CatVAE: True, Doubled: False, Known: True, ChangedAgain: False, Faster: True}
KNOWN |= {Generates: True}


def make(kind: type[CatVAE]) -> tuple[CatVAE, Enumerated]:
    """D = 1, so that p(x) is an integral over a line."""
    torch.manual_seed(0)
    prior = priors.Mixture(K, 1)
    model = kind(prior, decoders.MLP(1, X, likelihoods.Bernoulli(), [5]))
    return model.eval(), Enumerated(partial(encoders.MLP, X, [5]), K, 1, hidden=5).eval()


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.__name__)
def test_whose_density_is_known(kind: type[CatVAE]) -> None:
    assert knows_its_density(make(kind)[0]) is KNOWN[kind]


@pytest.mark.parametrize("kind", [CatVAE, Doubled, Known, ChangedAgain])
def test_the_nll_is_left_out_where_it_is_not(kind: type[CatVAE]) -> None:
    """All else is measured."""
    facts = Facts("digits", (2, 2), 2, ())
    split = Split(torch.randint(2, (20, X), dtype=torch.uint8), torch.zeros(20), 2, labelled=False)
    tested = Tested(*make(kind), DataSet(facts, split, split), "binary", [], nll_samples=3)
    found = evaluate(tested)
    assert {"nll", "nll_samples"} & found.keys() == (
        {"nll", "nll_samples"} if KNOWN[kind] else set()
    )
    assert {"elbo", "reconstruction", "kl_z", "kl_c", "information_bound"} <= found.keys()
    assert math.isfinite(found["elbo"])


@pytest.mark.parametrize("kind", [CatVAE, Known])
def test_log_joint_is_the_program_with_c_summed_out(kind: type[CatVAE]) -> None:
    model, _ = make(kind)
    x, z = torch.rand(B, X).round(), torch.randn(B, 1)
    total = torch.zeros(B)
    for k in range(K):
        values = {"c": torch.full((B,), k), "z": z}
        trace = poutine.trace(poutine.condition(model, values)).get_trace(x)
        trace.compute_log_prob()
        total += sum(trace.nodes[name]["log_prob"] for name in ("c", "z", "x")).exp()
    torch.testing.assert_close(model.log_joint(x, z), total.log())


def test_its_likelihood_is_that_of_its_program() -> None:
    """Importance weights average to the integral over z of its density.

    Six means within five standard errors each: wrong once in 290,000 seeds.
    """
    model, guide = make(Known)
    x = torch.rand(B, X).round()
    grid = torch.linspace(-12, 12, 4001)
    programs = (model, CatVAE(model.prior, model.decoder))
    with torch.no_grad():
        # A fresh decoder hardly looks at z.
        model.decoder.network[-1].weight.mul_(4)
        exact, other = (
            torch.trapezoid(
                program.log_joint(x, grid.reshape(-1, 1, 1).expand(-1, B, 1)).exp(), grid, dim=0
            )
            for program in programs
        )
        weights = importance_weights(model, guide, x, 20_000).exp()
    error = weights.std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - exact).abs() < 5 * error).all()
    # Sharp enough to tell the two programs apart.
    assert ((exact - other).abs() > 20 * error).any()
