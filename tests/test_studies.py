"""Studies: every row is one that a run accepts, and the command runs them and writes the table."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import studies
from pyro_infocat import benchmark, build
from pyro_infocat.arguments import parse
from pyro_infocat.data import Split
from pyro_infocat.fit import check_fit
from pyro_infocat.settings import DATA_SETS

ROWS = [(name, row) for name, study in studies.STUDIES.items() for row in study.rows]


def settings_of(name: str, row: str):
    study = studies.STUDIES[name]
    return parse(["--config", str(study.preset), *study.always, *study.rows[row]])[0]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=lambda part: part)
def test_a_row_parses_and_its_parts_fit(name: str, row: str) -> None:
    settings = settings_of(name, row)
    model, guide, view = build.build(settings, torch.device("cpu"))
    facts = DATA_SETS[settings.data]
    pixels = torch.randint(facts.levels, (4, facts.features))
    seen = build.observation(settings, model.decoder.likelihood)
    split = Split(pixels, torch.zeros(4), facts.levels)
    check_fit(settings, model, guide, view, build.objective(settings), split, seen)


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


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> studies.Study:
    """The digits' parts, two rows of them, with a document of their own."""
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- parts: begin -->\nold\n<!-- parts: end -->\nafter\n")
    chosen = studies.STUDIES["parts"]
    rows = {row: chosen.rows[row] for row in ("digits preset", "5 particles")}
    chosen = replace(chosen, rows=rows, document=document, results=tmp_path / "results")
    monkeypatch.setitem(studies.STUDIES, "parts", chosen)
    return chosen


def test_the_command_runs_the_rows_and_writes_the_table(
    study: studies.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stand_in(argv: list[str]) -> int:
        asked.append(argv)
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
    expected = f"before\n<!-- parts: begin -->\n{table}\n<!-- parts: end -->\nafter\n"
    assert study.document.read_text() == expected


def test_chosen_rows_and_seeds(study: studies.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(benchmark, "main", lambda argv: asked.append(argv) or 0)
    assert studies.main(["parts", "--only", "5 particles", "--seeds", "7", "8"]) == 0
    assert [argv[1:6] for argv in asked] == [["--name", "5 particles", "--seeds", "7", "8"]]


def test_a_row_that_fails_ends_the_study_and_keeps_the_table(
    study: studies.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = study.document.read_text()
    asked = []
    monkeypatch.setattr(benchmark, "main", lambda argv: asked.append(argv) or 1)
    assert studies.main(["parts"]) == 1
    assert len(asked) == 1
    assert study.document.read_text() == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["none"], ["'none'", "'parts'", "'ablation'"]),
        (["parts", "--only", "mine"], ["--only", "parts has no row 'mine'", "'5 particles'"]),
        (["parts", "--seeds", "x"], ["--seeds", "'x'"]),
        (["parts", "--seeds", "-1"], ["--seeds -1", "at least 0"]),
        (["parts", "--jobs", "0"], ["--jobs 0", "at least 1"]),
    ],
)
def test_wrong_input_is_one_line(
    flags: list[str], said: list[str], study: studies.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert studies.main(flags) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    for part in said:
        assert part in printed.err
