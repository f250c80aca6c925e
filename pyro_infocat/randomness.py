"""The random numbers of a run: where its generators stand, to be kept and put back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Of the CPU's generator and of the device's own, by kind of device."""
    states = {"cpu": torch.get_rng_state()}
    # No other device is asked: a driver that is too old for PyTorch must not end a run on the CPU.
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random(states: Mapping[str, Any], device: torch.device) -> None:
    """Put them back; states of another kind of device are none of this one's."""
    torch.set_rng_state(states["cpu"])
    own = states.get(device.type)
    if device.type == "cuda" and own is not None:
        torch.cuda.set_rng_state(own, device)
    elif device.type == "mps" and own is not None:
        torch.mps.set_rng_state(own)
