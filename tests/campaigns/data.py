"""Small tables and a folder of pictures, and the flags of runs on them that take a moment."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.photos import picture, write_pictures
from tests.tables import frame

ROWS = 40

OF_TABLE = "run-of-table"
"""The folder of a run that ``categorise`` is given tables for."""

FLAGS: dict[str, tuple[str, ...]] = {
    "table": (
        *("table.csv", "--data_label", "kind"),
        *("--epochs", "auto", "--steps", "12", "--batch_size", "auto"),
    ),
    "parquet": ("table.parquet", "--data_label", "kind", "--data_on", "disk"),
    "array": ("table.npy", "--data_on", "disk"),
    "folder": (
        *("photos", "--data_size", "8", "--data_on", "disk"),
        *("--encoder", "guides.encoders.MLP", "--decoder", "models.decoders.MLP"),
    ),
}
"""Of runs on each: the data and what is said of them."""


def flags(kind: str, place: Path = Path()) -> list[str]:
    """The flags of a run on one of :data:`FLAGS`, which lies in a folder."""
    name, *others = FLAGS[kind]
    return ["--data", str(place / name), *others]


def write(place: Path) -> None:
    """Write all of them, and ``grey``, a folder of grey pictures, into a folder.

    In a child: what writes Parquet starts threads, which a fork would miss.
    """
    table = frame(ROWS, missing=0.05)
    table.to_csv(place / "table.csv", index=False)
    table.to_csv(place / "table.tsv", sep="\t", index=False)
    table.to_parquet(place / "table.parquet")
    np.save(place / "table.npy", np.random.default_rng(0).normal(size=(ROWS, 5)))
    for start, label in ((0, "a"), (100, "b")):
        write_pictures(place / "photos" / label, 12, start)
        write_pictures(place / "grey" / label, 12, start, colour=False)
        Image.fromarray(picture(start, 16, 12)).save(place / "photos" / label / "other.jpg")


def in_small_blocks() -> None:
    """Let this process write and read data on disk in several blocks, though they are small."""
    from pyro_infocat.data import disk, large_table

    disk.BLOCK_BYTES, large_table.ROWS = 500, 16
