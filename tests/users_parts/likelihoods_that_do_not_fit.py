"""Likelihoods that a run must refuse, each for one reason."""

import pyro.distributions as dist
from torch import Tensor

from models.likelihoods import Bernoulli, Likelihood


class Abstract(Likelihood):
    pass


class GreyOfZeroAndOne(Bernoulli):
    binary = False


class Independent(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        return dist.Normal(raw.squeeze(-1), 1.0)


class WithoutMean(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        return dist.Cauchy(raw.squeeze(-1), 1.0).to_event(1)


class WithoutGradient(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        return dist.Poisson(raw.squeeze(-1).exp()).to_event(1)


class InfiniteDensity(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        shape = 0.5 + 0 * raw.squeeze(-1)
        return dist.Gamma(shape, 1.0, validate_args=False).to_event(1)
