"""Seeds of a preset in processes of their own, and the table that is made of them."""

import json
import re
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_infocat import benchmark, evaluate
from pyro_infocat.errors import UserError
from pyro_infocat.run import main as train
from pyro_infocat.settings import HISTORY, METRICS, ROOT
from pyro_infocat.train import set_validation
from tests.brief import SMALL

PRESET = str(ROOT / "runs" / "digits.yaml")
TINY = [*SMALL, "--epochs", "1"]
NAME = "tiny digits"
FOLDER = "tiny-digits"
TOO_LARGE = str(2**32)
"""A seed that a run refuses."""

pytestmark = pytest.mark.usefixtures("alone")


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
        patch.setattr(evaluate, "evaluate", stop)
        assert train(flags) == 130
    set_validation(True)
    stopped = (place(folder, 1) / HISTORY).read_bytes()
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = measure(folder, "--jobs", "2", *TINY, "--seeds", "0", "1", TOO_LARGE)
    return Measured(folder, code, out.getvalue(), err.getvalue(), stopped)


# Runs.


def test_seeds_become_a_row(measured: Measured) -> None:
    record = results(measured.folder)
    assert (record["name"], record["preset"], record["flags"]) == (NAME, "digits.yaml", TINY)
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    for seed, run in enumerate(record["runs"]):
        assert run == json.loads((place(measured.folder, seed) / METRICS).read_text())
        assert run["epochs"] == 1
    assert record["runs"][0]["elbo"] != record["runs"][1]["elbo"]
    (row,) = rows(measured.out)
    assert row[:2] == [NAME, "2"]
    assert measured.out == benchmark.table(measured.folder / "results") + "\n"


def test_a_stopped_run_goes_on(measured: Measured) -> None:
    folder = place(measured.folder, 1)
    # It holds the seconds of each epoch: trained again, it would be another.
    assert (folder / HISTORY).read_bytes() == measured.stopped
    assert (folder / METRICS).exists()


def test_a_run_that_fails_is_named(measured: Measured) -> None:
    log = place(measured.folder, int(TOO_LARGE)).with_suffix(".log")
    assert measured.code == 1
    assert measured.err == f"error: {NAME}: seed {TOO_LARGE} failed; '{log}' says why\n"
    assert log.read_text() == f"error: --seed {TOO_LARGE}: must be at most 4294967295\n"


def test_without_a_run_there_is_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(tmp_path, "--seeds", TOO_LARGE) == 1
    assert not list((tmp_path / "results").iterdir())
    assert rows(capsys.readouterr().out) == []


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
    set_validation(True)
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


# Tables.

HAND_MADE = {
    "accuracy": [0.5, 0.9, 0.7],
    "generation_accuracy": [1.0, 0.8, 0.9],
    "nmi": [0.25, 0.5, 0.75],
    "clusters_used": [8, 10, 9],
    "elbo": [-10.0, -12.0, -20.0],
    "nll": [10.0, 12.0, 20.0],
    "train_seconds": [3.0, 10.0, 5.0],
}


def write_results(folder: Path, name: str, seeds: int, preset: str = "digits.yaml") -> None:
    runs = [{key: values[seed] for key, values in HAND_MADE.items()} for seed in range(seeds)]
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "preset": preset, "runs": runs}))


def test_mean_deviation_and_worst(tmp_path: Path) -> None:
    write_results(tmp_path, "three", 3)
    assert rows(benchmark.table(tmp_path)) == [
        [
            *("three", "3"),
            "0.700 ± 0.200 (worst 0.500)",
            "0.900 ± 0.100 (worst 0.800)",
            "0.500 ± 0.250 (worst 0.250)",
            "9.0 ± 1.0 (worst 8.0)",
            "-14.00 ± 5.29 (worst -20.00)",
            "14.00 ± 5.29 (worst 20.00)",
            "6 ± 4 (worst 10)",
        ]
    ]


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    write_results(tmp_path, "one", 1)
    (row,) = rows(benchmark.table(tmp_path))
    assert row == ["one", "1", "0.500", "1.000", "0.250", "8.0", "-10.00", "10.00", "3"]


def test_a_metric_that_no_run_has_is_left_open(tmp_path: Path) -> None:
    runs = [{"accuracy": 0.5, "nmi": 0.25}, {"accuracy": 0.5, "nmi": 0.75}]
    (tmp_path / "rival.json").write_text(json.dumps({"name": "rival", "preset": "", "runs": runs}))
    (row,) = rows(benchmark.table(tmp_path))
    accuracy, nmi = "0.500 ± 0.000 (worst 0.500)", "0.500 ± 0.354 (worst 0.250)"
    assert row == ["rival", "2", accuracy, "\N{EN DASH}", nmi, *["\N{EN DASH}"] * 4]


def test_a_table_is_in_order_and_leaves_other_files_out(tmp_path: Path) -> None:
    for name, seeds in (("b", 2), ("a", 1), ("c", 3), ("none", 0)):
        write_results(tmp_path, name, seeds)
    (tmp_path / "other.json").write_text('[{"name": "estimators"}]')
    (tmp_path / "notes.md").write_text("mine")
    write_results(tmp_path, "preset", 2, "preset.yaml")
    table = benchmark.table(tmp_path)
    # The preset itself, then what changes one.
    shown = [["preset", "2"], ["a", "1"], ["b", "2"], ["c", "3"]]
    assert [row[:2] for row in rows(table)] == shown
    widths = {line.count("|") for line in table.splitlines()}
    assert widths == {3 + len(benchmark.COLUMNS)}


DOCUMENT = """Before.
<!-- results: begin -->
old \\1
lines
<!-- results: end -->
Between.
<!-- steps: begin -->
<!-- steps: end -->
After.
"""


def test_only_what_is_between_the_comments_is_replaced() -> None:
    new = benchmark.with_table(DOCUMENT, "new \\1")
    assert new == DOCUMENT.replace("old \\1\nlines", "new \\1")
    assert benchmark.with_table(new, "new \\1") == new
    steps = benchmark.with_table(DOCUMENT, "steps", "steps")
    assert steps == DOCUMENT.replace("begin -->\n<!-- steps", "begin -->\nsteps\n<!-- steps")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<!-- results: begin -->\n",
        "<!-- results: end -->\n",
        "<!-- results: end -->\n<!-- results: begin -->\n",
        DOCUMENT + DOCUMENT,
    ],
)
def test_a_document_without_one_place_for_the_table(document: str) -> None:
    with pytest.raises(UserError, match=r"results: begin -->.*results: end -->"):
        benchmark.with_table(document, "new")


def test_the_table_goes_into_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(DOCUMENT)
    monkeypatch.setattr(benchmark, "README", readme)
    write_results(tmp_path, "three", 3)
    arguments = ["--results", str(tmp_path)]
    assert benchmark.main(arguments) == 0
    assert readme.read_text() == DOCUMENT
    assert benchmark.main([*arguments, "--readme"]) == 0
    assert readme.read_text() == benchmark.with_table(DOCUMENT, benchmark.table(tmp_path))


# What is refused.

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
    "no seeds": ([PRESET, "--seeds"], "--seeds: expected at least one argument"),
    "no jobs": ([PRESET, "--jobs", "0"], "--jobs 0: must be at least 1"),
    "negative jobs": ([PRESET, "--jobs", "-2"], "--jobs -2: must be at least 1"),
    "jobs in words": ([PRESET, "--jobs", "all"], "--jobs: expected a whole number, not 'all'"),
    "no preset": (["none.yaml"], "no preset 'none.yaml'; give a YAML file"),
    "one preset of two": ([PRESET, "none.yaml"], "no preset 'none.yaml'; give a YAML file"),
    "folder as preset": (["."], "no preset '.'; give a YAML file"),
    "flags without a name": ([PRESET, "--epochs", "3"], "--epochs 3 changes the preset"),
    "one name for two": ([PRESET, PRESET, "--name", "a"], "two presets would share a row"),
    "two of one stem": ([PRESET, PRESET], "two presets would share a row"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument(arguments: list[str], said: str, refuse: Refuse) -> None:
    assert said in refuse(*arguments)
    assert not list(Path().iterdir())


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
    (tmp_path / "README.md").write_text("mine")
    monkeypatch.setattr(benchmark, "README", tmp_path / "README.md")
    assert "<!-- results: begin --><!-- results: end -->" in refuse("--readme")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--help"])
    assert stop.value.code == 0
    assert "--seeds" in capsys.readouterr().out


def test_runs_of_another_recipe_are_not_counted(
    measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(measured.folder)
    assert measure(measured.folder, *TINY, "--batch_size", "77", "--seeds", "0") == 2
    error = capsys.readouterr().err
    assert re.match(r"error: --out: '.*' holds runs of another preset or other flags", error)
    assert error.count("\n") == 1
    assert results(measured.folder) == before
