"""Studies: every row is one that a run accepts, and the command runs them and writes the table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import documents, studies
from pyro_infocat import benchmark
from pyro_infocat.build import Builder, observation
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.checks import try_parts
from pyro_infocat.data import Split
from pyro_infocat.settings import Settings
from tests.runs import parse

ROWS = [(name, row) for name, study in studies.STUDIES.items() for row in study.rows]


def settings_of(name: str, row: str) -> Settings:
    study = studies.STUDIES[name]
    return parse(["--config", str(study.preset), *study.flags(row)])[0]


# The rows.


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda part: part)
def test_a_row_parses_and_its_parts_fit(name: str, row: str) -> None:
    settings = settings_of(name, row)
    facts = DATA_SETS[settings.data]
    parts = Builder(settings, facts).parts(torch.device("cpu"))
    pixels = torch.randint(facts.levels, (4, facts.features))
    observed = observation(settings, parts.model.decoder.likelihood)
    try_parts(settings, parts, Split(pixels, torch.zeros(4), facts.levels), observed)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_no_two_rows_of_a_study_are_the_same(name: str) -> None:
    rows = [settings_of(name, row) for row in studies.STUDIES[name].rows]
    for number, row in enumerate(rows):
        assert row not in rows[:number]


@pytest.mark.parametrize("row", studies.STUDIES["rivals"].rows)
def test_rivals_train_their_bound_alone(row: str) -> None:
    settings = settings_of("rivals", row)
    assert settings.weights == settings.schedules == {}
    assert settings.information_weight == 0
    assert settings.decoded == 0


def test_an_ablation_without_information_has_none_in_any_epoch() -> None:
    for row in ("CatVAE", "CatVAE, no real data"):
        settings = settings_of("ablation", row)
        assert settings.information_weight == 0
        assert "information_bound" not in settings.schedules


# The command.


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> studies.Study:
    """The digits' parts, two rows of them, and documents of their own, one with their table."""
    chosen = studies.STUDIES["parts"]
    rows = {row: chosen.rows[row] for row in ("digits preset", "5 particles")}
    chosen = replace(chosen, rows=rows, results=tmp_path / "results")
    monkeypatch.setitem(studies.STUDIES, "parts", chosen)
    (tmp_path / "page.md").write_text("before\n<!-- parts: begin -->\n<!-- parts: end -->\nafter\n")
    (tmp_path / "other.md").write_text("nothing of the kind\n")
    pages = [tmp_path / "page.md", tmp_path / "other.md"]
    monkeypatch.setattr(documents, "documents", lambda: pages)
    return chosen


def keep(study: studies.Study, row: str, *runs: dict[str, Any], recipe: str | None = None) -> None:
    """A finished row; of the study's preset and flags unless another recipe is given."""
    study.results.mkdir(exist_ok=True)
    flags = study.flags(row) if row in study.rows else []
    recipe = benchmark.recipe(study.preset, flags) if recipe is None else recipe
    record = {"name": row, "preset": study.preset.name, "flags": flags}
    record |= {"recipe": recipe, "runs": list(runs)}
    (study.results / f"{row}.json").write_text(json.dumps(record))


def test_the_command_runs_the_rows_and_writes_the_table(
    study: studies.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stand_in(argv: list[str]) -> int:
        asked.append(argv)
        keep(study, argv[2], {"seed": 0, "accuracy": 0.5})
        return 0

    monkeypatch.setattr(benchmark, "main", stand_in)
    assert studies.main(["parts", "--jobs", "1", "--out", "o"]) == 0
    places = ["--jobs", "1", "--out", "o/parts", "--results", str(study.results)]
    start = [str(study.preset), "--name"]
    assert asked == [
        [*start, "digits preset", "--seeds", "0", "1", *places],
        [*start, "5 particles", "--seeds", "0", "1", *places, "--particles", "5"],
    ]
    table = benchmark.table(study.results)
    assert table.count("0.500") == 2
    expected = f"before\n<!-- parts: begin -->\n{table}\n<!-- parts: end -->\nafter\n"
    assert (tmp_path / "page.md").read_text() == expected
    assert (tmp_path / "other.md").read_text() == "nothing of the kind\n"


def test_chosen_rows_and_seeds(study: studies.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(benchmark, "main", lambda argv: asked.append(argv) or 0)
    assert studies.main(["parts", "--only", "5 particles", "--seeds", "7", "8"]) == 0
    assert [argv[1:6] for argv in asked] == [["--name", "5 particles", "--seeds", "7", "8"]]


def test_a_row_that_fails_ends_the_study_and_keeps_the_table(
    study: studies.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "page.md").read_text()
    keep(study, "digits preset", {"seed": 0, "accuracy": 0.5})
    asked = []
    monkeypatch.setattr(benchmark, "main", lambda argv: asked.append(argv) or 1)
    assert studies.main(["parts"]) == 1
    assert len(asked) == 1
    assert (tmp_path / "page.md").read_text() == before


THERE = "'parts', 'decoded', 'ablation', 'rivals'"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "STUDY is missing: one of parts, decoded, ablation, rivals; see --help"),
        (["none"], f"no study 'none'; there are {THERE}"),
        (
            ["parts", "--only", "mine"],
            "--only mine: parts has no such row; there are 'digits preset', '5 particles'",
        ),
        (["parts", "--seeds", "x"], "--seeds: expected a whole number, not 'x'"),
        (["parts", "--seeds", "-1"], "--seeds -1: must be at least 0"),
        (["parts", "--jobs", "0"], "--jobs 0: must be at least 1"),
        (["parts", "--epochs", "3"], "no such flag: --epochs 3; see --help"),
    ],
)
def test_wrong_input_is_one_line(
    flags: list[str], said: str, study: studies.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studies.main(flags) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {said}\n"


# The table.


def test_a_row_whose_flags_or_preset_changed_is_marked(
    study: studies.Study, tmp_path: Path
) -> None:
    keep(study, "digits preset", {"seed": 0, "accuracy": 0.5})
    keep(study, "5 particles", {"seed": 0, "accuracy": 0.25}, recipe="epochs: 1\n\n")
    table = study.table(tmp_path / "page.md")
    assert "| digits preset | 1 | 0.500 |" in table
    assert f"| 5 particles {benchmark.CHANGED} | 1 | 0.250 |" in table
    assert table.endswith(f"\n\n{benchmark.CHANGED} {benchmark.NOTES[benchmark.CHANGED]}.")

    preset = tmp_path / "digits.yaml"
    preset.write_text(study.preset.read_text() + "epochs: 7\n")
    table = replace(study, preset=preset).table(tmp_path / "page.md")
    assert f"| digits preset {benchmark.CHANGED} | 1 | 0.500 |" in table


def test_the_readme_has_the_short_form() -> None:
    rivals = studies.STUDIES["rivals"]
    short = rivals.table(documents.README)
    assert short == benchmark.summary(rivals.results)
    assert "VaDE" not in short
    assert "VaDE" in rivals.table(Path("elsewhere.md"))


def test_how_many_images_and_samples_the_figures_are_of(study: studies.Study) -> None:
    many = {"generation_accuracy": 0.5, "generation_samples": 20_000, "nll": 1.0}
    before = {"generation_accuracy": 0.5, "nll": 1.0, "nll_samples": 200}
    keep(study, "a", many | {"nll_samples": 1000})
    keep(study, "b", many | {"nll_samples": 200})
    keep(study, "c", many | {"nll_samples": 200}, before)
    keep(study, "d", before, before)
    keep(study, "e", before)
    keep(study, "f", before)
    keep(study, "g", {"accuracy": 0.5})
    assert studies.counts(study.results) == (
        "Generation accuracy is of 1,000 generated images, but of 20,000 in the rows of a and b, "
        "but of 1,000 or 20,000 in the rows of c. "
        "The NLL is by 200 importance samples, but by 1,000 in the rows of a."
    )


def test_a_document_without_the_end_of_its_table_is_refused(
    study: studies.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text("<!-- parts: begin -->\n")
    monkeypatch.setattr(benchmark, "main", lambda argv: 0)
    study.results.mkdir()
    assert studies.main(["parts"]) == 2
    assert (tmp_path / "page.md").read_text() == "<!-- parts: begin -->\n"
