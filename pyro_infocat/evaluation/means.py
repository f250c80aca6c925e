"""One point for a distribution, where an image can show no more."""

from typing import Any

from torch import Tensor

DRAWS = 100


def mean_of(distribution: Any) -> Tensor:
    """The mean; the average of ``DRAWS`` draws of a distribution that does not know its own."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample((DRAWS,)).mean(0)
