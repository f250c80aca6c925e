"""Tables that memory has no room for: a column at a time, or some rows at a time.

What is asked of a column is then as of a table in memory, and found by the same code.

Shapes: N rows, X columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_infocat.data.archive import array_blocks, mapped
from pyro_infocat.data.disk import Scratch

ROWS = 2**16
"""Rows of a Parquet file that are read at a time."""

BYTES = 32
"""What a value takes, about, while a table is read into memory."""


class LargeTable(ABC):
    """As much of a DataFrame's interface as a data set needs.

    :ivar columns: their names, as pandas has them.
    """

    columns: Any

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def __getitem__(self, name: str) -> Any:
        """A column, as a pandas Series."""

    @abstractmethod
    def frames(self) -> Iterator[Any]:
        """The rows in their order and by their number, as DataFrames of some at a time."""


class ParquetTable(LargeTable):
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.number = file.metadata.num_rows
            # Without what pandas kept as the rows' names.
            names = file.schema_arrow.empty_table().to_pandas().columns
        self.columns = pd.Index([str(name) for name in names])

    def _open(self) -> Any:
        import pyarrow.parquet

        # What is read ahead would be kept until the end.
        return pyarrow.parquet.ParquetFile(self.path, pre_buffer=False)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, name: str) -> Any:
        with self._open() as file:
            return file.read(columns=[name]).column(name).to_pandas()

    def frames(self) -> Iterator[Any]:
        first, names = 0, list(self.columns)
        with self._open() as file:
            for batch in file.iter_batches(ROWS, columns=names):
                frame = batch.to_pandas(ignore_metadata=True)[names]
                yield frame.set_axis(range(first, first + len(frame)))
                first += len(frame)


class ArrayTable(LargeTable):
    """An .npy of an array (N, X)."""

    def __init__(self, path: Path) -> None:
        array = mapped(path)
        self.path, self.dtype, self.shape = path, array.dtype, array.shape
        self.columns = pd.Index([f"x{number}" for number in range(array.shape[1])])
        # Column after column, so that one is read without the others.
        self.turned = Scratch()
        first = 0
        for block in array_blocks(path):
            for number, column in enumerate(block.T):
                self.turned.put((number * len(array) + first) * array.itemsize, column)
            first += len(block)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, name: str) -> Any:
        size = len(self) * self.dtype.itemsize
        column = self.turned.read([(self.columns.get_loc(name) * size, size)])
        return pd.Series(np.frombuffer(column, self.dtype))

    def frames(self) -> Iterator[Any]:
        first = 0
        for block in array_blocks(self.path):
            yield pd.DataFrame(block, range(first, first + len(block)), self.columns)
            first += len(block)
