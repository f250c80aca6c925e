"""Fixtures for tests of figures.

Shapes: R rows and C columns of a figure, X features.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_infocat.evaluation import figures


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The images (R, C, X) of each figure of images."""
    made: list[Tensor] = []
    right = figures._mosaic

    def look(images: Tensor, *others: Any) -> Any:
        made.append(images)
        return right(images, *others)

    monkeypatch.setattr(figures, "_mosaic", look)
    with torch.random.fork_rng(devices=[]):
        yield made
