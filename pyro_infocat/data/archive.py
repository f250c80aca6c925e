"""Images of one's own: arrays, in a NumPy archive or given in Python.

Shapes: N examples, X features.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_infocat.data.disk import block_rows
from pyro_infocat.errors import UserError, reason
from pyro_infocat.kinds import channels

WHITE = 255
"""The largest byte."""

LEAST_WHITE = 64
"""Bytes whose largest is below this are next to black: they count to another white."""

NAMES = ("x_train", "x_test", "y_train", "y_test", "classes", "names")


class Archive(NamedTuple):
    """What an archive holds.

    :param images: bytes (N, height, width) or (N, 3, height, width) under ``train`` and, where
        there are any, ``test``; in memory or on disk.
    :param labels: whole numbers (N,) under the same names, -1 where it is not known; zeros where
        there are no classes.
    :param classes: a name for each label; none without labels.
    """

    images: dict[str, Any]
    labels: dict[str, np.ndarray]
    classes: tuple[str, ...]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, as far as :data:`NAMES` has them; an .npy is ``x_train``.

    :raises UserError: where the file cannot be read.
    """
    try:
        # np.load leaves a file open that it cannot make sense of.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"x_train": content}
            with content as archive:
                arrays = {name: archive[name] for name in archive.files if name in NAMES}
    # The reader of archives raises what it likes.
    except Exception as error:
        raise UserError(
            f"cannot read '{path}' ({reason(error)}); give an .npz with x_train", "data"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"'{path}': {name} is no array; give an .npz by np.savez", "data")
    return arrays


def mapped(path: Path) -> np.ndarray:
    """The array of an .npy, of which no more is read than is looked at.

    :raises UserError: where it is none.
    """
    try:
        return np.lib.format.open_memmap(path, "r")
    # The reader of arrays raises what it likes.
    except Exception as error:
        raise UserError(f"cannot read '{path}' ({reason(error)}); give an .npy", "data") from error


def array_blocks(path: Path) -> Iterator[np.ndarray]:
    """The array of an .npy, some examples at a time."""
    array = mapped(path)
    number, size = len(array), block_rows(array[:1].nbytes)
    for first in range(0, number, size):
        # A map that stood would count as the process's memory, as far as it was looked at.
        yield np.array(mapped(path)[first : first + size])


def checked(arrays: Mapping[str, np.ndarray], what: str) -> Archive:
    """The images and labels of arrays by name.

        x_train    images (N, height, width), (N, 1, height, width) or (N, height, width, 1), in
                   colour (N, 3, height, width) or (N, height, width, 3); as bytes or in [0, 1]
        x_test     likewise; none are needed
        y_train    labels (N,), whole numbers from 0, or words; none are needed, and -1 or "" stands
                   for one that is not known
        y_test     likewise
        classes    a name for each label; their numbers where there is none

    Grey levels in [0, 1] are rounded to 256. What may be read both ways, as (N, 3, height, 3),
    has its channels first.

    :param what: where they are from, for the error.
    :raises UserError: where an array is not as above.
    """
    if "x_train" not in arrays:
        raise UserError(f"{what} has no x_train; give images (N, height, width) under it", "data")
    splits = [name for name in ("train", "test") if f"x_{name}" in arrays]
    images = {name: _pixels(arrays[f"x_{name}"], f"{what}: x_{name}") for name in splits}
    shapes = {by(pixels.shape[1:]) for pixels in images.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{what}: x_train holds images of {by(images['train'].shape[1:])} and x_test of "
            f"{by(images['test'].shape[1:])}; they must be the same",
            "data",
        )
    given = [name for name in ("train", "test") if f"y_{name}" in arrays]
    if given and given != splits:
        raise UserError(
            f"{what} has labels y_{' and y_'.join(given)} for images x_{' and x_'.join(splits)}; "
            "give labels for all images or for none",
            "data",
        )
    unlabelled = {name: np.zeros(len(pixels), np.int64) for name, pixels in images.items()}
    if not given:
        return Archive(images, unlabelled, ())
    given_labels = [arrays[f"y_{name}"] for name in splits]
    if all(one.dtype.kind == "U" for one in given_labels) and "classes" not in arrays:
        # Words are numbered in the order of their letters.
        words = np.setdiff1d(np.concatenate([one.reshape(-1) for one in given_labels]), [""])
        numbered = {
            f"y_{name}": np.where(one == "", -1, np.searchsorted(words, one))
            for name, one in zip(splits, given_labels, strict=True)
        }
        arrays = {**arrays, **numbered, "classes": words}
    labels = {
        name: _labels(arrays[f"y_{name}"], len(pixels), f"{what}: y_{name}")
        for name, pixels in images.items()
    }
    number = max(int(label.max()) for label in labels.values()) + 1
    if not number:
        return Archive(images, unlabelled, ())
    examples = sum(map(len, labels.values()))
    if "classes" not in arrays and number > examples:
        raise UserError(
            f"{what} has labels up to {number - 1} for {examples} images; number the classes "
            "from 0",
            "data",
        )
    classes = [str(name) for name in arrays.get("classes", np.arange(number)).reshape(-1)]
    if len(classes) < number:
        raise UserError(
            f"{what}: classes has {len(classes)} names for labels up to {number - 1}", "data"
        )
    return Archive(images, labels, tuple(classes))


def in_unit_interval(array: np.ndarray, what: str, white: int = WHITE) -> np.ndarray:
    """Grey levels in [0, 1] of an array of them or of bytes.

    :param what: the array, for the error.
    :param white: the byte of 1.
    :raises UserError: for other numbers, or what is none.
    """
    if array.dtype.kind not in "buif":
        raise UserError(f"{what} holds {array.dtype}; give real numbers")
    grey = array / white if array.dtype == np.uint8 else array
    low, high = (float(grey.min()), float(grey.max())) if grey.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # So put, it refuses NaN too.
        low, high = float(array.min()), float(array.max())
        up_to = "" if white == WHITE else f" up to {white}"
        raise UserError(
            f"{what} holds values from {low:g} to {high:g}; give grey levels in [0, 1], or bytes"
            f"{up_to}"
        )
    return grey.astype(np.float32)


def grey_levels(array: np.ndarray, what: str, white: int = WHITE) -> np.ndarray:
    """As :func:`in_unit_interval`, where ``--data`` named the array."""
    try:
        return in_unit_interval(array, what, white)
    except UserError as error:
        raise UserError(error.message, "data") from error


def as_rows(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Examples (N, X) of an array that holds them in any layout; None where it does not.

    :param shape: of one: (height, width), (3, height, width) or (X,).
    """
    features = math.prod(shape)
    of_one = array.shape[1:]
    if len(shape) == 3 and of_one != shape and of_one == (*shape[1:], shape[0]):
        array, of_one = np.moveaxis(array, -1, 1), shape
    fit = [shape, (features,)]
    if len(shape) == 2:
        fit += [(1, *shape), (*shape, 1)]
    return array.reshape(len(array), features) if array.ndim and of_one in fit else None


def layouts(shape: tuple[int, ...], batch: str = "N") -> str:
    """What :func:`as_rows` takes, as an error says it."""
    sizes = ", ".join(map(str, shape))
    if len(shape) < 3:
        return f"({batch}, {sizes})"
    return f"({batch}, {sizes}) or ({batch}, {', '.join(map(str, (*shape[1:], shape[0])))})"


def _pixels(array: np.ndarray, what: str) -> np.ndarray:
    """Images (N, height, width) or (N, 3, height, width) as bytes."""
    check_shape(array.shape, what)
    if array.dtype == np.uint8:
        check_white(int(array.max()), what)
    return as_bytes(array, what)


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Refuse what is no array of images."""
    if channels(shape) is None or 0 in shape:
        raise UserError(
            f"{what} has shape {shape}; give (N, height, width), or in colour (N, 3, height, "
            "width) or (N, height, width, 3); rows of X numbers that are no image go as (N, 1, X)",
            "data",
        )


def check_white(top: int, what: str) -> None:
    """Refuse bytes whose largest is next to black: they count to another white."""
    if 0 < top < LEAST_WHITE:
        raise UserError(
            f"{what} holds bytes up to {top}, next to black; give bytes up to {WHITE}, or grey "
            f"levels in [0, 1], as {what.split()[-1]} / {top}",
            "data",
        )


def as_bytes(array: np.ndarray, what: str) -> np.ndarray:
    """Images of :func:`check_shape`'s layouts as (N, height, width) or (N, 3, height, width)."""
    if array.ndim == 4:
        if array.shape[1] not in (1, 3):
            array = np.moveaxis(array, -1, 1)
        array = array[:, 0] if array.shape[1] == 1 else np.ascontiguousarray(array)
    if array.dtype == np.uint8:
        return array
    return np.rint(grey_levels(array, what) * WHITE).astype(np.uint8)


def _labels(array: np.ndarray, number: int, what: str) -> np.ndarray:
    # A number beyond int64 is negative in it.
    least = -1 if array.dtype.kind == "i" else 0
    wrong = array.dtype.kind not in "iu" or (array.astype(np.int64) < least).any()
    if array.shape != (number,) or wrong:
        low = f" from {array.min()}" if array.size and array.dtype.kind in "iu" else ""
        raise UserError(
            f"{what} has shape {array.shape} and holds {array.dtype}{low}; give ({number},) whole "
            "numbers from 0, and -1 where there is none",
            "data",
        )
    return array.astype(np.int64)


def by(shape: Any) -> str:
    """A shape in words: ``28 x 28``, ``32 x 32 in colour``."""
    sides, colour = (shape[1:], " in colour") if len(shape) == 3 else (shape, "")
    return " x ".join(str(size) for size in sides) + colour
