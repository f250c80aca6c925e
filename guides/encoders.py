"""Encoders: networks from x (..., X) to hidden features (..., H), for any left dimensions.

Shapes: B batch, X features, H hidden features.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """A network from x (..., X) to features (..., ``width``)."""

    width: int


class MLP(Encoder):
    """Fully connected layers with ReLU after each.

    :param features: X.
    :param hidden: widths of the layers; the last is H.
    :raises ValueError: where no layer is given.
    """

    def __init__(self, features: int, hidden: Sequence[int] = (400,)) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden must name at least one layer, for example [400]")
        layers: list[nn.Module] = []
        for before, after in zip([features, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.network = nn.Sequential(*layers)
        self.width = hidden[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Convolutional(Encoder):
    """Two strided convolutions and a fully connected layer.

    :param shape: (height, width) of an image.
    :param width: channels of the first convolution, twice as many in the second.
    :param hidden: H.
    """

    def __init__(self, shape: Sequence[int], width: int = 32, hidden: int = 256) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.network = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        flat = self.network(torch.zeros(1, 1, *self.shape)).shape[-1]
        self.network.extend([nn.Linear(flat, hidden), nn.ReLU()])
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
