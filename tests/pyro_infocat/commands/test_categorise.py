"""``python -m pyro_infocat.categorise``: every example of some data, in order."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import pyro_infocat
from pyro_infocat import assignment, categorise
from pyro_infocat.data import Reader, load
from pyro_infocat.evaluation.likelihood import log_likelihood
from pyro_infocat.run import main
from pyro_infocat.runtime.randomness import evaluating
from tests.brief import SMALL

pytestmark = pytest.mark.usefixtures("brief")

GREY = ["--likelihood", "models.likelihoods.Gaussian", "--observe", "grey"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on grey levels and one on binarised pixels."""
    folder = tmp_path_factory.mktemp("finished")
    for name, flags in (
        ("grey", GREY),
        ("binary", ["--likelihood", "models.likelihoods.Bernoulli"]),
    ):
        out = ["--epochs", "1", "--nll_samples", "1", "--out", str(folder / name)]
        assert main([*SMALL, *flags, *out]) == 0
    return folder


def read(file: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter=delimiter))


def numbers(rows: list[dict[str, str]], prefix: str) -> np.ndarray:
    columns = [name for name in rows[0] if name.startswith(prefix)]
    return np.array([[float(row[name]) for name in columns] for row in rows], np.float32)


def refused(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    assert categorise.main([str(flag) for flag in flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_each_example_has_a_row_in_the_order_of_the_splits(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished / "grey"
    assert categorise.main([str(folder), "digits", "--nll_samples", "3"]) == 0
    assert capsys.readouterr().out == f"{folder / 'categories.csv'}: 1797 examples\n"
    rows = read(folder / "categories.csv")
    assert [row["name"] for row in rows[1295:1299]] == [
        *("train/1295", "train/1296", "test/0", "test/1"),
    ]
    run, data = pyro_infocat.load(folder), load("digits", Path())
    x = torch.cat([data.train.grey(), data.test.grey()])
    with torch.no_grad():
        category, latent = run.guide.posterior(x)
        z = latent(category.logits.argmax(-1)).mean
    np.testing.assert_allclose(numbers(rows, "q_"), category.probs, rtol=1e-5)
    np.testing.assert_allclose(numbers(rows, "z_"), z, rtol=1e-5, atol=1e-6)
    assert [int(row["category"]) for row in rows] == category.logits.argmax(-1).tolist()


def test_log_p_is_the_importance_weighted_likelihood_of_each(finished: Path) -> None:
    folder = finished / "grey"
    assert categorise.main([str(folder), "digits", "--nll_samples", "7", "--seed", "4"]) == 0
    rows = read(folder / "categories.csv")
    run, data = pyro_infocat.load(folder), load("digits", Path())
    # Each thousand has draws of its own.
    with evaluating(torch.device("cpu"), run.model, run.guide, seed=4):
        first = log_likelihood(run.model, run.guide, data.train.grey(slice(1000)), 7)
    np.testing.assert_allclose(numbers(rows, "log_p")[:1000, 0], first, rtol=1e-5)


def test_numbers_read_back_to_the_bit_and_again_the_same(finished: Path) -> None:
    flags = [str(finished / "binary"), "digits", "--nll_samples", "2"]
    assert categorise.main([*flags, "--out", "a.tsv"]) == 0
    assert categorise.main([*flags, "--out", "new/b.npz"]) == 0
    rows = read(Path("a.tsv"), "\t")
    with np.load("new/b.npz") as arrays:
        assert set(arrays) == {"name", "c", "q", "z", "log_p"}
        assert [row["name"] for row in rows] == arrays["name"].tolist()
        assert [int(row["category"]) for row in rows] == arrays["c"].tolist()
        for prefix, name in (("q_", "q"), ("z_", "z")):
            assert np.array_equal(numbers(rows, prefix), arrays[name])
        assert np.array_equal(numbers(rows, "log_p")[:, 0], arrays["log_p"])
    assert {path.name for path in Path().glob("*.*")} == {"a.tsv"}


def test_without_samples_there_is_no_log_p(finished: Path) -> None:
    assert categorise.main([str(finished / "grey"), "digits", "--nll_samples", "0"]) == 0
    assert "log_p" not in read(finished / "grey" / "categories.csv")[0]


def test_an_archive_of_ones_own_whatever_the_order_of_its_arrays(finished: Path) -> None:
    x = load_digits().images / 16
    np.savez("a.npz", x_train=x[:1300], x_test=x[1300:])
    np.savez("b.npz", x_test=x[1300:], x_train=x[:1300])
    np.save("c.npy", x)
    for name in ("a.npz", "b.npz", "c.npy"):
        flags = [str(finished / "grey"), name, "--nll_samples", "0", "--out", f"{name}.csv"]
        assert categorise.main(flags) == 0
    assert Path("a.npz.csv").read_bytes() == Path("b.npz.csv").read_bytes()
    rows, whole = read(Path("a.npz.csv")), read(Path("c.npy.csv"))
    assert rows[1300]["name"] == "x_test/0"
    assert whole[1300]["name"] == "x_train/1300"
    assert np.array_equal(numbers(rows, "q_"), numbers(whole, "q_"))


def test_a_test_split_alone_is_enough(finished: Path) -> None:
    np.savez("new.npz", x_test=load_digits().images[:3] / 16)
    assert categorise.main([str(finished / "grey"), "new.npz", "--out", "new.csv"]) == 0
    assert [row["name"] for row in read(Path("new.csv"))] == [f"x_test/{n}" for n in range(3)]


def test_rows_of_the_table_are_written_some_at_a_time(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [str(finished / "grey"), "digits", "--nll_samples", "0"]
    assert categorise.main([*flags, "--out", "all.csv"]) == 0
    monkeypatch.setattr(assignment, "CHUNK", 100)
    assert categorise.main([*flags, "--out", "some.csv"]) == 0
    one, other = read(Path("all.csv")), read(Path("some.csv"))
    assert [row["name"] for row in one] == [row["name"] for row in other]
    np.testing.assert_allclose(numbers(one, "z_"), numbers(other, "z_"), rtol=1e-4, atol=1e-6)


REFUSED = {
    "no data": ([], "DATA is missing"),
    "an unknown name": (["cifar"], "DATA: no data set 'cifar'"),
    "no such file": (["gone.npz"], "DATA: no file 'gone.npz'"),
    "another shape": (["large.npz"], "DATA: 'large.npz': x_train has shape (2, 9, 9); the run's"),
    "no images": (["empty.npz"], "DATA: 'empty.npz' has no x_train and no x_test"),
    "none of them": (["none.npz"], "DATA none.npz: holds no examples"),
    "other numbers": (["bright.npz"], "DATA: 'bright.npz': x_train holds values from 0 to 300"),
    "another name": (["digits", "--out", "x.png"], "--out x.png: give a name that ends in .csv"),
    "too many words": (["digits", "more"], "no such flag: more"),
    "negative samples": (["digits", "--nll_samples", "-1"], "--nll_samples -1: must be at least 0"),
    "a folder that is a file": (["digits", "--out", "file/x.csv"], "--out: cannot write 'file"),
}


@pytest.mark.parametrize(("flags", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(
    flags: list[str], text: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("large.npz", x_train=np.zeros((2, 9, 9)))
    np.savez("empty.npz", other=np.zeros(2))
    np.savez("none.npz", x_train=np.zeros((0, 8, 8)))
    np.savez("bright.npz", x_train=np.linspace(0, 300, 64).reshape(1, 8, 8))
    Path("file").touch()
    assert text in refused(capsys, finished / "grey", *flags)
    assert not Path("x.png").exists()


def test_a_folder_that_is_no_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "'empty' is not the folder of a run" in refused(capsys, "empty", "digits")


def test_a_full_disk_leaves_the_table_of_before(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [finished / "grey", "digits", "--nll_samples", "0", "--out"]
    for name in ("kept.csv", "kept.npz"):
        assert categorise.main([*map(str, flags), name]) == 0
        before = Path(name).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            capsys.readouterr()
            assert f"--out: cannot write '{name}' (full)" in refused(capsys, *flags, name)
        assert Path(name).read_bytes() == before
    assert not list(Path().glob("*.part*"))


def test_a_run_without_a_known_density_gives_no_log_p(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assignment, "knows_its_density", lambda _: False)
    text = "--nll_samples 50: models.generative.CatVAE has no log_joint of its own, so log p(x) is"
    assert text in refused(capsys, finished / "grey", "digits")


def test_a_reader_that_reads_training_data_alone_says_what_it_lacks() -> None:
    class Once(Reader):
        def read(self) -> object:  # type: ignore[override]
            raise AssertionError

    facts = load("digits", Path()).facts
    with pytest.raises(pyro_infocat.UserError, match=r"give it a method again\(facts\)"):
        Once().again(facts)


def test_low_log_p_finds_what_is_no_digit(finished: Path) -> None:
    """Noise in black and white."""
    noise = np.random.default_rng(0).integers(0, 2, (50, 8, 8)).astype(float)
    np.savez("mixed.npz", x_train=load_digits().images[:200] / 16, x_test=noise)
    assert categorise.main([str(finished / "grey"), "mixed.npz", "--out", "mixed.csv"]) == 0
    log_p = numbers(read(Path("mixed.csv")), "log_p")[:, 0]
    assert math.isfinite(log_p.min())
    assert log_p[200:].max() < np.median(log_p[:200])
