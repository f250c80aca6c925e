"""Examples on disk: written once, in blocks, and read by index. Memory holds a batch of them.

Shapes: B batch, N examples, X features.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from pyro_infocat.errors import UserError

BLOCK_BYTES = 2**24
"""Bytes that are read or written at a time, about."""


FROM_DISK = "; read from disk while training"
"""What the first line of a run says of such data."""


def block_rows(bytes_of_one: int) -> int:
    """How many examples of so many bytes are a block."""
    return max(1, BLOCK_BYTES // max(1, bytes_of_one))


class Scratch:
    """A file without a name, closed with the last that holds it, and gone with the process.

    It lies where TMPDIR says; else in /var/tmp, since /tmp often lies in memory.

    :raises UserError: where there is no such folder, or it cannot be written to.
    """

    def __init__(self) -> None:
        usual = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
        self.folder = os.environ.get("TMPDIR") or usual
        try:
            self.file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"the data are to be read from disk, and '{self.folder}' takes no file "
                f"({error.strerror}); set TMPDIR to a folder that does",
                "data",
            ) from error
        weakref.finalize(self, self.file.close)

    def append(self, array: np.ndarray) -> None:
        """Write an array's numbers behind what is there.

        :raises UserError: where the disk has no room for them.
        """
        rest = np.ascontiguousarray(array).data.cast("B")
        try:
            # A file takes what there is room for, and refuses the next byte.
            while len(rest):
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise UserError(
                f"there is no room for the data on the disk of '{self.folder}' "
                f"({error.strerror}); set TMPDIR to a folder on a larger one",
                "data",
            ) from error

    def put(self, place: int, array: np.ndarray) -> None:
        """Write an array's numbers from a byte on.

        :raises UserError: as :meth:`append`.
        """
        self.file.seek(place)
        self.append(array)

    def read(self, pieces: Iterable[tuple[int, int]]) -> bytearray:
        """The bytes of some pieces: from which byte on each, and how many.

        Not by a map of the file: what a system maps around a byte counts as memory, and may be
        megabytes.

        :raises OSError: where they cannot be read.
        """
        file, pieces = self.file.fileno(), list(pieces)
        found = bytearray().join([os.pread(file, size, place) for place, size in pieces])
        if len(found) < sum(size for _, size in pieces):
            raise OSError("the file of the data ends too early")
        return found


class OnDisk:
    """Examples in a file, with as much of a tensor's interface as a split needs.

    :param scratch: their numbers, one example after the other.
    :param shape: (N, ...) of all that it holds.
    :param index: which of these there are, in this order (N,); all where it is None.
    """

    def __init__(
        self,
        scratch: Scratch,
        dtype: np.dtype,
        shape: tuple[int, ...],
        index: Tensor | None = None,
    ) -> None:
        self.scratch, self.held, self.index = scratch, np.dtype(dtype), index
        self._every = shape

    @classmethod
    def written(cls, blocks: Iterable[np.ndarray]) -> "OnDisk":
        """Of arrays (B, ...), at least one, of one type and shape behind the first axis.

        :raises UserError: where the disk has no room for them.
        """
        scratch, number = Scratch(), 0
        block = np.empty(0)
        for block in blocks:
            scratch.append(block)
            number += len(block)
        return cls(scratch, block.dtype, (number, *block.shape[1:]))

    def __len__(self) -> int:
        return self._every[0] if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return (len(self), *self._every[1:])

    @property
    def dtype(self) -> torch.dtype:
        """As a tensor of them has it."""
        return torch.from_numpy(np.empty(0, self.held)).dtype

    def flatten(self, start: int = 1) -> "OnDisk":
        """The same as rows (N, X)."""
        flat = math.prod(self._every[start:])
        return OnDisk(self.scratch, self.held, (*self._every[:start], flat), self.index)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Some examples in memory, by their numbers (B,)."""
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        rows = index if self.index is None else self.index[index]
        found = self.scratch.read(self._pieces(rows))
        return torch.from_numpy(np.frombuffer(found, self.held)).view(-1, *self._every[1:])

    def _pieces(self, rows: Tensor) -> Iterator[tuple[int, int]]:
        """Where rows (B,) stand: what stands side by side is read in one go."""
        size = self.held.itemsize * math.prod(self._every[1:])
        begins = torch.cat([rows.new_zeros(1), (rows.diff() != 1).nonzero()[:, 0] + 1])
        ends = [*begins[1:].tolist(), len(rows)]
        for place, begin, end in zip(rows[begins].tolist(), begins.tolist(), ends, strict=True):
            yield place * size, (end - begin) * size

    def chosen(self, index: Tensor) -> "OnDisk":
        """Some of them, by their numbers (B,) or a mask (N,), still on disk."""
        if index.dtype is torch.bool:
            index = index.nonzero()[:, 0]
        rows = index if self.index is None else self.index[index]
        return OnDisk(self.scratch, self.held, self._every, rows)

    def blocks(self) -> Iterator[Tensor]:
        """All of them in their order, some at a time."""
        size = block_rows(self.held.itemsize * math.prod(self._every[1:]))
        for part in torch.arange(len(self)).split(size):
            yield self[part]


def blocks_of(examples: Tensor | OnDisk) -> Iterator[Tensor]:
    """Examples some at a time, or in one block where they are in memory."""
    return examples.blocks() if isinstance(examples, OnDisk) else iter([examples])
