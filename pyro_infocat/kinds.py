"""What kind of data ``--data`` names: what reads them, and the preset for them. Without torch."""

import ast
import os
import zipfile
from contextlib import suppress
from typing import IO, NamedTuple

from pyro_infocat import pictures
from pyro_infocat.catalogue import DATA_SETS, IN_MEMORY, no_data_set
from pyro_infocat.errors import UserError


class Kind(NamedTuple):
    """A kind of data.

    :ivar reader: the dotted path of what reads it.
    :ivar preset: what it is trained with where no --config is given.
    """

    reader: str
    preset: str


COLOUR = "colour"
"""The preset of images in colour."""

IMAGES = Kind("pyro_infocat.data.images.Images", "images")
FOLDER = Kind("pyro_infocat.data.folder.Folder", "images")

TABLE = Kind("pyro_infocat.data.table.Table", "table")

ENDINGS = {
    **{".npz": IMAGES, ".npy": IMAGES},
    **{".csv": TABLE, ".tsv": TABLE, ".parquet": TABLE},
}
"""Kinds by how a file's name ends."""


def kind_of(data: str) -> Kind:
    """The kind of a data set by name, of a file or of a folder.

    :raises UserError: where there is none such.
    """
    if data in DATA_SETS:
        return Kind("pyro_infocat.data.readers.Named", DATA_SETS[data].preset)
    if data == IN_MEMORY:
        raise no_data_set(data)
    if os.path.isdir(data):
        return FOLDER
    ending = os.path.splitext(data)[1].lower()
    kind = FOLDER if pictures.is_picture(data) else ENDINGS.get(ending)
    if kind is None:
        raise no_data_set(data)
    if not os.path.isfile(data):  # Path.is_file raises for too long a name.
        wanted = "a folder" if kind is FOLDER else f"an {ending}"
        wanted = f"a {ending} with a table" if kind is TABLE else f"{wanted} of your own images"
        raise UserError(f"no file '{data}'; give {wanted}", "data")
    if kind is IMAGES and len(shape_of(data)) == 2:
        return TABLE
    return kind


def preset_for(data: str) -> str:
    """The name of the preset that data are trained with where no --config is given.

    :raises UserError: as :func:`kind_of`, and for a folder that cannot be read.
    """
    kind = kind_of(data)
    if kind is FOLDER:
        coloured = pictures.in_colour(data, pictures.listed(data).names)
    else:
        coloured = kind is IMAGES and channels(shape_of(data)) == 3
    return COLOUR if coloured else kind.preset


def name_of(data: str) -> str:
    """What the folder of a run on data is called."""
    if os.path.isdir(data):
        # Of ``.`` and ``photos/`` too.
        return os.path.basename(os.path.abspath(data)) or "folder"
    return os.path.splitext(os.path.basename(data))[0]


def channels(shape: tuple[int, ...]) -> int | None:
    """1 or 3, of an array of images (N, H, W), (N, C, H, W) or (N, H, W, C); None of any other.

    What may be read both ways has its channels first.
    """
    if len(shape) == 3:
        return 1
    return next((c for c in (shape[1], shape[3]) if c in (1, 3)), None) if len(shape) == 4 else None


def shape_of(path: str) -> tuple[int, ...]:
    """The shape of the array in an .npy, or of ``x_train`` in an .npz, by its header alone.

    Of a file that cannot be read, (): its reader says what is wrong.
    """
    with suppress(Exception):
        if not path.lower().endswith(".npz"):
            with open(path, "rb") as file:
                return _shape(file)
        with zipfile.ZipFile(path) as archive, archive.open("x_train.npy") as file:
            return _shape(file)
    return ()


def _shape(file: IO[bytes]) -> tuple[int, ...]:
    """From the header of NumPy's format, whose own reader takes a tenth of a second to import."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise ValueError("no array")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    header = ast.literal_eval(file.read(min(length, 10_000)).decode("utf-8"))
    return tuple(int(size) for size in header["shape"])
