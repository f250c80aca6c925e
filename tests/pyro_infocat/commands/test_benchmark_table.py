"""The table that is made of benchmarks' results, and the documents that it goes into."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyro_infocat import benchmark
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation import figures
from pyro_infocat.places import PRESETS
from pyro_infocat.run import main as train
from pyro_infocat.version import __version__, made_by
from tests.brief import SMALL
from tests.runs import metrics

pytestmark = pytest.mark.usefixtures("alone")


def rows(table: str) -> list[list[str]]:
    """The cells of each row, titles left out."""
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


HAND_MADE = {
    "accuracy": [0.5, 0.9, 0.7],
    "generation_accuracy": [1.0, 0.8, 0.9],
    "gan_train": [0.7, 0.9, 0.8],
    "kid": [0.1, 0.3, -0.1],
    "nmi": [0.25, 0.5, 0.75],
    "clusters_used": [8, 10, 9],
    "elbo": [-10.0, -12.0, -20.0],
    "nll": [10.0, 12.0, 20.0],
    "train_seconds": [3.0, 10.0, 5.0],
}


def write_results(
    folder: Path, name: str, seeds: int, preset: str = "digits.yaml", **others: Any
) -> None:
    """A row of so many seeds, made by the preset as it is now."""
    runs = [{key: values[seed] for key, values in HAND_MADE.items()} for seed in range(seeds)]
    file = PRESETS / preset
    recipe = {"recipe": benchmark.recipe(file, [])} if file.is_file() else {}
    record = {"name": name, "preset": preset, "flags": [], **recipe, "runs": runs, **others}
    (folder / f"{name}.json").write_text(json.dumps(record))


def test_mean_deviation_and_worst(tmp_path: Path) -> None:
    write_results(tmp_path, "three", 3)
    assert rows(benchmark.table(tmp_path)) == [
        [
            *("three", "3"),
            "0.700 ± 0.200 (worst 0.500)",
            "0.900 ± 0.100 (worst 0.800)",
            "0.800 ± 0.100 (worst 0.700)",
            "0.100 ± 0.200 (worst 0.300)",
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
    shown = ["0.500", "1.000", "0.700", "0.100", "0.250", "8.0", "-10.00", "10.00", "3"]
    assert row == ["one", "1", *shown]


def test_a_metric_that_no_run_has_is_left_open(tmp_path: Path) -> None:
    runs = [{"accuracy": 0.5, "nmi": 0.25}, {"accuracy": 0.5, "nmi": 0.75}]
    (tmp_path / "rival.json").write_text(json.dumps({"name": "rival", "preset": "", "runs": runs}))
    (row,) = rows(benchmark.table(tmp_path))
    accuracy, nmi = "0.500 ± 0.000 (worst 0.500)", "0.500 ± 0.354 (worst 0.250)"
    dash = "\N{EN DASH}"
    assert row == ["rival", "2", accuracy, *[dash] * 3, nmi, *[dash] * 4]


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


def test_the_tables_go_into_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short one into the README, the whole one into a page of docs/."""
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "results_table.md"
    page.parent.mkdir()
    for document in (readme, page):
        document.write_text(DOCUMENT)
    monkeypatch.setattr(benchmark, "README", readme)
    write_results(tmp_path, "digits", 3)
    write_results(tmp_path, "other", 3)
    arguments = ["--results", str(tmp_path)]
    assert benchmark.main(arguments) == 0
    assert readme.read_text() == page.read_text() == DOCUMENT
    assert benchmark.main([*arguments, "--readme"]) == 0
    assert readme.read_text() == benchmark.with_table(DOCUMENT, benchmark.summary(tmp_path))
    assert page.read_text() == benchmark.with_table(DOCUMENT, benchmark.table(tmp_path))
    assert rows(benchmark.summary(tmp_path)) == [
        [
            *("digits", "3", "0.700 ± 0.200 (worst 0.500)", "0.900 ± 0.100 (worst 0.800)"),
            *("14.00 ± 5.29 (worst 20.00)", "6 ± 4 (worst 10)"),
        ]
    ]


def test_a_metric_that_some_runs_of_a_row_lack(tmp_path: Path) -> None:
    """It came after they were made; how many have it is said."""
    runs = [{"accuracy": 0.5}, {"accuracy": 0.7, "nmi": 0.25}, {"nmi": 0.75, "nll": 10.0}]
    write_results(tmp_path, "some", 0, runs=runs)
    (row,) = rows(benchmark.table(tmp_path))
    assert row[2] == "0.600 ± 0.141 (worst 0.500) of 2"
    assert row[6] == "0.500 ± 0.354 (worst 0.250) of 2"
    assert row[9] == "10.00 of 1"
    assert {*row[3:6], *row[7:9], row[10]} == {benchmark.NOTHING}


def test_runs_become_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes, as the slow tests of the command have them."""

    def here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "pyro_infocat.run"]
        return subprocess.CompletedProcess(command, train(command[3:]))

    made_by()  # Known from here on: it asks git, in a process.
    monkeypatch.setattr(subprocess, "run", here)
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    places = ["--out", str(tmp_path / "runs"), "--results", str(tmp_path), "--jobs", "1"]
    flags = [*SMALL, "--epochs", "1"]
    preset = str(PRESETS / "digits.yaml")
    assert benchmark.main([preset, "--name", "few", *places, *flags, "--seeds", "1", "0"]) == 0
    (record,) = benchmark.records(tmp_path)
    assert record["flags"] == flags
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    for seed, run in enumerate(record["runs"]):
        assert run == metrics(tmp_path / "runs" / "few" / f"seed{seed}")
    assert [row[:2] for row in rows(benchmark.table(tmp_path))] == [["few", "2"]]


# What a row was made by.

COMMIT, OTHER = "a" * 40, "b" * 40


def made(version: str, commit: str | None, clean: bool | None) -> dict[str, Any]:
    return {"accuracy": 0.5, "made_by": {"version": version, "commit": commit, "clean": clean}}


OLD = {"accuracy": 0.5}
"""A run of before 0.2.0 does not say."""

MIXTURES = {
    "versions": [made("0.2.0", COMMIT, True), made("0.3.0", COMMIT, True)],
    "commits": [made("0.2.0", COMMIT, True), made("0.2.0", OTHER, True)],
    "changed code": [made("0.2.0", COMMIT, True), made("0.2.0", COMMIT, False)],
    "no commit": [made("0.2.0", COMMIT, True), made("0.2.0", None, None)],
    "before": [OLD, made("0.2.0", COMMIT, True)],
}


@pytest.mark.parametrize("runs", MIXTURES.values(), ids=MIXTURES)
def test_a_row_of_several_versions_is_marked(runs: list[dict[str, Any]], tmp_path: Path) -> None:
    write_results(tmp_path, "mixed", 0, runs=runs)
    write_results(tmp_path, "pure", 0, runs=[runs[1]] * 2)
    table = benchmark.table(tmp_path)
    assert [row[0] for row in rows(table)] == ["mixed ‡", "pure"]
    assert table.endswith("\n\n‡ runs of more than one version or commit of the code.")


def test_a_row_of_one_version_has_no_mark(tmp_path: Path) -> None:
    for name, run in (("old", OLD), ("new", made(__version__, COMMIT, True))):
        write_results(tmp_path, name, 0, runs=[run, run])
    table = benchmark.table(tmp_path)
    assert [row[0] for row in rows(table)] == ["new", "old"]
    assert table.count("\n") == 3


def test_versions_are_named_each_once() -> None:
    runs = [OLD, *MIXTURES["commits"], OLD, *MIXTURES["changed code"], *MIXTURES["no commit"]]
    assert benchmark.versions(runs) == [
        "before 0.2.0",
        "0.2.0 (aaaaaaaaaaaa)",
        "0.2.0 (bbbbbbbbbbbb)",
        "0.2.0 (aaaaaaaaaaaa, changed)",
        "0.2.0 (no commit)",
    ]


@pytest.mark.parametrize("name", ["digits", "digits, 3 epochs"])
def test_a_row_of_a_preset_that_has_changed_since_is_marked(name: str, tmp_path: Path) -> None:
    flags = [] if name == "digits" else ["--epochs", "3"]
    now = benchmark.recipe(PRESETS / "digits.yaml", flags)
    for recipe, mark in ((now, ""), (now.replace("epochs: 130", "epochs: 90"), " †")):
        write_results(tmp_path, name, 1, flags=flags, recipe=recipe)
        table = benchmark.table(tmp_path)
        assert [row[0] for row in rows(table)] == [f"{name}{mark}"]
        note = "\n\n† the preset or its flags have changed since this row was made."
        assert table.endswith(note) == bool(mark)


def test_a_row_is_compared_with_how_it_would_be_run_now(tmp_path: Path) -> None:
    """As a study says, whose flags are not the row's own."""
    write_results(tmp_path, "row", 1, preset="study.yaml", recipe="old")
    marks = {
        recipe: rows(benchmark.table(tmp_path, {"row": recipe}))[0][0] for recipe in ("old", "new")
    }
    assert marks == {"old": "row", "new": "row †"}
    assert rows(benchmark.table(tmp_path))[0][0] == "row"


def test_both_marks_and_their_notes(tmp_path: Path) -> None:
    write_results(tmp_path, "digits", 0, recipe="old", runs=MIXTURES["versions"])
    table = benchmark.table(tmp_path)
    assert rows(table)[0][0] == "digits † ‡"
    assert table.splitlines()[-1] == (
        "† the preset or its flags have changed since this row was made; "
        "‡ runs of more than one version or commit of the code."
    )
    assert table == benchmark.with_table(DOCUMENT, table).split("begin -->\n")[1].split("\n<!--")[0]
