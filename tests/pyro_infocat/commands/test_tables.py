"""Runs on a table, by commands and from Python: trained, categorised, sampled, and refused."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyro_infocat as pic
from pyro_infocat import UserError, categorise, sample
from pyro_infocat.run import main
from tests.brief import be_brief
from tests.runs import metrics, same_run
from tests.tables import frame

pytestmark = pytest.mark.usefixtures("brief")

SMALL = [
    *("--epochs", "2", "--nll_samples", "2", "--device", "cpu", "--prior.categories", "3"),
    *("--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--guide.hidden", "16"),
]
QUICK = {
    **{"epochs": 2, "nll_samples": 2, "device": "cpu", "prior.categories": 3},
    **{"encoder.hidden": [16], "decoder.hidden": [16], "guide.hidden": 16},
}
COLUMNS = ["length", "animal", "visits", "tame"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, ``mine.csv``, and a run on it, ``run``."""
    folder = tmp_path_factory.mktemp("finished")
    frame(missing=0.1).to_csv(folder / "mine.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        be_brief(patch)
        flags = ["--data", str(folder / "mine.csv"), "--data_label", "kind"]
        assert main([*flags, *SMALL, "--out", str(folder / "run")]) == 0
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_on_a_table_is_measured_as_others_are(finished: Path) -> None:
    found = metrics(finished / "run")
    assert {"accuracy", "nll", "elbo", "generation_accuracy", "information_bound"} < found.keys()
    assert found["nll"] > 0
    run = pic.load(finished / "run")
    assert run.settings.likelihood.class_path == "models.tables.Mixed"
    assert [column.name for column in run.facts.columns] == COLUMNS
    assert run.facts.classes == ("a", "b")


def test_the_first_line_says_what_was_taken_for_what(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(finished / "mine.csv"), *SMALL, "--out", "run"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    table = "mine.csv' is a table of 40 rows: 1 real column, 1 column of counts, 2 binary columns"
    assert table in first
    assert "accuracy" not in metrics("run")


@pytest.mark.slow
def test_a_run_goes_on_and_is_repeated_by_its_config(finished: Path) -> None:
    path = str(finished / "mine.csv")
    flags = ["--data", path, "--data_columns", "[length:real, visits, animal]", *SMALL]
    # The preset's stand at shares of the run, which is half as long at first.
    flags += ["--schedules", "{nearness: [[0, 10], [1, 3]]}"]
    assert main([*flags, "--out", "whole"]) == 0
    assert main([*flags, "--epochs", "1", "--out", "half"]) == 0
    assert main(["--out", "half", "--resume", "true", "--epochs", "2"]) == 0
    assert main(["--config", "whole/config.yaml", "--out", "again"]) == 0
    assert same_run("whole", "again")
    kept = [pic.load(folder).guide.state_dict() for folder in ("whole", "half")]
    for one, other in zip(kept[0].values(), kept[1].values(), strict=True):
        assert torch.equal(one, other)


def test_a_frame_is_the_run_that_its_csv_is(finished: Path) -> None:
    table = pd.read_csv(finished / "mine.csv")
    run = pic.fit(table, out="frame", data_label="kind", **QUICK)
    assert same_run("frame", finished / "run")
    inside = pic.load("frame")
    assert inside.settings.data_label == "kind"
    np.testing.assert_array_equal(inside.categorise(table), run.categorise(table))


def test_an_array_is_a_table_of_real_columns() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    run = pic.fit(x, np.arange(40) % 2, x_test=x[:9], y_test=np.zeros(9, int), out="a", **QUICK)
    assert [column.kind for column in run.facts.columns] == ["real"] * 3
    q = run.probabilities(torch.from_numpy(x))
    assert q.shape == (40, 3)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
    assert run.categorise(x[:0]).shape == (0,)


def test_every_row_gets_its_category(finished: Path) -> None:
    out = Path("c.csv")
    assert (
        categorise.main([str(finished / "run"), str(finished / "mine.csv"), "--out", "c.csv"]) == 0
    )
    table = pd.read_csv(finished / "mine.csv")
    run = pic.load(finished / "run")
    found = rows(out)
    assert [row["name"] for row in found] == [str(n) for n in range(40)]
    assert [int(row["category"]) for row in found] == run.categorise(table).tolist()
    # Columns are found by name, and a label that is not there is not missed.
    other = table.drop(columns="kind")[COLUMNS[::-1]].assign(more=1)
    np.testing.assert_array_equal(run.categorise(other), run.categorise(table))


def test_samples_are_rows_of_the_table(finished: Path) -> None:
    assert sample.main([str(finished / "run"), "--number", "5", "--out", "s"]) == 0
    assert not Path("s/samples.png").exists()
    found = pd.read_csv("s/samples.csv")
    assert list(found.columns) == ["category", *COLUMNS]
    assert found["category"].tolist() == [c for c in range(3) for _ in range(5)]
    assert set(found["animal"]) <= {"cat", "dog", "owl"}
    assert set(found["tame"]) <= {"yes", "no"}
    assert ((found["visits"] >= 0) & (found["visits"] % 1 == 0)).all()
    with np.load("s/samples.npz") as arrays:
        assert arrays["x"].shape == (15, 6)


def test_a_reconstruction_fills_in_what_is_missing(finished: Path) -> None:
    run, path = str(finished / "run"), str(finished / "mine.csv")
    assert pd.read_csv(path)[COLUMNS].isna().any().any()
    assert sample.main([run, "--reconstruct", path, "--out", "s"]) == 0
    found = pd.read_csv("s/reconstructions.csv")
    assert list(found.columns) == ["category", *COLUMNS]
    assert len(found) == 40
    assert not found.isna().any().any()
    assert found["category"].tolist() == pic.load(run).categorise(pd.read_csv(path)).tolist()
    assert sample.main([run, "--reconstruct", "test", "--number", "3", "--out", "s"]) == 0
    assert len(rows(Path("s/reconstructions.csv"))) == 3


def test_a_walk_goes_from_one_end_to_the_other(finished: Path) -> None:
    run, path = str(finished / "run"), str(finished / "mine.csv")
    assert sample.main([run, "--interpolate", "0", path, "--number", "5", "--out", "s"]) == 0
    found = pd.read_csv("s/interpolation.csv")
    assert found["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert sample.main([run, "--reconstruct", path, "--out", "s"]) == 0
    first = pd.read_csv("s/reconstructions.csv").iloc[0]
    assert found["length"].iloc[-1] == pytest.approx(first["length"], rel=1e-4)


@pytest.mark.slow
def test_a_table_has_a_figure_of_what_is_typical(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(finished)
    run = pic.fit(str(finished / "mine.csv"), out="drawn", **{**QUICK, "epochs": 1})
    drawn = {path.stem for path in (run.folder / "figures").iterdir()}
    assert drawn == {"typical", "latent", "training"}


def test_only_a_table_has_units_to_go_back_to(finished: Path) -> None:
    run = pic.load(finished / "run")
    back = run.inverse(torch.zeros(2, 6))
    assert list(back.columns) == COLUMNS
    length = run.facts.columns[0]
    assert back["length"].tolist() == [length.mean, length.mean]


REFUSED: dict[str, tuple[list[str], str]] = {
    "more categories than rows": (["--prior.categories", "33"], "has 33 categories for 32 "
                                   "examples; give fewer"),
    "a likelihood of images": (["--likelihood", "models.likelihoods.Bernoulli"], "holds 0 and 1 "
                               "only, and the data are real numbers; models.tables.Mixed holds"),
    "no such label": (["--data_label", "age"], "--data_label age: "),
    "no such column": (["--data_columns", "[age]"], "--data_columns: "),
    "no such file": (["--data", "gone.csv"], "no file 'gone.csv'; give a .csv with a table"),
    "of images": (["--data", "digits", "--config", "digits", "--data_label", "kind"],
                  "--data_label: is of tables, and --data is 'digits'; give a table there"),
    "images for a table": (["--data", "digits"], "needs the columns of a table"),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_a_table_is_refused_in_one_line(
    finished: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["--config", "table", "--data", str(finished / "mine.csv"), "--out", "run"]
    assert main([*first, *SMALL, *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


AGAIN: dict[str, tuple[str, str]] = {
    "a column gone": ("length,visits,tame\n1,2,yes\n", "has no column 'animal'; there are length"),
    "a word unseen": ("length,animal,visits,tame\n1,emu,2,yes\n", "column 'animal' holds 'emu' in "
                      "row 0; the run knows cat, dog, owl"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), AGAIN.values(), ids=AGAIN)
def test_new_rows_that_do_not_fit_are_refused_in_one_line(
    finished: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(finished / "run")
    Path("new.csv").write_text(text)
    for command, flags in ((categorise, ["new.csv"]), (sample, ["--reconstruct", "new.csv"])):
        assert command.main([run, *flags]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(UserError, match=re.escape(said)):
        pic.load(run).categorise(pd.read_csv(io.StringIO(text)))


def test_images_are_nothing_to_a_run_on_a_table(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("images.npy", np.zeros((3, 4, 4), np.uint8))
    run = str(finished / "run")
    assert categorise.main([run, "images.npy"]) == 2
    assert "holds images, and the run was trained on other data" in capsys.readouterr().err
    assert sample.main([run, "--reconstruct", "images.npy"]) == 2
    assert "'images.npy' is no table, and the run was trained on one" in capsys.readouterr().err
    with pytest.raises(UserError, match="is of tables, and the data are none"):
        pic.fit(np.zeros((40, 4, 4)), data_label="kind", **{"epochs": 1})


def test_labels_come_once(finished: Path) -> None:
    table = pd.read_csv(finished / "mine.csv")
    with pytest.raises(UserError, match="comes with labels; give these or a column, not both"):
        pic.fit(table, table["kind"], data_label="kind", **QUICK)
    with pytest.raises(UserError, match="x_test must be a DataFrame with the columns of the data"):
        pic.fit(table, x_test=table[COLUMNS], **QUICK)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_rows(capsys: pytest.CaptureFixture[str]) -> None:
    frame().to_csv("it.csv", index=False)
    flags = ["--data", "it.csv", "--data_columns", "[length, visits]", *SMALL]
    assert main([*flags, "--out", "one"]) == 0
    capsys.readouterr()
    frame(seed=3).to_csv("it.csv", index=False)
    assert main([*flags, "--out", "one", "--resume", "true", "--epochs", "3"]) == 2
    assert "'one' was trained on other rows: 32 train (" in capsys.readouterr().err
