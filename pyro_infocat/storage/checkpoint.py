"""A checkpoint: written whole, read without executing a pickle, and every value checked."""

import io
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_infocat.catalogue import Facts
from pyro_infocat.errors import UserError
from pyro_infocat.storage.files import replace

REQUIRED = ("epoch", "model", "guide", "optimizer", "rng", "history")
"""What every checkpoint holds. ``facts``, ``data`` and ``made_by`` came later."""


def write(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one.

    :raises OSError: where it cannot be written.
    """
    # Through memory: torch turns a full disk into a RuntimeError, Python into an OSError.
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    replace(path, buffer.getvalue())


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    :raises UserError: where it cannot be read, is corrupt, or holds what no run writes.
    """
    try:
        content = io.BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            # Of TorchScript archives and old pickles, which are refused below.
            warnings.simplefilter("ignore")
            checkpoint = torch.load(content, map_location="cpu", weights_only=True)
        # PyTorch writes checksums and does not look at them.
        damaged = zipfile.ZipFile(content).testzip()
    # Of half a file torch says an OSError too.
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(
            f"cannot read '{path}' ({error.strerror}); a run has it once training begins: go "
            "on by the command that began it, or let the file be read"
        ) from error
    except Exception as error:
        raise _corrupt(path, type(error).__name__) from error
    if damaged:
        raise _corrupt(path, f"the checksum of '{damaged}' is another")
    if not isinstance(checkpoint, dict) or not all(name in checkpoint for name in REQUIRED):
        raise _corrupt(path, "it lacks " + _missing(checkpoint))
    try:
        found = next(_troubles(checkpoint), None)
    # Of tensors that nothing can be computed with, and numbers beyond any float.
    except Exception as error:
        raise _corrupt(path, type(error).__name__) from error
    if found:
        raise _corrupt(path, " ".join(found))
    return checkpoint


def _corrupt(path: Path, why: str) -> UserError:
    return UserError(
        f"'{path}' is corrupt or no checkpoint of this project ({why}); delete '{path.parent}' and "
        "train again"
    )


def _missing(checkpoint: Any) -> str:
    held = checkpoint if isinstance(checkpoint, dict) else {}
    return ", ".join(name for name in REQUIRED if name not in held)


def _troubles(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each field that no run writes so, and what is wrong with it."""
    epoch, history = checkpoint["epoch"], checkpoint["history"]
    if type(epoch) is not int or epoch < 0:
        yield "epoch", f"is {epoch!r}, no whole number from 0"
        return
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        yield "history", "is no list of rows"
        return
    if len(history) != epoch:
        yield "history", f"has {len(history)} rows for {epoch} epochs"
    for number, row in enumerate(history, start=1):
        if row.get("epoch") != number or "seconds" not in row:
            yield "history", f"lacks the epoch or the seconds in row {number}"
        for name, value in row.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                yield "history", f"has {name} {value!r} in epoch {number}"
    for field in ("model", "guide"):
        held = checkpoint[field]
        if not isinstance(held, dict):
            yield field, "is no dictionary of tensors"
            continue
        for name, value in held.items():
            if isinstance(value, Tensor) and not _is_finite(value):
                yield field, f"has '{name}', which is not finite"
    others = checkpoint.get("rng_of_others", [])
    if not isinstance(others, list):
        yield "rng_of_others", "is no list"
        return
    for field, states in (("rng", checkpoint["rng"]), *(("rng_of_others", one) for one in others)):
        cpu = states.get("cpu") if isinstance(states, dict) else None
        if not isinstance(cpu, Tensor):
            yield field, "holds no state of the CPU's generator"
        elif cpu.dtype is not torch.uint8 or cpu.shape != torch.get_rng_state().shape:
            yield field, "holds a state of another size"
    if "facts" in checkpoint and not _are_facts(checkpoint["facts"]):
        yield "facts", "are none of data"
    if "data" in checkpoint and not _is_fingerprint(checkpoint["data"]):
        yield "data", "is no number and checksum of each split"


def _is_finite(value: Tensor) -> bool:
    return value.layout is torch.strided and bool(value.isfinite().all())


def _are_facts(held: Any) -> bool:
    try:
        Facts.of(held)
    except TypeError:
        return False
    return True


def _is_fingerprint(held: Any) -> bool:
    return isinstance(held, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
        for pair in held.values()
    )


def check_kinds(path: Path, field: str, held: Mapping[str, Any], module: nn.Module) -> None:
    """Refuse tensors of another kind than a module's own: PyTorch would cast them without a word.

    :raises UserError: naming the first.
    """
    for name, own in module.state_dict().items():
        value = held.get(name)
        if not (isinstance(own, Tensor) and isinstance(value, Tensor)):
            continue
        if _kind(value) != _kind(own):
            raise _corrupt(path, f"{field} has '{name}' in {value.dtype}, which is no {own.dtype}")
        if not value.to(own.dtype).isfinite().all():
            raise _corrupt(path, f"{field} has '{name}', which is not finite in {own.dtype}")


def _kind(value: Tensor) -> tuple[bool, bool, bool]:
    return value.is_complex(), value.is_floating_point(), value.dtype is torch.bool


def check_optimizer(path: Path, held: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuse a state of Adam that is not of these parameters.

    PyTorch's fused kernels would read beyond the ends of tensors of another shape.

    :raises UserError: naming the first.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = held.get("state") if isinstance(held, dict) else None
    if not isinstance(states, dict):
        raise _corrupt(path, "optimizer holds no state")
    for index, state in states.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise _corrupt(path, f"optimizer has a state of no parameter, {index!r}")
        shape = parameters[index].shape
        shapes = {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
        if not isinstance(state, dict) or state.keys() != shapes.keys():
            raise _corrupt(path, f"optimizer has not {', '.join(shapes)} of parameter {index}")
        for name, wanted in shapes.items():
            value, of = state[name], f"'{name}' of parameter {index}"
            if not (isinstance(value, Tensor) and value.is_floating_point() and _is_finite(value)):
                raise _corrupt(path, f"optimizer has {of}, which is not finite")
            if value.shape != wanted:
                raise _corrupt(
                    path, f"optimizer has {of} of shape {tuple(value.shape)}, not {tuple(wanted)}"
                )
            if name != "exp_avg" and (value < 0).any():
                raise _corrupt(path, f"optimizer has {of}, which is negative")
