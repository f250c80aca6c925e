"""Picture files: which a folder holds, whether they are in colour, and one of them made to fit.

Without torch or NumPy: the command line chooses a preset by what a folder holds.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from warnings import catch_warnings, simplefilter

from pyro_infocat.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif"),
    *(".pgm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""What the names of picture files end in, in small letters or large ones."""

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What a picture file may hold, whatever its name says. Others start programs, or are no photos."""

SAMPLED = 100
"""Pictures of a folder that decide whether it is one of grey images."""

SMALL = 32
"""Side to which these are reduced, so that a speck of colour is not taken for it."""

GREY = 8
"""Largest difference between the channels of a grey picture, of 255: JPEG rounds."""


class Listed(NamedTuple):
    """What a folder and those below it hold.

    :ivar names: of the pictures, in order, as paths from the folder with ``/`` between.
    :ivar folders: below it, likewise.
    :ivar others: how many hidden files and files that are no pictures.
    """

    names: list[str]
    folders: list[str]
    others: int


def is_picture(path: str) -> bool:
    """Whether a file's name is a picture's."""
    return os.path.splitext(path)[1].lower() in ENDINGS


def listed(root: str) -> Listed:
    """The pictures of a folder, those of the folders below it, and of one picture itself.

    :raises UserError: for a folder that cannot be read, or that holds a link to one around it.
    """
    if not os.path.isdir(root):
        return Listed([os.path.basename(root)], [], 0)
    names: list[str] = []
    folders: list[str] = []
    others = 0
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inner, above = waiting.pop()
        folder = os.path.join(root, inner)
        try:
            status = os.stat(folder)
            entries = os.listdir(folder)
        except OSError as error:
            raise UserError(
                f"cannot read '{folder}' ({error.strerror}); let it be read, or give another",
                "data",
            ) from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise UserError(
                f"'{folder}' is a link to a folder that it lies in; remove the link", "data"
            )
        for entry in entries:
            name = f"{inner}/{entry}" if inner else entry
            if entry.startswith("."):
                others += 1
            elif os.path.isdir(os.path.join(root, name)):
                folders.append(name)
                waiting.append((name, above | {here}))
            elif is_picture(entry):
                names.append(name)
            else:
                others += 1
    return Listed(sorted(names), sorted(folders), others)


def place(root: str, name: str) -> str:
    """The path of a picture of :func:`listed`."""
    return os.path.join(root, name) if os.path.isdir(root) else root


def in_colour(root: str, names: Sequence[str]) -> bool:
    """Whether one of a sample of pictures is in colour, evenly taken from all.

    One that cannot be read says nothing; who reads them all will say so.
    """
    chosen = names[:: max(1, len(names) // SAMPLED)]
    with quiet():
        return any(_is_coloured(place(root, name)) for name in chosen)


def _is_coloured(path: str) -> bool:
    from PIL import ImageChops

    try:
        red, green, blue = opened(path, SMALL, SMALL, colour=True).split()
    except Exception:
        return False
    between = (ImageChops.difference(*pair) for pair in ((red, green), (green, blue), (blue, red)))
    # A histogram's last entry is of the largest difference.
    return any(any(difference.histogram()[GREY + 1 :]) for difference in between)


def opened(path: str, height: int, width: int, colour: bool, resized: bool = True) -> "Image":
    """A picture of a given size, of mode RGB or L.

    It is turned as its camera says, what is transparent is white, and grey levels of 16 bits become
    bytes. It is made so small, or so large, that it just covers the size, and what is left over on
    two sides is cut off.

    :param resized: whether it may be of another size.
    :raises Exception: of whatever kind, where it cannot be read. Call it within :func:`quiet`.
    """
    # Imported here because --help has no need of it.
    from PIL import Image, ImageOps

    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError("it is no file")  # A pipe would be waited for.
    with Image.open(path, formats=FORMATS) as file:
        if resized:
            # A JPEG is decoded at a half, a quarter or an eighth where that is enough.
            side = 2 * max(height, width)
            file.draft(None, (side, side))
        image = _plain(ImageOps.exif_transpose(file), "RGB" if colour else "L")
    if image.size == (width, height):
        return image
    if not resized:
        raise ValueError(
            f"it is {image.height} x {image.width}, and the run's images are {height} x {width}, "
            "which were not resized"
        )
    scale = max(width / image.width, height / image.height)
    left = max(0.0, (image.width - width / scale) / 2)
    top = max(0.0, (image.height - height / scale) / 2)
    box = (left, top, image.width - left, image.height - top)
    bilinear = Image.Resampling.BILINEAR
    return image.resize((width, height), bilinear, box=box, reducing_gap=3.0)


def _plain(image: "Image", mode: str) -> "Image":
    """A picture of any mode as RGB or L."""
    from PIL.Image import alpha_composite, new

    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = new("RGBA", image.size, "white")
        image = alpha_composite(white, image)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        # Converted to L, they would be cut off at 255.
        image = image.convert("I").point(lambda level: level * (1 / 257) + 0.5)
    elif image.mode == "F":
        raise ValueError("its pixels are real numbers")
    # From 16 bits there is no direct way to RGB.
    return image.convert("L").convert(mode) if image.mode == "I" else image.convert(mode)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings of what it reads all the same: large pictures, odd tags."""
    with catch_warnings():
        simplefilter("ignore")
        yield
