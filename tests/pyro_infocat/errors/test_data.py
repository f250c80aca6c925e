"""Images that cannot be read, archives that are damaged, and folders that cannot be written."""

import errno
import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import MNIST

from pyro_infocat.data import readers
from tests.pyro_infocat.errors.refusals import Refuse, contents
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")

MNIST_ARCHIVES = [file for file, _ in MNIST.resources]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of this machine that nothing listens on in the place of the mirrors."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_data_root_that_cannot_be_written(root: str, refuse: Refuse) -> None:
    Path("file").write_text("mine")
    error = refuse("--data", "mnist", "--data_root", root)
    assert f"--data_root: cannot write to '{root}'" in error
    assert "give a folder that can be written" in error
    assert Path("file").read_text() == "mine"


@pytest.mark.usefixtures("no_network")
def test_a_download_that_fails(refuse: Refuse) -> None:
    error = refuse("--data", "mnist", "--data_root", "archives")
    assert "--data mnist: the download into 'archives/MNIST/raw' failed" in error
    assert "by hand" in error
    for file in MNIST_ARCHIVES:
        assert file in error
    # The folder that the message speaks of is there to place them in.
    assert Path("archives/MNIST/raw").is_dir()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "content", [gzip.compress(b"other")[:9], gzip.compress(b"other"), b""], ids=len
)
def test_an_archive_that_is_truncated_or_another(content: bytes, refuse: Refuse) -> None:
    archive = Path("data/MNIST/raw") / MNIST_ARCHIVES[1]
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    error = refuse("--data", "mnist")
    assert f"'{archive}' is truncated or damaged ({len(content)} bytes" in error
    assert MNIST.resources[1][1] in error
    assert archive.read_bytes() == content


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "header alone": lambda content: content[:16],
    "part of the header": lambda content: content[:6],
    "three bytes": lambda content: content[:3],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>Not found</html>",
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_an_unpacked_file_that_is_damaged(
    file: str, damage: Callable[[bytes], bytes], refuse: Refuse
) -> None:
    write_tiny_mnist(Path("data"), 20, 10)
    path = Path("data/MNIST/raw") / file
    path.write_bytes(damage(path.read_bytes()))
    before = contents(Path("data"))
    error = refuse("--data", "mnist")
    assert f"'data/MNIST/raw/{file}' is truncated or damaged" in error
    assert "delete it" in error
    assert contents(Path("data")) == before


@pytest.mark.usefixtures("no_network")
def test_a_file_that_may_not_be_read(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of someone else's, say; whoever runs the tests may read everything."""

    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "images")

    write_tiny_mnist(Path("data"), 20, 10)
    monkeypatch.setattr(readers, "_refuse_torn", closed)
    assert "--data_root: cannot read 'images' (Permission denied)" in refuse("--data", "mnist")


@pytest.mark.usefixtures("no_network")
def test_unpacked_files_that_do_not_belong_together(refuse: Refuse) -> None:
    write_tiny_mnist(Path("data"), 20, 10)
    folder = Path("data/MNIST/raw")
    labels = folder / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    shutil.copy(folder / "t10k-labels-idx1-ubyte", labels)
    assert "do not belong together" in refuse("--data", "mnist")
    labels.write_bytes(whole[:-1] + b"\x0a")
    assert "do not belong together" in refuse("--data", "mnist")


def test_a_file_name_that_no_disk_has(refuse: Refuse) -> None:
    assert "--data: no file 'xxx" in refuse("--data", f"{'x' * 400}.npz")


@pytest.mark.parametrize("most", [1, 16, 63])
def test_bytes_that_are_next_to_black(most: int, refuse: Refuse) -> None:
    """The digits' own levels, 0 to 16, saved as bytes, where white would be 255."""
    images = load_digits().images[:50] * (most / 16)
    np.savez("mine.npz", x_train=images.astype(np.uint8))
    error = refuse("--data", "mine.npz")
    assert error.startswith(f"--data: 'mine.npz': x_train holds bytes up to {most}, next to black")
    assert f"give bytes up to 255, or grey levels in [0, 1], as x_train / {most}" in error
