"""Children of one process that has everything imported: a try takes a moment and harms nobody."""

import contextlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.brief import be_brief

ROOM = 2 * 1024**3
"""Bytes that a child may take beside what it shares with its parent."""

LONGEST = 300.0
"""Seconds after which a child hangs."""


FIGURES = (
    *("conditional_samples", "interpolation", "subspace_walk", "reconstructions"),
    *("style", "blocks", "latent", "training", "confusion", "typical"),
)
"""The functions that draw a run's figures."""


class Ended(NamedTuple):
    """How a child ended.

    :ivar code: its exit code; minus the signal that ended it.
    :ivar peak: bytes of memory that it took beside what it shared with its parent.
    """

    code: int
    seconds: float
    peak: int
    said: str
    complained: str
    hung: bool = False

    def tail(self) -> str:
        """The end of what it complained of."""
        return self.complained.strip()[-600:]


def imported() -> None:
    """Import what a command imports, so that children need not."""
    import matplotlib.backends.backend_agg  # noqa: F401
    import onnxscript  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.neural_network  # noqa: F401
    import torch._dynamo  # noqa: F401
    import torchvision.datasets
    import torchvision.utils  # noqa: F401

    from pyro_infocat import (  # noqa: F401
        assignment,
        benchmark,
        categorise,
        experiment,
        export,
        exporting,
        loading,
        run,
        sample,
        sampling,
    )
    from pyro_infocat.data import table  # noqa: F401
    from pyro_infocat.version import made_by

    made_by()  # Asks git once for all children.


def hurried(drawn: bool = True) -> None:
    """Let evaluation in this process take a moment.

    :param drawn: whether figures are written all the same, with nothing in them.
    """
    from matplotlib.figure import Figure

    from pyro_infocat.evaluation import figures

    draw = figures.draw
    be_brief(pytest.MonkeyPatch())
    if drawn:
        figures.draw = draw
        for name in FIGURES:
            setattr(figures, name, lambda *_: Figure((1, 1)))


def begin(work: Callable[[], object], log: Path, before: Callable[[], object] = lambda: 0) -> int:
    """Fork a child that does some work; its process number.

    :param work: its result is the exit code.
    :param log: what the child says goes beside it, to ``log.out`` and ``log.err``.
    :param before: done in the child first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            to = os.open(f"{log}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(to, descriptor)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before()
        code = int(work() or 0)  # type: ignore[call-overload]
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, log: Path, longest: float = LONGEST) -> Ended:
    """How a child ends that was begun before; one that hangs is killed."""
    began, hung = time.monotonic(), False
    while True:
        number, status, used = os.wait4(child, os.WNOHANG)
        if number:
            break
        if time.monotonic() - began > longest and not hung:
            hung = True
            kill_with_all_below(child)
        time.sleep(0.005)
    shared = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said, complained = (
        Path(f"{log}.{name}").read_text(errors="replace") if Path(f"{log}.{name}").exists() else ""
        for name in ("out", "err")
    )
    peak = max(0, used.ru_maxrss - shared) * 1024
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, time.monotonic() - began, peak, said, complained, hung)


def done(
    work: Callable[[], object],
    folder: Path,
    before: Callable[[], object] = lambda: 0,
    longest: float = LONGEST,
) -> Ended:
    """How some work ends in a child that begins in a folder and may not take what memory it likes.

    :param before: done in the child first.
    """

    def limited() -> None:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        most = _size() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        before()

    log = folder.with_name(f"{folder.name}-log")
    return wait(begin(work, log, limited), log, longest)


def must(work: Callable[[], object], folder: Path) -> None:
    """Have some work done by a child in a folder.

    :raises RuntimeError: where it fails.
    """
    if (ended := done(work, folder)).code:
        raise RuntimeError(ended.tail())


def _size() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def below(process: int) -> list[int]:
    """All that a process has started, and what that has."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *below(child)]
    return found


def kill_with_all_below(process: int) -> None:
    """End a process and all that it has started, as when the power goes."""
    for one in [process, *below(process)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def wrong(ended: Ended, lines: int | None = 1) -> str | None:
    """What is wrong with an end that should be exit code 0, or 2 with one line; None for nothing.

    :param lines: of the error, where there is one; None for any number, each of which is an error.
    """
    said = ended.complained
    if ended.hung:
        return f"it hung: {ended.tail()}"
    if ended.code < 0:
        return f"it was ended by {signal.Signals(-ended.code).name}: {ended.tail()}"
    if "Traceback" in said:
        return f"a traceback: {ended.tail()}"
    if ended.peak > ROOM:
        return f"it took {ended.peak / 2**30:.1f} GiB: {ended.tail()}"
    if ended.code not in (0, 2):
        return f"exit code {ended.code}: {ended.tail()}"
    if ended.code == 2 and not (said.startswith("error: ") and said.endswith("\n")):
        return f"no line of error: {ended.tail() or 'nothing'}"
    if ended.code == 2 and lines is not None and said.count("\n") != lines:
        return f"more than a line: {said[:600]}"
    if "Warning" in said:
        return f"a warning: {ended.tail()}"
    return None


def emptied(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
