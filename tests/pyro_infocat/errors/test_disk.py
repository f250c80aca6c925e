"""Disks that are full, files that may not grow, and readers of the output that have gone."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tensorboard.summary.writer.record_writer import RecordWriter

from pyro_infocat import experiment, sample
from pyro_infocat.evaluation import figures
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY
from pyro_infocat.storage.files import replace
from tests.brief import SMALL, be_brief, start
from tests.pyro_infocat.errors.refusals import OUT, Refuse, again, checkpoint_in, contents

DRAW = figures.draw
DRAWN = (
    *("interpolation", "subspace_walk", "reconstructions"),
    *("style", "blocks", "latent", "training", "confusion"),
)

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


def test_half_a_file_leaves_the_whole_one_and_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, new = tmp_path / "figure.png", tmp_path / "figure.png.new"
    replace(whole, b"whole")

    def full(descriptor: int) -> None:
        assert new.read_bytes() == b"half"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace(whole, b"half")
    assert contents(tmp_path) == {"figure.png": b"whole"}


def test_figures_and_samples_are_replaced_whole(
    trained: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        be_brief(patch)
        for name in (*DRAWN, "conditional_samples"):
            patch.setattr(figures, name, lambda *_: Figure((1, 1)))
        patch.setattr(figures, "draw", DRAW)
        assert main([*again(1), "--out", OUT]) == 0
        assert sample.main([OUT]) == 0
        before = contents(trained)
        (trained / "figures" / "conditional_samples.png.new").symlink_to("/dev/full")
        assert "No space left on device" in refuse(*again(1), fresh=False)
    (trained / "samples" / "samples.npz.new").symlink_to("/dev/full")
    assert sample.main([OUT]) == 2
    after = contents(trained)
    for name in before:
        if name.startswith(("figures", "samples")):
            assert after[name] == before[name], name


def test_a_disk_that_is_full_for_tensorboard_alone(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes in a thread of its own, which must not print what the line says."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RecordWriter, "write", full)
    hook = threading.excepthook
    error = refuse(*SMALL, "--epochs", "1", fresh=False)
    assert error == (
        f"--out: cannot write '{OUT}' (No space left on device); make room or choose another --out"
    )
    assert threading.excepthook is hook


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

    def stop(*_: object, **__: object) -> None:
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
