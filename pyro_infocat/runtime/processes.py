"""Several processes under torchrun: which one this is, and what they share.

With one process every function here is the identity.
"""

import os

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process's number, from 0; 0 writes everything that is written."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine: the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def join(device: torch.device) -> None:
    """Meet the other processes: gloo between CPUs, NCCL between GPUs."""
    if world() > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def wrap(module: nn.Module, some_unused: bool) -> nn.Module:
    """The module with the gradients of all processes averaged.

    :param some_unused: not every parameter has a gradient in every step.
    """
    if world() == 1:
        return module
    return DistributedDataParallel(module, find_unused_parameters=some_unused)


def shared(tensor: Tensor) -> Tensor:
    """The first process's tensor, on every process."""
    if world() > 1:
        distributed.broadcast(tensor, 0)
    return tensor


def total(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor, on every process."""
    if world() > 1:
        distributed.all_reduce(tensor)
    return tensor


def every(tensor: Tensor) -> list[Tensor]:
    """Each process's tensor of one shape, in the order of the processes, on every process."""
    if world() == 1:
        return [tensor]
    # NCCL passes on what is on a GPU alone.
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    held = [torch.empty_like(tensor, device=device) for _ in range(world())]
    distributed.all_gather(held, tensor.to(device))
    return [one.cpu() for one in held]


def mine(index: Tensor) -> Tensor:
    """This process's share of a batch's indices."""
    return index[rank() :: world()]
