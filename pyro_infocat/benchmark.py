"""``python -m pyro_infocat.benchmark PRESET --seeds 0 1 2``: many seeds of a preset, and a table.

Runs that are finished are kept and runs that were stopped go on, so the same command resumes,
also elsewhere: seeds that the committed results hold of the same recipe are not run again.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyro_infocat.errors import UserError
from pyro_infocat.files import replace, trouble
from pyro_infocat.parser import Parser
from pyro_infocat.settings import CHECKPOINT, METRICS, ROOT

RECIPE = "recipe.txt"
"""The preset and the flags that a row's runs were made with, beside them."""

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

COLUMNS = {
    "accuracy": ("accuracy", "{:.3f}", max),
    "generation_accuracy": ("generation accuracy", "{:.3f}", max),
    "nmi": ("NMI", "{:.3f}", max),
    "clusters_used": ("categories in use", "{:.1f}", max),
    "elbo": ("bound", "{:.2f}", max),
    "nll": ("NLL", "{:.2f}", min),
    "train_seconds": ("seconds", "{:.0f}", min),
}
"""Each metric of the table: its title, its format, and which end of it is the best."""

NOTHING = "\N{EN DASH}"
"""Stands for a metric that a row does not have: a rival of another kind may have no bound."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return run(*parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --out or --results", file=sys.stderr)
    return 2


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """What this command was told, and the flags that are for its runs.

    :raises UserError: for anything that the user gave wrong.
    """
    parser = Parser(
        prog="python -m pyro_infocat.benchmark", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("preset", type=Path, nargs="*", help="presets, such as runs/digits.yaml")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    add("--out", type=Path, default=Path("runs"), help="the runs' folders go here")
    add("--results", type=Path, default=RESULTS, help="the JSON of each preset goes here")
    add("--readme", action="store_true", help="write the table into README.md as well")
    add("--name", help="of the row, where further flags of the run change the preset")
    # What this command does not know is for the runs.
    options, flags = parser.parse_known_args(argv)
    for preset in options.preset:
        if not preset.is_file():
            raise UserError(
                f"no preset '{preset}'; give a YAML file such as runs/digits.yaml, before any flag "
                "of the runs"
            )
    if min(options.seeds) < 0:
        raise UserError(f"--seeds {min(options.seeds)}: must be at least 0")
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: must be at least 1")
    if flags and not options.name:
        raise UserError(f"{' '.join(flags)} changes the preset; give the row a --name")
    rows = [options.name or preset.stem for preset in options.preset]
    if len(set(rows)) < len(rows):
        raise UserError("two presets would share a row of the table; run them one at a time")
    return options, flags


def run(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Run what is not finished and print the table; returns 1 where a run failed, else 0."""
    failed = 0
    # Now rather than after the runs, where it cannot be made.
    options.results.mkdir(parents=True, exist_ok=True)
    for preset in options.preset:
        name = options.name or preset.stem
        place = options.out / re.sub(r"\W+", "-", name)
        file = options.results / f"{place.name}.json"
        made_with = recipe(preset, flags)
        _keep_recipe(place, made_with)
        runs = _finished(file, made_with)
        folders = {seed: place / f"seed{seed}" for seed in options.seeds if seed not in runs}
        for seed, folder in folders.items():
            if (folder / METRICS).exists():
                _refuse_others(folder, _arguments(preset, seed, folder, flags))
        threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = {
                seed: pool.submit(_run, preset, seed, folder, flags, threads)
                for seed, folder in folders.items()
            }
        for seed, job in jobs.items():
            if job.result() != 0:
                failed = 1
                print(
                    f"error: {name}: seed {seed} failed; '{_log(folders[seed])}' says why",
                    file=sys.stderr,
                )
            elif (folders[seed] / METRICS).exists():
                runs[seed] = json.loads((folders[seed] / METRICS).read_text())
        if runs:
            record = {"name": name, "preset": preset.name, "flags": flags, "recipe": made_with}
            record["runs"] = [runs[seed] for seed in sorted(runs)]
            replace(file, (json.dumps(record, indent=1) + "\n").encode())
    print(table(options.results))
    if options.readme:
        replace(README, with_table(README.read_text(), table(options.results)).encode())
    return failed


def recipe(preset: Path, flags: Sequence[str]) -> str:
    """What a row's runs are made with: the preset without its comments, and the flags."""
    lines = [line for line in preset.read_text().splitlines() if not line.startswith("#")]
    return "\n".join([*lines, shlex.join(flags)]) + "\n"


def _finished(file: Path, recipe: str) -> dict[int, dict[str, Any]]:
    """The runs of this recipe that a file of results holds, by seed: another machine's count."""
    record = json.loads(file.read_text()) if file.exists() else {}
    if record.get("recipe") != recipe:
        return {}
    return {run["seed"]: run for run in record["runs"]}


def _keep_recipe(place: Path, recipe: str) -> None:
    """Refuse to count runs of another preset or other flags as this row's."""
    file = place / RECIPE
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        file.write_text(recipe)
    elif file.read_text() != recipe:
        raise UserError(
            f"--out: '{place}' holds runs of another preset or other flags, see '{file}'; delete "
            "it, or choose another --out or --name"
        )


def _refuse_others(folder: Path, arguments: Sequence[str]) -> None:
    """Refuse to count a run that has other settings than the row."""
    # torch takes seconds to import, which only finished runs are worth.
    from pyro_infocat.arguments import parse
    from pyro_infocat.record import MAY_DIFFER, Record, differences

    for key, then, now in differences(Record(folder).settings(), parse(arguments)[0]):
        if key not in MAY_DIFFER:
            raise UserError(
                f"--out: '{folder}' holds a run with {key} {then}, and the row's has {now}; "
                "delete it, or choose another --out or --name"
            )


def _arguments(preset: Path, seed: int, folder: Path, flags: Sequence[str]) -> list[str]:
    """The flags of a run."""
    return ["--config", str(preset), "--seed", str(seed), "--out", str(folder), *flags]


def _run(preset: Path, seed: int, folder: Path, flags: Sequence[str], threads: str) -> int:
    """One run, in a process of its own; returns its exit code."""
    if (folder / METRICS).exists():
        return 0
    command = [sys.executable, "-m", "pyro_infocat.run", *_arguments(preset, seed, folder, flags)]
    if (folder / CHECKPOINT).exists():
        command += ["--resume", "true"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _log(folder).open("a") as log:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": path}
        return subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def table(results: Path) -> str:
    """Mean, spread (standard deviation) and worst of each metric, as Markdown.

    Rows of presets as they are come first, then those that something changes, each by name.
    """
    head = ["preset", "seeds", *(title for title, _, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    files = sorted(results.glob("*.json"), key=lambda path: path.stem)
    records = [json.loads(path.read_text()) for path in files]
    rows = [record for record in records if isinstance(record, dict) and record.get("runs")]
    for row in sorted(rows, key=lambda row: row["name"] != Path(row["preset"]).stem):
        runs = row["runs"]
        cells = [row["name"], str(len(runs)), *(_cell(runs, name) for name in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(runs: Sequence[dict[str, Any]], name: str) -> str:
    _, form, best = COLUMNS[name]
    if not any(name in run for run in runs):
        return NOTHING
    values = [run[name] for run in runs]
    mean = form.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    worst = min(values) if best is max else max(values)
    spread = form.format(statistics.stdev(values))
    return f"{mean} ± {spread} (worst {form.format(worst)})"


def with_table(document: str, content: str, name: str = "results") -> str:
    """A document with ``content`` between the two comments of that name.

    :raises UserError: where it does not have one such pair of comments.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = f"{begin}\n{content}\n{end}"
    text, found = re.subn(f"(?s){begin}.*?{end}", lambda _: whole, document)
    if found != 1:
        raise UserError(f"a document with {found} places for a table; write one '{begin}{end}'")
    return text


if __name__ == "__main__":
    sys.exit(main())
