"""Runs on images of one's own, with and without labels."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import pyro_infocat
from pyro_infocat.data import load
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import CHECKPOINT, CONFIG, METRICS
from tests.brief import SMALL
from tests.runs import history, metrics

pytestmark = pytest.mark.usefixtures("alone")

ABOUT_LABELS = {"accuracy", "purity", "nmi", "ari", "generation_accuracy"}
Write = Callable[..., str]


def images(number: int, *shape: int) -> np.ndarray:
    """Grey levels in [0, 1] (number, *shape)."""
    return np.random.default_rng(0).random((number, *shape))


@pytest.mark.usefixtures("brief")
def test_the_digits_from_a_file_are_the_digits(write: Write, tmp_path: Path) -> None:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    grey, labels = bunch.images[order] / 16, bunch.target[order]
    path = write(x_train=grey[500:], y_train=labels[500:], x_test=grey[:500], y_test=labels[:500])
    ours, theirs = load(path, Path()), load("digits", Path())
    assert torch.equal(ours.test.labels, theirs.test.labels)
    assert (ours.train.grey() - theirs.train.grey()).abs().max() <= 0.5 / 255 + 1e-6
    assert main(["--data", path, "--epochs", "1", *SMALL, "--out", "out"]) == 0
    assert metrics("out").keys() > ABOUT_LABELS
    assert pyro_infocat.load("out").facts.classes == tuple("0123456789")


@pytest.mark.slow
def test_a_label_that_no_test_image_has(write: Write) -> None:
    path = write(
        x_train=images(20, 8, 8), y_train=[0, 1] * 10, x_test=images(4, 8, 8), y_test=[0] * 4
    )
    # This decoder cannot be asked for no image at all.
    flags = ["--data", path, "--epochs", "1", "--decoder", "models.decoders.Posed", *SMALL]
    assert main([*flags, "--out", "out"]) == 0
    assert Path("out/figures/reconstructions.png").exists()


@pytest.mark.slow
def test_without_labels_nothing_is_said_of_them(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(x_train=images(60, 6, 9))
    flags = ["--data", path, "--epochs", "1", "--prior.categories", "3", *SMALL]
    assert main([*flags, "--out", "out"]) == 0
    found = metrics("out")
    assert not ABOUT_LABELS & found.keys()
    assert {"clusters_used", "elbo", "nll"} < found.keys()
    assert "accuracy" not in capsys.readouterr().out
    drawn = {figure.stem for figure in Path("out/figures").iterdir()}
    assert {"conditional_samples", "reconstructions", "latent"} < drawn
    assert "confusion" not in drawn


@pytest.mark.usefixtures("brief")
def test_a_run_outlives_its_file(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(x_train=images(40, 1, 12))
    view = ["--view", "pyro_infocat.views.VirtualAdversarial"]
    assert main(["--data", path, "--epochs", "1", *view, *SMALL, "--out", "out"]) == 0
    assert sample(["out", "--reconstruct", "test"]) == 0
    Path(path).unlink()
    run = pyro_infocat.load("out")
    assert run.facts.shape == (1, 12)
    assert sample(["out"]) == 0
    capsys.readouterr()
    assert sample(["out", "--reconstruct", "test"]) == 2
    assert f"no file '{path}'" in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_images_that_have_changed_their_shape_since(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(x_train=images(20, 4, 4))
    assert main(["--data", path, "--epochs", "1", *SMALL, "--out", "out"]) == 0
    write(x_train=images(20, 5, 4))
    capsys.readouterr()
    assert sample(["out", "--reconstruct", "test"]) == 2
    said = f"the images of '{path}' are now of shape (5, 4), and the run's were of (4, 4)"
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_the_folder_is_called_after_the_file(write: Write) -> None:
    assert main(["--data", write(x_train=images(20, 4, 4)), "--epochs", "1", *SMALL]) == 0
    assert Path("runs/mine/seed0", METRICS).exists()


# Going on.


@pytest.fixture
def stopped(write: Write, brief: None) -> Path:
    """A run of one epoch on 40 images in a file."""
    path = write(x_train=images(40, 4, 4), y_train=[0, 1] * 20)
    assert main(["--data", path, "--epochs", "1", *SMALL, "--out", "out"]) == 0
    return Path(path)


def go_on() -> int:
    config = ["--config", f"out/{CONFIG}", "--out", "out", "--resume", "true"]
    return main([*config, "--epochs", "2"])


CHANGES: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "one pixel": lambda x: {"x_train": np.concatenate([x[:1] * 0.5, x[1:]])},
    "another order": lambda x: {"x_train": x[::-1]},
    "one image less": lambda x: {"x_train": x[1:], "y_train": np.arange(39) % 2},
    "a test split": lambda x: {"x_train": x, "x_test": x[:1]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_images_are_not_gone_on_with(
    change: Callable[[np.ndarray], dict[str, np.ndarray]],
    stopped: Path,
    write: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.read_bytes() for path in Path("out").iterdir() if path.is_file()}
    write(**change(images(40, 4, 4)))
    capsys.readouterr()
    assert go_on() == 2
    error = capsys.readouterr().err
    now = load(str(stopped), Path()).fingerprint
    assert error.startswith("error: --resume: 'out' was trained on other images: 32 train (")
    said = " and ".join(f"{n} {split} ({crc:08x})" for split, (n, crc) in now.items())
    assert error.endswith(f", and these are {said}; give the same ones, or choose another --out\n")
    assert before == {path: path.read_bytes() for path in before}


def test_the_same_images_are_gone_on_with(stopped: Path, write: Write) -> None:
    """Labels are for evaluation alone, and may be corrected."""
    write(x_train=images(40, 4, 4), y_train=[1, 0] * 20)
    assert go_on() == 0
    assert len(history("out")) == 2


def test_a_checkpoint_that_does_not_know_its_images_goes_on(stopped: Path) -> None:
    """As one of before 0.2.0."""
    checkpoint = torch.load(f"out/{CHECKPOINT}", weights_only=True)
    del checkpoint["data"]
    torch.save(checkpoint, f"out/{CHECKPOINT}")
    assert go_on() == 0


def test_the_file_may_have_moved_since_a_run_was_finished(stopped: Path) -> None:
    """Another path is another setting."""
    moved = shutil.move(stopped, "moved.npz")
    config = ["--config", f"out/{CONFIG}", "--out", "out", "--resume", "true"]
    assert main([*config, "--data", moved]) == 2
    assert pyro_infocat.load("out").categorise(images(3, 4, 4)).shape == (3,)
