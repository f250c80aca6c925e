"""The random numbers of a run, and looking at a model without leaving a trace in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the CPU's generator and of the device's own, by kind of device."""
    states = {"cpu": torch.get_rng_state()}
    # No other device is asked: a driver that is too old for PyTorch must not end a run on the CPU.
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    """Put generators' states back; those of another kind of device are left out."""
    torch.set_rng_state(states["cpu"])
    own = states.get(device.type)
    if device.type == "cuda" and own is not None:
        torch.cuda.set_rng_state(own, device)
    elif device.type == "mps" and own is not None:
        torch.mps.set_rng_state(own)


def _seed(device: torch.device, seed: int) -> None:
    """Seed the CPU's generator and the device's own: torch.manual_seed seeds every device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def evaluating(device: torch.device, *modules: nn.Module, seed: int = 0) -> Iterator[None]:
    """No gradients, modules in evaluation mode, the same random numbers each time.

    Afterwards the generators and the modules' modes are as before.

    :param device: whose random numbers are used, besides the CPU's.
    """
    modes = [module.training for module in modules]
    states = random_states(device)
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            _seed(device, seed)
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
        restore_random(states, device)
