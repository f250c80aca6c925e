"""Bounds on learned scales, so that none goes to 0 or infinity."""

import torch
from torch import Tensor

LOG_SCALE_BOUND = 5.0
"""Largest absolute value of a learned log-scale."""


def bounded(log_scale: Tensor) -> Tensor:
    """Map a log-scale smoothly into +-``LOG_SCALE_BOUND``; a clamp would cut its gradient off."""
    return LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)
