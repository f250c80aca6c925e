"""What is written to a run's folder is whole, in order, and one process's at a time."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from pyro_infocat.errors import UserError
from pyro_infocat.settings import CHECKPOINT, HISTORY, METRICS, Settings
from pyro_infocat.storage import checkpoint as checkpoints
from pyro_infocat.storage import files, folder
from pyro_infocat.storage.checkpoint import check_optimizer, read, write
from pyro_infocat.storage.configuration import MOST_CHARACTERS, read_yaml, write_yaml
from pyro_infocat.storage.folder import RunFolder, differences
from tests.runs import parse


def checkpoint(epochs: int = 2, **changes: Any) -> dict[str, Any]:
    """One of a model without parameters."""
    history = [{"epoch": n, "seconds": 1.0, "elbo": -1.0} for n in range(1, epochs + 1)]
    held = {"epoch": epochs, "model": {}, "guide": {}, "optimizer": {}, "history": history}
    return held | {"rng": {"cpu": torch.get_rng_state()}} | changes


# Whole files.


def test_a_checkpoint_that_cannot_take_the_old_ones_place_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    write(path, checkpoint(1))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write(path, checkpoint(2))
    assert path.read_bytes() == before
    assert read(path)["epoch"] == 1


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a machine that stops may leave the name, and nothing under it."""
    path, done = tmp_path / "file", []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append(os.fstat(number).st_size)
        fsync(number)

    def replaced(self: Path, target: Path) -> Path:
        done.append(target)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    files.replace(path, b"five!")
    assert done == [5, path]
    assert path.read_bytes() == b"five!"
    assert list(tmp_path.iterdir()) == [path]


# Checkpoints that no run writes.


@pytest.mark.parametrize("rows", [1, 3])
def test_a_history_of_another_length_than_the_epochs(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write(path, checkpoint(2, history=checkpoint(rows)["history"]))
    with pytest.raises(UserError, match=rf"corrupt.*history has {rows} rows for 2 epochs"):
        read(path)


@pytest.mark.parametrize("field", ["exp_avg_sq", "step", "exp_avg"])
def test_one_negative_number_among_adams_moments(field: str, tmp_path: Path) -> None:
    """The mean of gradients alone may be negative."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.tensor([-1.0, 1.0, 2.0])
    optimizer.step()
    held = optimizer.state_dict()
    check_optimizer(tmp_path / "checkpoint.pt", held, optimizer)
    state = held["state"][0][field]
    state.flatten()[-1] = -1.0
    if field == "exp_avg":
        check_optimizer(tmp_path / "checkpoint.pt", held, optimizer)
    else:
        with pytest.raises(UserError, match=f"'{field}' of parameter 0, which is negative"):
            check_optimizer(tmp_path / "checkpoint.pt", held, optimizer)


def test_parameters_of_no_numbers_have_a_state_of_adam_too(tmp_path: Path) -> None:
    """A table without counts has no shapes of them."""
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (0, 3)]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = optimizer.state_dict()
    assert held["state"][0]["exp_avg_sq"].shape == (0,)
    check_optimizer(tmp_path / "checkpoint.pt", held, optimizer)


def test_reading_executes_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    load = torch.load

    def look(path: Path, **named: Any) -> Any:
        asked.update(named)
        return load(path, **named)

    path = tmp_path / "checkpoint.pt"
    write(path, checkpoint())
    monkeypatch.setattr(checkpoints.torch, "load", look)
    read(path)
    assert asked == {"map_location": "cpu", "weights_only": True}


# The folder.


def test_history_and_checkpoint_are_saved_as_one(tmp_path: Path) -> None:
    """The history that is handed over counts, whatever a checkpoint had."""
    place = RunFolder(tmp_path)
    rows = checkpoint(2)["history"]
    place.save(checkpoint(2, history=[]), rows)
    assert place.checkpoint()["history"] == place.history() == rows


def test_a_history_ahead_of_the_checkpoint_is_cut_when_the_run_goes_on(tmp_path: Path) -> None:
    place = RunFolder(tmp_path)
    place.write_history(checkpoint(3)["history"])
    place.go_on(settings(), checkpoint(2))
    assert len((tmp_path / HISTORY).read_text().splitlines()) == 2
    assert place.settings()[0] == settings()


def test_a_lock_keeps_others_out_and_goes_with_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FileLock] = []
    # Held here, so that none is let go of because nobody needs it any more.
    monkeypatch.setattr(
        folder, "FileLock", lambda *of, **named: made.append(FileLock(*of, **named)) or made[-1]
    )
    place, other = RunFolder(tmp_path / "out"), RunFolder(tmp_path / "out")
    said = "another process is writing"
    with place.locked(), pytest.raises(UserError, match=said), other.locked():
        pass
    with pytest.raises(ValueError, match="mine"), place.locked():
        raise ValueError("mine")
    with other.locked():
        pass
    assert len(made) == 4
    assert not any(lock.is_locked for lock in made)


# Which runs a folder takes.


def settings(*flags: str) -> Settings:
    return parse(["--device", "cpu", "--epochs", "4", *flags])[0]


@pytest.mark.parametrize("held", [CHECKPOINT, HISTORY, METRICS])
def test_a_folder_with_any_file_of_a_run_is_no_new_runs(held: str, tmp_path: Path) -> None:
    (tmp_path / held).touch()
    with pytest.raises(UserError, match="holds another run"):
        RunFolder(tmp_path).create(settings())
    assert [path.name for path in tmp_path.iterdir()] == [held]


@pytest.mark.parametrize(
    ("flags", "more", "refused"),
    [
        ([], ["--epochs", "6"], ""),
        ([], ["--device", "auto", "--data_root", "other", "--nll_samples", "7"], ""),
        ([], ["--seed", "1"], "trained with seed 0, not 1"),
        ([], ["--epochs", "1"], "has had 2"),
        ([], ["--epochs", "2"], ""),
        (["--anneal", "cosine"], [], ""),
        (["--anneal", "cosine"], ["--epochs", "5"], "spread over 4"),
        (
            ["--anneal", "cosine", "--schedules", "{learning_rate: [[0, 0.001]]}"],
            ["--epochs", "5"],
            "",
        ),
        (["--weights", "{}"], ["--weights", "{nearness: 2}"], "weights.nearness None, not 2"),
        (["--weights", "{kl_c: 2}"], ["--weights", "{}"], "trained with weights.kl_c 2.0, not"),
    ],
)
def test_what_a_run_may_go_on_with(
    flags: list[str], more: list[str], refused: str, tmp_path: Path
) -> None:
    place = RunFolder(tmp_path)
    place.create(settings(*flags))
    place.save(checkpoint(2), checkpoint(2)["history"])
    if refused:
        with pytest.raises(UserError, match=refused):
            place.reopen(settings(*flags, *more))
    else:
        assert place.reopen(settings(*flags, *more))["epoch"] == 2


@pytest.mark.parametrize("epochs", [2, 3])
def test_metrics_go_where_a_run_has_more_to_come(epochs: int, tmp_path: Path) -> None:
    place, now = RunFolder(tmp_path), settings("--epochs", str(epochs))
    place.create(settings("--epochs", "2"))
    place.write_metrics({"elbo": -1.0})
    place.go_on(now, checkpoint(2))
    assert (tmp_path / METRICS).exists() == (epochs == 2)
    assert place.settings()[0] == now


def test_differences_are_told_from_either_side() -> None:
    one, other = settings("--weights", "{}"), settings("--weights", "{consistency: 3}")
    assert list(differences(one, other)) == [("weights.consistency", None, 3.0)]
    assert list(differences(other, one)) == [("weights.consistency", 3.0, None)]
    assert not list(differences(one, one))


# YAML.


def test_a_config_of_the_most_characters_is_read() -> None:
    text = "epochs: 3\n#"
    assert read_yaml(text + "x" * (MOST_CHARACTERS - len(text))) == {"epochs": 3}
    with pytest.raises(Exception, match=f"it has {MOST_CHARACTERS + 1} characters"):
        read_yaml(text + "x" * (MOST_CHARACTERS - len(text) + 1))


def test_settings_are_written_in_their_order() -> None:
    assert write_yaml({"prior": 1, "data": 2, "epochs": 3}) == "prior: 1\ndata: 2\nepochs: 3\n"
