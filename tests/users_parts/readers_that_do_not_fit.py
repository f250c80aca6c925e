"""Readers that a run must refuse, each for one reason."""

from pathlib import Path

from pyro_infocat import DataSet, Reader


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
