"""Every write below a folder, counted in the process that writes: what happens at the n-th?

Opens for writing, renames and new folders are seen by an audit hook; writes through Python's files
by a raw file that counts, which half of what is written has reached when it fails.
"""

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR


class Operations:
    """The operations on a folder's files in this process, from when it is made.

    :ivar number: how many there were.
    :param happens: called before each is done, with its number and the file that it names: a
        write names none.
    """

    def __init__(self, folder: Path, happens: Callable[[int, Any], object]) -> None:
        self.folder, self.happens, self.number = str(folder.resolve()), happens, 0
        sys.addaudithook(self._see)
        self._open = builtins.open
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        sync = os.fsync

        def fsync(descriptor: Any) -> None:
            self.count()
            sync(descriptor)

        os.fsync = fsync

    def count(self, named: Any = None) -> None:
        """One more."""
        self.number += 1
        self.happens(self.number, named)

    def _is_inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.folder)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (writes or event in ("os.rename", "os.mkdir")) and self._is_inside(arguments[0]):
            self.count(arguments[0])

    def _opened(self, file: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
        """``open``, with a raw file that counts where it is written below the folder."""
        if not (set(mode) & set("wax+") and self._is_inside(file)):
            return self._open(file, mode, *others, **named)
        operations = self

        class Counting(io.FileIO):
            def write(self, content: Any) -> int:
                try:
                    operations.count()
                except OSError:
                    super().write(bytes(content)[: len(content) // 2])
                    raise
                return super().write(content)

        how = mode.replace("b", "").replace("t", "")
        raw = Counting(file, how, opener=named.get("opener"))
        if named.get("buffering") == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding=named.get("encoding"))


def full(folder: Path, first: int, last: int | None = None) -> Operations:
    """The disk is full at an operation and at all that follow, or up to a last one."""

    def happens(number: int, named: Any) -> None:
        if first <= number <= (last or number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), named)

    return Operations(folder, happens)


def killed(folder: Path, at: int) -> Operations:
    """The process is killed at an operation."""

    def happens(number: int, named: Any) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return Operations(folder, happens)
