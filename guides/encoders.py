"""Encoders: networks from x (..., X) to hidden features (..., H), of any batch shape.

Shapes: B batch, X features, H hidden features.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from guides.recorded import Recorded


class Encoder(Recorded, nn.Module):
    """A network from x (..., X) to hidden features (..., H). A subclass defines ``forward``."""

    width: int
    """H, set by the constructor."""
    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""


class MLP(Encoder):
    """Fully connected layers with ReLU after each.

    :param features: X.
    :param hidden: widths of the layers; the last is H.
    :param norm: batch normalisation before each ReLU.
    :raises ValueError: for no layer or a width below 1.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (400,), norm: bool = False) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden must name widths of at least 1, as [400], not {list(hidden)}")
        layers: list[nn.Module] = []
        for before, after in pairwise([features, *hidden]):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after) if norm else nn.Identity()]
            layers.append(nn.ReLU())
        self.network = nn.Sequential(*layers)
        self.width = hidden[-1]

    def forward(self, x: Tensor) -> Tensor:
        # Batch normalisation takes one batch dimension.
        return self.network(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.width)


class Convolutional(Encoder):
    """Two strided convolutions and a fully connected layer.

    :param shape: (height, width) of an image.
    :param width: channels of the first convolution; the second has twice as many.
    :param hidden: H.
    :param norm: batch normalisation before each ReLU.
    """

    def __init__(
        self, shape: Sequence[int], width: int = 32, hidden: int = 256, norm: bool = False
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        convolutions = strided_convolutions(width, norm)
        with torch.no_grad():
            flat = convolutions.eval()(torch.zeros(1, 1, *self.shape)).shape[-1]
        self.network = nn.Sequential(
            convolutions.train(),
            nn.Linear(flat, hidden),
            nn.BatchNorm1d(hidden) if norm else nn.Identity(),
            nn.ReLU(),
        )
        self.width = hidden

    def forward(self, x: Tensor) -> Tensor:
        features = self.network(x.reshape(-1, 1, *self.shape))
        return features.reshape(*x.shape[:-1], self.width)


def strided_convolutions(width: int, norm: bool) -> nn.Sequential:
    """Two convolutions of stride 2, then flattened: images (N, 1, height, width) to (N, F).

    :param width: channels of the first convolution; the second has twice as many.
    :param norm: batch normalisation before each ReLU.
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 4, stride=2, padding=1),
        nn.BatchNorm2d(width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.BatchNorm2d(2 * width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
    )


class Upright(Encoder):
    """Images normalised by their moments, then convolutions, then fully connected layers.

    An affine map (shift, shear and scales) brings the first and second moments of an image's grey
    levels to fixed values: centred, without slant, of given spreads. The removed moments, the
    pose, are features beside the image. Images that differ by such a map differ in the pose alone.

    :param shape: (height, width) of an image.
    :param hidden: widths of the fully connected layers; the last is H.
    :param width: channels of the first of two strided convolutions, the second having twice as
        many; 0 for no convolution.
    :param norm: batch normalisation before each ReLU.
    :param spread: standard deviations down and across of a normalised image, in half images.
    :param pose_weight: factor on the pose. At 1 its five features have little effect at first
        beside those of the image, and with them the size that the image had.
    :raises ValueError: for no layer, a width below 1, a spread that is not two positive numbers or
        a negative ``pose_weight``.
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (512, 512),
        width: int = 0,
        norm: bool = False,
        spread: Sequence[float] = (0.36, 0.22),
        pose_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if len(spread) != 2 or min(spread) <= 0:
            raise ValueError(f"spread must be two numbers above 0, not {list(spread)}")
        if pose_weight < 0:
            raise ValueError(f"pose_weight must be at least 0, not {pose_weight}")
        self.shape, self.spread, self.pose_weight = tuple(shape), tuple(spread), pose_weight
        height, breadth = self.shape
        self.across: Tensor
        self.down: Tensor
        self.register_buffer("across", pixel_centres(breadth), persistent=False)
        self.register_buffer("down", pixel_centres(height).unsqueeze(-1), persistent=False)
        self.convolutions = strided_convolutions(width, norm) if width else nn.Flatten()
        with torch.no_grad():
            flat = self.convolutions.eval()(torch.zeros(1, 1, *self.shape)).shape[-1]
        self.convolutions.train()
        self.network = MLP(flat + 5, hidden, norm)
        self.width = self.network.width

    def forward(self, x: Tensor) -> Tensor:
        image, pose = self.upright(x.reshape(-1, 1, *self.shape))
        seen = torch.cat([self.convolutions(image), self.pose_weight * pose], -1)
        features = self.network(seen)
        return features.reshape(*x.shape[:-1], self.width)

    def upright(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 1, height, width) and poses (B, 5) of images of that shape.

        A pose is log-spreads across and down relative to ``spread``, slant, and centre across and
        down in half images.
        """
        # Detached: the map is not to be differentiated with respect to grey levels.
        grey = images.detach().squeeze(1)
        # At least one pixel's mass, so that a blank image has finite moments.
        mass = grey.sum((1, 2)).clamp_min(1.0)

        def mean(values: Tensor) -> Tensor:
            return (grey * values).sum((1, 2)) / mass

        middle, level = mean(self.across), mean(self.down)
        right = self.across - middle[:, None, None]
        below = self.down - level[:, None, None]
        # Spreads of at least a pixel, so that thin strokes are not magnified without limit.
        least = (2.0 / max(self.shape)) ** 2
        down = mean(below.square()).clamp_min(least)
        both = mean(right * below)
        slant = both / down
        across = (mean(right.square()) - both * slant).clamp_min(least)
        tall, broad = down.sqrt() / self.spread[0], across.sqrt() / self.spread[1]
        zero = torch.zeros_like(tall)
        rows = [broad, slant * tall, middle, zero, tall, level]
        grid = affine_grid(
            torch.stack(rows, -1).unflatten(-1, (2, 3)), list(images.shape), align_corners=False
        )
        pose = torch.stack([broad.log(), tall.log(), slant, middle, level], -1)
        return grid_sample(images, grid, align_corners=False), pose


def pixel_centres(number: int) -> Tensor:
    """Centres (number,) of the pixels of a side that runs from -1 to 1."""
    return (2 * torch.arange(number) + 1) / number - 1


class Recurrent(Encoder):
    """A bidirectional GRU that reads an image row by row.

    :param shape: (height, width): a sequence of ``height`` steps of ``width`` features.
    :param hidden: width of the GRU's state in each direction; H is twice that.
    """

    def __init__(self, shape: Sequence[int], hidden: int = 128) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.gru = nn.GRU(self.shape[1], hidden, batch_first=True, bidirectional=True)
        self.width = 2 * hidden

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.gru(x.reshape(math.prod(x.shape[:-1]), *self.shape))
        return state.movedim(0, 1).reshape(*x.shape[:-1], self.width)
