"""Learned scales that can neither vanish nor run away."""

import torch
from torch import Tensor

LOG_SCALE_BOUND = 5.0
"""Learned log-scales stay within this distance of zero."""


def bounded(log_scale: Tensor) -> Tensor:
    """Keep a log-scale within ``LOG_SCALE_BOUND`` of zero without cutting its gradient off."""
    return LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)
