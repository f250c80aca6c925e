"""Splits and data sets: images with their labels, and what tells them from others.

Shapes: N examples, X features.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from sklearn.datasets import load_digits

from pyro_infocat import DataSet, UserError
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import readers
from pyro_infocat.data.archive import LEAST_WHITE, checked, in_unit_interval
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.images import of_archive
from pyro_infocat.data.readers import digits, from_torchvision
from tests.tiny import write_tiny_mnist

CPU = torch.device("cpu")


def small(levels: int = 17) -> DataSet:
    """Images of one row of three pixels."""
    pixels = torch.arange(15, dtype=torch.uint8).view(5, 3)
    train = Split(pixels, torch.arange(5), levels)
    test = Split(pixels.flip(0)[:2], torch.tensor([4, 3]), levels)
    return DataSet(Facts("mine", (1, 3), levels, tuple("abcde")), train, test)


def test_black_is_zero_and_the_last_level_one() -> None:
    split = Split(torch.tensor([[0, 8, 16]], dtype=torch.uint8), torch.zeros(1), 17)
    assert split.grey().tolist() == [[0, 0.5, 1]]


def test_labels_stay_with_their_images() -> None:
    part = small().train.part(torch.tensor([3, 1]))
    assert part.pixels[:, 0].tolist() == [9, 3]
    assert part.labels.tolist() == [3, 1]
    mask = torch.tensor([False, True, False, False, True])
    assert small().train.part(mask).labels.tolist() == [1, 4]


def test_the_digits_are_scikit_learns_each_once() -> None:
    """Images with their labels, in both splits together."""
    bunch, data = load_digits(), digits()
    theirs = sorted((*image, label) for image, label in zip(bunch.data, bunch.target, strict=True))
    ours = sorted(
        (*image.tolist(), label.item())
        for split in (data.train, data.test)
        for image, label in zip(split.pixels, split.labels, strict=True)
    )
    assert ours == [tuple(int(number) for number in row) for row in theirs]


# What no split may hold.


def test_the_last_level_is_one_below_their_number() -> None:
    """The largest byte of the images is 14."""
    assert small(15).checked()
    with pytest.raises(UserError, match="train split holds bytes up to 14; its 14 levels are 0 to"):
        small(14).checked()


# Fingerprints.


def test_a_fingerprint_is_of_the_images_of_both_splits_and_of_no_label() -> None:
    data = small()
    before = data.fingerprint
    assert {name: one[0] for name, one in before.items()} == {"train": 5, "test": 2}
    assert before["train"][1] != before["test"][1]
    relabelled = replace(data, train=replace(data.train, labels=torch.zeros(5)))
    assert relabelled.fingerprint == before
    for name in ("train", "test"):
        split = getattr(data, name)
        darker = split.pixels.clone()
        darker[0, 0] += 1
        other = replace(data, **{name: replace(split, pixels=darker)}).fingerprint
        assert [key for key in before if before[key] != other[key]] == [name]


def test_a_move_to_a_device_sums_no_images_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would come back from there."""
    asked: list[int] = []
    right = Split.checksum

    def look(self: Split) -> int:
        asked.append(len(self))
        return right(self)

    monkeypatch.setattr(Split, "checksum", look)
    data = small()
    moved = data.to(CPU)
    assert moved.fingerprint == data.fingerprint
    assert asked == [5, 2]


# Images of one's own.


@pytest.mark.parametrize("labelled", [True, False])
def test_splits_know_whether_their_labels_say_anything(labelled: bool) -> None:
    arrays = {"x_train": np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2) * 6}
    if labelled:
        arrays["y_train"] = np.arange(10) % 2
    data = of_archive(checked(arrays, "mine"), "mine")
    assert data.train.labelled is data.test.labelled is labelled
    assert data.facts.classes == (("0", "1") if labelled else ())
    assert data.train.levels == data.test.levels == data.facts.levels == 256
    assert data.checked() is data


def test_grey_levels_go_to_the_nearest_byte() -> None:
    levels = np.array([0, 0.4, 0.6, 1.4, 254.6, 255]) / 255
    archive = checked({"x_train": levels.reshape(1, 2, 3)}, "mine")
    assert archive.images["train"].flatten().tolist() == [0, 0, 1, 1, 255, 255]


@pytest.mark.parametrize("white", [1, 16, 255])
def test_the_byte_of_white_is_one(white: int) -> None:
    found = in_unit_interval(np.array([0, white], np.uint8), "mine", white)
    assert found.tolist() == [0, 1]
    if white < 255:
        with pytest.raises(UserError, match=f"or bytes up to {white}"):
            in_unit_interval(np.array([0, white + 1], np.uint8), "mine", white)


@pytest.mark.parametrize(
    ("top", "refused"), [(0, False), (1, True), (LEAST_WHITE - 1, True), (LEAST_WHITE, False)]
)
def test_bytes_that_are_next_to_black_count_to_another_white(top: int, refused: bool) -> None:
    arrays = {"x_train": np.full((2, 2, 2), top, np.uint8)}
    if refused:
        with pytest.raises(UserError, match=f"holds bytes up to {top}, next to black"):
            checked(arrays, "mine")
    else:
        assert checked(arrays, "mine").images["train"].max() == top


# Archives that several runs fetch.


def test_one_process_at_a_time_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_mnist(tmp_path)
    asked: list[Path] = []
    right = readers._unpacked

    def look(name: str, kind: type, root: Path, folder: Path) -> list:
        with pytest.raises(Timeout), FileLock(folder / ".lock", timeout=0):
            pass
        asked.append(folder)
        return right(name, kind, root, folder)

    monkeypatch.setattr(readers, "_unpacked", look)
    data = from_torchvision("mnist", tmp_path)
    assert (len(data.train), len(data.test)) == (200, 100)
    with FileLock(asked[0] / ".lock", timeout=0):
        pass
