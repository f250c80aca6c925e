"""The monitor in a run: what it says, writes and leaves alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import guides
from guides.guide import Guide
from models import CatVAE
from pyro_infocat.build import Parts
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation.part import History
from pyro_infocat.settings import Settings
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import train, validation_split
from tests.pyro_infocat.training.pieces import fit, make_parts, settings, timeless

pytestmark = pytest.mark.usefixtures("alone")

Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines since the last call; nothing may go to stderr."""

    def lines() -> list[str]:
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out.splitlines()

    return lines


def kill(guide: Guide) -> None:
    """Category 3, for good: nothing reaches its weights any more."""
    assert isinstance(guide, guides.Enumerated)
    with torch.no_grad():
        guide.classifier.bias[3] = -1e9


def killed(parts: Parts) -> None:
    kill(parts.guide)


def timeless_and_learned(chosen: Settings, folder: str) -> tuple[History, dict[str, Tensor]]:
    """The history without its times, and what was learned."""
    history, parts = fit(chosen, folder=folder)
    return timeless(history), parts.model.state_dict() | parts.guide.state_dict()


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard has of the categories: (epoch, value)."""
    events = EventAccumulator(folder)
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name.startswith("categories/")
    }


def test_a_run_says_that_a_category_died(said: Said) -> None:
    history, _ = fit(settings(epochs=3), before=killed)
    lines = said()
    assert lines[0] == "epoch 1: category 3 died (0.0% of the examples)"
    assert not any("died" in line or "came back" in line for line in lines[1:])
    found = scalars("out")
    assert set(found) == {"categories/used", "categories/least_share", "categories/merged"}
    assert found["categories/used"] == [(1, 9), (2, 9), (3, 9)]
    assert found["categories/least_share"] == [(1, 0), (2, 0), (3, 0)]
    # Not in the history, whose every entry is a named term.
    assert not any("categories" in name for name in history[0])


def test_a_run_judges_mergers_where_reconstruction_has_weight() -> None:
    fit(settings(epochs=4, schedules={"reconstruction": [[1, 0], [2, 1]]}))
    found = scalars("out")
    assert [epoch for epoch, _ in found["categories/merged"]] == [3, 4]
    assert [epoch for epoch, _ in found["categories/used"]] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_resumed_run_says_again_what_is_dead(said: Said) -> None:
    chosen = settings(epochs=1)
    fit(chosen, before=killed)
    said()
    folder = RunFolder(Path("out"))
    longer = replace(chosen, epochs=2)
    train(longer, digits(), make_parts(chosen), folder, folder.checkpoint(), progress=False)
    assert said()[0] == "epoch 2: category 3 died (0.0% of the examples)"


def test_only_the_first_process_says_so(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(epochs=1)
    monkeypatch.setenv("RANK", "1")
    # There is no other process to have had random numbers of its own.
    monkeypatch.setattr("pyro_infocat.training.loop.restored_own", lambda *_: True)
    fit(chosen, before=killed)
    assert said() == []


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="default"),
        pytest.param(
            ["--encoder.norm", "true", "--likelihood", "models.likelihoods.Bernoulli"],
            id="batch norm, binary",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--patience", "9", "--decoded", "2"], id="validation, drawn", marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_is_the_same_to_the_bit_without_its_monitor(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(*flags, epochs=3)
    history, learned = timeless_and_learned(chosen, "with")
    monkeypatch.setattr("pyro_infocat.training.loop.CollapseMonitor", lambda *_: Nothing())
    other_history, other_learned = timeless_and_learned(chosen, "without")
    assert scalars("with")
    assert not scalars("without")
    assert history == other_history
    for name, value in learned.items():
        assert torch.equal(value, other_learned[name]), name


def test_the_validation_share_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Split] = []

    def monitor(model: CatVAE, guide: Guide, split: Split, *_: Any) -> "Nothing":
        looked_at.append(split)
        return Nothing()

    monkeypatch.setattr("pyro_infocat.training.loop.CollapseMonitor", monitor)
    chosen = settings(epochs=1, patience=9)
    fit(chosen)
    fitted, _ = validation_split(digits().train, chosen)
    assert torch.equal(looked_at[0].pixels, fitted.pixels)


def test_it_is_told_the_epochs_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a start, which ends before: at half time of the run lasting mergers are told."""
    told: list[int] = []

    def monitor(*arguments: Any) -> "Nothing":
        told.append(arguments[-1])
        return Nothing()

    monkeypatch.setattr("pyro_infocat.training.loop.CollapseMonitor", monitor)
    chosen, folder = settings(epochs=7), RunFolder(Path("out"))
    folder.create(chosen)
    train(chosen, digits(), make_parts(chosen), folder, until=1, progress=False)
    assert told == [7]


class Nothing:
    def look(self, *_: Any) -> None:
        pass
