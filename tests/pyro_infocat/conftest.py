"""Fixtures for tests of whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

from tests.brief import be_brief


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder; what a command sets for the whole process is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        yield
    pyro.clear_param_store()


@pytest.fixture
def brief(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, and an independent classifier that learns less."""
    be_brief(monkeypatch)
