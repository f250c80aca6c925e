"""Random restarts, of which the best by its own objective goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, METRICS
from pyro_infocat.training import restarts
from pyro_infocat.training.loop import train
from tests.brief import SMALL
from tests.pyro_infocat.training.pieces import timeless
from tests.runs import history as rows

pytestmark = pytest.mark.usefixtures("brief")

FLAGS = [*SMALL, "--epochs", "4", "--starts", "3", "--start_epochs", "2"]


def test_the_start_of_the_largest_objective_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--out", "out"]) == 0
    begun = [rows(f"out/starts/{number}") for number in range(3)]
    assert [len(history) for history in begun] == [2, 2, 2]
    reached = [history[-1]["objective"] for history in begun]
    assert len(set(reached)) == 3
    best = reached.index(max(reached))
    whole = rows("out")
    assert len(whole) == 4
    assert timeless(whole[:2]) == timeless(begun[best])
    said = ", ".join(f"{value:.2f}" for value in reached)
    assert f"start {best} goes on; the objectives are {said} nats\n" in capsys.readouterr().out
    # All starts were trained, so all of their time counts.
    spent = sum(row["seconds"] for history in begun for row in history)
    spent += sum(row["seconds"] for row in whole[2:])
    metrics = json.loads(Path("out", METRICS).read_text())
    assert metrics["train_seconds"] == pytest.approx(spent)
    assert metrics["epochs"] == 4


@pytest.mark.slow
def test_seeds_reproduce_and_share_no_start() -> None:
    for out in ("first", "second"):
        assert main([*FLAGS, "--out", out]) == 0
    assert timeless(rows("first")) == timeless(rows("second"))
    assert main([*FLAGS, "--seed", "1", "--out", "third"]) == 0
    begun = [
        rows(f"{out}/starts/{number}")[0]["elbo"]
        for out in ("first", "third")
        for number in range(3)
    ]
    assert len(set(begun)) == 6


@pytest.mark.slow
def test_a_run_stopped_among_its_starts_goes_on_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FLAGS, "--out", "whole"]) == 0
    calls: list[int] = []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            *most, _, progress, clusters = arguments
            # The second start is stopped after its first epoch.
            train(*most, 1, progress, clusters)
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(restarts, "train", stopped)
    capsys.readouterr()
    assert main([*FLAGS, "--out", "stopped"]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on with the starts\n"
    assert not Path("stopped", CHECKPOINT).exists()
    torch.manual_seed(5)
    assert main([*FLAGS, "--out", "stopped"]) == 0
    assert timeless(rows("whole")) == timeless(rows("stopped"))


def test_starts_of_other_settings_are_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*arguments: Any) -> None:
        train(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restarts, "train", stopped)
        assert main([*FLAGS, "--out", "out"]) == 130
    capsys.readouterr()
    for resume in ([], ["--resume", "true"]):
        assert main([*FLAGS, "--prior.scale", "2", "--out", "out", *resume]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "'out' holds starts of other settings; go on with --config out/config.yaml" in first
    assert "no checkpoint in 'out'" in second
    Path("out", CONFIG).unlink()
    assert main([*FLAGS, "--prior.scale", "2", "--out", "out"]) == 2
    assert "prior.scale 4.0, not 2;" in capsys.readouterr().err


@pytest.mark.slow
def test_starts_of_more_epochs_than_the_run_are_whole_runs() -> None:
    flags = [*SMALL, "--epochs", "2", "--starts", "2", "--start_epochs", "5", "--out", "out"]
    assert main(flags) == 0
    begun = [rows(f"out/starts/{number}") for number in range(2)]
    assert [len(history) for history in begun] == [2, 2]
    best = max(begun, key=lambda history: history[-1]["objective"])
    assert timeless(rows("out")) == timeless(best)


def test_one_start_leaves_no_folder() -> None:
    assert main([*SMALL, "--epochs", "1", "--out", "out"]) == 0
    assert not Path("out", "starts").exists()


def test_the_largest_seed_has_starts_too() -> None:
    flags = ["--seed", str(2**32 - 1), "--starts", "2", "--start_epochs", "1", "--epochs", "1"]
    assert main([*SMALL, *flags, "--out", "out"]) == 0


def test_starts_of_other_images_are_not_gone_on_with(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those that were trained by other labels, which the objective sees."""
    images = np.random.default_rng(0).random((60, 6, 6))
    y = np.arange(60) % 4

    def save(x: np.ndarray, labels: np.ndarray) -> None:
        np.savez("mine.npz", x_train=x, x_test=x, y_train=labels, y_test=labels)

    flags = [*FLAGS, "--data", "mine.npz", "--known_labels", "all", "--out", "out"]
    save(images, y)
    with monkeypatch.context() as patch:
        patch.setattr(restarts, "train", stopping_after(2))
        assert main(flags) == 130
    for x, labels, said in (
        (1 - images, y, "'out/starts/0' was trained on other images"),
        (images, (y + 1) % 4, "'out/starts/0' was trained with other labels, which labels looks"),
    ):
        capsys.readouterr()
        save(x, labels)
        assert main(flags) == 2
        assert said in capsys.readouterr().err
    save(images, y)
    assert main(flags) == 0


def stopping_after(number: int) -> Callable[..., Any]:
    """``train``, which is interrupted after so many starts."""
    done = 0

    def stopped(*arguments: Any) -> Any:
        nonlocal done
        found = train(*arguments)
        done += 1
        if done == number:
            raise KeyboardInterrupt
        return found

    return stopped
