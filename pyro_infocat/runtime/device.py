"""Which device to compute on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pyro_infocat.errors import UserError
from pyro_infocat.runtime import processes

ROUNDED: list[Any] = [getattr(torch.backends.cudnn, layers) for layers in ("conv", "rnn")]
"""Layers whose inputs cuDNN may round."""


@contextmanager
def cuda_kept() -> Iterator[None]:
    """What a run sets for all that is computed on GPUs is as before afterwards."""
    cuda = torch.cuda
    # What did not begin is not begun for this: a driver may be too old for PyTorch.
    begun, seed = cuda.is_initialized(), torch.initial_seed()
    states = cuda.get_rng_state_all() if begun else []
    current = cuda.current_device() if begun else 0
    precisions = {layers: layers.fp32_precision for layers in ROUNDED}
    try:
        yield
    finally:
        for layers, precision in precisions.items():
            layers.fp32_precision = precision
        if begun:
            cuda.set_rng_state_all(states)
        else:
            # As torch.manual_seed has left them, now or once they are asked.
            cuda.manual_seed_all(seed)
        if cuda.is_initialized():
            cuda.set_device(current)


def compute_on(device: torch.device) -> None:
    """Make a GPU the current one, for streams and graphs, and let it compute in float32.

    What is called float32 is: its default rounds convolutions' inputs to ten bits.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        for layers in ROUNDED:
            layers.fp32_precision = "ieee"


def pick(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU, else the CPU.

    Under torchrun ``cuda`` is one GPU for each process.

    :raises UserError: for an unknown device, or one that this machine does not have.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        name = "cuda" if "cuda" in there else "mps" if "mps" in there else "cpu"
    if name == "cuda" and "cuda" in there:
        # Every process says so: the first one's error is the one that is printed.
        if processes.local_world() > torch.cuda.device_count():
            raise UserError(
                f"{processes.local_world()} processes for {torch.cuda.device_count()} GPUs on this "
                "machine; start one for each, or give --device cpu",
                "device",
            )
        name = f"cuda:{processes.local_rank()}"
    elif name.startswith("cuda:") and processes.local_world() > 1:
        raise UserError(
            f"is one GPU for {processes.local_world()} processes; give --device cuda, one for each",
            "device",
            name,
        )
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"no device '{name}'; choose auto, cpu, cuda, cuda:N or mps", "device")
    if name not in there:
        raise UserError(
            f"'{name}' is not on this machine, which has {', '.join(there)}; --device auto takes "
            "the best of them",
            "device",
        )
    return torch.device(name)
