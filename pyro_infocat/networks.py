"""The networks inside a model and a guide: in another precision, compiled, their statistics kept.

Only layers of PyTorch's own are touched. The bound, the distributions and whatever a user's own
class computes beside its layers stay in float32, where logarithms of small masses need it, and
in Python, whose programs no compiler takes whole.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pyro_infocat.errors import reason

BATCH_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def networks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules of PyTorch's own inside a module, each once."""
    seen: set[int] = set()
    pending = [module]
    while pending:
        outer = pending.pop()
        if id(outer) in seen:
            continue
        seen.add(id(outer))
        holder = isinstance(outer, nn.ModuleList | nn.ModuleDict)
        if type(outer).__module__.startswith("torch.nn.") and not holder:
            yield outer
        else:
            pending.extend(outer.children())


@contextmanager
def statistics_kept(*programs: Any) -> Iterator[None]:
    """Let layers forget what they see: the statistics that they keep stay as they are.

    Those stand for the data at test time. Views and generated images are normalised by their own
    batch, and would only blur what is remembered of the data.

    :param programs: anything; what is no module has no statistics.
    """
    layers = {
        id(layer): layer
        for program in programs
        if isinstance(program, nn.Module)
        for layer in program.modules()
        if layer.training and layer._buffers
    }.values()
    normalising: list[Any] = [
        layer
        for layer in layers
        if type(layer) in BATCH_NORMALISATIONS and layer.track_running_stats
    ]
    # Other layers of PyTorch's or the user's write to their buffers: they get copies to write to.
    writing = [
        (layer, name, buffer)
        for layer in layers
        if type(layer) not in BATCH_NORMALISATIONS and not _is_ours(layer)
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    for layer in normalising:
        layer.track_running_stats = False
    for layer, name, buffer in writing:
        layer._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for layer in normalising:
            layer.track_running_stats = True
        for layer, name, buffer in writing:
            layer._buffers[name] = buffer


def _is_ours(layer: nn.Module) -> bool:
    """Whether a layer is of this project, whose buffers are constants."""
    return type(layer).__module__.partition(".")[0] in ("models", "guides")


@contextmanager
def computing_in(precision: str, module: nn.Module) -> Iterator[None]:
    """Let the networks inside a module compute in a precision, and answer in float32.

    Recurrent layers stay in float32.
    Parameters, their gradients and the optimiser stay in float32 (mixed precision: Micikevicius
    et al. 2018). bfloat16 has float32's range, so nothing has to be scaled.
    """
    with _computing(torch.bfloat16, {"float32": [], "bfloat16": [module]}[precision]):
        yield


@contextmanager
def autocast_in_networks_alone(device_type: str, *programs: Any) -> Iterator[None]:
    """Where autocast is on, let it reach the networks inside the programs and nothing else.

    What is summed in half precision has two or three digits.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    modules = [program for program in programs if isinstance(program, nn.Module)]
    dtype = torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, enabled=False), _computing(dtype, modules):
        yield


@contextmanager
def _computing(dtype: torch.dtype, modules: Sequence[nn.Module]) -> Iterator[None]:
    every = networks(nn.ModuleList(modules))
    # On a GPU autocast takes recurrent layers to float16 whatever it is asked, and that overflows.
    changed = [network for network in every if not isinstance(network, nn.RNNBase)]
    for network in changed:
        network.forward = _computing_in(dtype, network.forward)
    try:
        yield
    finally:
        for network in changed:
            # What the class defines shows again.
            del network.forward


def _computing_in(dtype: torch.dtype, forward: Any) -> Any:
    def computed(x: Tensor, *others: Any, **named: Any) -> Any:
        with torch.autocast(x.device.type, dtype):
            answer = forward(x, *others, **named)
        return tree_map_only(Tensor, _widened, answer)

    return computed


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


@contextmanager
def compiled(wanted: bool, module: nn.Module, attempt: Callable[[], Any]) -> Iterator[None]:
    """Let the networks inside a module run compiled, where that can be had.

    :param attempt: uses every network, so that a failure shows now: one line, and no compilation.
    """
    changed = list(networks(module)) if wanted else []
    for network in changed:
        network.compile()
    try:
        if changed:
            try:
                # A run that goes on must not differ from one that was never stopped.
                devices = {p.device for p in module.parameters() if p.is_cuda}
                with torch.random.fork_rng(devices), statistics_kept(module):
                    attempt()
            except Exception as error:
                _as_they_were(changed)
                said = reason(error)[:200]
                print(f"torch.compile: networks run as they are ({said})", file=sys.stderr)
        yield
    finally:
        _as_they_were(changed)


def _as_they_were(changed: list[nn.Module]) -> None:
    for network in changed:
        network._compiled_call_impl = None
