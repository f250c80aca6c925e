"""Small programs for tests of the objective: every prior, network, likelihood and guide.

By name, since what is made while pytest collects would be in float32.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from guides import Bayes, Enumerated
from guides import encoders as enc
from guides.guide import Guide
from models import CatVAE, decoders, likelihoods, priors

B, K, D, X = 5, 3, 3, 6
IMAGE = (4, 4)


def encoder(network: str = "mlp") -> Callable[[], enc.Encoder]:
    return {
        "mlp": lambda: enc.MLP(X, [4]),
        "convolutional": lambda: enc.Convolutional(IMAGE, width=2, hidden=4),
        "recurrent": lambda: enc.Recurrent(IMAGE, hidden=2),
    }[network]


def decoder(network: str, likelihood: likelihoods.Likelihood) -> decoders.Decoder:
    if network == "mlp":
        return decoders.MLP(D, X, likelihood, [4])
    if network == "convolutional":
        return decoders.Convolutional(D, IMAGE, likelihood, width=2)
    return decoders.Recurrent(D, IMAGE, likelihood, hidden=4)


def mixture() -> priors.Mixture:
    """Components of different scales, unlike a fresh one."""
    prior = priors.Mixture(K, D, learn_weights=True)
    nn.init.uniform_(prior.log_scale, -0.7, 0.7)
    return prior


PRIORS: dict[str, Callable[[], priors.Prior]] = {
    "orthogonal": lambda: priors.Orthogonal(K, delta=1, scale=2),
    "weighted": lambda: priors.Orthogonal(K, 1, 2, weights=[1, 2, 3], learn_weights=True),
    "simplex": lambda: priors.Simplex(K, D, scale=2),
    "gaussian": lambda: priors.Gaussian(D),
    "mixture": mixture,
    "vamp": lambda: priors.Vamp(encoder(), X, K, D),
}
LIKELIHOODS: dict[str, Callable[[], likelihoods.Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous": likelihoods.ContinuousBernoulli,
    "gaussian": lambda: likelihoods.Gaussian(0.5, learn_scale=True),
    "logistic": lambda: likelihoods.DiscretisedLogistic(4),
}
NETWORKS = ["mlp", "convolutional", "recurrent"]


def combinations(*choices: Iterable[str]) -> list[Any]:
    """Every combination; slow are those that are no first choice in more than one place."""
    every = [list(choice) for choice in choices]
    return [
        pytest.param(
            *chosen,
            marks=[pytest.mark.slow]
            if sum(one != some[0] for one, some in zip(chosen, every, strict=True)) > 1
            else [],
        )
        for chosen in product(*every)
    ]


def make_guide(name: str, network: str, prior: priors.Prior) -> Guide:
    if name == "bayes":
        return Bayes(encoder(network), prior, D)
    shared = name == "shared"
    return Enumerated(encoder(network), prior.categories, D, hidden=5, shared=shared)


def make_programs(
    prior: str = "orthogonal",
    guide: str = "enumerated",
    likelihood: str = "bernoulli",
    network: str = "mlp",
    kl: str = "analytic",
) -> tuple[CatVAE, Guide, Tensor]:
    """A model, a guide and data that the likelihood allows."""
    of_c = PRIORS[prior]()
    decode = decoder(network, LIKELIHOODS[likelihood]())
    model = CatVAE(of_c, decode, kl=kl)
    x = torch.rand(B, X if network == "mlp" else math.prod(IMAGE))
    if likelihood == "bernoulli":
        x = x.round()
    if likelihood == "logistic":
        x = (3 * x).round() / 3
    return model, make_guide(guide, network, of_c), x


def parameters(model: Any, guide: Any) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{key}": parameter
        for name, module in (("model", model), ("guide", guide))
        for key, parameter in module.named_parameters()
    }


def plain_model(kl: str) -> Callable[[Tensor], None]:
    """p(c) p(z | c) p(x | z) without a module, under names of its own."""

    def program(x: Tensor) -> None:
        modes = pyro.param("modes", lambda: torch.randn(K, D))
        weight = pyro.param("weight", lambda: torch.randn(X, D))
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(logits=torch.tensor([0.1, 0.2, 0.3])))
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1), infer={"kl": kl})
            mean = code @ weight.mT
            pyro.sample("image", dist.Normal(mean, 0.5).to_event(1), obs=x)

    return program


def plain_guide(x: Tensor) -> None:
    odds = pyro.param("odds", lambda: torch.randn(X, K))
    mean = pyro.param("mean", lambda: torch.randn(K, X, D))
    scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
    with pyro.plate("images", len(x)):
        kind = pyro.sample(
            "kind", dist.Categorical(logits=x @ odds), infer={"enumerate": "parallel"}
        )
        centre = (x.unsqueeze(-2) @ mean[kind]).squeeze(-2)
        pyro.sample("code", dist.Normal(centre, scale).to_event(1))


MASK = torch.tensor([True, True, False, True, False])
HANDLERS: dict[str, tuple[Callable, list[float]]] = {
    "none": (lambda program: program, [1.0] * B),
    "scale": (poutine.scale(scale=2.5), [2.5] * B),
    "mask": (poutine.mask(mask=MASK), [1.0, 1, 0, 1, 0]),
}
"""What Pyro's users wrap programs in, and how much each of the B examples then counts."""
