"""A step taken, recorded and replayed. The tests without a GPU put a stand-in for the graph."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_infocat.build import Builder
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data.readers import digits
from pyro_infocat.objective import Terms
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training import step
from pyro_infocat.training.loop import train
from pyro_infocat.training.step import WARM_UP, Recorder
from tests.pyro_infocat.training.pieces import fit, settings, timeless

TAKEN = "CUDA graph: steps are taken one by one, not replayed "


class Worker:
    """Stands for a step: it notes which indices it worked on."""

    def __init__(self) -> None:
        self.worked_on: list[list[int]] = []

    def __call__(self, index: Tensor) -> Terms:
        self.worked_on.append(index.tolist())
        return {"reconstruction": index.sum().float()}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stand-in: recording does no work, replaying does it; the list grows by recordings."""
    made: list[int] = []

    def capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        made.append(len(made))
        terms: Terms = {}
        return lambda: terms.update(work()), terms

    monkeypatch.setattr(step, "capture", capture)
    monkeypatch.setattr(step, "on_the_side", lambda take, index: take(index))
    return made


def batches(number: int, size: int = 2) -> list[Tensor]:
    return list(torch.arange(number * size).split(size))


def test_every_batch_is_worked_on_once_and_in_order(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for index in batches(8):
        terms = recorder(index, "constants")
        assert terms["reconstruction"] == index.sum()
    assert work.worked_on == [index.tolist() for index in batches(8)]
    assert len(recorded) == 1


def test_the_callers_indices_are_left_as_they_are(recorded: list[int]) -> None:
    """What is replayed reads indices of its own."""
    recorder = Recorder(Worker())
    every = batches(8)
    for index in every:
        recorder(index, "constants")
    assert [index.tolist() for index in every] == [index.tolist() for index in batches(8)]


def test_as_many_steps_are_taken_first_as_libraries_need(recorded: list[int]) -> None:
    """With other constants too, by which other kernels may be chosen."""
    recorder = Recorder(Worker())
    for before, constants in enumerate(("one", "two")):
        for number, index in enumerate(batches(WARM_UP + 2)):
            assert len(recorded) == before + (number > WARM_UP)
            recorder(index, constants)


@pytest.mark.parametrize("last", [[99], [97, 98, 99]])
def test_a_last_batch_of_another_size_is_taken_and_the_recording_kept(
    last: list[int], recorded: list[int]
) -> None:
    work = Worker()
    recorder = Recorder(work)
    for _ in range(3):
        for index in [*batches(WARM_UP + 2), torch.tensor(last)]:
            recorder(index, "constants")
    assert work.worked_on == 3 * [*(index.tolist() for index in batches(WARM_UP + 2)), last]
    assert len(recorded) == 1


def test_changed_constants_are_recorded_anew(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for constants in ("one", "two"):
        for index in batches(WARM_UP + 3):
            recorder(index, constants)
    assert work.worked_on == 2 * [index.tolist() for index in batches(WARM_UP + 3)]
    assert len(recorded) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_has_the_same_numbers_taken_recorded_and_failed_to_record(
    fails: bool,
    recorded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Weights and the learning rate change in every epoch, so each one is recorded anew."""
    chosen = settings("--epochs", "2", "--anneal", "cosine", batch_size=200)
    chosen = replace(chosen, schedules={"kl_z": [[0, 0.5], [2, 1]]})
    if fails:

        def capture(work: Callable[[], Terms]) -> Any:
            recorded.append(len(recorded))
            raise RuntimeError("not while capturing")

        monkeypatch.setattr(step, "capture", capture)
    histories = []
    for wanted in (False, True):
        monkeypatch.setattr(
            "pyro_infocat.training.loop.recordable", lambda *_, wanted=wanted: wanted
        )
        history, _ = fit(chosen, folder=f"out{wanted}")
        histories.append(timeless(history))
    assert histories[0] == histories[1]
    assert len(recorded) == (1 if fails else 2)
    said = f"{TAKEN}(not while capturing)\n" if fails else ""
    assert capsys.readouterr().err == said


# On a GPU.


@pytest.mark.gpu
@pytest.mark.usefixtures("alone")
def test_replayed_steps_train_as_taken_ones_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end near the same bound; the draws differ, so the mean of the last epochs counts.

    Two runs on a CPU from one start by other draws ended 0.05 nats apart.
    """
    chosen = settings("--epochs", "40", batch_size=100, device="cuda")
    device = torch.device("cuda")
    bounds = []
    # A check of every value asks the host, which no recording can.
    with pyro.validation_enabled(False):
        for graph in (False, True):
            torch.manual_seed(0)
            parts = Builder(chosen, DATA_SETS["digits"]).parts(device)
            folder = RunFolder(Path(f"out{graph}"))
            folder.create(chosen)
            data = digits().to(device)
            history = train(replace(chosen, graph=graph), data, parts, folder, progress=False)
            bounds.append(statistics.mean(row["elbo"] for row in history[-5:]))
            assert capsys.readouterr().err == ""
    assert bounds[0] == pytest.approx(bounds[1], abs=0.5)


@pytest.mark.gpu
def test_a_graph_of_a_step_is_recorded_and_replayed() -> None:
    weight = torch.zeros(3, device="cuda")

    def take(index: Tensor) -> Terms:
        weight.add_(1)
        return {"reconstruction": weight.sum() + index.sum()}

    recorder = Recorder(take)
    for number in range(1, 9):
        index = torch.tensor([number], device="cuda")
        assert recorder(index, None)["reconstruction"].item() == 3 * number + number
    assert recorder.able
