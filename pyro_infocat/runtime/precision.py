"""Which precision the networks' products are fastest in, on the machine at hand."""

import time
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

REPEATS = 10
"""Products timed in each precision. The quickest counts: other work only makes one slower."""


def fastest(device: torch.device) -> tuple[Precision, str]:
    """``float32`` or ``bfloat16``, and why, in a few words.

    A GPU is asked whether it has units for bfloat16. A CPU is timed: without them a product takes
    up to fifty times as long as in float32, with them about half as long, so that one measurement
    of some milliseconds tells.
    """
    if device.type == "cuda":
        there = torch.cuda.is_bf16_supported(including_emulation=False)
        return _said(there, f"this GPU has {'' if there else 'no '}units for bfloat16")
    if device.type != "cpu":
        return _said(False, f"bfloat16 is not timed on {device.type}")
    ratio = _seconds(torch.float32) / _seconds(torch.bfloat16)
    longer = f"{1 / ratio:.1f} times as long as in float32"
    return _said(ratio > 1, f"here a product in bfloat16 takes {longer}")


def _said(bfloat16: bool, why: str) -> tuple[Precision, str]:
    return ("bfloat16" if bfloat16 else "float32"), why


def _seconds(kind: torch.dtype) -> float:
    """The quickest of some products of a layer's size, in seconds."""
    one, other = torch.ones(256, 256, dtype=kind), torch.ones(256, 256, dtype=kind)
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        one @ other
        taken.append(time.perf_counter() - began)
    return min(taken)
