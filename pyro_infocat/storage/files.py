"""Files that are there whole or not at all."""

import os
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Put a finished file in the place of the old one, on the disk and not only in memory.

    :raises OSError: where it cannot be written; the old one is still there.
    """
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def trouble(error: OSError) -> str:
    """What could not be read or written, and why."""
    # A full disk names no file.
    what = f"'{error.filename}'" if error.filename else "a result"
    return f"cannot read or write {what} ({error.strerror}); make room"
