"""Disks that are full, files that may not grow, and readers of the output that have gone."""

import errno
import os
import resource
from pathlib import Path

import pytest

from pyro_infocat import experiment
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY
from tests.brief import SMALL, start
from tests.pyro_infocat.errors.refusals import OUT, Refuse, again, checkpoint_in

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("file", [CHECKPOINT, HISTORY])
def test_a_full_disk(file: str, trained: Path, refuse: Refuse) -> None:
    whole = (trained / file).read_bytes()
    (trained / f"{file}.new").symlink_to("/dev/full")
    error = refuse(*again(3), fresh=False)
    assert f"--out: cannot write '{OUT}' (No space left on device)" in error
    assert "make room" in error
    assert (trained / file).read_bytes() == whole
    assert checkpoint_in(trained)["epoch"] == 1


def test_a_disk_that_is_full_as_the_run_begins(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refuse(*SMALL, fresh=False)
    assert not Path(OUT, CONFIG).exists()


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "weights.npz"),
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    ],
)
def test_an_error_that_is_not_of_the_folder_keeps_its_traceback(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a mistake in a user's own class, and another folder would not mend it."""

    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(experiment, "run", stop)
    with pytest.raises(type(error)):
        main(SMALL)


@pytest.mark.slow
def test_nobody_reads_what_is_said() -> None:
    """As with ``| head -1``: what is done can be gone on with, and nothing more is said."""
    process = start(*SMALL, "--epochs", "1", "--out", OUT)
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (141, "")
    assert checkpoint_in(Path(OUT))["epoch"] == 1


def test_a_file_that_may_not_grow(trained: Path, refuse: Refuse) -> None:
    flags = again(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        error = refuse(*flags, fresh=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in error
    assert checkpoint_in(trained)["epoch"] == 1
