"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pyro_infocat.errors import UserError, reason


def replace(path: Path, content: bytes) -> None:
    """Put a finished file in the place of the old one, on the disk and not only in memory.

    :raises OSError: where it cannot be written; the old one is still there.
    """
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the old one's place at the end, as in :func:`replace`."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        # What is left of it takes room on a disk that is full.
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def read_json(path: Path, remedy: str, lines: bool = False, kind: type = dict) -> Any:
    """What a JSON file says, or a list of what each of its lines does.

    :param remedy: what would make it whole again.
    :param kind: what each is to be.
    :raises UserError: naming the file and the line where it was damaged.
    :raises OSError: where it cannot be opened.
    """
    texts = path.read_bytes().splitlines() if lines else [path.read_bytes()]
    found = []
    for number, text in enumerate(texts, start=1):
        try:
            value = json.loads(text)
            if not isinstance(value, kind):
                raise ValueError(f"it holds a {type(value).__name__}")
        except (ValueError, RecursionError) as error:
            where = getattr(error, "lineno", 1) + number - 1
            said = getattr(error, "msg", reason(error))
            raise UserError(f"'{path}', line {where}, is damaged ({said}); {remedy}") from error
        found.append(value)
    return found if lines else found[0]


def trouble(error: OSError) -> str:
    """What could not be read or written, and why."""
    # A full disk names no file.
    what = f"'{error.filename}'" if error.filename else "a result"
    return f"cannot read or write {what} ({error.strerror}); make room"
