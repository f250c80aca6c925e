"""Likelihoods that fit, and are out of the ordinary."""

import pyro.distributions as dist
import torch
from torch import Tensor

from models.likelihoods import Likelihood
from tests.users_parts.unusual_priors import NormalWithoutGradient


class LogitNormal(dist.TorchDistribution):
    """Its logarithms of odds are normal; it has no mean in closed form.

    Grey levels may be 0 and 1, where these are infinite: x is drawn in from both ends.
    """

    support, has_rsample = torch.distributions.constraints.real_vector, True
    arg_constraints = {}

    def __init__(self, loc: Tensor) -> None:
        squash = [torch.distributions.transforms.SigmoidTransform()]
        self.base = dist.TransformedDistribution(dist.Normal(loc, 1.0), squash).to_event(1)
        super().__init__(self.base.batch_shape, self.base.event_shape, validate_args=False)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.base.log_prob(0.01 + 0.98 * x)

    def rsample(self, shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.rsample(shape)


class WithoutMean(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        return LogitNormal(raw.squeeze(-1))


class WithoutGradient(Likelihood):
    def forward(self, raw: Tensor) -> dist.Distribution:
        return NormalWithoutGradient(raw.squeeze(-1), 0.3).to_event(1)
