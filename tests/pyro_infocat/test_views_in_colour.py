"""Views of images in colour, and each change that an augmented one makes."""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_infocat.views import AdversarialAffine, Affine, Augmented, VirtualAdversarial

pytestmark = pytest.mark.usefixtures("double")

SHAPE = (3, 9, 7)
LUMINANCE = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
STILL: dict[str, Any] = {
    **{"stretch": 0.0, "crop": 1.0, "flip": 0.0},
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0),
}
"""Nothing of what an augmented view does."""


def never(x: Tensor) -> dist.Categorical:
    raise AssertionError("this view has no use for a classifier")


def images(number: int = 50, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(number, 3 * 9 * 7)


def only(shape: tuple[int, ...] = SHAPE, **changes: Any) -> Augmented:
    """A view that makes these changes alone."""
    return Augmented(shape, **STILL | changes)


def luminance(x: Tensor) -> Tensor:
    return torch.einsum("c,bchw->bhw", LUMINANCE, x.reshape(-1, *SHAPE))


def chroma(x: Tensor) -> Tensor:
    """Two coordinates (2, B, height, width) of colour, as of television: a point of a plane."""
    grey, rgb = luminance(x), x.reshape(-1, *SHAPE)
    return torch.stack([0.492 * (rgb[:, 2] - grey), 0.877 * (rgb[:, 0] - grey)])


@pytest.mark.parametrize("tone", [0.0, 0.5])
def test_affine_moves_the_channels_alike(tone: float) -> None:
    x = images()
    torch.manual_seed(1)
    view = Affine(SHAPE, 0.2, 0.2, tone)(x, never).reshape(-1, *SHAPE)
    for channel in range(3):
        torch.manual_seed(1)
        grey = x.reshape(-1, *SHAPE)[:, channel].flatten(1)
        alone = Affine((9, 7), 0.2, 0.2, tone)(grey, never).reshape(-1, 9, 7)
        torch.testing.assert_close(view[:, channel], alone)


def test_the_adversarial_step_is_taken_in_colour_too() -> None:
    x, weight = images(), torch.randn(3 * 9 * 7, 4)

    def classifier(x: Tensor) -> dist.Categorical:
        return dist.Categorical(logits=x @ weight)

    torch.manual_seed(0)
    moved = Affine(SHAPE, 0.1, 0.2)(x, never)
    expected = VirtualAdversarial(epsilon=0.3)(moved, classifier)
    torch.manual_seed(0)
    view = AdversarialAffine(SHAPE, 0.1, 0.2, epsilon=0.3)(x, classifier)
    torch.testing.assert_close(view, expected)


@pytest.mark.parametrize("shape", [SHAPE, (9, 21)])
def test_an_augmented_view_without_a_change_is_the_image(shape: tuple[int, ...]) -> None:
    x = images()
    torch.testing.assert_close(only(shape)(x, never), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [SHAPE, (9, 21)])
def test_an_augmented_view_keeps_to_grey_levels_and_carries_no_gradient(
    shape: tuple[int, ...],
) -> None:
    x = images()
    view = Augmented(shape, 0.5, 0.5, 0.5, 0.1, 0.5, 2, 2, 2, 0.5)(x, never)
    assert view.shape == x.shape
    assert view.dtype == x.dtype
    assert (view.min(), view.max()) == (0, 1)
    assert not view.requires_grad


def test_left_and_right_change_places_as_often_as_it_says() -> None:
    number = 4000
    x = images(1).expand(number, -1)
    view = only(flip=0.3)(x, never)
    mirrored = x.reshape(-1, *SHAPE).flip(-1).flatten(1)
    turned = (view - mirrored).abs().amax(1) < 1e-12
    assert ((view - x).abs().amax(1) < 1e-12)[~turned].all()
    # Within five standard errors of the chance, but for one seed in 1,700,000.
    assert abs(turned.double().mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / number)


def spread(numbers: Tensor, most: float) -> None:
    """Whether numbers are uniform within ``most`` of 0: mean and variance, five errors wide."""
    assert numbers.abs().max() <= most * (1 + 1e-6)
    assert abs(numbers.mean()) < 5 * most / math.sqrt(3 * len(numbers))
    assert abs(numbers.var() - most**2 / 3) < 5 * most**2 * 2 / math.sqrt(45 * len(numbers))


def ramps(number: int, side: int) -> Tensor:
    """Images whose first channel rises by 1 from left to right, and the second downwards."""
    up = (torch.arange(side) / side).expand(side, side)
    return torch.stack([up, up.mT, torch.full_like(up, 0.5)]).flatten().expand(number, -1)


def test_a_crop_is_a_part_of_the_image_whose_area_is_uniform() -> None:
    number, side, least = 1500, 16, 0.3
    x, centre = ramps(number, side), slice(side // 2 - 1, side // 2 + 1)
    view = only((3, side, side), crop=least)(x, never).reshape(-1, 3, side, side)
    across, down = view[:, 0], view[:, 1]
    # Away from the edges, beyond which the ramp is mirrored, a part of a ramp is a flatter one.
    length = side * across[:, side // 2].diff(dim=-1)[:, 3:-3]
    torch.testing.assert_close(length, length[:, :1].expand_as(length))
    downwards = side * down[:, :, side // 2].diff(dim=-1)[:, 3:-3]
    torch.testing.assert_close(downwards, length)
    area = length[:, 0].square()
    assert least <= area.min()
    assert area.max() <= 1
    spread(area - (1 + least) / 2, (1 - least) / 2)
    # Nothing beyond the image is seen, and the part may lie anywhere within.
    for ramp in (across[:, side // 2, centre], down[:, centre, side // 2]):
        middle = ramp.mean(-1) - (side - 1) / 2 / side
        spread(middle / ((1 - length[:, 0]) / 2), 1.0)


def test_beyond_the_edge_the_image_is_mirrored() -> None:
    x = images(low=0.5)
    assert only(stretch=0.3, shift=0.5)(x, never).min() >= 0.5
    assert Affine(SHAPE, 0.3, 0.5)(x, never).min() == 0


def test_brightness_is_a_factor() -> None:
    x = images(2000, 0.1, 0.6)
    factor = only(brightness=0.5)(x, never) / x
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    spread(factor[:, 0] - 1, 0.5)


def test_contrast_is_a_factor_on_the_distance_from_the_mean_luminance() -> None:
    x = images(2000, 0.4, 0.6)
    view = only(contrast=0.8)(x, never)
    middle = luminance(x).mean((1, 2)).unsqueeze(-1)
    factor = (view - middle) / (x - middle)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-6, atol=1e-6)
    spread(factor[:, 0] - 1, 0.8)


def test_saturation_is_a_factor_on_the_distance_from_grey() -> None:
    x = images(2000, 0.4, 0.6)
    view = only(saturation=0.9)(x, never)
    grey = luminance(x)
    torch.testing.assert_close(luminance(view), grey)
    distance = (x.reshape(-1, *SHAPE) - grey.unsqueeze(1)).flatten(1)
    factor = (view.reshape(-1, *SHAPE) - grey.unsqueeze(1)).flatten(1) / distance
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-6, atol=1e-6)
    spread(factor[:, 0] - 1, 0.9)


def test_a_hue_is_turned_about_grey() -> None:
    """Luminance and strength of a colour stay; its direction turns by the same in an image."""
    x = images(2000, 0.4, 0.6)
    view = only(hue=0.1)(x, never)
    torch.testing.assert_close(luminance(view), luminance(x))
    before, after = chroma(x), chroma(view)
    torch.testing.assert_close(after.norm(dim=0), before.norm(dim=0))
    turn = torch.atan2(after[1], after[0]) - torch.atan2(before[1], before[0])
    turn = torch.remainder(turn / (2 * math.pi) + 0.5, 1) - 0.5
    turn = turn.flatten(1)
    torch.testing.assert_close(turn, turn[:, :1].expand_as(turn))
    spread(turn[:, 0], 0.1)


def test_a_grey_image_in_colour_keeps_its_grey() -> None:
    x = torch.rand(50, 1, 63).expand(-1, 3, -1).flatten(1)
    torch.testing.assert_close(only(saturation=1.0, hue=0.5)(x, never), x)


def test_a_grey_image_gets_another_light() -> None:
    x = 0.4 + 0.2 * torch.rand(2000, 30)
    bright, contrast = (only((5, 6), **{name: 0.5}) for name in ("brightness", "contrast"))
    factor = bright(x, never) / x
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    spread(factor[:, 0] - 1, 0.5)
    middle = x.mean(1, keepdim=True)
    factor = (contrast(x, never) - middle) / (x - middle)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-6, atol=1e-6)
    spread(factor[:, 0] - 1, 0.5)
    torch.testing.assert_close(only((5, 6), saturation=1.0, hue=0.5)(x, never), x)


def test_moves_scale_every_change() -> None:
    x = images()
    whole = Augmented(SHAPE, 0.2, 0.1, 0.4, 0.2, 0.8, 0.4, 0.6, 0.8, 0.2)
    half = Augmented(SHAPE, 0.1, 0.05, 0.2, 0.6, 0.4, 0.2, 0.3, 0.4, 0.1)
    whole.moves = 0.5
    torch.manual_seed(0)
    expected = half(x, never)
    torch.manual_seed(0)
    torch.testing.assert_close(whole(x, never), expected)
    whole.moves = 0.0
    assert whole(x, never) is x


def test_moves_beyond_one_leave_an_image() -> None:
    view = Augmented(SHAPE, crop=0.1, brightness=0.9, contrast=0.9, saturation=0.9)
    view.moves = 10.0
    made = view(images(), never)
    assert made.isfinite().all()
    assert made.shape == (50, 3 * 9 * 7)


WRONG: list[tuple[dict[str, float], str]] = [
    ({"crop": 0.0}, "crop must be above 0 and finite, not 0.0"),
    ({"crop": 1.5}, "crop must be a share from 0 to 1, not 1.5"),
    ({"flip": -0.1}, "flip must be a share from 0 to 1, not -0.1"),
    ({"flip": math.nan}, "flip must be a share from 0 to 1, not nan"),
    *(
        ({name: value}, f"{name} must be at least 0 and finite, not {value}")
        for name in ("stretch", "shift", "tone", "brightness", "contrast", "saturation", "hue")
        for value in (-0.1, math.inf, math.nan)
    ),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_changes_that_are_none(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Augmented(SHAPE, **arguments)


@pytest.mark.parametrize("shape", [(63,), (2, 3, 9, 7)])
@pytest.mark.parametrize("kind", [Affine, AdversarialAffine, Augmented])
def test_what_is_no_image_is_not_moved(kind: type[Affine], shape: tuple[int, ...]) -> None:
    said = r"^shape must be an image's, as \(28, 28\) or in colour \(3, 32, 32\), not \("
    with pytest.raises(ValueError, match=said):
        kind(shape)
