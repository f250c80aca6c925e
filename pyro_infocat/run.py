"""``python -m pyro_infocat.run``: train, evaluate and draw."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pyro_infocat.cli.run_flags import parse, read
from pyro_infocat.errors import UserError
from pyro_infocat.settings import CHECKPOINT, CONFIG, STARTS, TRIED

INTERRUPTED, UNHEARD = 130, 141
"""Exit codes of a shell for what SIGINT and SIGPIPE end."""

GRACE = 10.0
"""Seconds that other processes leave the first one to say what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    # Before torch is loaded: its threads would spin for milliseconds where one waits for another,
    # which takes ten times as long as the work where the machine has other things to do.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    out = before = request = None
    try:
        request = read(argv)
        settings, out, resume = parse(request)
        before = _written(out)
        from pyro_infocat import experiment

        experiment.run(settings, out, resume, preset=request.preset)
    except UserError as error:
        return _fail(error.told(request.resolver.origin if request else _as_flag))
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter's own last flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        if out is None or not _of_writing(error, out):
            raise
        where = os.fsdecode(error.filename or out)
        remedy = "make room or choose another --out"
        if not out.is_dir():
            remedy = "the run's folder was moved, deleted or replaced; put it back and go on"
        return _fail(f"--out: cannot write '{where}' ({error.strerror}); {remedy}")
    except KeyboardInterrupt:
        how = "nothing was written"
        if out is not None and _written(out) != before:
            how = "the same command begins again"
            if (out / CHECKPOINT).exists():
                flags = ["--config", str(out / CONFIG), "--out", str(out), "--resume", "true"]
                how = f"continue with: python -m pyro_infocat.run {shlex.join(flags)}"
            elif (out / STARTS).exists():
                how = "the same command goes on with the starts"
        _say(f"interrupted; {how}")
        return INTERRUPTED
    return 0


def _as_flag(setting: str) -> str:
    return f"--{setting}"


def _of_writing(error: OSError, out: Path) -> bool:
    """Whether an error is of the disk that the run is written to: a full one names no file."""
    if error.errno is None or isinstance(error, ConnectionError):
        return False
    return error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(out)


def _written(out: Path) -> list[tuple[int, int]]:
    """What changes when a run begins or goes on in a folder: its settings are a new file.

    So is what a search for the number of categories found before.
    """
    found = []
    for name in (CONFIG, TRIED):
        with suppress(OSError):
            held = (out / name).stat()
            found.append((held.st_ino, held.st_mtime_ns))
    return found


def _fail(message: str) -> int:
    _say(f"error: {message}")
    return 2


def _say(line: str) -> None:
    """A line on stderr, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)
    else:
        # As soon as one ends torchrun ends the others, and the first has yet to say it.
        time.sleep(GRACE)


if __name__ == "__main__":
    sys.exit(main())
