"""Guides that a run must refuse, each for one reason."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from guides import Enumerated
from guides.guide import Guide, Posterior


def normal(*shape: int) -> dist.Distribution:
    return dist.Normal(torch.zeros(shape), 1.0).to_event(1)


class Abstract(Guide):
    pass


class WithoutSuper(Guide):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def posterior(self, x: Tensor) -> Posterior: ...


class Constant(Guide):
    """The same for all x; a subclass changes one thing."""

    more_categories, more_latent = 0, 0

    def __init__(self, categories: int, latent: int) -> None:
        super().__init__(categories)
        self.latent = latent

    def posterior(self, x: Tensor) -> Posterior:
        logits = 0 * x[:, :1] + torch.zeros(self.categories + self.more_categories)
        shape, size = x.shape[:1], self.latent + self.more_latent
        return Posterior(
            dist.Categorical(logits=logits), lambda c: self.component(*c.shape[:-1], *shape, size)
        )

    def component(self, *shape: int) -> dist.Distribution:
        return normal(*shape)


class OtherCategories(Constant):
    more_categories = 1


class OtherLatent(Constant):
    more_latent = -1


class Independent(Constant):
    def component(self, *shape: int) -> dist.Distribution:
        return dist.Normal(0.0, 1.0).expand(shape)


class WithoutGradient(Constant):
    def component(self, *shape: int) -> dist.Distribution:
        return dist.Poisson(torch.ones(shape)).to_event(1)


class WithoutAnalyticKL(Constant):
    def component(self, *shape: int) -> dist.Distribution:
        return dist.StudentT(5.0, torch.zeros(shape)).to_event(1)


class OtherSites(Enumerated):
    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("code", normal(len(x), 20))


class WithoutSites(Enumerated):
    def forward(self, x: Tensor) -> None:
        pass


class WithoutPosterior(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        return None


class AllCategoriesAlone(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        category, latent = super().posterior(x)
        every = torch.arange(self.categories).unsqueeze(-1)
        return Posterior(category, lambda c: latent(every))


class GrowingBuffer(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        self.register_buffer("rows", torch.cat([self._buffers.get("rows", x), x]))
        return super().posterior(x)


class ParameterOfPyro(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        return super().posterior(x + pyro.param("shift", torch.zeros(())))


class Fails(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        return 1 / 0


class WrongArithmetic(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        return 1 + "one"


class MissingFile(Enumerated):
    def posterior(self, x: Tensor) -> Posterior:
        return np.load("modes.npy")


class LongError(Enumerated):
    """As PyTorch's errors that hold a whole tensor."""

    def posterior(self, x: Tensor) -> Posterior:
        raise ValueError("1 " * 9999)


class CriticToCome(Enumerated):
    def critic(self, x: Tensor) -> dist.Categorical:
        raise NotImplementedError("later")
