"""Folders of small picture files."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, height: int = 8, width: int = 8, colour: bool = True) -> np.ndarray:
    """Bytes (height, width, 3) or (height, width), other ones for each number."""
    random = np.random.default_rng(number)
    shape = (height, width, 3) if colour else (height, width)
    return random.integers(0, 256, shape, dtype=np.uint8)


def write_pictures(folder: Path, number: int = 4, start: int = 0, **shape: int) -> list[Path]:
    """``number`` PNG files, as :func:`picture` has them from ``start`` on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n:03d}.png" for n in range(start, start + number)]
    for n, path in enumerate(paths, start=start):
        Image.fromarray(picture(n, **shape)).save(path)
    return paths
