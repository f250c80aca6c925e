"""Which device to compute on."""

import re

import torch

from pyro_infocat import processes
from pyro_infocat.errors import UserError


def pick(name: str) -> torch.device:
    """The device of a name; ``auto`` is the first GPU, else the CPU.

    :raises UserError: for an unknown device, or one that this machine does not have.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        name = "cuda" if "cuda" in there else "mps" if "mps" in there else "cpu"
    if name == "cuda" and "cuda" in there and processes.world() > 1:
        name = f"cuda:{processes.local_rank()}"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"--device: no device '{name}'; choose auto, cpu, cuda, cuda:N or mps")
    if name not in there:
        raise UserError(
            f"--device: '{name}' is not on this machine, which has {', '.join(there)}; "
            "--device auto takes the best of them"
        )
    return torch.device(name)
