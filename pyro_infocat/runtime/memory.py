"""What a machine's memory holds."""

import math
import os
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

TRAINED = 4
"""Numbers that training holds for a parameter: itself, its gradient and Adam's two moments."""

GIB = 2**30


def most() -> float:
    """Bytes of memory of this machine; infinity where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


class Fitting(TorchDispatchMode):
    """While this is entered, tensors are refused that do not fit into memory all together.

    Asking for them instead may end the process, where the system promises more than it has.

    :param copies: numbers that each number of them stands for.
    """

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies, self.bytes = copies, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch's.

        :raises ValueError: where it makes a tensor that does not fit.
        """
        named = kwargs or {}
        size = None
        # As of torch.empty, by which layers make their parameters.
        if args and func._schema.arguments[0].name == "size":
            size = args[0]
        elif func is torch.ops.aten.eye.default:
            size = (args[0], args[0])
        if size is not None:
            dtype = named.get("dtype") or torch.get_default_dtype()
            self.bytes += math.prod(size) * dtype.itemsize
            needed = self.bytes * self.copies
            if needed > most():
                what = "training takes" if self.copies > 1 else "it takes"
                raise ValueError(
                    f"{what} {needed / GIB:.3g} GiB of memory, and this machine has "
                    f"{most() / GIB:.3g}; give smaller sizes"
                )
        return func(*args, **named)
