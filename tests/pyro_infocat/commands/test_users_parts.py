"""Terms, metrics, figures, readers and programs of a user's own file, by flags alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import pyro_infocat
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import CHECKPOINT, CONFIG
from tests.brief import ROOT, SMALL
from tests.runs import history, metrics, same_run

pytestmark = pytest.mark.usefixtures("alone")

FILES = ROOT / "tests" / "users_parts"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are where Python looks, as a user's are where the command is typed."""
    monkeypatch.syspath_prepend(FILES)


def run(*flags: str, out: str = "out") -> int:
    return main([*SMALL, "--epochs", "1", "--out", out, *flags])


def rows(number: int = 60) -> None:
    """A file of images for the reader: six grey levels up to 9 a line."""
    levels = np.random.default_rng(0).integers(0, 10, (number, 6))
    Path("rows.txt").write_text("\n".join("".join(map(str, row)) for row in levels))


# A metric.


@pytest.mark.usefixtures("brief", "mine")
def test_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--metrics", "measures.Fullest", "measures.PerLabel") == 0
    found = metrics("out")
    assert 0.1 <= found["fullest"] <= 1
    assert sum(found[f"label_{label}"] for label in range(10)) == 500
    config = yaml.safe_load(Path("out", CONFIG).read_text())
    assert config["metrics"] == [
        {"class_path": "measures.Fullest", "init_args": {"number": 1}},
        {"class_path": "measures.PerLabel", "init_args": {}},
    ]
    # They change nothing that the run has anyway.
    assert run(out="plain") == 0
    plain = metrics("plain")
    for name in plain.keys() - {"train_seconds", "examples_per_second"}:
        assert found[name] == plain[name], name


@pytest.mark.usefixtures("brief", "mine")
def test_arguments_of_a_metric() -> None:
    given = "[{class_path: measures.Fullest, init_args: {number: 10}}]"
    assert run("--metrics", given) == 0
    assert metrics("out")["fullest"] == 1


# A figure.


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_figures() -> None:
    """Beside those of every run, and the same bytes from the same run."""
    given = "[{class_path: pictures.Shares, init_args: {colour: red}}]"
    for out in ("one", "other"):
        assert run("--figures", given, "pictures.OfLabels", out=out) == 0
    drawn = {path.stem for path in Path("one/figures").iterdir()}
    assert {"shares", "of_labels", "confusion", "training"} < drawn
    one, other = (Path(out, "figures/shares.png") for out in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    with Image.open(one) as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    # Bars of red on white, with axes in black.
    assert (colours == [255, 0, 0]).all(1).any()


# A reader.


@pytest.mark.usefixtures("brief", "mine")
def test_a_reader(capsys: pytest.CaptureFixture[str]) -> None:
    rows()
    flags = ["--data", "rows.txt", "--data_root", ".", "--reader", "sources.Text"]
    assert run(*flags, "--reader.height", "2") == 0
    found = pyro_infocat.load("out")
    assert found.facts.shape == (2, 3)
    assert found.settings.reader.init_args == {"height": 2}
    assert torch.load(f"out/{CHECKPOINT}", weights_only=True)["data"]["train"][0] == 55
    assert "accuracy" not in metrics("out")
    assert len(history("out")) == 1
    # Fed back, and gone on with.
    assert main(["--config", f"out/{CONFIG}", "--out", "again"]) == 0
    assert same_run("out", "again")
    more = ["--config", f"out/{CONFIG}", "--out", "out", "--resume", "true", "--epochs", "2"]
    assert main(more) == 0
    rows(59)
    capsys.readouterr()
    assert main([*more[:-1], "3"]) == 2
    assert "was trained on other images: 55 train" in capsys.readouterr().err


@pytest.mark.usefixtures("brief", "mine")
def test_what_a_reader_reads_is_sampled_where_its_module_is_trusted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows()
    flags = ["--data", "rows.txt", "--data_root", ".", "--reader", "sources.Text"]
    assert run(*flags) == 0
    capsys.readouterr()
    assert sample(["out", "--reconstruct", "test"]) == 2
    error = capsys.readouterr().err
    assert "'sources.Text' is code outside this project" in error
    assert "--trust sources" in error
    assert sample(["out", "--reconstruct", "test", "--trust", "sources"]) == 0
    with np.load("out/samples/reconstructions.npz") as found:
        levels = [[int(digit) for digit in row] for row in Path("rows.txt").read_text().split()]
        np.testing.assert_allclose(found["original"], np.array(levels[:5]) / 9, atol=1e-6)


@pytest.mark.usefixtures("brief", "mine")
def test_a_reader_is_told_where_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", "none.txt", "--reader", "sources.Text") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --reader sources.Text: FileNotFoundError: ")
    assert "data/none.txt" in error
    assert f"({FILES / 'sources.py'}, line " in error
    assert not Path("out").exists()


# A term, and a program.


@pytest.mark.slow
@pytest.mark.usefixtures("brief", "mine")
def test_a_term_with_a_weight_and_a_schedule() -> None:
    flags = ["--terms", "labelled_term.Supervised"]
    assert run(*flags, "--weights.supervised", "3", out="weight") == 0
    assert run(*flags, "--schedules", "{supervised: [[0, 0]]}", out="none") == 0
    assert run(out="plain") == 0
    assert history("weight")[0]["supervised"] < 0
    assert history("weight")[0]["elbo"] != history("plain")[0]["elbo"]
    # Without a weight it is of no account; its labels are not to be had after the epoch.
    assert "supervised" not in history("none")[0]
    assert history("none")[0]["elbo"] == history("plain")[0]["elbo"]


@pytest.mark.usefixtures("brief", "mine")
def test_what_needs_labels_is_left_out_or_refused_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez("mine.npz", x_train=np.random.default_rng(0).random((60, 3, 3)))
    assert run("--data", "mine.npz", "--metrics", "measures.PerLabel") == 0
    assert not {name for name in metrics("out") if name.startswith("label_")}
    capsys.readouterr()
    assert run("--data", "mine.npz", "--terms", "labelled_term.Supervised", out="b") == 2
    said = "error: --terms: supervised needs labels, and the data have none\n"
    assert capsys.readouterr().err == said
    assert not Path("b").exists()


# Names that are taken.


@pytest.mark.usefixtures("brief", "mine")
def test_a_name_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Is refused before training."""
    assert run("--metrics", "measures.NameOfTheRun") == 2
    said = "error: --metrics measures.NameOfTheRun: there is a metric 'epochs' already\n"
    assert capsys.readouterr().err == said
    assert not Path("out").exists()


@pytest.mark.usefixtures("brief", "mine")
@pytest.mark.slow
def test_a_name_that_is_taken_among_others_that_a_metric_returns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run is there, and goes on to its metrics once the class has another name."""
    assert run("--metrics", "measures.AmongOthers") == 2
    said = "error: --metrics measures.AmongOthers: there is a metric 'kl_z' already\n"
    assert capsys.readouterr().err == said
    assert len(history("out")) == 1


@pytest.mark.usefixtures("brief", "mine")
def test_one_term_twice(capsys: pytest.CaptureFixture[str]) -> None:
    term = "labelled_term.Supervised"
    assert run("--terms", term, term) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --terms {term}")
    assert "there is a term 'supervised' already" in error
    assert not Path("out").exists()
