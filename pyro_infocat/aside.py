"""Looking at a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def aside(device: torch.device, *modules: nn.Module, seed: int = 0) -> Iterator[None]:
    """No gradients, modules as in evaluation, the same random numbers each time; all is put back.

    :param device: whose random numbers are used, besides the CPU's.
    """
    modes = [module.training for module in modules]
    # manual_seed sets this generator too, and not every fork_rng puts it back.
    metal = torch.mps.get_rng_state() if device.type == "mps" else None
    for module in modules:
        module.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
        if metal is not None:
            torch.mps.set_rng_state(metal)
