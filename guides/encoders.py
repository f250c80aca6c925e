"""Encoders: networks from x (..., X) to hidden features (..., H), of any batch shape.

Shapes: B batch, X features, H hidden features.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, pad

from guides.arguments import not_negative, picture, whole, widths
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
    :raises ValueError: for no layer or a size below 1.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (400,), norm: bool = False) -> None:
        super().__init__()
        whole("features", features)
        widths("hidden", hidden)
        self.network = nn.Sequential(*dense(features, hidden, norm))
        self.width = hidden[-1]

    def forward(self, x: Tensor) -> Tensor:
        # Batch normalisation takes one batch dimension.
        return self.network(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.width)


def dense(features: int, hidden: Sequence[int], norm: bool) -> list[nn.Module]:
    """Fully connected layers of these widths, with ReLU after each.

    :param features: numbers that go in.
    :param norm: batch normalisation before each ReLU.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise([features, *hidden]):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after) if norm else nn.Identity()]
        layers.append(nn.ReLU())
    return layers


class Convolutional(Encoder):
    """Two strided convolutions and fully connected layers.

    An image of fewer than 4 rows or columns gets black ones.

    :param shape: (height, width) of an image, (3, height, width) of one in colour.
    :param width: channels of the first convolution; the second has twice as many.
    :param hidden: widths of the fully connected layers, or the width of one; the last is H.
    :param norm: batch normalisation before each ReLU.
    :raises ValueError: for no layer or a size below 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 32,
        hidden: int | Sequence[int] = 256,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.image = picture(shape)
        whole("width", width)
        if not isinstance(hidden, Sequence):
            whole("hidden", hidden)
            hidden = [hidden]
        widths("hidden", hidden)
        convolutions = strided_convolutions(width, norm, self.image[0])
        channels, *sides = self.image
        # Two halvings leave something of them.
        height, breadth = (max(4, side) for side in sides)
        self.black = (0, breadth - sides[1], 0, height - sides[0])
        with torch.no_grad():
            flat = convolutions.eval()(torch.zeros(1, channels, height, breadth)).shape[-1]
        self.network = nn.Sequential(convolutions.train(), *dense(flat, hidden, norm))
        self.width = hidden[-1]

    def forward(self, x: Tensor) -> Tensor:
        features = self.network(pad(x.reshape(-1, *self.image), self.black))
        return features.reshape(*x.shape[:-1], self.width)


def strided_convolutions(width: int, norm: bool, channels: int = 1) -> nn.Sequential:
    """Two convolutions of stride 2, then flattened: images (N, C, height, width) to (N, F).

    :param width: channels of the first convolution; the second has twice as many.
    :param norm: batch normalisation before each ReLU.
    :param channels: C of the images.
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1),
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
    In colour the moments are those of the luminance, and all channels are moved alike.

    :param shape: (height, width) of an image, (3, height, width) of one in colour.
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
        self.image = picture(shape)
        whole("width", width, least=0)
        # The comparison refuses NaN too.
        if len(spread) != 2 or not all(0 < one < math.inf for one in spread):
            raise ValueError(f"spread must be two numbers above 0, not {list(spread)}")
        not_negative("pose_weight", pose_weight)
        self.spread, self.pose_weight = tuple(spread), pose_weight
        channels, height, breadth = self.image
        self.across: Tensor
        self.down: Tensor
        self.register_buffer("across", pixel_centres(breadth), persistent=False)
        self.register_buffer("down", pixel_centres(height).unsqueeze(-1), persistent=False)
        self.convolutions = strided_convolutions(width, norm, channels) if width else nn.Flatten()
        with torch.no_grad():
            flat = self.convolutions.eval()(torch.zeros(1, *self.image)).shape[-1]
        self.convolutions.train()
        self.network = MLP(flat + 5, hidden, norm)
        self.width = self.network.width

    def forward(self, x: Tensor) -> Tensor:
        image, pose = self.upright(x.reshape(-1, *self.image))
        seen = torch.cat([self.convolutions(image), self.pose_weight * pose], -1)
        features = self.network(seen)
        return features.reshape(*x.shape[:-1], self.width)

    def upright(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, C, height, width) and poses (B, 5) of images of that shape.

        A pose is log-spreads across and down relative to ``spread``, slant, and centre across and
        down in half images.
        """
        # Detached: the map is not to be differentiated with respect to grey levels.
        grey = luminance(images.detach())
        # At least one pixel's mass, so that a blank image has finite moments.
        mass = grey.sum((1, 2)).clamp_min(1.0)

        def mean(values: Tensor) -> Tensor:
            return (grey * values).sum((1, 2)) / mass

        middle, level = mean(self.across), mean(self.down)
        right = self.across - middle[:, None, None]
        below = self.down - level[:, None, None]
        # Spreads of at least a pixel, so that thin strokes are not magnified without limit.
        least = (2.0 / max(self.image[1:])) ** 2
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


def luminance(images: Tensor) -> Tensor:
    """Grey levels (B, height, width) of images (B, C, height, width), C of 1 or 3: ITU-R BT.601."""
    if images.shape[1] == 1:
        return images.squeeze(1)
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def pixel_centres(number: int) -> Tensor:
    """Centres (number,) of the pixels of a side that runs from -1 to 1."""
    return (2 * torch.arange(number) + 1) / number - 1


class Recurrent(Encoder):
    """A bidirectional GRU that reads an image row by row.

    :param shape: (height, width): a sequence of ``height`` steps of ``width`` features; in colour
        (3, height, width), and a step has the rows of the three channels.
    :param hidden: width of the GRU's state in each direction; H is twice that.
    :raises ValueError: for a size below 1.
    """

    def __init__(self, shape: Sequence[int], hidden: int = 128) -> None:
        super().__init__()
        self.image = picture(shape)
        whole("hidden", hidden)
        channels, _, breadth = self.image
        self.gru = nn.GRU(channels * breadth, hidden, batch_first=True, bidirectional=True)
        self.width = 2 * hidden

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(math.prod(x.shape[:-1]), *self.image).movedim(1, 2).flatten(2)
        _, state = self.gru(rows)
        return state.movedim(0, 1).reshape(*x.shape[:-1], self.width)


class Table(Encoder):
    """Rows of a table, brought to one scale, then fully connected layers.

    log(1 + count) is standardised; the other columns are so already, or 0 and 1. A missing value
    is 0, the mean of a real column, and beside the features a number for each column says whether
    it is there.

    :param columns: of the table: objects with ``kind``, ``width``, ``mean`` and ``scale``.
    :param hidden: widths of the layers; the last is H.
    :param norm: batch normalisation before each ReLU.
    :raises ValueError: for data without columns, no layer or a size below 1.
    """

    count: Tensor
    mean: Tensor
    scale: Tensor
    first: Tensor

    def __init__(
        self, columns: Sequence[Any], hidden: Sequence[int] = (128, 128), norm: bool = True
    ) -> None:
        super().__init__()
        if not columns:
            raise ValueError("needs the columns of a table, and the data have none")
        first = [sum(column.width for column in columns[:n]) for n in range(len(columns))]
        counts = [(n, one) for n, one in zip(first, columns, strict=True) if one.kind == "count"]
        features = sum(column.width for column in columns)
        self.register_buffer("first", torch.tensor(first), persistent=False)
        count = torch.tensor([n for n, _ in counts], dtype=torch.int64)
        self.register_buffer("count", count, persistent=False)
        for name in ("mean", "scale"):
            each = torch.tensor([float(getattr(column, name)) for _, column in counts])
            self.register_buffer(name, each, persistent=False)
        self.network = MLP(features + len(columns), hidden, norm)
        self.width = self.network.width

    def forward(self, x: Tensor) -> Tensor:
        missing = x.isnan()
        # Filled in before any arithmetic: the gradient of NaN times 0 would be NaN.
        x = torch.where(missing, 0.0, x)
        # An adversarial step may take a count below 0.
        logs = (torch.log1p(x[..., self.count].clamp_min(0)) - self.mean) / self.scale
        logs = torch.where(missing[..., self.count], 0.0, logs)
        there = (~missing[..., self.first]).to(x.dtype)
        return self.network(torch.cat([x.index_copy(-1, self.count, logs), there], -1))
