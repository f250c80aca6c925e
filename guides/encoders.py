"""Encoders: networks from x (..., X) to hidden features (..., H), for any left dimensions.

Shapes: B batch, X features, H hidden features.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """A network from x (..., X) to features (..., ``width``)."""

    width: int


class MLP(Encoder):
    """Fully connected layers with ReLU after each.

    :param features: X.
    :param hidden: widths of the layers; the last is H.
    :param norm: batch normalisation before each ReLU; every pass in training counts.
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
    :param norm: batch normalisation before each ReLU; every pass in training counts.
    """

    def __init__(
        self, shape: Sequence[int], width: int = 32, hidden: int = 256, norm: bool = False
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        convolutions = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * width) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
        )
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
