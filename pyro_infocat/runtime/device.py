"""Which device to compute on."""

import re

import torch

from pyro_infocat.errors import UserError
from pyro_infocat.runtime import processes


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
