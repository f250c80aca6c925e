"""The base class of guides: q(c, z | x) = q(c | x) q(z | x, c).

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.params.param_store import param_with_module_name
from torch import Tensor, nn

from guides.arguments import whole
from guides.encoders import Encoder
from guides.recorded import Recorded

LOG_SCALE_BOUND = 5.0
"""Largest absolute value of a log-scale of q(z | x, c)."""


class Posterior(NamedTuple):
    """q(c, z | x) for a batch.

    :param category: q(c | x), batch shape (..., B).
    :param latent: q(z | x, c), event shape (D,), as a function of c, whose shape must broadcast
        with (..., B).
    """

    category: dist.Categorical
    latent: Callable[[Tensor], dist.Distribution]


class Guide(Recorded, nn.Module, ABC):
    """q(c, z | x) = q(c | x) q(z | x, c). A subclass defines ``posterior``.

        c ~ q(c | x)         all K values in parallel
        z ~ q(z | x, c)

    :param categories: K.
    :raises ValueError: for a K below 1.
    """

    categories: int
    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        whole("categories", categories)
        self.categories = categories

    @abstractmethod
    def posterior(self, x: Tensor) -> Posterior:
        """q(c | x) and q(z | x, c) for x (..., B, X)."""

    def forward(self, x: Tensor) -> None:
        """The Pyro program, with sites ``c``, enumerated, and ``z``, for x (B, X)."""
        register(self)
        category, latent = self.posterior(x)
        with pyro.plate("batch", x.shape[0]):
            c = pyro.sample("c", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(c))

    def category(self, x: Tensor) -> dist.Categorical:
        """q(c | x) for x (..., B, X). Override it where ``posterior`` computes more than needed."""
        return self.posterior(x).category

    def critic(self, x: Tensor) -> dist.Categorical:
        """The critic of the information bound (Chen et al. 2016): q(c | x) for x (..., B, X)."""
        return self.category(x)


def register(guide: Guide) -> None:
    """As ``pyro.module("guide", guide)``, without its warnings of what is held fixed."""
    for name, parameter in guide.named_parameters():
        if parameter.requires_grad:
            pyro.param(param_with_module_name("guide", name), parameter)


def built(encoder: Callable[[], Encoder]) -> Encoder:
    """A network of a guide's.

    :raises TypeError: for what does not build one.
    """
    if isinstance(encoder, nn.Module):
        raise TypeError(
            "encoder must be a function that returns a network, such as lambda: MLP(features), not "
            f"the network itself: {type(encoder).__name__}"
        )
    made = encoder()
    if not hasattr(made, "width"):
        raise TypeError(f"encoder must return a network with its width, not {type(made).__name__}")
    return made


def normal(raw: Tensor) -> dist.Distribution:
    """A diagonal normal, event shape (D,), from raw (..., 2 D): means, log-scales to be bounded."""
    mean, log_scale = raw.chunk(2, dim=-1)
    scale = (LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)).exp()
    return dist.Normal(mean, scale).to_event(1)
