"""Images of one's own in an .npz archive: what is read, and what is refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_infocat.data import load
from pyro_infocat.data.archive import checked
from pyro_infocat.data.images import of_archive
from pyro_infocat.errors import UserError
from pyro_infocat.run import main

pytestmark = pytest.mark.usefixtures("alone")

Write = Callable[..., str]


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
    pixels = np.arange(100, dtype=np.uint8).reshape(100, 1, 1)
    once, again = (load(write(x_train=pixels, y_train=np.arange(100)), Path()) for _ in range(2))
    assert (len(once.train), len(once.test)) == (80, 20)
    assert torch.equal(once.test.pixels, again.test.pixels)
    held = torch.cat([once.train.pixels, once.test.pixels]).flatten()
    assert torch.equal(held.sort().values, torch.arange(100, dtype=torch.uint8))
    # Labels went with their images.
    assert torch.equal(once.test.labels, once.test.pixels.flatten().long())


def test_names_of_the_labels(write: Write) -> None:
    x, y = images(6, 4, 4), [0, 1, 2, 0, 1, 2]
    assert load(write(x_train=x, y_train=y), Path()).facts.classes == ("0", "1", "2")
    named = write(x_train=x, y_train=y, classes=["cat", "dog", "eel"])
    assert load(named, Path()).facts.classes == ("cat", "dog", "eel")


def test_labels_say_something_only_where_there_are_some(write: Write) -> None:
    x = images(6, 4, 4)
    for labels in ({}, {"y_train": [0, 1] * 3}):
        data = load(write(x_train=x, **labels), Path())
        assert data.train.labelled == data.test.labelled == bool(labels)
        assert data.to(torch.device("cpu")).train.labelled == bool(labels)
        assert data.train.part(torch.arange(2)).labelled == bool(labels)


@pytest.mark.parametrize("top", [0, 64, 255])
def test_bytes_that_may_count_to_255(top: int, write: Write) -> None:
    """A black picture says nothing of its white."""
    pixels = np.full((6, 4, 4), top, np.uint8)
    assert load(write(x_train=pixels), Path()).train.pixels.unique().tolist() == [top]


def test_other_members_are_left_alone(write: Write) -> None:
    path = write(x_train=images(6, 4, 4), more=[1, 2])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("read_me.txt", "images")
    assert len(load(path, Path()).train) == 5


@pytest.mark.parametrize("name", ["x_train", "y_train", "classes"])
def test_a_member_that_is_no_array(name: str, write: Write) -> None:
    held = {"x_train": images(6, 4, 4), "y_train": [0, 1] * 3, "classes": ["a", "b"]}
    del held[name]
    path = write(**held)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "an image")
    with pytest.raises(UserError) as refusal:
        load(path, Path())
    assert str(refusal.value) == (f"--data: '{path}': {name} is no array; give an .npz by np.savez")


def test_an_archive_of_objects_executes_nothing(write: Write) -> None:
    path = write(x_train=np.array([print], dtype=object))
    with pytest.raises(UserError, match=r"allow_pickle=False.*give an .npz with x_train"):
        load(path, Path())


GREY = images(6, 4, 4)

WRONG = {
    "x_test of 3 x 4": {"x_train": GREY, "x_test": images(2, 3, 4)},
    "has no x_train": {"x_test": GREY},
    "x_train has shape (96,); give (N, height, width)": {"x_train": GREY.reshape(-1)},
    "x_train has shape (6, 2, 4, 4); give": {"x_train": images(6, 2, 4, 4)},
    "x_train has shape (6, 0, 4); give": {"x_train": images(6, 0, 4)},
    "x_train holds values from 0 to 9; give grey levels": {
        "x_train": np.arange(10.0).reshape(10, 1, 1)
    },
    "x_train holds values from nan to nan": {"x_train": GREY * np.nan},
    "x_train holds bytes up to 1, next to black; give bytes up to 255, or grey levels in [0, 1], "
    "as x_train / 1": {"x_train": GREY.round().astype(np.uint8)},
    "x_train holds bytes up to 16, next to black; give bytes up to 255, or grey levels in [0, 1], "
    "as x_train / 16": {"x_train": (16 * GREY).round().astype(np.uint8)},
    "x_test holds bytes up to 63, next to black": {
        "x_train": np.full((6, 4, 4), 255, np.uint8),
        "x_test": np.full((6, 4, 4), 63, np.uint8),
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
    "y_train has shape (6,) and holds int64 from -2": {"x_train": GREY, "y_train": [-2] * 6},
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


def test_labels_may_be_words() -> None:
    words = np.array(["dog", "cat", "dog", "ant", "cat", "dog"])
    data = of_archive(checked({"x_train": np.zeros((6, 4, 4)) + 0.5, "y_train": words}, "it"), "it")
    assert data.facts.classes == ("ant", "cat", "dog")
    both = torch.cat([data.train.labels, data.test.labels]).tolist()
    assert sorted(both) == [0, 1, 1, 2, 2, 2]
