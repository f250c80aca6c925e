"""Seeds of a preset in processes of their own."""

import json
import re
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_infocat import benchmark, experiment
from pyro_infocat.places import PRESETS
from pyro_infocat.run import main as train
from pyro_infocat.settings import HISTORY, MADE_BY, METRICS
from pyro_infocat.version import made_by
from tests.brief import SMALL

PRESET = str(PRESETS / "digits.yaml")
TINY = [*SMALL, "--epochs", "1"]
NAME = "tiny digits"
FOLDER = "tiny-digits"
TAKEN = 7
"""A seed whose folder is a file, which its run refuses."""

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.slow]


def measure(folder: Path, *arguments: str) -> int:
    """Benchmark the tiny digits below a folder."""
    places = ["--out", str(folder / "runs"), "--results", str(folder / "results")]
    return benchmark.main([PRESET, "--name", NAME, *places, *arguments])


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results" / f"{FOLDER}.json").read_text())


def rows(table: str) -> list[list[str]]:
    """The cells of each row, titles left out."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def place(folder: Path, seed: int) -> Path:
    return folder / "runs" / FOLDER / f"seed{seed}"


@dataclass(frozen=True)
class Measured:
    """What a benchmark of three seeds left behind and printed."""

    folder: Path
    code: int
    out: str
    err: str
    stopped: bytes
    """The history of the second seed as it was before."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The first seed is new, the second was stopped before, the third is refused by its run."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("measured")
    flags = ["--config", PRESET, *TINY, "--seed", "1", "--out", str(place(folder, 1))]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(experiment, "evaluate", stop)
        assert train(flags) == 130
    stopped = (place(folder, 1) / HISTORY).read_bytes()
    place(folder, TAKEN).touch()
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = measure(folder, "--jobs", "2", *TINY, "--seeds", "0", "1", str(TAKEN))
    return Measured(folder, code, out.getvalue(), err.getvalue(), stopped)


# Runs.


def test_seeds_become_a_row(measured: Measured) -> None:
    record = results(measured.folder)
    assert (record["name"], record["preset"], record["flags"]) == (NAME, "digits.yaml", TINY)
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    for seed, run in enumerate(record["runs"]):
        assert run == json.loads((place(measured.folder, seed) / METRICS).read_text())
        assert run["epochs"] == 1
        assert run[MADE_BY] == made_by()
    assert record["runs"][0]["elbo"] != record["runs"][1]["elbo"]
    first, second, table = measured.out.split("\n", 2)
    (row,) = rows(table)
    assert row[:2] == [NAME, "2"]
    assert table == benchmark.table(measured.folder / "results") + "\n"
    assert first.startswith(f"{NAME}: 2 seeds agree by {record['agreement']['ari']:.3f} ")
    assert second.startswith(f"{NAME}: least kept together is category ")


def test_a_stopped_run_goes_on(measured: Measured) -> None:
    folder = place(measured.folder, 1)
    # It holds the seconds of each epoch: trained again, it would be another.
    assert (folder / HISTORY).read_bytes() == measured.stopped
    assert (folder / METRICS).exists()


def test_a_run_that_fails_is_named(measured: Measured) -> None:
    taken = place(measured.folder, TAKEN)
    log = taken.with_suffix(".log")
    assert measured.code == 1
    assert measured.err == f"error: {NAME}: seed {TAKEN} failed; '{log}' says why\n"
    assert log.read_text() == (
        f"error: --out: cannot write to '{taken}' (File exists); choose a folder that can be "
        "written\n"
    )


def test_without_a_run_there_is_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place(tmp_path, TAKEN).parent.mkdir(parents=True)
    place(tmp_path, TAKEN).touch()
    assert measure(tmp_path, *TINY, "--seeds", str(TAKEN)) == 1
    assert not list((tmp_path / "results").iterdir())
    assert capsys.readouterr().out == ""


def test_finished_seeds_are_not_run_again(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    def stamps() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(measured.folder.rglob("seed?/*"))]

    monkeypatch.setattr(subprocess, "run", never)
    before, record = stamps(), results(measured.folder)
    assert measure(measured.folder, *TINY, "--seeds", "0", "1") == 0
    assert stamps() == before
    assert results(measured.folder) == record


def elsewhere(measured: Measured, folder: Path) -> None:
    """The results alone, on a machine that has none of the runs."""
    (folder / "results").mkdir()
    content = (measured.folder / "results" / f"{FOLDER}.json").read_text()
    (folder / "results" / f"{FOLDER}.json").write_text(content)


def test_seeds_that_the_results_hold_are_not_run_again_elsewhere(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    elsewhere(measured, tmp_path)
    monkeypatch.setattr(subprocess, "run", never)
    assert measure(tmp_path, *TINY, "--seeds", "1") == 0
    assert results(tmp_path) == results(measured.folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--epochs", "2"], "epochs 2, and the row's has 1"),
        (["--kl", "sampled"], "kl sampled, and the row's has analytic"),
    ],
)
def test_a_run_of_other_settings_is_not_counted(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one that was trained there by hand."""
    config = ["--config", PRESET, *TINY, "--seed", "0", "--out", str(place(tmp_path, 0))]
    assert train([*config, *flags]) == 0
    capsys.readouterr()
    assert measure(tmp_path, *TINY, "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert f"'{place(tmp_path, 0)}' holds a run with {said}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results" / f"{FOLDER}.json").exists()


def test_results_of_another_recipe_are_replaced(measured: Measured, tmp_path: Path) -> None:
    elsewhere(measured, tmp_path)
    flags = [*TINY, "--batch_size", "500"]
    assert measure(tmp_path, *flags, "--seeds", "0") == 0
    found = results(tmp_path)
    assert found["flags"] == flags
    (run,) = found["runs"]
    assert run["elbo"] != results(measured.folder)["runs"][0]["elbo"]


def test_a_comment_in_a_preset_makes_no_other_recipe(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    recipes = []
    for text in ("# One.\ndata: digits\n", "# Two,\n# longer.\ndata: digits\n"):
        preset.write_text(text)
        recipes.append(benchmark.recipe(preset, ["--epochs", "2"]))
    assert recipes[0] == recipes[1] == "data: digits\n--epochs 2\n"


def test_runs_of_another_recipe_are_not_counted(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(measured.folder)
    assert measure(measured.folder, *TINY, "--batch_size", "77", "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert re.match(r"error: --out: '.*' holds runs of another preset or other flags", error)
    assert error.count("\n") == 1
    assert results(measured.folder) == before


def test_a_row_of_several_versions_says_so(
    measured: Measured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One seed's run was made by code of before it said so."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    elsewhere(measured, tmp_path)
    file = tmp_path / "results" / f"{FOLDER}.json"
    record = json.loads(file.read_text())
    del record["runs"][0][MADE_BY]
    file.write_text(json.dumps(record))
    monkeypatch.setattr(subprocess, "run", never)
    assert measure(tmp_path, *TINY, "--seeds", "0", "1") == 0
    (now,) = benchmark.versions(record["runs"][1:])
    printed = capsys.readouterr().out
    note = "runs of more than one version or commit of the code"
    assert printed.splitlines()[0] == f"{NAME}: {note}: before 0.2.0, {now}"
    assert printed.endswith(f"{benchmark.MIXED} {note}.\n")
    assert results(tmp_path) == record
