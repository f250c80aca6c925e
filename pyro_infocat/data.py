"""Data sets: grey images that live on the device as uint8 and are binarised there.

Shapes: B batch, N examples, X features.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from sklearn.datasets import load_digits
from torch import Tensor

from pyro_infocat.archive import WHITE, read_archive
from pyro_infocat.errors import UserError, reason
from pyro_infocat.settings import ARCHIVE, DATA_SETS, OWN_PRESET, Facts, no_data_set

Observation = Literal["binary", "grey"]
"""What the likelihood sees: pixels drawn as 0 or 1 with the grey level's chance, or grey levels."""

DIGITS_TEST = 500
FIXED_SEED = 0
"""The one draw by which the test split is binarised, for every run and every seed."""

HELD_OUT = 0.2
"""Share of one's own images that is the test split where none is given."""


def observe(grey: Tensor, observation: Observation) -> Tensor:
    """What the likelihood sees of grey levels (B, X), binarised anew at each call."""
    return torch.bernoulli(grey.clamp(0, 1)) if observation == "binary" else grey


@dataclass(frozen=True)
class Split:
    """Images as bytes.

    :ivar pixels: (N, X), uint8, from 0 to ``levels`` - 1.
    :ivar labels: (N,), int64; only evaluation reads them.
    :ivar levels: number of grey levels.
    """

    pixels: Tensor
    labels: Tensor
    levels: int

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device) -> "Split":
        """The same images there."""
        return Split(self.pixels.to(device), self.labels.to(device), self.levels)

    def grey(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Grey levels in [0, 1] (B, X)."""
        return self.pixels[index].to(torch.get_default_dtype()) / (self.levels - 1)

    def fixed(self, observation: Observation) -> Tensor:
        """What the likelihood sees (N, X), binarised once and for all by ``FIXED_SEED``."""
        if observation == "grey":
            return self.grey()
        # Drawn on the CPU, so that every device sees the same test set.
        generator = torch.Generator().manual_seed(FIXED_SEED)
        grey = self.grey()
        return torch.bernoulli(grey.cpu(), generator=generator).to(grey.device)

    def shuffled(self) -> Tensor:
        """The indices of all examples in a new order (N,), on the data's device."""
        return torch.randperm(len(self), device=self.pixels.device)

    def part(self, index: Tensor) -> "Split":
        """The examples of some indices (B,), or where a mask (N,) is true."""
        return Split(self.pixels[index], self.labels[index], self.levels)


@dataclass(frozen=True)
class DataSet:
    """A training and a test split of images of one shape.

    Where ``facts`` name no classes, the labels are zeros that say nothing.
    """

    facts: Facts
    train: Split
    test: Split

    def to(self, device: torch.device) -> "DataSet":
        """The same splits there."""
        return DataSet(self.facts, self.train.to(device), self.test.to(device))


def load(name: str, root: Path) -> DataSet:
    """A data set by name, downloaded into ``root`` where it is not there yet, or of a file.

    :raises UserError: for an unknown name, a root that cannot be written, a failed download or
        an archive that is damaged.
    """
    if name == "digits":
        return digits()
    if name in DATA_SETS:
        return from_torchvision(name, root)
    if name.endswith(ARCHIVE):
        return own(Path(name))
    raise UserError(no_data_set(name))


def digits() -> DataSet:
    """Handwritten digits, 8 x 8 pixels of 17 grey levels, in scikit-learn's package.

    1,797 scans, test part of the UCI set (Alpaydin and Kaynak 1998); here 1,297 for training and
    500 for test, by one fixed shuffle.
    """
    bunch = load_digits()
    order = np.random.default_rng(FIXED_SEED).permutation(len(bunch.target))
    pixels = torch.from_numpy(bunch.data[order]).to(torch.uint8)
    labels = torch.from_numpy(bunch.target[order]).long()
    test, train = slice(DIGITS_TEST), slice(DIGITS_TEST, None)
    facts = DATA_SETS["digits"]
    return DataSet(
        facts,
        Split(pixels[train], labels[train], facts.levels),
        Split(pixels[test], labels[test], facts.levels),
    )


def own(path: Path) -> DataSet:
    """Images of one's own: see :func:`pyro_infocat.archive.read_archive`.

    Where the archive has no test split, a fixed fifth of its examples becomes one. Without
    labels there are no classes, and nothing that compares with labels is measured.

    :raises UserError: where the archive cannot be read or has too few examples.
    """
    images, labels, classes = read_archive(path)
    height, width = images["train"].shape[1:]
    facts = Facts(OWN_PRESET, (height, width), WHITE + 1, classes)
    splits = {
        name: Split(
            torch.from_numpy(pixels).flatten(1), torch.from_numpy(labels[name]), facts.levels
        )
        for name, pixels in images.items()
    }
    train = splits["train"]
    if "test" in splits:
        test = splits["test"]
    else:
        order = torch.from_numpy(np.random.default_rng(FIXED_SEED).permutation(len(train)))
        held = max(1, round(HELD_OUT * len(train)))
        train, test = train.part(order[held:]), train.part(order[:held])
    if len(train) < 2:
        raise UserError(
            f"--data: '{path}' has {len(train)} examples to train on; at least 2 are needed"
        )
    return DataSet(facts, train, test)


def from_torchvision(name: str, root: Path) -> DataSet:
    """MNIST or Fashion-MNIST through torchvision, 28 x 28 pixels of 256 grey levels."""
    # Imported here because it takes a second that the digits need not pay.
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    folder = root / kind.__name__ / "raw"
    complete = all((folder / Path(file).stem).exists() for file, _ in kind.resources)
    with _turn(root, folder, complete):
        splits = _unpacked(name, kind, root, folder)
    facts = DATA_SETS[name]
    for split in splits:
        labels = split.targets
        if split.data.shape != (len(labels), *facts.shape) or labels.max() >= len(facts.classes):
            raise UserError(
                f"--data_root: the unpacked files in '{folder}' do not belong together; delete "
                "them, to have them made again from the archives"
            )
    train, test = (
        Split(split.data.flatten(1), split.targets.long(), facts.levels) for split in splits
    )
    return DataSet(facts, train, test)


def _unpacked(name: str, kind: Any, root: Path, folder: Path) -> list[Any]:
    """The training and the test split, downloaded and unpacked into the folder if need be."""
    try:
        for file, checksum in kind.resources:
            _refuse_damaged(folder / file, checksum)
            _refuse_torn(folder / Path(file).stem)
        return [kind(root, train=train, download=True) for train in (True, False)]
    except PermissionError as error:
        raise UserError(
            f"--data_root: cannot read '{error.filename}' ({error.strerror}); let it be read, or "
            "give another folder"
        ) from error
    except UserError:
        raise
    except Exception as error:
        archives = ", ".join(file for file, _ in kind.resources)
        raise UserError(
            f"--data {name}: the download into '{folder}' failed ({reason(error)}); place the "
            f"archives {archives} there by hand and run again"
        ) from error


def _turn(root: Path, folder: Path, complete: bool) -> AbstractContextManager[Any]:
    """Wait while another process downloads or unpacks into the folder.

    :param complete: whether there is nothing to write, so that the folder may forbid it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        if complete:
            return nullcontext()
        raise UserError(
            f"--data_root: cannot write to '{root}' ({error.strerror}); give a folder that can "
            "be written"
        ) from error
    return FileLock(folder / ".lock")


def _refuse_damaged(archive: Path, checksum: str) -> None:
    """An archive with the wrong checksum is named rather than silently fetched again."""
    from torchvision.datasets.utils import check_integrity

    if archive.exists() and not check_integrity(str(archive), checksum):
        raise UserError(
            f"--data_root: '{archive}' is truncated or damaged ({archive.stat().st_size} bytes, "
            f"MD5 should be {checksum}); delete it, or place a whole one there"
        )


def _refuse_torn(file: Path) -> None:
    """An unpacked IDX file whose length is not what its header says."""
    if not file.exists():
        return
    with file.open("rb") as stream:
        # Two zero bytes, the type (8: unsigned bytes), the number of axes; then each axis.
        kind, axes = stream.read(3), stream.read(1)
        shape = [int.from_bytes(stream.read(4), "big") for _ in range(axes[0] if axes else 0)]
    size = file.stat().st_size
    if kind != b"\0\0\x08" or size != 4 + 4 * len(shape) + math.prod(shape):
        raise UserError(
            f"--data_root: '{file}' is truncated or damaged ({size} bytes, which is not what its "
            "header says); delete it, to have it made again from its archive"
        )
