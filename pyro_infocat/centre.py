"""What stands for a distribution where one point must."""

from typing import Any

from torch import Tensor

DRAWS = 100


def centre(distribution: Any) -> Tensor:
    """The mean; the average of ``DRAWS`` draws of a distribution that does not know it."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample((DRAWS,)).mean(0)
