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
