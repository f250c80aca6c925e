"""Images of one's own as arrays: ``--data FILE.npz``, ``FILE.npy``, or given in Python.

Shapes: N examples, X features.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pyro_infocat.catalogue import Facts
from pyro_infocat.data.archive import (
    WHITE,
    Archive,
    array_blocks,
    as_bytes,
    as_rows,
    by,
    check_shape,
    check_white,
    checked,
    grey_levels,
    layouts,
    mapped,
    read_arrays,
)
from pyro_infocat.data.dataset import DataSet, Split, held_out
from pyro_infocat.data.disk import FROM_DISK, OnDisk
from pyro_infocat.data.reader import Examples, Reader
from pyro_infocat.errors import UserError
from pyro_infocat.kinds import COLOUR, IMAGES
from pyro_infocat.runtime.memory import to_disk


class Images(Reader):
    """An .npz with ``x_train`` and more, see :func:`pyro_infocat.data.archive.checked`, or an .npy.

    :param data: the file.
    :param data_on: where the examples of an .npy lie; those of an .npz are read into memory.
    """

    def __init__(self, data: str, data_on: str = "auto") -> None:
        self.path, self.data_on = Path(data), data_on

    def read(self) -> DataSet:
        return own(self.path, self.data_on)

    def again(self, facts: Facts) -> Examples:
        return examples(read_arrays(self.path), facts, f"'{self.path}'")


def own(path: Path, data_on: str = "auto") -> DataSet:
    """The data set in a file.

    :param data_on: see :class:`Images`.
    :raises UserError: where it cannot be read or has too few examples.
    """
    what = f"'{path}'"
    large = path.suffix.lower() == ".npy" and to_disk(data_on, _bytes(path))
    archive = _on_disk(path, what) if large else checked(read_arrays(path), what)
    data = of_archive(archive, what)
    return replace(data, said=f"{what} holds {described(data)}{FROM_DISK if large else ''}")


def _bytes(path: Path) -> int:
    """What reading an .npy takes: the array, grey levels of one that is not bytes, and bytes."""
    array = mapped(path)
    return array.size * (array.itemsize + 1 + (0 if array.dtype == np.uint8 else 8))


def _on_disk(path: Path, what: str) -> Archive:
    """What :func:`pyro_infocat.data.archive.checked` makes of an .npy, without reading it whole."""
    array = mapped(path)
    check_shape(array.shape, what)
    images = OnDisk.written(as_bytes(block, f"{what}: x_train") for block in array_blocks(path))
    if array.dtype == np.uint8:
        check_white(max(int(block.max()) for block in images.blocks()), f"{what}: x_train")
    return Archive({"train": images}, {"train": np.zeros(len(images), np.int64)}, ())


def described(data: DataSet) -> str:
    """How many images of which kind: ``15,000 images in colour, 32 x 32, 10 classes``."""
    number, classes = len(data.train) + len(data.test), len(data.facts.classes)
    kind = "images in colour" if data.facts.colour else "grey images"
    labels = f"{classes} class{'es' * (classes > 1)}" if classes else "no labels"
    return f"{number:,} {kind}, {by(data.facts.shape[-2:])}, {labels}"


def of_archive(archive: Archive, what: str, fitted: bool = False, whole: bool = False) -> DataSet:
    """The data set of images that were read.

    Without a test split, a fixed fifth of the examples becomes one. Without labels there are no
    classes, and nothing that compares with labels is measured.

    :param what: where the images are from, for the error.
    :param fitted: whether they were resized.
    :param whole: hold none out: train and test on the same.
    :raises UserError: where there are too few examples.
    """
    images, labels, classes = archive
    shape = images["train"].shape[1:]
    preset = COLOUR if len(shape) == 3 else IMAGES.preset
    facts = Facts(preset, shape, WHITE + 1, classes, fitted=fitted)
    splits = {
        name: Split(
            (pixels if isinstance(pixels, OnDisk) else torch.from_numpy(pixels)).flatten(1),
            torch.from_numpy(labels[name]),
            facts.levels,
            bool(classes),
        )
        for name, pixels in images.items()
    }
    train = splits["train"]
    if "test" in splits:
        test = splits["test"]
    elif whole:
        test = train
    else:
        kept, held = map(torch.from_numpy, held_out(len(train)))
        train, test = train.part(kept), train.part(held)
    test = test.loaded()
    if len(train) < 2:
        raise UserError(
            f"{what} has {len(train)} examples to train on; at least 2 are needed", "data"
        )
    return DataSet(facts, train, test)


def examples(arrays: Mapping[str, np.ndarray], facts: Facts, what: str) -> Examples:
    """The images of arrays, each array's in its own order, for a run of these facts.

    :param what: where they are from, for the error.
    :raises UserError: where there are none, or they are of another shape or other numbers.
    """
    if not facts.images:
        raise UserError(f"{what} holds images, and the run was trained on other data", "data")
    images = {name: arrays[name] for name in ("x_train", "x_test") if name in arrays}
    if not images:
        raise UserError(f"{what} has no x_train and no x_test; give images under them", "data")
    parts, names = [], []
    for name, array in images.items():
        rows = as_rows(array, facts.shape)
        if rows is None:
            raise UserError(
                f"{what}: {name} has shape {array.shape}; the run's images are "
                f"{by(facts.shape)}, so give {layouts(facts.shape)}",
                "data",
            )
        grey = grey_levels(rows, f"{what}: {name}", facts.levels - 1)
        parts.append(torch.from_numpy(grey))
        names += [f"{name}/{number}" for number in range(len(grey))]
    values = torch.cat(parts)
    return Examples(Split.of_real_numbers(values), names)
