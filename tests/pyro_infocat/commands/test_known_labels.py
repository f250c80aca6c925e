"""Runs that see a few labels, by commands and from Python: trained, resumed, named and refused."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.datasets import load_digits

import pyro_infocat as pic
from pyro_infocat import UserError, categorise
from pyro_infocat.data import Split
from pyro_infocat.data.archive import checked
from pyro_infocat.data.readers import digits
from pyro_infocat.data.table import Table, data_set, of_arrays
from pyro_infocat.evaluation.figures import Rows
from pyro_infocat.evaluation.metrics import OF_JUDGE
from pyro_infocat.report import page
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG
from tests.brief import QUICK, ROOT, SMALL
from tests.pyro_infocat.report.pieces import SETTINGS, examined, result, sure
from tests.runs import METRIC_KEYS, history, metrics, same_run

pytestmark = pytest.mark.usefixtures("brief")

BRIEF = [*SMALL, "--epochs", "2"]


def run(*flags: str, out: str = "out") -> int:
    return main([*BRIEF, *flags, "--out", out])


# A run.


def test_a_run_tells_what_it_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--known_labels", "20") == 0
    assert (
        "--known_labels 20: training sees 20 labels of 1,297 examples, 2 of each of 10 classes; "
        "category k stands for class k\n"
    ) in capsys.readouterr().out
    found = metrics("out")
    assert found["known_labels"] == 20
    assert found.keys() >= METRIC_KEYS | {"class_accuracy"}
    assert found["class_accuracy"] <= found["accuracy"]
    config = yaml.safe_load(Path("out", CONFIG).read_text())
    assert config["known_labels"] == 20
    assert config["schedules"]["labels"] == [["0%", 100.0], ["40%", 100.0], ["60%", 1.0]]
    assert all(row["labels"] > 0 for row in history("out"))


def test_a_run_without_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "known_labels" not in capsys.readouterr().out
    assert not {"known_labels", "class_accuracy"} & metrics("out").keys()
    assert all("labels" not in row for row in history("out"))
    assert "names" not in torch.load(Path("out", CHECKPOINT), weights_only=True)


def test_class_accuracy_is_without_any_matching() -> None:
    made = pic.fit("digits", **QUICK, known_labels="all", out="out", progress=False)
    test = digits().test
    x = test.grey().reshape(-1, 8, 8).numpy()
    share = (made.categorise(x) == test.labels.numpy()).mean()
    assert made.metrics["class_accuracy"] == pytest.approx(share)
    assert made.metrics["known_labels"] == 1297


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--starts", "2", "--start_epochs", "1", "--decoded", "1"],
        ["--patience", "1", "--particles", "2"],
        ["--config", "mnist-paper", "--data", "digits", "--decoder.hidden", "[16]"],
    ],
)
def test_with_other_settings(flags: list[str]) -> None:
    assert main([*flags, *BRIEF, "--known_labels", "20", "--out", "out"]) == 0
    assert history("out")[-1]["labels"] > 0


@pytest.mark.slow
def test_two_processes_see_the_same_labels() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    flags = [*("-m", "pyro_infocat.run"), *BRIEF, "--known_labels", "20", "--out", "both"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training sees 20 labels") == 1
    assert metrics("both")["known_labels"] == 20
    assert 0 < history("both")[-1]["labels"] < 5


# Going on.


def test_a_resumed_run_sees_the_same_labels() -> None:
    """What stands at shares of the run would be elsewhere in a shorter one."""
    flags = ["--known_labels", "20", "--schedules", "{labels: [[0, 100]]}"]
    assert run(*flags, out="whole") == 0
    assert main([*SMALL, "--epochs", "1", *flags, "--out", "parts"]) == 0
    assert main(["--out", "parts", "--resume", "true", "--epochs", "2"]) == 0
    assert same_run("whole", "parts")


def test_other_labels_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    bunch = load_digits()
    x, y = (bunch.images[:200] * 15.9).astype(np.uint8), bunch.target[:200]
    np.savez("mine.npz", x_train=x, y_train=y)
    flags = ["--data", "mine.npz", "--known_labels", "all", "--prior.categories", "10"]
    assert run(*flags, "--epochs", "1") == 0
    capsys.readouterr()
    np.savez("mine.npz", x_train=x, y_train=(y + 1) % 10)
    assert run(*flags, "--resume", "true") == 2
    assert capsys.readouterr().err == (
        "error: --resume: 'out' was trained with other labels, which labels looks at; give the "
        "same ones, or choose another --out\n"
    )
    assert run("--known_labels", "5", *flags[:2], *flags[4:], "--resume", "true") == 2
    assert "was trained with known_labels all, not 5" in capsys.readouterr().err


# What is refused.

OTHER = "tests.users_parts.labelled_term.Supervised"

REFUSED = {
    "too many": (
        ["--known_labels", "1298"],
        "--known_labels 1298: there are 1,297 known labels to train with (500 are of the test "
        "split); give no more, or all",
    ),
    "a word": (
        ["--known_labels", "some"],
        "--known_labels: expected a whole number or 'all', not 'some'",
    ),
    "negative": (["--known_labels", "-1"], "--known_labels -1: must be at least 0"),
    "few categories": (
        ["--known_labels", "10", "--prior.categories", "9"],
        "--prior.categories: category 9 would stand for class 9, and there are 9; give at least 10",
    ),
    "another term": (
        ["--known_labels", "10", "--terms", OTHER],
        "--terms: supervised looks at the labels of all examples, and --known_labels hides some; "
        "leave one of the two out",
    ),
    "no site": (
        ["--known_labels", "10", "--guide", "guides.Bayes", "--kl", "sampled"],
        "--guide guides.Bayes: Bayes has no site c, where known categories are observed; give a "
        "guide that has one, such as guides.Enumerated",
    ),
}


@pytest.mark.parametrize(("flags", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert not Path("out").exists()


def test_data_without_labels_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("mine.npz", x_train=load_digits().images[:40] / 16)
    assert run("--data", "mine.npz", "--known_labels", "all") == 2
    said = "error: --known_labels all: the data have no known labels; leave it out\n"
    assert capsys.readouterr().err == said


# Labels of one's own data.

GREY = np.zeros((4, 2, 2), np.uint8)


def test_labels_that_are_not_known() -> None:
    of_numbers = checked({"x_train": GREY, "y_train": np.array([2, -1, 0, -1])}, "it")
    assert of_numbers.labels["train"].tolist() == [2, -1, 0, -1]
    assert of_numbers.classes == ("0", "1", "2")
    words = {"y_train": np.array(["cat", "", "ant", ""]), "y_test": np.array(["", "", "bee", ""])}
    of_words = checked({"x_train": GREY, "x_test": GREY, **words}, "it")
    assert of_words.labels["train"].tolist() == [2, -1, 0, -1]
    assert of_words.labels["test"].tolist() == [-1, -1, 1, -1]
    assert of_words.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("unknown", [[-1] * 4, [""] * 4])
def test_all_unknown_are_no_labels(unknown: list) -> None:
    found = checked({"x_train": GREY, "y_train": np.array(unknown)}, "it")
    assert found.classes == ()
    assert not found.labels["train"].any()
    table = data_set(of_arrays({"x_train": np.eye(4), "y_train": np.array(unknown)}, "it"), "it")
    assert not table.facts.classes
    assert not table.train.labelled


def test_an_empty_cell_of_the_column_of_labels() -> None:
    Path("mine.csv").write_text(
        "a,kind\n" + "".join(f"{n},{'xy'[n % 2]}\n{n}.5,\n" for n in range(9))
    )
    data = Table("mine.csv", "kind").read()
    both = Split.joined([data.train, data.test])
    assert data.facts.classes == ("x", "y")
    assert sorted(both.labels.tolist()) == [-1] * 9 + [0] * 5 + [1] * 4
    assert "labels 'kind' of 2 classes for 9 of the rows, for evaluation alone" in data.said


def test_whole_numbers_with_an_empty_cell() -> None:
    """pandas reads them as 1.0; and -1 is a class like others there."""
    Path("mine.csv").write_text("a,kind\n1,-1\n2,\n3,1\n4,-1\n5,1\n")
    data = Table("mine.csv", "kind").read()
    assert data.facts.classes == ("-1", "1")
    assert sorted([*data.train.labels.tolist(), *data.test.labels.tolist()]) == [-1, 0, 0, 1, 1]


def test_unknown_test_labels_are_left_out_of_what_needs_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bunch = load_digits()
    y = np.where(np.arange(300) % 3 == 0, bunch.target[:300], -1)
    np.savez("mine.npz", x_train=bunch.images[:300] / 16, y_train=y)
    assert run("--data", "mine.npz", "--known_labels", "40", "--prior.categories", "10") == 0
    out = capsys.readouterr().out
    known = int((y[np.random.default_rng(0).permutation(300)[:60]] >= 0).sum())
    assert (
        f"{known} of 60 test examples have a known label: what compares with labels is of " in out
    )
    found = metrics("out")
    assert {"accuracy", "class_accuracy", "calibration_error_labels", "nll"} < found.keys()
    assert found["labelled_test_examples"] == known
    # Some two a class are too few for a classifier to learn.
    assert not OF_JUDGE & found.keys()
    assert "too few known labels for a classifier of them" in out
    # A share of so many.
    assert found["accuracy"] * known == pytest.approx(round(found["accuracy"] * known))


def test_a_table_takes_its_clusters_to_the_labels() -> None:
    """Three clusters far apart, a label of each: category k is class k, from the start."""
    random = np.random.default_rng(0)
    kind = np.arange(240) % 3
    table = pd.DataFrame(random.normal(size=(240, 3)) + 12 * np.eye(3)[kind], columns=list("abc"))
    words = np.array(["zebra", "ant", "mole"])[kind]
    table["kind"] = np.where(np.arange(240) < 60, words, "")
    few = {"data_label": "kind", "known_labels": 3, "prior.categories": 3}
    made = pic.fit(
        table, **{**QUICK, "epochs": 30, "batch_size": 32}, **few, out="out", progress=False
    )
    names = np.array(["ant", "mole", "zebra"])
    assert (names[made.categorise(table)] == words).mean() > 0.95


# Names.


def test_categories_have_the_names_of_their_labels() -> None:
    """In the table of categories; the eleventh has none."""
    flags = ["--known_labels", "20", "--prior.categories", "11"]
    assert run(*flags) == 0
    assert categorise.main(["out", "digits", "--nll_samples", "0"]) == 0
    with Path("out", "categories.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["name", "category", "class"]
    for row in rows:
        assert row["class"] == (row["category"] if int(row["category"]) < 10 else "")
    assert categorise.main(["out", "digits", "--nll_samples", "0", "--out", "c.npz"]) == 0
    arrays = np.load("c.npz")
    assert arrays["class"].tolist() == [row["class"] for row in rows]


def test_figures_name_the_rows_so() -> None:
    """Whatever most of a category's test examples are; others as ever."""
    data = digits()
    named = replace(data, names={3: "three"})
    category = (data.test.labels + 1) % 10
    labels = Rows.of(category, 11, named).labels
    assert "category 3: three" in labels
    assert "category 4: 3" in labels
    assert "category 10: unused" in labels
    assert "category 3: 2" in Rows.of(category, 11, data).labels


def test_the_report_names_categories_so() -> None:
    of = examined(sure([n % 3 for n in range(12)], 3))
    object.__setattr__(of, "data", replace(of.data, names={1: "<dog>"}))
    text = page.html(of, result(of), SETTINGS, Path("out"))
    assert ">Category 1: &lt;dog&gt;</h3>" in text
    assert ">Category 2</h3>" in text


def test_a_checkpoint_with_other_names_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--known_labels", "20") == 0
    place = Path("out", CHECKPOINT)
    torch.save(torch.load(place, weights_only=True) | {"names": {"0": 1}}, place)
    assert categorise.main(["out", "digits"]) == 2
    assert "is corrupt (names are none of categories)" in capsys.readouterr().err


def test_from_python_flags_are_keywords(capsys: pytest.CaptureFixture[str]) -> None:
    images, y = load_digits().images[:200] / 16, load_digits().target[:200]
    few = {**QUICK, "known_labels": 10, "prior.categories": 10}
    pic.fit(images, y, **few, out="out", progress=False)
    assert "\nknown_labels=10: training sees 10 labels of 160 examples" in capsys.readouterr().out
    with pytest.raises(UserError, match="known_labels 400: there are 160 known labels"):
        pic.fit(images, y, **{**few, "known_labels": 400}, out="more")


def test_labels_of_the_test_split_alone_are_compared_with() -> None:
    x = load_digits().images[:300] / 16
    y = load_digits().target[:300]
    np.savez("mine.npz", x_train=x[:200], x_test=x[200:], y_train=[-1] * 200, y_test=y[200:])
    assert run("--data", "mine.npz", "--prior.categories", "10") == 0
    found = metrics("out")
    assert {"accuracy", "nmi"} < found.keys()
    assert found["labelled_test_examples"] == 100
    # Nothing has learned labels.
    assert not OF_JUDGE & found.keys()
