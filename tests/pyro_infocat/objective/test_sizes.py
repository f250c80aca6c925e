"""Parts of which one is of another size than the other: nothing is broadcast without a word.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from guides import Bayes, Enumerated, Gumbel, encoders
from guides.guide import Guide
from models import CatVAE, decoders, priors
from models.likelihoods import Bernoulli, Likelihood
from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.programs import B, D, K, X, encoder
from tests.pyro_infocat.objective.ways import expect

pytestmark = pytest.mark.usefixtures("double")


class Apart(Likelihood):
    """A user's own, whose pixels are a batch: ``.to_event(1)`` was forgotten."""

    def forward(self, raw: Tensor) -> dist.Distribution:
        return dist.Normal(raw.squeeze(-1), 1.0)


class ApartPrior(priors.Orthogonal):
    """Whose latent dimensions are a batch."""

    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(self.modes[c], 1.0)


def model(
    categories: int = K,
    latent: int = D,
    features: int = X,
    likelihood: Likelihood | None = None,
    decoded: int | None = None,
) -> CatVAE:
    prior = priors.Mixture(categories, latent)
    decoder = decoders.MLP(decoded or latent, features, likelihood or Bernoulli(), [4])
    return CatVAE(prior, decoder)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "one category": (lambda: (model(), Enumerated(encoder(), 1, D)), "q(c|x) has 1 categories"),
    "two categories": (lambda: (model(), Enumerated(encoder(), 2, D)), "q(c|x) has 2 categories"),
    "one mixed": (lambda: (model(), Gumbel(encoder(), 1, D)), "q(c|x) has 1 categories and the"),
    "a prior of one": (lambda: (model(1), Enumerated(encoder(), K, D)), "q(c|x) has 3 categories"),
    "a latent dimension": (
        lambda: (model(latent=1, decoded=D), Enumerated(encoder(), K, D)),
        "q(z|x,c) has event shape (3,); (1,) would fit",
    ),
    "a mixed dimension": (
        lambda: (model(latent=1, decoded=D), Gumbel(encoder(), K, D)),
        "q(z|x,c) has event shape (3,); (1,) would fit",
    ),
    "a feature": (
        lambda: (model(features=1), Enumerated(encoder(), K, D)),
        "p(x|z) has event shape (1,); (6,) would fit",
    ),
    "pixels of a batch": (
        lambda: (model(likelihood=Apart()), Enumerated(encoder(), K, D)),
        "p(x|z) has event shape (); (6,) would fit",
    ),
    "latents of a batch": (
        lambda: (
            CatVAE(ApartPrior(K, 1), decoders.MLP(D, X, Bernoulli(), [4])),
            Enumerated(encoder(), K, D),
        ),
        "p(z|c) has event shape (); (3,) would fit",
    ),
}


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_what_would_be_broadcast_is_refused(
    make: Callable[[], tuple[CatVAE, Guide]], message: str, kl: str
) -> None:
    program, guide = make()
    program.kl = kl
    # As many examples as categories, so that no shape is told from another by luck.
    for number in (B, K):
        with expect(ValueError, message):
            InfoCatELBO(0).loss(program, guide, torch.ones(number, X))


@pytest.mark.parametrize(("name", "value"), [("num_particles", 0), ("num_particles", -1)])
def test_particles_are_at_least_one(name: str, value: int) -> None:
    with expect(ValueError, f"{name} must be at least 1, not {value}"):
        InfoCatELBO(**{name: value})


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -1.0])
@pytest.mark.parametrize("name", ["information_bound", "kl_z", "consistency"])
def test_weights_are_finite_and_not_negative(name: str, weight: float) -> None:
    what = "be finite" if weight == float("inf") else "not be negative"
    given = {"information_weight": weight} if name == "information_bound" else {}
    with expect(ValueError, f"the weight of {name} must {what}, not {weight}"):
        InfoCatELBO(weights={} if given else {name: weight}, **given)


@pytest.mark.parametrize(
    "make", [lambda one: Enumerated(one, K, D), lambda one: Bayes(one, priors.Mixture(K, D), D)]
)
def test_an_encoder_is_given_by_what_builds_it(make: Callable[[Any], Guide]) -> None:
    with expect(
        TypeError,
        "encoder must be a function that returns a network, such as lambda: MLP(features), not "
        "the network itself: MLP",
    ):
        make(encoders.MLP(X))
    with expect(TypeError, "encoder must return a network with its width, not Linear"):
        make(lambda: nn.Linear(X, 4))


@pytest.mark.parametrize("given", [None, priors.Mixture, D])
def test_a_bayes_guide_needs_a_prior(given: Any) -> None:
    with expect(TypeError, f"prior must be the model's prior, not {given!r}"):
        Bayes(encoder(), given, D)
