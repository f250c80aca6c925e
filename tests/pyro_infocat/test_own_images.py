"""Training on images of one's own, with and without labels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import pyro_infocat
from pyro_infocat.data import load
from pyro_infocat.errors import UserError
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import METRICS
from tests.brief import SMALL

pytestmark = pytest.mark.usefixtures("alone")

ABOUT_LABELS = {"accuracy", "purity", "nmi", "ari", "generation_accuracy"}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an archive of the arrays given; returns its path."""

    def write(**arrays: object) -> str:
        path = tmp_path / "mine.npz"
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
        return str(path)

    return write


def images(number: int, *shape: int) -> np.ndarray:
    """Grey levels in [0, 1] (number, *shape)."""
    return np.random.default_rng(0).random((number, *shape))


def test_bytes_stay_as_they_are(write: Write) -> None:
    pixels = np.arange(2 * 3 * 256, dtype=np.uint8).reshape(-1, 16, 16)
    data = load(write(x_train=pixels, x_test=pixels[:1]), Path())
    assert data.facts.shape == (16, 16)
    assert torch.equal(data.train.pixels, torch.from_numpy(pixels).flatten(1))
    assert torch.equal(data.train.grey()[0], torch.arange(256) / 255)
    assert len(data.test) == 1
    assert data.facts.classes == ()


@pytest.mark.parametrize("kind", [np.float32, np.float64, bool])
def test_grey_levels_are_rounded_to_bytes(write: Write, kind: type) -> None:
    grey = images(7, 5, 4).round(0 if kind is bool else 4).astype(kind)
    data = load(write(x_train=grey, x_test=grey), Path())
    error = (data.test.grey() - torch.from_numpy(grey.astype(np.float32)).flatten(1)).abs()
    assert error.max() <= 0.5 / 255 + 1e-6


def test_a_channel_of_one_is_no_axis(write: Write) -> None:
    assert load(write(x_train=images(9, 1, 5, 4)), Path()).facts.shape == (5, 4)


def test_without_a_test_split_a_fifth_is_held_out(write: Write) -> None:
    pixels = np.arange(50, dtype=np.uint8).reshape(50, 1, 1)
    once, again = (load(write(x_train=pixels, y_train=np.arange(50)), Path()) for _ in range(2))
    assert (len(once.train), len(once.test)) == (40, 10)
    assert torch.equal(once.test.pixels, again.test.pixels)
    held = torch.cat([once.train.pixels, once.test.pixels]).flatten()
    assert torch.equal(held.sort().values, torch.arange(50, dtype=torch.uint8))
    # Labels went with their images.
    assert torch.equal(once.test.labels, once.test.pixels.flatten().long())


def test_names_of_the_labels(write: Write) -> None:
    x, y = images(6, 4, 4), [0, 1, 2, 0, 1, 2]
    assert load(write(x_train=x, y_train=y), Path()).facts.classes == ("0", "1", "2")
    named = write(x_train=x, y_train=y, classes=["cat", "dog", "eel"])
    assert load(named, Path()).facts.classes == ("cat", "dog", "eel")


def test_the_digits_from_a_file_are_the_digits(write: Write, tmp_path: Path) -> None:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    grey, labels = bunch.images[order] / 16, bunch.target[order]
    path = write(x_train=grey[500:], y_train=labels[500:], x_test=grey[:500], y_test=labels[:500])
    ours, theirs = load(path, Path()), load("digits", Path())
    assert torch.equal(ours.test.labels, theirs.test.labels)
    assert (ours.train.grey() - theirs.train.grey()).abs().max() <= 0.5 / 255 + 1e-6
    assert main(["--data", path, "--epochs", "1", *SMALL, "--out", "out"]) == 0
    assert json.loads(Path("out", METRICS).read_text()).keys() > ABOUT_LABELS
    assert pyro_infocat.load("out").facts.classes == tuple("0123456789")


def test_a_label_that_no_test_image_has(write: Write) -> None:
    path = write(
        x_train=images(20, 8, 8), y_train=[0, 1] * 10, x_test=images(4, 8, 8), y_test=[0] * 4
    )
    # This decoder cannot be asked for no image at all.
    flags = ["--data", path, "--epochs", "1", "--decoder", "models.decoders.Posed", *SMALL]
    assert main([*flags, "--out", "out"]) == 0
    assert Path("out/figures/reconstructions.png").exists()


def test_without_labels_nothing_is_said_of_them(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(x_train=images(60, 6, 9))
    flags = ["--data", path, "--epochs", "1", "--prior.categories", "3", *SMALL]
    assert main([*flags, "--out", "out"]) == 0
    metrics = json.loads(Path("out", METRICS).read_text())
    assert not ABOUT_LABELS & metrics.keys()
    assert {"clusters_used", "elbo", "nll"} < metrics.keys()
    assert "accuracy" not in capsys.readouterr().out
    drawn = {figure.stem for figure in Path("out/figures").iterdir()}
    assert {"conditional_samples", "reconstructions", "latent"} < drawn
    assert "confusion" not in drawn


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
    assert f"cannot read '{path}'" in capsys.readouterr().err


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


def test_the_folder_is_called_after_the_file(write: Write) -> None:
    assert main(["--data", write(x_train=images(20, 4, 4)), "--epochs", "1", *SMALL]) == 0
    assert Path("runs/mine/seed0", METRICS).exists()


GREY = images(6, 4, 4)

WRONG = {
    "x_test of 3 x 4": {"x_train": GREY, "x_test": images(2, 3, 4)},
    "has no x_train": {"x_test": GREY},
    "x_train has shape (6, 16); give (N, height, width)": {"x_train": GREY.reshape(6, 16)},
    "x_train has shape (6, 3, 4, 4); give": {"x_train": images(6, 3, 4, 4)},
    "x_train has shape (6, 0, 4); give": {"x_train": images(6, 0, 4)},
    "x_train holds values from 0 to 9; give grey levels": {
        "x_train": np.arange(10.0).reshape(10, 1, 1)
    },
    "x_train holds values from nan to nan": {"x_train": GREY * np.nan},
    "x_train holds bytes of 0 and 1 alone, next to black; give 0 and 255, or 0 and 1 as bool": {
        "x_train": GREY.round().astype(np.uint8)
    },
    "x_train holds complex128; give real numbers": {"x_train": GREY * 1j},
    "has labels y_train for images x_train and x_test": {
        "x_train": GREY,
        "x_test": GREY,
        "y_train": [0] * 6,
    },
    "has labels y_train and y_test for images x_train;": {
        "x_train": GREY,
        "y_train": [0] * 6,
        "y_test": [0] * 6,
    },
    "y_train has shape (5,) and holds int64 from 0; give (6,) whole numbers from 0": {
        "x_train": GREY,
        "y_train": [0] * 5,
    },
    "y_train has shape (6,) and holds int64 from -1": {"x_train": GREY, "y_train": [-1] * 6},
    "y_train has shape (6,) and holds float64;": {"x_train": GREY, "y_train": [0.5] * 6},
    "classes has 1 names for labels up to 2": {
        "x_train": GREY,
        "y_train": [0, 1, 2] * 2,
        "classes": ["cat"],
    },
    "y_train has shape (6,) and holds uint64": {
        "x_train": GREY,
        "y_train": np.full(6, 2**63, np.uint64),
    },
    "has labels up to 20230101 for 6 images; number the classes from 0": {
        "x_train": GREY,
        "y_train": [20230101] * 6,
    },
    "has 1 examples to train on; at least 2 are needed": {"x_train": GREY[:2]},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_an_archive_may_not_hold(said: str, write: Write) -> None:
    with pytest.raises(UserError) as refusal:
        load(write(**WRONG[said]), Path())
    assert said in str(refusal.value)
    assert str(refusal.value).startswith("--data: '")


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "gone.npz"]) == 2
    assert capsys.readouterr().err == (
        "error: --data: no file 'gone.npz'; give an .npz of your own images\n"
    )
    Path("torn.npz").write_bytes(b"PK\x03\x04 and no more")
    assert main(["--data", "torn.npz"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --data: cannot read 'torn.npz' (")
    assert error.endswith("); give an .npz with x_train\n")
    assert not Path("runs").exists()
