"""The guide that leaves c to Bayes' rule.

Shapes: B batch, K categories, D latent dimensions, X features, H hidden features.
"""

from collections.abc import Callable
from typing import Protocol

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from guides.encoders import Encoder
from guides.guide import Guide, Posterior, normal


class Responsible(Protocol):
    """A prior as this guide sees it."""

    categories: int

    def responsibilities(self, z: Tensor) -> Tensor:
        """log p(c | z) for z (..., D): (..., K)."""


class Bayes(Guide):
    """q(c, z | x) = q(z | x) p(c | z), as in VaDE (Jiang et al. 2017, equation 16).

        z ~ N(mean(x), scale(x))

    c is no site of the guide: the model sums it out, and its posterior given z is exact. The
    category of an image, q(c | x), is p(c | z) at the mean of q(z | x).

    :param encoder: makes a network from x (..., X) to hidden features (..., H), with ``width`` H.
    :param prior: the model's prior, for p(c | z).
    :param latent: D.
    """

    def __init__(self, encoder: Callable[[], Encoder], prior: Responsible, latent: int) -> None:
        super().__init__(prior.categories)
        self.encoder = encoder()
        self.head = nn.Linear(self.encoder.width, 2 * latent)
        # Not a submodule: the prior's parameters are the model's.
        self.responsibilities = prior.responsibilities

    def posterior(self, x: Tensor) -> Posterior:
        latent = normal(self.head(self.encoder(x)))
        category = dist.Categorical(logits=self.responsibilities(latent.mean))
        return Posterior(
            category, lambda c: latent.expand(torch.broadcast_shapes(c.shape, latent.batch_shape))
        )

    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        with pyro.plate("batch", x.shape[0]):
            pyro.sample("z", normal(self.head(self.encoder(x))))
