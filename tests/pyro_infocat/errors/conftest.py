"""Fixtures for tests of errors."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyro_infocat import experiment
from pyro_infocat.run import main
from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, Refuse, interrupt


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run flags that must be refused; returns the error without ``error:``.

    ``fresh`` asserts that no folder was begun.
    """

    def refuse(*flags: str, fresh: bool = True) -> str:
        has_out = any(flag.partition("=")[0] == "--out" for flag in flags)
        code = main([*flags, *([] if has_out else ["--out", OUT])])
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert "Traceback" not in error
        if fresh:
            assert not Path(OUT).exists()
        return error.removeprefix("error: ").strip()

    return refuse


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of a user's own that no committed file can be; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code: str) -> str:
        # A name of its own, since modules are imported once.
        name = f"mine_{hashlib.md5(code.encode()).hexdigest()[:8]}"
        (tmp_path / f"{name}.py").write_text(code)
        return name

    return write


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch, interrupted before evaluation; to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(folder)
        patch.setattr(experiment, "evaluate", interrupt)
        assert main([*SMALL, "--epochs", "1", "--out", OUT]) == 130
    return folder / OUT


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, alone: None) -> Path:
    """A run of one epoch, interrupted before evaluation, in the folder ``OUT``."""
    return shutil.copytree(trained_once, tmp_path / OUT)
