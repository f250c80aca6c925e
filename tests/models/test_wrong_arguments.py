"""What priors, decoders, likelihoods and views are not made of: each error names the argument."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import guides.arguments
import models.arguments
from models import CatVAE, decoders, likelihoods, priors

NAN, INF = math.nan, math.inf
BERNOULLI = likelihoods.Bernoulli
SHAPE = (8, 8)


NO_SIZE = [0, -1, 2.5, NAN, True, "3", None]
"""Of what is a number of things."""

SIZES: list[tuple[Callable[..., Any], str]] = [
    *((priors.Orthogonal, name) for name in ("categories", "delta")),
    *((priors.Simplex, name) for name in ("categories", "latent")),
    (priors.Gaussian, "latent"),
    *((priors.Mixture, name) for name in ("categories", "latent")),
    *(
        (lambda **k: decoders.MLP(**{"latent": 2, "features": 4, "likelihood": BERNOULLI()} | k), n)
        for n in ("latent", "features")
    ),
    *(
        (
            lambda **k: decoders.Convolutional(
                **{"latent": 2, "shape": SHAPE, "likelihood": BERNOULLI()} | k
            ),
            n,
        )
        for n in ("latent", "width")
    ),
    *(
        (
            lambda **k: decoders.Posed(
                **{"latent": 2, "shape": SHAPE, "likelihood": BERNOULLI()} | k
            ),
            n,
        )
        for n in ("latent", "pose_hidden")
    ),
    *(
        (
            lambda **k: decoders.Recurrent(
                **{"latent": 2, "shape": SHAPE, "likelihood": BERNOULLI()} | k
            ),
            n,
        )
        for n in ("latent", "hidden")
    ),
    *(
        (lambda **k: likelihoods.AutoregressiveBernoulli(SHAPE, **k), n)
        for n in ("reach", "rank", "hidden")
    ),
    (likelihoods.DiscretisedLogistic, "levels"),
]


@pytest.mark.parametrize("value", NO_SIZE, ids=repr)
@pytest.mark.parametrize(("make", "name"), SIZES)
def test_sizes_are_whole_numbers_from_one(
    make: Callable[..., Any], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, not {re.escape(repr(value))}$"):
        make(**{name: value})


NUMBERS: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (priors.Orthogonal, "scale", [0, -1, NAN, INF, -INF, "3"]),
    (priors.Simplex, "scale", [0, -1, NAN, INF, None]),
    (priors.Mixture, "spread", [-1, NAN, INF]),
    (lambda **k: decoders.Posed(2, SHAPE, BERNOULLI(), **k), "strength", [-0.1, NAN, INF]),
    (likelihoods.Gaussian, "scale", [0, -1, NAN, INF, 1e-3, 1e3]),
    (priors.Mixture, "weights", [[1, NAN], [0] * 10, [1] * 9, [-1.0] * 10, [INF] * 10]),
    (lambda **k: decoders.MLP(2, 4, BERNOULLI(), **k), "hidden", [[0], [2.5], 4, [NAN], [True]]),
    (lambda **k: decoders.Convolutional(2, likelihood=BERNOULLI(), **k), "shape", [(0, 8), ()]),
    (lambda **k: decoders.Recurrent(2, likelihood=BERNOULLI(), **k), "shape", [(8, NAN), 8]),
    (lambda **k: decoders.Posed(2, likelihood=BERNOULLI(), **k), "shape", [(8, -8), None]),
    (lambda **k: likelihoods.AutoregressiveBernoulli(**k), "shape", [(8, 0), (2.5, 8)]),
    (lambda **k: decoders.MLP(2, 4, **k), "likelihood", [None, BERNOULLI, "Bernoulli"]),
    (lambda **k: CatVAE(decoder=decoders.MLP(2, 4, BERNOULLI()), **k), "prior", [None, nn.ReLU()]),
    (lambda **k: CatVAE(priors.Gaussian(2), **k), "decoder", [None, decoders.MLP]),
]


@pytest.mark.parametrize(
    ("make", "name", "value"), [(make, name, v) for make, name, vs in NUMBERS for v in vs]
)
def test_numbers_are_within_their_limits(
    make: Callable[..., Any], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .*, not "):
        make(**{name: value})


@pytest.mark.parametrize(
    "modes", [torch.zeros(3), torch.full((2, 2), NAN), torch.tensor([[INF, 0.0]])]
)
def test_modes_are_finite_rows(modes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^modes must be finite numbers \(K, D\), not \("):
        priors.FixedModes(modes)


def test_the_smallest_that_is_right_is_taken() -> None:
    """So that the limits are where they are said to be."""
    assert priors.Orthogonal(1, 1, 1e-9).latent == 1
    assert priors.Simplex(2, 1).latent == 1
    assert priors.Mixture(1, 1, spread=0).mean.abs().max() == 0
    assert len(decoders.MLP(1, 1, BERNOULLI(), []).network) == 1
    assert decoders.Posed(1, (1, 1), BERNOULLI(), pose_hidden=1, strength=0).strength == 0
    assert likelihoods.DiscretisedLogistic(2).levels == 2
    assert likelihoods.AutoregressiveBernoulli((1, 1), 1, 1, 1).outputs == 2


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", [decoders.Posed, decoders.Convolutional, decoders.Recurrent])
def test_what_is_no_image_has_no_rows_and_columns(kind: type, shape: tuple[int, ...]) -> None:
    said = f"shape must be an image's, as (28, 28) or in colour (3, 32, 32), not {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        kind(2, shape, BERNOULLI())


def test_pixels_in_raster_order_have_no_colour() -> None:
    said = (
        "takes grey images of 0 and 1, and these are in colour; models.likelihoods.Gaussian or "
        "DiscretisedLogistic would fit"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        likelihoods.AutoregressiveBernoulli((3, 8, 8))
    likelihoods.AutoregressiveBernoulli((1, 8, 8))


LARGEST = 2**31 - 1


@pytest.mark.parametrize("check", [models.arguments, guides.arguments], ids=["models", "guides"])
def test_the_largest_and_the_smallest_sizes(check: Any) -> None:
    check.whole("features", LARGEST)
    check.widths("hidden", [1, LARGEST])
    with pytest.raises(ValueError, match=rf"^features must be at most {LARGEST}, not {2**31}$"):
        check.whole("features", 2**31)
    with pytest.raises(ValueError, match=rf"^hidden must be at most {LARGEST}, not {2**31}$"):
        check.widths("hidden", [3, 2**31])


@pytest.mark.parametrize("scale", [math.exp(-5), math.exp(5)])
def test_a_gaussian_at_the_bounds_of_its_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale must lie between"):
        likelihoods.Gaussian(scale)
