"""Priors that a run must refuse, each for one reason."""

import pyro.distributions as dist
import torch
from torch import Tensor

from models.priors import Prior


def normal(*shape: int) -> dist.Distribution:
    return dist.Normal(torch.zeros(shape), 1.0).to_event(1)


class Abstract(Prior):
    pass


class RefusesItsNumber(Prior):
    def __init__(self, height: float = -1.0) -> None:
        raise ValueError(f"height must be above 0, not {height}")

    def component(self, c: Tensor) -> dist.Distribution: ...


class FailsToBeMade(Prior):
    def __init__(self) -> None:
        raise KeyError("modes")

    def component(self, c: Tensor) -> dist.Distribution: ...


class WithoutSuper(Prior):
    def __init__(self) -> None:
        pass

    def component(self, c: Tensor) -> dist.Distribution: ...


class NumbersWithoutSuper(Prior):
    def __init__(self) -> None:
        self.categories, self.latent = 10, 3

    def component(self, c: Tensor) -> dist.Distribution:
        return normal(*c.shape, 3)


class NeedsANumber(Prior):
    def __init__(self, k: int) -> None:
        super().__init__(k, 4)

    def component(self, c: Tensor) -> dist.Distribution: ...


class NeedsAValue(Prior):
    def __init__(self, k) -> None:
        super().__init__(k, 4)

    def component(self, c: Tensor) -> dist.Distribution: ...


class Four(Prior):
    """Of four dimensions."""

    def __init__(self, categories: int = 10) -> None:
        super().__init__(categories, 4)


class OtherLatent(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return normal(*c.shape, 5)


class WithoutBatch(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return normal(4)


class Misspelt(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return normal(*c.shape, 4, nothing)  # noqa: F821


class OfPyTorch(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return torch.distributions.Normal(torch.zeros(10, 4), 1.0)


class NotANumber(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(torch.full((*c.shape, 4), torch.nan), 1).to_event(1)


class Independent(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(torch.zeros(*c.shape, 4), 1.0)


class OtherWeights(Four):
    def category(self) -> dist.Categorical:
        return dist.Categorical(torch.ones(9))

    def component(self, c: Tensor) -> dist.Distribution:
        return normal(*c.shape, 4)


class IgnoresItsCategories(Prior):
    """Right for all K at once alone."""

    def __init__(self) -> None:
        super().__init__(10, 4)

    def component(self, c: Tensor) -> dist.Distribution:
        return normal(10, 4)


class PlainTensor(Prior):
    def __init__(self) -> None:
        super().__init__(10, 4)
        self.modes = torch.randn(10, 4)

    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(self.modes[c], 1.0).to_event(1)
