"""What a machine's memory holds."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

TRAINED = 4
"""Numbers that training holds for a parameter: itself, its gradient and Adam's two moments."""

GIB = 2**30

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""What a container may take of its machine's memory, where it is bounded."""

SHARE = 0.5
"""Of memory, or of a GPU's free memory, that examples may take."""


def most() -> float:
    """Bytes of memory that this process may have; infinity where the system does not say."""
    bounds = [math.inf]
    with suppress(AttributeError, OSError, ValueError):
        bounds.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        bounds.append(int(CGROUP.read_text()))
    return min(bounds)


def to_disk(data_on: str, needed: int) -> bool:
    """Whether examples are read from disk: as ``data_on`` says, or where memory has no room.

    :param needed: bytes that reading them would take in memory.
    """
    return data_on == "disk" or (data_on == "auto" and needed > SHARE * most())


def on_device(data_on: str, needed: int, device: torch.device) -> bool:
    """Whether examples in memory go to the device: as ``data_on`` says, or where it has room.

    :param needed: bytes of them.
    """
    if data_on == "auto" and device.type == "cuda":
        return needed <= SHARE * torch.cuda.mem_get_info(device)[0]
    return data_on in ("auto", "device")


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
