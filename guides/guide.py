"""What every guide is: q(c | x) and q(z | x, c).

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

LOG_SCALE_BOUND = 5.0
"""Log-scales of q(z | x, c) stay within this distance of zero."""


class Posterior(NamedTuple):
    """q(c, z | x) for a batch.

    :param category: q(c | x), batch shape (..., B).
    :param latent: q(z | x, c) as a function of c, of a shape that broadcasts with (..., B).
    """

    category: dist.Categorical
    latent: Callable[[Tensor], dist.Distribution]


class Guide(nn.Module, ABC):
    """q(c, z | x) = q(c | x) q(z | x, c). A guide of your own needs ``posterior`` alone.

        c ~ q(c | x)         all K values in parallel
        z ~ q(z | x, c)

    :param categories: K.
    """

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.categories = categories

    @abstractmethod
    def posterior(self, x: Tensor) -> Posterior:
        """q(c | x) and q(z | x, c) for x (..., B, X)."""

    def forward(self, x: Tensor) -> None:
        """The Pyro program with sites ``c``, enumerated, and ``z``, for x (B, X)."""
        pyro.module("guide", self)
        category, latent = self.posterior(x)
        with pyro.plate("batch", x.shape[0]):
            c = pyro.sample("c", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(c))

    def category(self, x: Tensor) -> dist.Categorical:
        """q(c | x) alone, for x (..., B, X)."""
        return self.posterior(x).category

    def critic(self, x: Tensor) -> dist.Categorical:
        """The classifier that the information bound asks: q(c | x) itself."""
        return self.category(x)


def normal(raw: Tensor) -> dist.Distribution:
    """A diagonal normal from raw (..., 2 D): event shape (D,), log-scales bounded."""
    mean, log_scale = raw.chunk(2, dim=-1)
    scale = (LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)).exp()
    return dist.Normal(mean, scale).to_event(1)
