"""Encoders: networks from x (..., X) to hidden features (..., H), for any left dimensions.

Shapes: B batch, X features, H hidden features.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample


class Encoder(nn.Module):
    """A network from x (..., X) to features (..., ``width``)."""

    width: int


class MLP(Encoder):
    """Fully connected layers with ReLU after each.

    :param features: X.
    :param hidden: widths of the layers; the last is H.
    :param norm: batch normalisation before each ReLU.
    :raises ValueError: where no layer is given, or one of no width.
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
        # Batch normalisation takes one batch dimension: the left ones are folded into it and back.
        return self.network(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.width)


class Convolutional(Encoder):
    """Two strided convolutions and a fully connected layer.

    :param shape: (height, width) of an image.
    :param width: channels of the first convolution, twice as many in the second.
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
    """Two convolutions, each of which halves an image's sides, and all pixels in a row.

    :param width: channels of the first, twice as many in the second.
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
    """An image turned upright by its moments, then convolutions, then fully connected layers.

    The grey levels' centre, slant and spreads say where an image lies and how it leans. It is
    moved, sheared and scaled to lie in the middle, lean nowhere and spread as far as every other
    one, and what was taken away is put beside it. Images that differ by such a move alone then
    look the same to the layers above.

    :param shape: (height, width) of an image.
    :param hidden: widths of the fully connected layers; the last is H.
    :param width: channels of the first of two strided convolutions, twice as many in the second;
        0 for no convolution.
    :param norm: batch normalisation before each ReLU.
    :param spread: standard deviations down and across after the move, in half images.
    :param pose_weight: what the pose is multiplied by. Its five numbers stand beside a thousand
        of the image: at 1 the layers hardly see them at first, and with them how tall or how
        broad a thing is.
    :raises ValueError: where no layer is given, or one of no width, or no spread, or a negative
        weight.
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
        """The images (B, 1, height, width) upright, and the pose (B, 5) that they had.

        A pose is the log-spreads over the wanted ones, across and down, the slant and the centre.
        """
        # The move is held constant: through it a gradient would push grey levels about.
        grey = images.detach().squeeze(1)
        # A blank image has no moments: it counts as one pixel in the middle.
        mass = grey.sum((1, 2)).clamp_min(1.0)

        def mean(values: Tensor) -> Tensor:
            return (grey * values).sum((1, 2)) / mass

        middle, level = mean(self.across), mean(self.down)
        right = self.across - middle[:, None, None]
        below = self.down - level[:, None, None]
        # A spread of a pixel's width at least, so that thin strokes are not blown up.
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
    """Where the middles of so many pixels lie between the edges -1 and 1."""
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
