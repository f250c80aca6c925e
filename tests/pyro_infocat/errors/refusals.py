"""What the tests of errors share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from pyro_infocat.settings import CHECKPOINT, CONFIG

OUT = "out"
"""The folder of the run in these tests."""

PARTS = "tests.users_parts."
"""In front of the file and the class of a user's own part."""

Refuse = Callable[..., str]
"""The fixture ``refuse``: flags in, error out."""


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but the empty one that processes wait at."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def interrupt(*_: object, **__: object) -> NoReturn:
    """Stands for what Ctrl-C ends."""
    raise KeyboardInterrupt


def again(epochs: int) -> list[str]:
    """Flags that continue the run in ``OUT`` to so many epochs."""
    return ["--config", str(Path(OUT, CONFIG)), "--epochs", str(epochs), "--resume", "true"]


def checkpoint_in(folder: Path) -> dict[str, Any]:
    return torch.load(folder / CHECKPOINT, weights_only=True)
