"""Data sets by name: the digits, and those that torchvision knows.

Shapes: N examples, X features.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from sklearn.datasets import load_digits

from pyro_infocat.catalogue import DATA_SETS, Facts
from pyro_infocat.data.archive import by
from pyro_infocat.data.dataset import FIXED_SEED, DataSet, Split
from pyro_infocat.data.folder import Folder
from pyro_infocat.data.images import own
from pyro_infocat.data.reader import Examples, Reader, in_order
from pyro_infocat.errors import UserError, reason
from pyro_infocat.kinds import FOLDER, IMAGES, TABLE, kind_of

DIGITS_TEST = 500

JUDGES = "judges"
"""Within the data root: the classifiers that judge what is generated, one of each data set."""


class Named(Reader):
    """A data set that ``--data`` knows by name.

    :param data: the name.
    :param data_root: where archives are and are downloaded to.
    """

    def __init__(self, data: str, data_root: Path = Path("data")) -> None:
        self.data, self.root = data, data_root

    def read(self) -> DataSet:
        return digits() if self.data == "digits" else from_torchvision(self.data, self.root)

    def again(self, facts: Facts) -> Examples:
        data = self.read()
        if data.facts.shape != facts.shape:
            raise UserError(
                f"'{self.data}' has images of {by(data.facts.shape)}, and the run's were of "
                f"{by(facts.shape)}; give data of the run's kind",
                "data",
            )
        return in_order(data)


def load(data: str, root: Path) -> DataSet:
    """A data set by name, downloaded into ``root`` where it is not there yet, or of images.

    :raises UserError: for an unknown name, a root that cannot be written, a failed download or
        a file that is damaged.
    """
    kind = kind_of(data)
    if kind is IMAGES:
        return own(Path(data))
    if kind is FOLDER:
        return Folder(data).read()
    if kind is TABLE:
        # pandas is imported for those who have tables alone.
        from pyro_infocat.data.table import Table

        return Table(data).read()
    return Named(data, root).read()


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


def missing(name: str, root: Path) -> list[str]:
    """The archives of a data set that would have to be downloaded into ``root``."""
    if name not in DATA_SETS or name == "digits":
        return []
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    folder = root / kind.__name__ / "raw"
    files = [file for file, _ in kind.resources]
    return [f for f in files if not (folder / f).exists() and not (folder / Path(f).stem).exists()]


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
                f"the unpacked files in '{folder}' do not belong together; delete "
                "them, to have them made again from the archives",
                "data_root",
            )
    train, test = (
        Split(split.data.flatten(1), split.targets.long(), facts.levels) for split in splits
    )
    return DataSet(facts, train, test, kept=root / JUDGES)


def _unpacked(name: str, kind: Any, root: Path, folder: Path) -> list[Any]:
    """The training and the test split, downloaded and unpacked into the folder if need be."""
    try:
        for file, checksum in kind.resources:
            _refuse_damaged(folder / file, checksum)
            _refuse_torn(folder / Path(file).stem)
        return [kind(root, train=train, download=True) for train in (True, False)]
    except PermissionError as error:
        raise UserError(
            f"cannot read '{error.filename}' ({error.strerror}); let it be read, or "
            "give another folder",
            "data_root",
        ) from error
    except UserError:
        raise
    except Exception as error:
        archives = ", ".join(file for file, _ in kind.resources)
        raise UserError(
            f"the download into '{folder}' failed ({reason(error)}); place the "
            f"archives {archives} there by hand and run again",
            "data",
            name,
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
            f"cannot write to '{root}' ({error.strerror}); give a folder that can be written",
            "data_root",
        ) from error
    return FileLock(folder / ".lock")


def _refuse_damaged(archive: Path, checksum: str) -> None:
    """An archive with the wrong checksum is named rather than silently fetched again."""
    from torchvision.datasets.utils import check_integrity

    if archive.exists() and not check_integrity(str(archive), checksum):
        raise UserError(
            f"'{archive}' is truncated or damaged ({archive.stat().st_size} bytes, "
            f"MD5 should be {checksum}); delete it, or place a whole one there",
            "data_root",
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
            f"'{file}' is truncated or damaged ({size} bytes, which is not what its "
            "header says); delete it, to have it made again from its archive",
            "data_root",
        )
