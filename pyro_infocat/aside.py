"""Looking at a model without leaving a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pyro_infocat.randomness import random_states, restore_random


@contextmanager
def aside(device: torch.device, *modules: nn.Module, seed: int = 0) -> Iterator[None]:
    """No gradients, modules as in evaluation, the same random numbers each time; all is put back.

    :param device: whose random numbers are used, besides the CPU's.
    """
    modes = [module.training for module in modules]
    states = random_states(device)
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            torch.manual_seed(seed)
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
        restore_random(states, device)
