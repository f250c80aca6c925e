"""An installed copy's commands: ``pyro-infocat run|sample|categorise|export|benchmark|tune``."""

import os
import sys
from collections.abc import Sequence

from pyro_infocat import __version__, benchmark, categorise, export, run, sample, tune

COMMANDS = {
    "run": run,
    "sample": sample,
    "categorise": categorise,
    "export": export,
    "benchmark": benchmark,
    "tune": tune,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: pyro-infocat {'|'.join(COMMANDS)} ...; each has its own --help")
        return 0
    if words == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] not in COMMANDS:
        given = f"no command '{words[0]}'" if words else "a command is missing"
        print(f"error: {given}; give one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # As under python -m: classes of the user's own lie where the command is typed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return COMMANDS[words[0]].main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
