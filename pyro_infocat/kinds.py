"""What kind of data ``--data`` names: what reads them, and the preset for them. Without torch."""

import os
from typing import NamedTuple

from pyro_infocat.catalogue import DATA_SETS, no_data_set
from pyro_infocat.errors import UserError


class Kind(NamedTuple):
    """A kind of data.

    :ivar reader: the dotted path of what reads it.
    :ivar preset: what it is trained with where no --config is given.
    """

    reader: str
    preset: str


IMAGES = Kind("pyro_infocat.data.images.Images", "digits")

ENDINGS = {".npz": IMAGES, ".npy": IMAGES}
"""Kinds by how a file's name ends."""


def kind_of(data: str) -> Kind:
    """The kind of a data set by name, or of a file.

    :raises UserError: where there is none such.
    """
    if data in DATA_SETS:
        return Kind("pyro_infocat.data.readers.Named", DATA_SETS[data].preset)
    ending = os.path.splitext(data)[1].lower()
    if ending not in ENDINGS:
        raise no_data_set(data)
    if not os.path.isfile(data):  # Path.is_file raises for too long a name.
        raise UserError(f"no file '{data}'; give an {ending} of your own images", "data")
    return ENDINGS[ending]
