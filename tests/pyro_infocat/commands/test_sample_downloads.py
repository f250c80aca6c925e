"""Sampling a run downloads nothing: its config, and the place that it names, may be another's."""

import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from pyro_infocat.sample import main
from pyro_infocat.settings import CONFIG
from tests.tiny import write_tiny_mnist

OLD = Path(__file__).resolve().parents[2] / "old_run" / "run"


@pytest.fixture
def run(tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that says that it was of MNIST, in a place that its config names."""

    def connect(*_: object) -> NoReturn:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", connect)
    folder = shutil.copytree(OLD, tmp_path / "run")
    config = yaml.safe_load((folder / CONFIG).read_text())
    config |= {"data": "mnist", "data_root": str(tmp_path / "theirs")}
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    return folder


FLAGS = ["--device", "cpu", "--reconstruct", "test", "--number", "2"]


@pytest.mark.parametrize("given", ["theirs", "mine"])
def test_nothing_is_downloaded(run: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor a folder made, in the config's place or in that of --data_root."""
    root = run.parent / given
    flags = [] if given == "theirs" else ["--data_root", str(root)]
    assert main([str(run), *FLAGS, *flags]) == 2
    assert capsys.readouterr().err == (
        f"error: --reconstruct test: '{root}' lacks train-images-idx3-ubyte.gz, and nothing is "
        "downloaded here; give --data_root, where the archives are\n"
    )
    assert not root.exists()


def test_what_is_there_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as its shape, which is not that of this run's images."""
    write_tiny_mnist(run.parent / "theirs")
    assert main([str(run), *FLAGS]) == 2
    assert "the images of 'mnist' are now of shape (28, 28)" in capsys.readouterr().err
    (run.parent / "theirs" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert main([str(run), *FLAGS]) == 2
    assert "lacks t10k-labels-idx1-ubyte.gz, and nothing is" in capsys.readouterr().err
