"""``python -m pyro_infocat.export RUN --out FILE``: a run's guide for programs without this one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyro_infocat.cli.command_line import answer, positional, writing
from pyro_infocat.errors import UserError
from pyro_infocat.settings import setting
from pyro_infocat.storage.configuration import check_run

MODULE = "pyro_infocat.export"

ENDINGS = (".pt2", ".onnx")


@dataclass(frozen=True)
class Options:
    """Write a finished run as a program from raw examples to q(c|x), z and the category."""

    run: Path = positional("the folder of a run")
    out: Path | None = setting(None, ".pt2 for PyTorch or .onnx; default RUN/model.pt2")
    given: Literal["bytes", "grey"] = setting(
        "bytes", "how the program takes images: bytes as the run's data are, or grey in [0, 1]"
    )
    trust: list[str] | None = setting(
        None,
        "modules outside this project whose code may be run, where the run's config names them",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return answer(Options, argv, MODULE, write)


def write(options: Options) -> None:
    """Write the program.

    :raises UserError: for anything that the user gave wrong.
    """
    out = options.out or options.run / "model.pt2"
    if out.suffix not in ENDINGS:
        raise UserError("give a name that ends in .pt2 or .onnx", "out", out)
    check_run(options.run)
    from pyro_infocat import exporting
    from pyro_infocat.loading import load

    run = load(options.run, "cpu", options.trust or ())
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        exporting.write(run, out, options.given)
    print(f"{out}: x to {', '.join(exporting.OUTPUTS)}")


if __name__ == "__main__":
    sys.exit(main())
