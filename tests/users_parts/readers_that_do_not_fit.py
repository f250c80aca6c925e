"""Readers that a run must refuse, each for one reason."""

from pathlib import Path

import torch

from pyro_infocat import DataSet, Reader
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import Split


class Abstract(Reader):
    pass


class NeedsANumber(Reader):
    def __init__(self, size: int) -> None:
        self.size = size

    def read(self) -> DataSet: ...


class ReadsNothing(Reader):
    def read(self) -> DataSet:
        return None


class Fails(Reader):
    def read(self) -> DataSet:
        return Path("images.raw").read_bytes()


def of(pixels: torch.Tensor) -> DataSet:
    split = Split(pixels, torch.zeros(len(pixels), dtype=torch.int64), 17, labelled=False)
    return DataSet(Facts("digits", (8, 8), 17, ()), split, split)


class GreyLevels(Reader):
    """They would be divided by 16 once more."""

    def read(self) -> DataSet:
        return of(torch.rand(20, 64))


class AnotherNumberOfPixels(Reader):
    def read(self) -> DataSet:
        return of(torch.zeros(20, 63, dtype=torch.uint8))


class BeyondItsLevels(Reader):
    def read(self) -> DataSet:
        return of(torch.full((20, 64), 17, dtype=torch.uint8))
