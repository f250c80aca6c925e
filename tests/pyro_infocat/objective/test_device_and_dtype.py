"""What is made while computing lies on the device of the parameters, in their precision.

Each result is computed again under other defaults: a tensor that is made in the default precision
changes it, and one on the default device, meta, which holds no numbers, fails.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from guides import Bayes, Enumerated, Gumbel, SoftCode, encoders
from guides.guide import Guide
from models import CatVAE, decoders, likelihoods, priors
from models.decoders import Decoder
from models.likelihoods import Likelihood
from models.priors import Prior
from pyro_infocat.evaluation.likelihood import log_likelihood, mean_terms
from pyro_infocat.objective import InfoCatELBO

pytestmark = pytest.mark.usefixtures("double")

B, K, D, SHAPE, X = 3, 3, 4, (4, 5), 20


def assert_same_under_other_defaults(compute: Callable[[], Any]) -> None:
    """To the last bit, with the same random numbers."""
    torch.manual_seed(1)
    expected = compute()
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(1)
    with torch.device("meta"):
        found = compute()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def perceptron() -> encoders.MLP:
    return encoders.MLP(X, [4])


PRIORS: dict[str, Callable[[], Prior]] = {
    "orthogonal": lambda: priors.Orthogonal(2, 2),
    "simplex": lambda: priors.Simplex(K, D),
    "gaussian": lambda: priors.Gaussian(D),
    "mixture": lambda: priors.Mixture(K, D),
    "vamp": lambda: priors.Vamp(perceptron, X, K, D),
}

LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "autoregressive": lambda: likelihoods.AutoregressiveBernoulli(SHAPE, 1, 2, 4),
    "continuous": likelihoods.ContinuousBernoulli,
    "gaussian": likelihoods.Gaussian,
    "logistic": lambda: likelihoods.DiscretisedLogistic(3),
    "grey": likelihoods.GreyBernoulli,
}

DECODERS: dict[str, Callable[[Likelihood], Decoder]] = {
    "mlp": lambda likelihood: decoders.MLP(D, X, likelihood, [5]),
    "convolutional": lambda likelihood: decoders.Convolutional(D, SHAPE, likelihood, 2),
    "posed": lambda likelihood: decoders.Posed(D, SHAPE, likelihood, [5], 3),
    "recurrent": lambda likelihood: decoders.Recurrent(D, SHAPE, likelihood, 4),
}

ENCODERS: dict[str, Callable[[], encoders.Encoder]] = {
    "mlp": perceptron,
    "convolutional": lambda: encoders.Convolutional(SHAPE, 2, 4),
    "upright": lambda: encoders.Upright(SHAPE, [4], 2),
    "recurrent": lambda: encoders.Recurrent(SHAPE, 4),
}


@pytest.mark.parametrize("kind", PRIORS)
def test_of_priors(kind: str) -> None:
    prior, z = PRIORS[kind](), torch.randn(B, D)
    assert_same_under_other_defaults(lambda: (prior.joint(z), prior.all_components().mean))


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_of_likelihoods(kind: str) -> None:
    likelihood = LIKELIHOODS[kind]()
    raw, x = torch.randn(B, X, likelihood.outputs), torch.rand(B, X).round()

    def compute() -> list[torch.Tensor]:
        pixels = likelihood(raw)
        return [pixels.log_prob(x), pixels.mean, pixels.rsample(), pixels.rsample((2,))]

    assert_same_under_other_defaults(compute)


@pytest.mark.parametrize("kind", DECODERS)
def test_of_decoders(kind: str) -> None:
    decoder, z = DECODERS[kind](likelihoods.Bernoulli()), torch.randn(B, D)
    assert_same_under_other_defaults(lambda: decoder.raw(z))


@pytest.mark.parametrize("kind", ENCODERS)
def test_of_encoders(kind: str) -> None:
    encoder, x = ENCODERS[kind](), torch.rand(B, X)
    assert_same_under_other_defaults(lambda: encoder(x))


def pair(kind: str) -> tuple[CatVAE, Guide]:
    prior = priors.Mixture(K, D, learn_weights=True)
    guides: dict[str, Callable[[], Guide]] = {
        "enumerated": lambda: Enumerated(perceptron, K, D, 5),
        "soft": lambda: SoftCode(perceptron, K, D, 5),
        "gumbel": lambda: Gumbel(perceptron, K, D, 5),
        "bayes": lambda: Bayes(perceptron, prior, D),
    }
    kl = "sampled" if kind == "bayes" else "analytic"
    return CatVAE(prior, decoders.MLP(D, X, likelihoods.Bernoulli(), [5]), kl), guides[kind]()


@pytest.mark.parametrize("decoded", [0, 1])
@pytest.mark.parametrize("kind", ["enumerated", "soft", "gumbel", "bayes"])
def test_of_the_objective(kind: str, decoded: int) -> None:
    weights = {"marginal_entropy": 1.0, "conditional_entropy": 1.0, "consistency": 1.0}
    objective = InfoCatELBO(0.5, weights=weights, decoded=decoded)
    model, guide = pair(kind)
    x = torch.rand(B, X).round()
    assert_same_under_other_defaults(lambda: objective.evaluate(model, guide, x, view=1 - x))


@pytest.mark.parametrize("kind", ["enumerated", "bayes"])
def test_of_the_likelihood_of_examples(kind: str) -> None:
    model, guide = pair(kind)
    x = torch.rand(B, X).round()
    assert_same_under_other_defaults(
        lambda: (mean_terms(model, guide, x), log_likelihood(model, guide, x, 5))
    )


def test_of_generated_examples() -> None:
    model, _ = pair("enumerated")
    assert_same_under_other_defaults(lambda: model.generate(7))
