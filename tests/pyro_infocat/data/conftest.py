"""Archives of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write an archive of the arrays given; returns its path."""

    def write(**arrays: object) -> str:
        path = tmp_path / "mine.npz"
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
        return str(path)

    return write
