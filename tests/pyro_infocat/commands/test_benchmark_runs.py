"""Which runs a benchmark starts, how, and which it counts; no run is started here."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyro_infocat import benchmark
from pyro_infocat.places import PRESETS
from pyro_infocat.settings import CHECKPOINT, METRICS
from pyro_infocat.storage.folder import RunFolder
from tests.runs import parse

pytestmark = pytest.mark.usefixtures("alone")

PRESET = str(PRESETS / "digits.yaml")
PLACES = ["--out", "runs", "--results", "results"]
EPOCHS = ["--epochs", "1"]
FAILS = 9
"""A seed whose run fails."""


class Started:
    """Stands for the processes of runs: it keeps their commands and writes their metrics."""

    def __init__(self) -> None:
        self.right = subprocess.run
        self.commands: dict[int, list[str]] = {}
        self.environments: list[dict[str, str]] = []

    def __call__(self, command: list[str], **named: Any) -> Any:
        if "pyro_infocat.run" not in command:
            return self.right(command, **named)
        seed = int(command[command.index("--seed") + 1])
        self.commands[seed] = command
        self.environments.append(named["env"])
        named["stdout"].write(f"seed {seed}\n")
        if seed != FAILS:
            finish(Path(command[command.index("--out") + 1]), seed)
        return subprocess.CompletedProcess(command, 2 if seed == FAILS else 0)


def finish(folder: Path, seed: int, **others: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    measured = {"seed": seed, "accuracy": 0.5 + seed / 100, **others}
    (folder / METRICS).write_text(json.dumps(measured))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started()
    monkeypatch.setattr(subprocess, "run", made)
    return made


def measure(*flags: str) -> int:
    return benchmark.main([PRESET, *PLACES, *flags])


def counted() -> list[int]:
    """The seeds of the row."""
    return [run["seed"] for run in json.loads(Path("results/digits.json").read_text())["runs"]]


def test_each_seed_is_a_run_of_the_preset_in_a_folder_of_its_own(started: Started) -> None:
    assert measure("--seeds", "3", "1") == 0
    assert sorted(started.commands) == [1, 3]
    for seed, command in started.commands.items():
        folder = str(Path("runs", "digits", f"seed{seed}"))
        flags = ["--config", PRESET, "--seed", str(seed), "--out", folder]
        assert command[1:] == ["-m", "pyro_infocat.run", *flags]
        assert Path(f"{folder}.log").read_text() == f"seed {seed}\n"
    assert counted() == [1, 3]


def test_further_flags_are_those_of_the_runs(started: Started) -> None:
    assert measure("--name", "digits", "--seeds", "0", *EPOCHS) == 0
    assert started.commands[0][-2:] == EPOCHS


@pytest.mark.parametrize(("jobs", "threads"), [(1, "8"), (2, "4"), (3, "2"), (20, "1")])
def test_runs_at_once_share_the_processors(
    jobs: int, threads: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("PYTHONPATH", "mine")
    assert measure("--seeds", "0", "--jobs", str(jobs)) == 0
    (environment,) = started.environments
    assert environment["OMP_NUM_THREADS"] == threads
    first, *rest = environment["PYTHONPATH"].split(os.pathsep)
    assert Path(first, "pyro_infocat", "benchmark.py").is_file()
    assert rest == ["mine"]


def test_a_run_that_was_stopped_is_resumed(started: Started) -> None:
    stopped = Path("runs", "digits", "seed1", CHECKPOINT)
    stopped.parent.mkdir(parents=True)
    stopped.touch()
    assert measure("--seeds", "0", "1") == 0
    assert started.commands[1][-2:] == ["--resume", "true"]
    assert "--resume" not in started.commands[0]


def test_only_what_the_results_lack_is_run(started: Started) -> None:
    assert measure("--seeds", "0", "1") == 0
    started.commands.clear()
    for path in Path("runs", "digits").rglob(METRICS):
        path.unlink()
    assert measure("--seeds", "0", "1", "2") == 0
    assert list(started.commands) == [2]
    assert counted() == [0, 1, 2]


def test_a_run_that_fails_is_no_part_of_the_row(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure("--seeds", "0", str(FAILS)) == 1
    assert counted() == [0]
    log = Path("runs", "digits", f"seed{FAILS}.log")
    assert capsys.readouterr().err == f"error: digits: seed {FAILS} failed; '{log}' says why\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], ""),
        (["--device", "cpu", "--data_root", "elsewhere"], ""),
        (["--epochs", "2"], "holds a run with epochs 2, and the row's has "),
        (["--prior.scale", "2.0"], "holds a run with prior.scale 2.0, and the row's has "),
    ],
    ids=["same", "machine", "epochs", "prior"],
)
def test_a_finished_run_counts_where_it_has_the_rows_settings(
    flags: list[str], said: str, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another machine too."""
    folder = Path("runs", "digits", "seed0")
    RunFolder(folder).create(parse(["--config", PRESET, "--seed", "0", *flags])[0])
    finish(folder, 0)
    assert measure("--seeds", "0") == (2 if said else 0)
    assert said in capsys.readouterr().err
    assert not started.commands
    if not said:
        assert counted() == [0]
