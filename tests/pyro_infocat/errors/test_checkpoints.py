"""Checkpoints that are damaged, changed or none: one line, and nothing of them is executed."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_infocat
from pyro_infocat.errors import UserError
from pyro_infocat.settings import CHECKPOINT, CONFIG
from tests.pyro_infocat.errors.refusals import OUT, Refuse, again, checkpoint_in, contents

pytestmark = pytest.mark.usefixtures("alone")


class Malice:
    """A pickle that leaves a file behind where it is loaded."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def poisoned(content: bytes) -> bytes:
    return pickle.dumps(Malice())


CORRUPT: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"a checkpoint",
    "pickle": poisoned,
}


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT)
def test_resume_of_a_corrupt_checkpoint(
    corrupt: Callable[[bytes], bytes], trained: Path, refuse: Refuse
) -> None:
    path = trained / CHECKPOINT
    path.write_bytes(corrupt(path.read_bytes()))
    before = contents(trained)
    error = refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert f"'{OUT}/{CHECKPOINT}' is corrupt" in error
    assert "train again" in error
    assert contents(trained) == before
    assert not Path("executed").exists()


def test_the_poisoned_pickle_would_execute() -> None:
    pickle.loads(poisoned(b""))
    assert Path("executed").exists()


def test_a_pickle_inside_a_real_checkpoint_is_not_executed(trained: Path, refuse: Refuse) -> None:
    torch.save(checkpoint_in(trained) | {"more": Malice()}, trained / CHECKPOINT)
    assert "is corrupt" in refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert not Path("executed").exists()


def test_a_torchscript_archive(trained: Path, refuse: Refuse) -> None:
    """PyTorch warns of it; the line stands alone."""

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather have no more of them.
        torch.jit.save(torch.jit.script(Twice()), str(trained / CHECKPOINT))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = refuse(*again(2), fresh=False)
    assert f"'{OUT}/{CHECKPOINT}' is corrupt or no checkpoint of this project" in error
    assert not [str(one.message) for one in caught if "TorchScript" in str(one.message)]


Change = Callable[[dict[str, Any]], object]


def first(checkpoint: dict[str, Any], field: str) -> torch.Tensor:
    """A tensor of numbers with a point of a program."""
    return next(value for value in checkpoint[field].values() if value.is_floating_point())


def renamed(checkpoint: dict[str, Any], field: str) -> None:
    held = checkpoint[field]
    held["other"] = held.pop(next(iter(held)))


READ: dict[str, tuple[Change, str]] = {
    "a field less": (lambda held: held.pop("guide"), "it lacks guide"),
    "epoch is a word": (lambda held: held.update(epoch="one"), "epoch is 'one', no whole number"),
    "epoch below 0": (lambda held: held.update(epoch=-1), "epoch is -1, no whole number from 0"),
    "epoch is None": (lambda held: held.update(epoch=None), "epoch is None, no whole number"),
    "epoch of 1.5": (lambda held: held.update(epoch=1.5), "epoch is 1.5, no whole number"),
    "epoch is true": (lambda held: held.update(epoch=True), "epoch is True, no whole number"),
    "history too short": (lambda held: held.update(history=[]), "history has 0 rows for 1 epochs"),
    "history too long": (
        lambda held: held.update(history=2 * held["history"]),
        "history has 2 rows for 1 epochs",
    ),
    "epoch ahead": (lambda held: held.update(epoch=9999), "history has 1 rows for 9999 epochs"),
    "history of NaN": (
        lambda held: held["history"][0].update(elbo=float("nan")),
        "history has elbo nan in epoch 1",
    ),
    "history of words": (
        lambda held: held["history"][0].update(elbo="high"),
        "history has elbo 'high' in epoch 1",
    ),
    "history of another epoch": (
        lambda held: held["history"][0].update(epoch=2.0),
        "history lacks the epoch or the seconds in row 1",
    ),
    "history without time": (
        lambda held: held["history"][0].pop("seconds"),
        "history lacks the epoch or the seconds in row 1",
    ),
    "history of numbers": (lambda held: held.update(history=[1]), "history is no list of rows"),
    "no history": (lambda held: held.update(history=None), "history is no list of rows"),
    "NaN in the model": (
        lambda held: first(held, "model").view(-1)[0].fill_(torch.nan),
        "model has '",
    ),
    "infinity in the guide": (lambda held: first(held, "guide").fill_(torch.inf), "guide has '"),
    "no model": (lambda held: held.update(model=3), "model is no dictionary of tensors"),
    "no random numbers": (
        lambda held: held.update(rng={}),
        "rng holds no state of the CPU's generator",
    ),
    "short random numbers": (
        lambda held: held["rng"].update(cpu=held["rng"]["cpu"][:9]),
        "rng holds a state of another size",
    ),
    "one state for several": (
        lambda held: held.update(rng_of_others=held["rng"]),
        "rng_of_others is no list",
    ),
    "no random numbers of the others": (
        lambda held: held.update(rng_of_others=[held["rng"], {}]),
        "rng_of_others holds no state of the CPU's generator",
    ),
    "facts of no images": (
        lambda held: held["facts"].update(shape=(0, 8)),
        "facts are none of data",
    ),
    "no fingerprint": (
        lambda held: held.update(data=3),
        "data is no number and checksum of each split",
    ),
}
"""What is wrong with a checkpoint whatever the settings are, and the field that the line names."""


@pytest.mark.parametrize(("change", "said"), READ.values(), ids=READ)
def test_a_checkpoint_that_no_run_writes(
    change: Change, said: str, trained: Path, refuse: Refuse
) -> None:
    checkpoint = checkpoint_in(trained)
    change(checkpoint)
    torch.save(checkpoint, trained / CHECKPOINT)
    before = contents(trained)
    error = refuse(*again(2), fresh=False)
    assert error.startswith(f"'{OUT}/{CHECKPOINT}' is corrupt or no checkpoint of this project (")
    assert said in error
    assert contents(trained) == before
    with pytest.raises(UserError) as caught:
        pyro_infocat.load(OUT)
    assert str(caught.value) == error


def of_adam(**values: object) -> Change:
    """Change the state of the first parameter."""
    return lambda held: held["optimizer"]["state"][0].update(values)


KINDS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = {
    "complex": ("model", lambda value: value + 2j, "torch.complex64"),
    "true and false": ("guide", lambda value: value > 0, "torch.bool"),
    "whole numbers": ("model", lambda value: value.to(torch.int64), "torch.int64"),
    "beyond float32": (
        "guide",
        lambda value: torch.full_like(value, 1e300, dtype=torch.float64),
        ", which is not finite in torch.float32",
    ),
}
"""Weights that PyTorch would cast to others."""


@pytest.mark.parametrize(("field", "cast", "kind"), KINDS.values(), ids=KINDS)
def test_weights_of_another_kind(
    field: str,
    cast: Callable[[torch.Tensor], torch.Tensor],
    kind: str,
    trained: Path,
    refuse: Refuse,
) -> None:
    checkpoint = checkpoint_in(trained)
    name = next(n for n, value in checkpoint[field].items() if value.is_floating_point())
    checkpoint[field][name] = cast(checkpoint[field][name])
    torch.save(checkpoint, trained / CHECKPOINT)
    error = refuse(*again(2), fresh=False)
    assert error.startswith(f"'{OUT}/{CHECKPOINT}' is corrupt or no checkpoint of this project (")
    what = kind if kind.startswith(",") else f" in {kind}, which is no torch.float32"
    assert f"({field} has '{name}'{what}); delete" in error
    with pytest.raises(UserError) as caught:
        pyro_infocat.load(OUT)
    assert str(caught.value) == error


def test_weights_of_the_same_kind_and_another_precision(trained: Path) -> None:
    """A run of doubles is loaded where floats are usual."""
    checkpoint = checkpoint_in(trained)
    name, value = next((n, v) for n, v in checkpoint["model"].items() if v.is_floating_point())
    checkpoint["model"][name] = value.double()
    torch.save(checkpoint, trained / CHECKPOINT)
    assert torch.equal(pyro_infocat.load(OUT).model.state_dict()[name], value)


def test_a_byte_of_the_weights_that_is_another(trained: Path, refuse: Refuse) -> None:
    """It would be another weight, of which nothing could be told by looking at it."""
    path = trained / CHECKPOINT
    weight = first(checkpoint_in(trained), "model").numpy().tobytes()
    content = bytearray(path.read_bytes())
    assert content.count(weight) == 1
    content[content.index(weight)] ^= 1
    path.write_bytes(content)
    assert not torch.equal(first(checkpoint_in(trained), "model"), torch.tensor(0.0))
    error = refuse(*again(2), fresh=False)
    assert f"'{OUT}/{CHECKPOINT}' is corrupt or no checkpoint of this project (the check" in error
    with pytest.raises(UserError, match=r"the checksum of '.*/data/.*' is another"):
        pyro_infocat.load(OUT)


OPTIMIZER: dict[str, tuple[Change, str]] = {
    "none": (lambda held: held.update(optimizer=None), "optimizer holds no state"),
    "empty": (lambda held: held.update(optimizer={}), "optimizer holds no state"),
    "a list": (lambda held: held["optimizer"].update(state=[]), "optimizer holds no state"),
    "another shape": (
        of_adam(exp_avg=torch.zeros(1)),
        "optimizer has 'exp_avg' of parameter 0 of shape (1,), not (16, 20)",
    ),
    "another shape of squares": (
        of_adam(exp_avg_sq=torch.zeros(20, 16)),
        "optimizer has 'exp_avg_sq' of parameter 0 of shape (20, 16), not (16, 20)",
    ),
    "several steps": (
        of_adam(step=torch.ones(3)),
        "optimizer has 'step' of parameter 0 of shape (3,), not ()",
    ),
    "NaN": (
        of_adam(exp_avg=torch.full((16, 20), torch.nan)),
        "optimizer has 'exp_avg' of parameter 0, which is not finite",
    ),
    "no tensor": (of_adam(step=4), "optimizer has 'step' of parameter 0, which is not finite"),
    "negative steps": (
        of_adam(step=torch.tensor(-1.0)),
        "optimizer has 'step' of parameter 0, which is negative",
    ),
    "negative squares": (
        of_adam(exp_avg_sq=torch.full((16, 20), -1.0)),
        "optimizer has 'exp_avg_sq' of parameter 0, which is negative",
    ),
    "a mean less": (
        lambda held: held["optimizer"]["state"][0].pop("exp_avg"),
        "optimizer has not step, exp_avg, exp_avg_sq of parameter 0",
    ),
    "no dictionary": (
        lambda held: held["optimizer"]["state"].update({0: None}),
        "optimizer has not step, exp_avg, exp_avg_sq of parameter 0",
    ),
    "a parameter more": (
        lambda held: held["optimizer"]["state"].update({99: held["optimizer"]["state"][0]}),
        "optimizer has a state of no parameter, 99",
    ),
}
"""What is wrong with a state of the optimiser for the run's own parameters."""


@pytest.mark.parametrize(("change", "said"), OPTIMIZER.values(), ids=OPTIMIZER)
def test_a_state_of_another_optimiser(
    change: Change, said: str, trained: Path, refuse: Refuse
) -> None:
    checkpoint = checkpoint_in(trained)
    change(checkpoint)
    torch.save(checkpoint, trained / CHECKPOINT)
    error = refuse(*again(2), fresh=False)
    assert error.startswith(f"'{OUT}/{CHECKPOINT}' is corrupt or no checkpoint of this project (")
    assert said in error
    # What is only looked at needs none.
    pyro_infocat.load(OUT)


@pytest.mark.parametrize("field", ["model", "guide"])
def test_parameters_of_another_name(field: str, trained: Path, refuse: Refuse) -> None:
    checkpoint = checkpoint_in(trained)
    renamed(checkpoint, field)
    torch.save(checkpoint, trained / CHECKPOINT)
    error = refuse(*again(2), fresh=False)
    assert error.startswith("--resume: ")
    assert "Missing key(s)" in error
    assert '"other"' in error
    assert "the checkpoint does not fit the settings" in error
