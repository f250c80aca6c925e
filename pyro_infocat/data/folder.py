"""A folder of pictures: ``--data FOLDER``.

Shapes: N examples, X features.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pyro_infocat import pictures
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.archive import WHITE, Archive, by
from pyro_infocat.data.dataset import DataSet, Split
from pyro_infocat.data.disk import FROM_DISK, OnDisk, block_rows
from pyro_infocat.data.images import described, of_archive
from pyro_infocat.data.reader import Examples, Reader
from pyro_infocat.errors import UserError, reason
from pyro_infocat.pictures import Listed, listed
from pyro_infocat.runtime.memory import to_disk

AT_ONCE = 64
"""Pictures that a thread reads at a time."""

SPLITS = ("train", "test")
PARTS = frozenset({*SPLITS, "val", "valid", "validation"})
"""What folders are called that are parts of a data set and no classes."""

NAMED = 3
"""Files or folders that an error names, at most."""


class Folder(Reader):
    """Pictures in a folder (PNG, JPEG, BMP, GIF, PPM, TIFF, WebP), of any sizes and modes.

    Each folder in it is a class, as torchvision's ImageFolder has it, and holds pictures at any
    depth; labels are for evaluation alone. Pictures that lie in the folder itself have none. Where
    the folder holds ``train`` and ``test`` and nothing else, these are the splits; otherwise a
    fixed fifth of the pictures becomes the test split.

    A picture is turned as its camera says. What is transparent becomes white. It is resized until
    its shorter side is ``data_size``, and the middle of the longer one is kept. Where a sample of
    the pictures holds no colour, all are taken as grey.

    :param data: the folder; for :meth:`again` also one picture.
    :param data_size: height and width of an example.
    :param data_on: where the examples lie.
    """

    def __init__(self, data: str, data_size: int = 32, data_on: str = "auto") -> None:
        self.root, self.size, self.data_on = data, data_size, data_on

    def read(self) -> DataSet:
        if os.path.isfile(self.root):
            raise UserError(f"'{self.root}' is one picture; give a folder of them", "data")
        found = _found(self.root)
        splits, classes = _splits(self.root, found)
        colour = pictures.in_colour(self.root, found.names)
        shape = (3, self.size, self.size) if colour else (self.size, self.size)
        # A part of them is a copy.
        large = to_disk(self.data_on, 2 * len(found.names) * math.prod(shape))
        pixels: Any
        if large:
            pixels = OnDisk.written(_blocks(self.root, found.names, shape))
        else:
            pixels = _pixels(self.root, found.names, shape, resized=True)
        number = {name: place for place, name in enumerate(found.names)}
        images = {
            # Without a test split these are all the pictures, which need no copy.
            split: pixels if len(splits) == 1 else _those(pixels, [number[one] for one in names])
            for split, names in splits.items()
        }
        label = {name: place for place, name in enumerate(classes)}
        labels = {
            split: np.array([label.get(_class(name, split, splits), 0) for name in names], np.int64)
            for split, names in splits.items()
        }
        archive = Archive(images, labels, tuple(map(_plain, classes)))
        data = of_archive(archive, f"'{self.root}'", fitted=True)
        said = f"'{self.root}' is a folder of {described(data)}{FROM_DISK if large else ''}"
        if found.others:
            said += f"; {found.others:,} other file{'s' * (found.others > 1)} left out"
        return replace(data, said=said)

    def again(self, facts: Facts) -> Examples:
        if not facts.images:
            raise UserError(
                f"'{self.root}' holds images, and the run was trained on other data", "data"
            )
        names = _found(self.root).names
        pixels = torch.from_numpy(_pixels(self.root, names, facts.shape, facts.fitted)).flatten(1)
        labels = torch.zeros(len(names), dtype=torch.int64)
        return Examples(Split(pixels, labels, WHITE + 1, False), list(map(_plain, names)))


def _found(root: str) -> Listed:
    found = listed(root)
    if not found.names:
        others = f" among its {found.others:,} files" if found.others else ""
        raise UserError(
            f"'{root}' has no images{others}; give a folder of PNG or JPEG files", "data"
        )
    return found


def _splits(root: str, found: Listed) -> tuple[dict[str, list[str]], list[str]]:
    """The pictures of each split, and the classes; none where the pictures lie in no folders."""
    top = {name for name in found.folders if "/" not in name}
    if top == set(SPLITS) and all("/" in name for name in found.names):
        splits = {
            split: [name for name in found.names if name.startswith(f"{split}/")]
            for split in SPLITS
        }
        empty = [split for split, names in splits.items() if not names]
        if empty:
            raise UserError(
                f"'{root}': {empty[0]}/ has no images; give some, or the folders of the classes "
                "without train and test",
                "data",
            )
        classes = {split: _classes(root, found, f"{split}/") for split in SPLITS}
        bare = [split for split, names in classes.items() if not names]
        if len(bare) == 1:
            other = "test" if bare == ["train"] else "train"
            raise UserError(
                f"'{root}': {other}/ has folders of classes and {bare[0]}/ has none; give them to "
                "both or to neither",
                "data",
            )
        return splits, sorted({*classes["train"], *classes["test"]})
    if top and top <= PARTS:
        there = " and ".join(f"{name}/" for name in sorted(top))
        raise UserError(
            f"'{root}' has {there}; give train/ and test/ and nothing else, or the folders of the "
            "classes",
            "data",
        )
    return {"train": found.names}, _classes(root, found, "")


def _classes(root: str, found: Listed, inside: str) -> list[str]:
    """The folders of the classes inside of a split's folder, or of all with ""."""
    names = [name.removeprefix(inside) for name in found.names if name.startswith(inside)]
    folders = [name.removeprefix(inside) for name in found.folders if name.startswith(inside)]
    held = Counter(name.partition("/")[0] for name in names if "/" in name)
    if not held:
        return []
    beside = [name for name in names if "/" not in name]
    if beside:
        raise UserError(
            f"'{os.path.join(root, inside)}' has {len(beside):,} images beside the folders of "
            f"{_some(sorted(held))}, as '{beside[0]}'; put each into the folder of its class, or "
            "give images of which some have a label as an .npz",
            "data",
        )
    empty = [name for name in folders if "/" not in name and name not in held]
    if empty:
        raise UserError(
            f"'{os.path.join(root, inside)}': no images in {_some(empty)}; each folder is a class, "
            "so fill or remove it",
            "data",
        )
    return sorted(held)


def _class(name: str, split: str, splits: dict[str, list[str]]) -> str:
    """The class of a picture: the first folder, below that of its split."""
    return (name.removeprefix(f"{split}/") if len(splits) > 1 else name).partition("/")[0]


def _some(names: Sequence[str], number: int = 0) -> str:
    """The first few names, and how many more."""
    more = (number or len(names)) - NAMED
    said = ", ".join(names[:NAMED])
    return f"{said} and {more:,} more" if more > 0 else said


def _those(pixels: Any, numbers: list[int]) -> Any:
    """Some of the pictures, in memory or on disk as all are."""
    return pixels.chosen(torch.tensor(numbers)) if isinstance(pixels, OnDisk) else pixels[numbers]


def _pixels(root: str, names: Sequence[str], shape: tuple[int, ...], resized: bool) -> np.ndarray:
    """The pictures as bytes (N, height, width) or (N, 3, height, width).

    :raises UserError: where some cannot be read: which, and how many.
    """
    try:
        pixels = np.empty((len(names), *shape), np.uint8)
    except MemoryError as error:
        raise UserError(
            f"{len(names):,} images of {by(shape)} do not fit into memory; give a smaller size",
            "data_size",
            shape[-1],
        ) from error
    _refuse(root, len(names), _read(root, names, pixels, resized))
    return pixels


def _blocks(root: str, names: Sequence[str], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """As :func:`_pixels`, some at a time."""
    size, wrong = block_rows(math.prod(shape)), []
    for first in range(0, len(names), size):
        some = names[first : first + size]
        block = np.empty((len(some), *shape), np.uint8)
        wrong += _read(root, some, block, resized=True)
        yield block
    _refuse(root, len(names), wrong)


def _read(root: str, names: Sequence[str], pixels: np.ndarray, resized: bool) -> list[str]:
    """Put pictures into ``pixels``; what is wrong with those that cannot be read."""
    colour, (height, width) = pixels.ndim == 4, pixels.shape[-2:]

    def read(some: range) -> Iterator[str]:
        for number in some:
            try:
                path = pictures.place(root, names[number])
                picture = np.asarray(pictures.opened(path, height, width, colour, resized))
            # The readers of pictures raise what they like.
            except Exception as error:
                yield f"'{_plain(names[number])}' ({reason(error)})"
            else:
                pixels[number] = np.moveaxis(picture, -1, 0) if colour else picture

    # Decoding needs no lock of Python's, and waiting for a disk none at all.
    pool = ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1)))
    starts = range(0, len(names), AT_ONCE)
    try:
        with pictures.quiet():
            parts = pool.map(
                lambda start: list(read(range(start, min(start + AT_ONCE, len(names))))), starts
            )
            return [one for part in parts for one in part]
    finally:
        # Whoever interrupts need not wait for all the rest.
        pool.shutdown(cancel_futures=True)


def _refuse(root: str, number: int, wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(
            f"'{root}': {len(wrong):,} of {number:,} images cannot be read: {_some(wrong)}; "
            "mend them or move them away",
            "data",
        )


def _plain(name: str) -> str:
    """A name that any file can hold: a file system may have bytes that are no letters."""
    return os.fsencode(name).decode("utf-8", "replace")
