"""What encoders and guides are not made of: each error names the argument."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from guides import Bayes, Enumerated, Gumbel, SoftCode, encoders
from models.priors import Orthogonal

NAN, INF = math.nan, math.inf
SHAPE = (8, 8)


def encoder() -> encoders.MLP:
    return encoders.MLP(4, [3])


def enumerated(**arguments: Any) -> Enumerated:
    return Enumerated(encoder, **{"categories": 2, "latent": 2} | arguments)


def soft(**arguments: Any) -> Enumerated:
    return SoftCode(encoder, **{"categories": 2, "latent": 2} | arguments)


def gumbel(**arguments: Any) -> Enumerated:
    return Gumbel(encoder, **{"categories": 2, "latent": 2} | arguments)


def bayes(**arguments: Any) -> Bayes:
    return Bayes(encoder, Orthogonal(2, 1), **arguments)


SIZES: list[tuple[Callable[..., Any], str]] = [
    *((make, n) for make in (enumerated, soft, gumbel) for n in ("categories", "latent", "hidden")),
    (bayes, "latent"),
    (encoders.MLP, "features"),
    *((lambda **k: encoders.Convolutional(SHAPE, **k), name) for name in ("width", "hidden")),
    (lambda **k: encoders.Recurrent(SHAPE, **k), "hidden"),
]


@pytest.mark.parametrize("value", [0, -1, 2.5, NAN, True, "3", None], ids=repr)
@pytest.mark.parametrize(("make", "name"), SIZES)
def test_sizes_are_whole_numbers_from_one(
    make: Callable[..., Any], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, not {re.escape(repr(value))}$"):
        make(**{name: value})


OTHERS: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (lambda **k: encoders.MLP(4, **k), "hidden", [[], [0], [2.5], 4, [NAN]]),
    (lambda **k: encoders.Upright(SHAPE, **k), "hidden", [[], [-3]]),
    (lambda **k: encoders.Upright(SHAPE, **k), "width", [-1, 0.5]),
    (lambda **k: encoders.Upright(SHAPE, **k), "spread", [(0.3,), (0.3, NAN), (0, 1), (INF, 1)]),
    (lambda **k: encoders.Upright(SHAPE, **k), "pose_weight", [-1, NAN, INF]),
    *(
        (kind, "shape", [(0, 8), (8, NAN), (), 8])
        for kind in (encoders.Upright, encoders.Convolutional, encoders.Recurrent)
    ),
    (soft, "rate", [-0.1, 1.5, NAN]),
    (gumbel, "temperature", [0.0, NAN, INF]),
]


@pytest.mark.parametrize(
    ("make", "name", "value"), [(make, name, v) for make, name, vs in OTHERS for v in vs]
)
def test_numbers_are_within_their_limits(
    make: Callable[..., Any], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .*, not "):
        make(**{name: value})


def test_the_smallest_that_is_right_is_taken() -> None:
    """So that the limits are where they are said to be."""
    assert enumerated(categories=1, latent=1, hidden=1).categories == 1
    assert encoders.MLP(1, [1]).width == 1
    assert encoders.Upright(SHAPE, width=0, pose_weight=0).pose_weight == 0
    assert encoders.Convolutional((4, 4), 1, 1).width == 1
    assert encoders.Recurrent((1, 1), 1).width == 2
    assert {soft(rate=rate).rate for rate in (0, 1)} == {0, 1}


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", [encoders.Upright, encoders.Convolutional, encoders.Recurrent])
def test_what_is_no_image_has_no_rows_and_columns(kind: type, shape: tuple[int, ...]) -> None:
    said = f"shape must be an image's, as (28, 28) or in colour (3, 32, 32), not {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        kind(shape)
