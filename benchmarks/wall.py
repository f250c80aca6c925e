"""Where the wall time of a command goes, from its start to its exit.

    python -m benchmarks.wall [--device cuda] [--data mnist] [--write]

The README's command, and ``--data mnist`` where it is asked for, each in a process of its own. The
stages are those of :func:`pyro_infocat.experiment.run`; what is left is Python's own start and exit
and writing to the run's folder.
"""

import argparse
import functools
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.documents import write
from benchmarks.step_time import RESULTS, machine

STAGES = {
    "reading data": ("pyro_infocat.experiment", "read_data"),
    "trying the parts": ("pyro_infocat.experiment", "try_parts"),
    "training": ("pyro_infocat.experiment", "train"),
    "metrics": ("pyro_infocat.experiment", "evaluate"),
    "figures": ("pyro_infocat.evaluation.figures", "draw"),
}
"""The functions that a run spends its time in."""

IMPORTS, REST = "start and imports", "the rest"


def child(began: float, argv: list[str]) -> dict[str, float]:
    """Run a command in this process; the seconds of each stage, and of each metric.

    :param began: when the process was started, as ``time.time`` has it.
    """
    from pyro_infocat.evaluation import metrics

    for module, _ in STAGES.values():
        importlib.import_module(module)
    seconds = {IMPORTS: time.time() - began}

    def timed(name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            before = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - before

        return wrapped

    for name, (module, function) in STAGES.items():
        owner = importlib.import_module(module)
        setattr(owner, function, timed(name, getattr(owner, function)))
    for kind in metrics.METRICS:
        kind.__call__ = timed(f"metrics: {kind.name}", kind.__call__)  # type: ignore[method-assign]
    from pyro_infocat.run import main as run

    if run(argv):
        sys.exit("the command failed")
    return seconds


def measure(argv: list[str]) -> dict[str, float]:
    """The seconds of each stage of a command, and of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        began = time.time()
        command = [sys.executable, "-m", "benchmarks.wall", "--child", str(began), str(file)]
        subprocess.run([*command, *argv, "--out", f"{folder}/run"], check=True)
        whole = time.time() - began
        seconds = json.loads(file.read_text())
    stages = [IMPORTS, *STAGES]
    rest = whole - sum(seconds.get(stage, 0.0) for stage in stages)
    return seconds | {REST: rest, "whole": whole}


def table() -> str:
    """The committed results as Markdown."""
    lines = ["| machine | command | stage | seconds | over training |", "|" + " --- |" * 5]
    for file in sorted(RESULTS.glob("wall_*.json")):
        record = json.loads(file.read_text())
        name = "{device}, {threads} threads, torch {torch}".format(**record["machine"])
        for command, seconds in record["commands"].items():
            stages = [IMPORTS, *STAGES, REST]
            rows = {stage: seconds.get(stage, 0.0) for stage in stages}
            rows["all but training"] = seconds["whole"] - seconds["training"]
            for stage, value in rows.items():
                share = value / seconds["training"]
                cells = [name, f"`{command}`", stage, f"{value:.1f}", f"{share:.2f}"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        began, file, *argv = sys.argv[2:]
        Path(file).write_text(json.dumps(child(float(began), argv)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", nargs="*", default=["digits"], help="data sets by name")
    parser.add_argument("--write", action="store_true", help="the results and their table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    options, flags = parser.parse_known_args()
    commands = {}
    for data in options.data:
        argv = ["--data", data, "--device", options.device, *flags]
        said = " ".join(["python -m pyro_infocat.run", *(["--data", data] * (data != "digits"))])
        commands[said] = measure(argv)
        for stage, seconds in commands[said].items():
            print(f"{stage:40}{seconds:8.2f}", flush=True)
    if options.write:
        record = {"machine": machine(options.device, torch.get_num_threads())}
        file = options.results / f"wall_{torch.device(options.device).type}.json"
        file.write_text(json.dumps(record | {"commands": commands}, indent=1) + "\n")
        if options.results == RESULTS:
            write("wall", lambda document: table())


if __name__ == "__main__":
    main()
