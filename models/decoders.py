"""Decoders: networks from z (..., D) to a distribution over x (..., X), of any batch shape.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from models.arguments import not_negative, picture, whole, widths
from models.likelihoods import Likelihood
from models.recorded import Recorded


class Decoder(Recorded, nn.Module, ABC):
    """p(x | z): a network whose raw output the likelihood turns into a distribution.

    :param likelihood: turns raw (..., X, outputs) into a distribution over x (..., X).
    :raises ValueError: for what is none.
    """

    likelihood: Likelihood
    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        if not isinstance(likelihood, Likelihood):
            raise ValueError(f"likelihood must be an instance of one, not {likelihood!r:.80}")
        self.likelihood = likelihood

    @abstractmethod
    def raw(self, z: Tensor) -> Tensor:
        """The likelihood's parameters, unconstrained, for z (..., D): (..., X, outputs)."""

    def forward(self, z: Tensor) -> dist.Distribution:
        """p(x | z) for z (..., D): batch shape (...), event shape (X,)."""
        return self.likelihood(self.raw(z))


class MLP(Decoder):
    """Fully connected layers with ReLU between them.

    :param latent: D.
    :param features: X.
    :param likelihood: see :class:`Decoder`.
    :param hidden: widths of the hidden layers.
    :raises ValueError: for a size below 1.
    """

    def __init__(
        self,
        latent: int,
        features: int,
        likelihood: Likelihood,
        hidden: Sequence[int] = (400,),
    ) -> None:
        super().__init__(likelihood)
        whole("latent", latent)
        whole("features", features)
        widths("hidden", hidden, none=True)
        inputs = [latent, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(inputs):
            layers += [nn.Linear(before, after), nn.ReLU()]
        layers.append(nn.Linear(inputs[-1], features * likelihood.outputs))
        self.network = nn.Sequential(*layers)

    def raw(self, z: Tensor) -> Tensor:
        return self.network(z).unflatten(-1, (-1, self.likelihood.outputs))


class Convolutional(Decoder):
    """Two transposed convolutions of stride 2, for images of any size from 4 x 4.

    :param latent: D.
    :param shape: (height, width) of an image, (3, height, width) of one in colour.
    :param likelihood: see :class:`Decoder`.
    :param width: channels of the last hidden layer; the one before has twice as many.
    :raises ValueError: for a size below 1.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        likelihood: Likelihood,
        width: int = 32,
    ) -> None:
        super().__init__(likelihood)
        whole("latent", latent)
        self.image = picture(shape)
        whole("width", width)
        height, breadth = (math.ceil(side / 4) for side in self.image[1:])
        self.small = (2 * width, height, breadth)
        self.expand = nn.Sequential(nn.Linear(latent, math.prod(self.small)), nn.ReLU())
        self.network = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, self.image[0] * likelihood.outputs, 4, stride=2, padding=1),
        )

    def raw(self, z: Tensor) -> Tensor:
        # Convolutions take one batch dimension.
        small = self.expand(z).reshape(-1, *self.small)
        _, height, breadth = self.image
        image = self.network(small)[..., :height, :breadth]
        raw = as_features(image, self.likelihood.outputs)
        return raw.reshape(*z.shape[:-1], *raw.shape[1:])


def as_features(images: Tensor, outputs: int) -> Tensor:
    """Raw output (N, X, O) of images (N, C O, height, width) whose channels have O numbers each."""
    return images.flatten(2).unflatten(1, (-1, outputs)).mT.flatten(1, 2)


class Posed(Decoder):
    """An image drawn from z, resampled through an affine map that z gives as well.

        picture  = network(z)                         raw output of an image
        pose     = I + strength * head(z)             affine map (2, 3), output to picture
        x | z    ~ picture resampled through pose     (Jaderberg et al. 2015)

    The pose takes up slant, size and position, which leaves the categories to differ in shape.

    In colour the pose moves all channels alike.

    :param latent: D.
    :param shape: (height, width) of an image, (3, height, width) of one in colour.
    :param likelihood: see :class:`Decoder`.
    :param hidden: widths of the hidden layers of the picture's network.
    :param pose_hidden: width of the hidden layer of the pose's head.
    :param strength: factor on the pose's difference from the identity.
    :raises ValueError: for a size below 1, or a strength that is not finite or below 0.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        likelihood: Likelihood,
        hidden: Sequence[int] = (400,),
        pose_hidden: int = 64,
        strength: float = 0.3,
    ) -> None:
        super().__init__(likelihood)
        whole("latent", latent)
        self.image = picture(shape)
        whole("pose_hidden", pose_hidden)
        not_negative("strength", strength)
        self.strength = strength
        self.picture = MLP(latent, math.prod(self.image), likelihood, hidden)
        last = nn.Linear(pose_hidden, 6)
        # Training starts with poses near the identity.
        nn.init.normal_(last.weight, std=0.01), nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(latent, pose_hidden), nn.Tanh(), last)

    def raw(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, z.shape[-1])
        # The numbers of a channel stand side by side, as as_features takes them apart again.
        pictures = self.picture.raw(flat).unflatten(1, self.image).movedim(-1, 2).flatten(1, 2)
        moves = self.strength * self.head(flat).unflatten(-1, (2, 3))
        moves = moves + torch.eye(2, 3, dtype=z.dtype, device=z.device)
        grid = affine_grid(moves, list(pictures.shape), align_corners=False)
        # Zero padding would be a logit of 0, which is a grey of one half.
        seen = grid_sample(pictures, grid, padding_mode="border", align_corners=False)
        raw = as_features(seen, self.likelihood.outputs)
        return raw.reshape(*z.shape[:-1], *raw.shape[1:])


class Recurrent(Decoder):
    """A GRU that generates an image row by row.

    :param latent: D.
    :param shape: (height, width): a sequence of ``height`` steps of ``width`` features; in colour
        (3, height, width), and a step has the rows of the three channels.
    :param likelihood: see :class:`Decoder`.
    :param hidden: width of the GRU's state.
    :raises ValueError: for a size below 1.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        likelihood: Likelihood,
        hidden: int = 128,
    ) -> None:
        super().__init__(likelihood)
        whole("latent", latent)
        self.image = picture(shape)
        whole("hidden", hidden)
        channels, height, breadth = self.image
        self.start = nn.Linear(latent, hidden)
        self.steps = nn.Parameter(torch.randn(height, latent) / math.sqrt(latent))
        self.gru = nn.GRU(latent, hidden, batch_first=True)
        self.row = nn.Linear(hidden, channels * breadth * likelihood.outputs)

    def raw(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, 1, z.shape[-1])
        rows, _ = self.gru(flat + self.steps, self.start(flat).mT.movedim(-1, 0).contiguous())
        channels, height, breadth = self.image
        raw = self.row(rows).reshape(-1, height, channels, breadth, self.likelihood.outputs)
        return raw.movedim(2, 1).reshape(*z.shape[:-1], math.prod(self.image), -1)
