"""What the command ``benchmark`` refuses, in one line and before any run."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_infocat import benchmark, seeds
from pyro_infocat.places import PRESETS

PRESET = str(PRESETS / "digits.yaml")

pytestmark = pytest.mark.usefixtures("alone")


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refuse:
    """Give the command what it must refuse; returns the error without ``error:``."""

    def refuse(*arguments: str) -> str:
        assert benchmark.main(["--results", "results", "--out", "runs", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert "Traceback" not in error
        return error.removeprefix("error: ").strip()

    return refuse


WRONG = {
    "negative seed": ([PRESET, "--seeds", "0", "-1"], "--seeds -1: must be at least 0"),
    "seed in words": ([PRESET, "--seeds", "x"], "--seeds: expected a whole number, not 'x'"),
    "no seeds": ([PRESET, "--seeds"], "--seeds: a value is missing; see --help"),
    "large seed": (
        [PRESET, "--seeds", "0", str(2**32)],
        "--seeds 4294967296: must be at most 4294967295",
    ),
    "no jobs": ([PRESET, "--jobs", "0"], "--jobs 0: must be at least 1"),
    "negative jobs": ([PRESET, "--jobs", "-2"], "--jobs -2: must be at least 1"),
    "jobs in words": ([PRESET, "--jobs", "all"], "--jobs: expected a whole number, not 'all'"),
    "no preset": (["none.yaml"], "no preset 'none.yaml'; give a YAML file"),
    "one preset of two": ([PRESET, "none.yaml"], "no preset 'none.yaml'; give a YAML file"),
    "folder as preset": (["."], "no preset '.'; give a YAML file"),
    "flags without a name": ([PRESET, "--epochs", "3"], "--epochs 3 changes the preset"),
    "a run's flag": (
        [PRESET, "--name", "a", "--epochs", "0"],
        "--epochs 0: must be at least 1",
    ),
    "a run's part": (
        [PRESET, "--name", "a", "--prior.sale", "3"],
        "--prior: models.priors.Orthogonal takes no 'sale'",
    ),
    "a run's class": (
        [PRESET, "--name", "a", "--prior", "models.priors.Gone"],
        "--prior: 'models.priors.Gone'",
    ),
    "no flag": ([PRESET, "--name", "a", "--epoch", "3"], "no such flag: --epoch 3"),
    "a preset's key": (["wrong.yaml"], "wrong.yaml: no such key 'epoch'; did you mean epochs?"),
    "a preset's value": (
        ["many.yaml"],
        "many.yaml: epochs: expected a whole number or 'auto', not 'many'",
    ),
    "a name that breaks a table": ([PRESET, "--name", "a|b"], "--name 'a|b': must have a letter"),
    "an empty name": ([PRESET, "--name", ""], "--name '': must have a letter or a digit in it"),
    "a name of signs": ([PRESET, "--name", "--"], "--name"),
    "one name for two": ([PRESET, PRESET, "--name", "a"], "two presets would share a row"),
    "two of one stem": ([PRESET, PRESET], "two presets would share a row"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument(
    arguments: list[str], said: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once, before any run."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess, "run", never)
    Path("wrong.yaml").write_text("epoch: 3\n")
    Path("many.yaml").write_text("epochs: many\n")
    assert said in refuse(*arguments)
    assert {path.name for path in Path().iterdir()} == {"wrong.yaml", "many.yaml"}


def test_a_recipe_that_the_disk_has_no_room_for(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a recipe would be another one, and the row be refused for good."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in refuse(PRESET, "--seeds", "0")
    assert not [path for path in Path("runs").rglob("*") if path.is_file()]
    started: list[object] = []
    monkeypatch.setattr(seeds, "outcome", lambda run: started.append(run) or "no")
    assert benchmark.main(["--results", "results", "--out", "runs", PRESET, "--seeds", "0"]) == 1
    assert len(started) == 1


@pytest.mark.parametrize("flag", ["--out", "--results"])
def test_a_place_that_cannot_be_written(flag: str, refuse: Refuse) -> None:
    Path("file").write_text("mine")
    error = refuse(PRESET, "--seeds", "0", flag, "file")
    assert error.startswith("cannot read or write 'file")
    assert "choose another --out or --results" in error
    assert Path("file").read_text() == "mine"
    assert not Path("runs").exists()


def test_a_readme_without_a_place(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/results_table.md"):
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr(benchmark, "README", tmp_path / "README.md")
    assert "<!-- results: begin --><!-- results: end -->" in refuse("--readme")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--help"])
    assert stop.value.code == 0
    assert "--seeds" in capsys.readouterr().out
