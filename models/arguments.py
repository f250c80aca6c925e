"""Checks of constructors' arguments: each error names the argument and says what would be right.

Comparisons are such that NaN fails them.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

MOST = 2**31 - 1
"""The largest size: what PyTorch does with larger ones it says in C++."""


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if int(value) > MOST:
        raise ValueError(f"{name} must be at most {MOST}, not {value}")


def positive(name: str, value: Any) -> None:
    """Refuse what is no number above 0, or not finite."""
    if not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, not {value!r}")


def not_negative(name: str, value: Any) -> None:
    """Refuse what is no number of at least 0, or not finite."""
    if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, not {value!r}")


def _is_width(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def share(name: str, value: Any) -> None:
    """Refuse what is no number from 0 to 1."""
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, not {value!r}")


def widths(name: str, values: Any, none: bool = False) -> None:
    """Refuse what are no widths of layers.

    :param none: whether there may be no layer.
    """
    listed: list[Any] = list(values) if isinstance(values, Sequence) else [None]
    fit = all(_is_width(one) for one in listed)
    if not (fit and (none or listed)):
        raise ValueError(f"{name} must be widths of at least 1, as [400], not {values!r}")
    if max(listed, default=1) > MOST:
        raise ValueError(f"{name} must be at most {MOST}, not {max(listed)}")


def sides(name: str, values: Any) -> None:
    """Refuse what are no sides of an image."""
    listed = list(values) if isinstance(values, Sequence) else []
    if not listed or not all(isinstance(one, Integral) and int(one) >= 1 for one in listed):
        raise ValueError(f"{name} must be sides of at least 1, as (28, 28), not {values!r}")


def picture(shape: Any) -> tuple[int, int, int]:
    """Channels, height and width of an image's shape: (height, width), or with channels in front.

    :raises ValueError: for what is no shape of an image.
    """
    sides("shape", shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"shape must be an image's, as (28, 28) or in colour (3, 32, 32), not {tuple(shape)}"
        )
    channels = shape[0] if len(shape) == 3 else 1
    return channels, shape[-2], shape[-1]
