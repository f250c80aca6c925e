"""What an argument is that nobody gives.

Old configs hold only what their versions knew: another default would load another model from them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from guides.encoders import MLP
from models import CatVAE, decoders, likelihoods, priors
from tests.alike import assert_alike

WEIGHTS = {"weights": None, "learn_weights": False}
SHAPE = (6, 5)


def decoder(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda **given: kind(latent=3, likelihood=likelihoods.Bernoulli(), **given)


def vae(**given: Any) -> CatVAE:
    prior = priors.Gaussian(2)
    return CatVAE(prior, decoders.MLP(2, 4, likelihoods.Bernoulli()), **given)


DEFAULTS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], dict[str, Any]]] = {
    "Orthogonal": (priors.Orthogonal, {}, {"categories": 10, "delta": 2, "scale": 3.0} | WEIGHTS),
    "Simplex": (priors.Simplex, {}, {"categories": 10, "latent": 20, "scale": 4.0} | WEIGHTS),
    "Gaussian": (priors.Gaussian, {}, {"latent": 20}),
    "Mixture": (priors.Mixture, {}, {"categories": 10, "latent": 10, "spread": 1.0} | WEIGHTS),
    "Vamp": (
        priors.Vamp,
        {"encoder": lambda: MLP(5, [4]), "features": 5},
        {"categories": 10, "latent": 20} | WEIGHTS,
    ),
    "FixedModes": (priors.FixedModes, {"modes": torch.ones(2, 3)}, WEIGHTS),
    "MLP": (decoder(decoders.MLP), {"features": 5}, {"hidden": (400,)}),
    "Convolutional": (decoder(decoders.Convolutional), {"shape": SHAPE}, {"width": 32}),
    "Posed": (
        decoder(decoders.Posed),
        {"shape": SHAPE},
        {"hidden": (400,), "pose_hidden": 64, "strength": 0.3},
    ),
    "Recurrent": (decoder(decoders.Recurrent), {"shape": SHAPE}, {"hidden": 128}),
    "AutoregressiveBernoulli": (
        likelihoods.AutoregressiveBernoulli,
        {"shape": SHAPE},
        {"reach": 3, "rank": 4, "hidden": 64},
    ),
    "GaussianPixels": (likelihoods.Gaussian, {}, {"scale": 0.3, "learn_scale": False}),
    "CatVAE": (vae, {}, {"kl": "analytic"}),
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_an_argument_that_is_not_given_is_what_it_was(kind: str) -> None:
    make, needed, defaults = DEFAULTS[kind]
    torch.manual_seed(0)
    short = make(**needed)
    torch.manual_seed(0)
    assert_alike(short, make(**needed, **defaults))
