"""The guide whose q(c | x) follows from the prior by Bayes' rule.

Shapes: B batch, K categories, D latent dimensions, X features, H hidden features.
"""

import copy
from collections.abc import Callable
from typing import Any, Protocol, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from guides.arguments import whole
from guides.encoders import Encoder
from guides.guide import Guide, Posterior, built, normal, register


class Responsible(Protocol):
    """The interface that :class:`Bayes` needs of a prior."""

    categories: int

    def responsibilities(self, z: Tensor) -> Tensor:
        """log p(c | z) in nats for z (..., D): (..., K)."""


class Bayes(Guide):
    """q(c, z | x) = q(z | x) p(c | z), as in VaDE (Jiang et al. 2017, equation 16).

        z ~ N(mean(x), scale(x))

    c is not a site of this guide: the model sums it out, and its posterior given z is exact.
    ``category``, q(c | x), is p(c | z) at the mean of q(z | x).

    :param encoder: builds a network from x (..., X) to hidden features (..., H), with ``width`` H.
    :param prior: the model's prior, for p(c | z).
    :param latent: D.
    :raises TypeError: for what is no prior or builds no encoder, or where it is copied without its
        prior: see :meth:`__deepcopy__`.
    """

    def __init__(self, encoder: Callable[[], Encoder], prior: Responsible, latent: int) -> None:
        if not hasattr(prior, "responsibilities") or isinstance(prior, type):
            raise TypeError(f"prior must be the model's prior, not {prior!r:.80}")
        super().__init__(prior.categories)
        whole("latent", latent)
        self.encoder = built(encoder)
        self.head = nn.Linear(self.encoder.width, 2 * latent)
        # In a tuple, or it would become a submodule: its parameters are the model's.
        self._prior = (prior,)

    @property
    def prior(self) -> Responsible:
        """What p(c | z) is read off: the model's own."""
        return self._prior[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that reads p(c | z) off the copy of the prior.

        Alone it would read a copy of the prior that belongs to no model and is never trained.

        :raises TypeError: where the prior is not copied at once with it, before it.
        """
        if id(self.prior) not in memo:
            raise TypeError(
                f"{type(self).__name__} reads p(c|z) off the model's prior: copy both at once, the "
                "model first, as in copy.deepcopy(torch.nn.ModuleList([model, guide]))"
            )
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def posterior(self, x: Tensor) -> Posterior:
        latent = normal(self.head(self.encoder(x)))
        category = dist.Categorical(logits=self.prior.responsibilities(latent.mean))
        return Posterior(
            category, lambda c: latent.expand(torch.broadcast_shapes(c.shape, latent.batch_shape))
        )

    def forward(self, x: Tensor) -> None:
        """The Pyro program, with the site ``z`` only, for x (B, X)."""
        register(self)
        with pyro.plate("batch", x.shape[0]):
            pyro.sample("z", normal(self.head(self.encoder(x))))
