"""Guides that fit, and are out of the ordinary."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from guides import Enumerated
from guides.encoders import Encoder
from guides.guide import Guide, Posterior


class HeldFixed(Enumerated):
    """Its encoder is not trained."""

    def __init__(self, encoder: Callable[[], Encoder], categories: int, latent: int) -> None:
        super().__init__(encoder, categories, latent)
        self.encoder.requires_grad_(False)


class WithoutParameters(Guide):
    def __init__(self, categories: int, latent: int) -> None:
        super().__init__(categories)
        self.latent = latent

    def posterior(self, x: Tensor) -> Posterior:
        def component(c: Tensor) -> dist.Distribution:
            shape = torch.broadcast_shapes(c.shape, x.shape[:-1])
            return dist.Normal(torch.zeros(*shape, self.latent), 1.0).to_event(1)

        logits = torch.zeros(*x.shape[:-1], self.categories)
        return Posterior(dist.Categorical(logits=logits), component)


class WithoutMean(Enumerated):
    """q(z | x, c) is a flow, of which neither mean nor analytic KL is known."""

    def posterior(self, x: Tensor) -> Posterior:
        category, latent = super().posterior(x)
        bend = dist.transforms.SoftplusTransform()
        return Posterior(category, lambda c: dist.TransformedDistribution(latent(c), [bend]))
