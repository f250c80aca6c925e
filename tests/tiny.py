"""Small data of the real format."""

import struct
from pathlib import Path

import numpy as np


def write_tiny_mnist(root: Path, train: int = 200, test: int = 100) -> None:
    """MNIST and Fashion-MNIST as unpacked IDX files of blobs, a place for each label."""
    random = np.random.default_rng(0)
    for kind in ("MNIST", "FashionMNIST"):
        folder = root / kind / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for name, number in (("train", train), ("t10k", test)):
            labels = np.arange(number, dtype=np.uint8) % 10
            images = random.integers(0, 60, (number, 28, 28), dtype=np.uint8)
            for image, label in zip(images, labels, strict=True):
                row, column = 2 + 14 * (label // 5), 1 + 5 * (label % 5)
                image[row : row + 10, column : column + 5] += 180
            header = struct.pack(">HBBIII", 0, 8, 3, number, 28, 28)
            (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            header = struct.pack(">HBBI", 0, 8, 1, number)
            (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
