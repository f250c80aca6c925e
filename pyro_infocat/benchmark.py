"""``python -m pyro_infocat.benchmark PRESET --seeds 0 1 2``: many seeds of a preset, and a table.

Runs that are finished are kept and runs that were stopped go on, so the same command resumes,
also elsewhere: seeds that the committed results hold of the same recipe are not run again.
``seeds.py`` starts the runs, here or on a cluster.
"""

import json
import re
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyro_infocat.cli import run_flags
from pyro_infocat.cli.command_line import parse, positional
from pyro_infocat.cli.markdown import with_table
from pyro_infocat.errors import UserError
from pyro_infocat.places import CHECKOUT, PRESETS
from pyro_infocat.settings import METRICS, MOST_SEED, TEST_CATEGORIES, setting
from pyro_infocat.storage.files import read_json, replace, trouble

if TYPE_CHECKING:
    from pyro_infocat.seeds import Workers

MODULE = "pyro_infocat.benchmark"

DASKS = r"(tcp|tls)://[^/]+:\d+"
"""The address of a Dask scheduler."""

RECIPE = "recipe.txt"
"""The preset and the flags that a row's runs were made with, beside them."""

RESULTS = CHECKOUT / "benchmarks" / "results" if CHECKOUT else Path("benchmarks") / "results"
README = CHECKOUT / "README.md" if CHECKOUT else Path("README.md")

DELETE = "delete it, and what it holds is made anew"
"""For a damaged file of metrics or of results."""

COLUMNS = {
    "accuracy": ("accuracy", "{:.3f}", max),
    "generation_accuracy": ("generation accuracy", "{:.3f}", max),
    "gan_train": ("GAN-train", "{:.3f}", max),
    "kid": ("KID", "{:.3f}", min),
    "nmi": ("NMI", "{:.3f}", max),
    "clusters_used": ("categories in use", "{:.1f}", max),
    "elbo": ("bound", "{:.2f}", max),
    "nll": ("NLL", "{:.2f}", min),
    "train_seconds": ("seconds", "{:.0f}", min),
}
"""Each metric of the table: its title, its format, and which end of it is the best."""

SHORT = ("accuracy", "generation_accuracy", "nll", "train_seconds")
"""The metrics of the README's short table."""

NOTHING = "\N{EN DASH}"
"""Stands for a metric that a row does not have: a rival of another kind may have no bound."""

CHANGED, MIXED = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
"""Mark a row of a preset that has changed since, and one of runs by several versions."""

NOTES = {
    CHANGED: "the preset or its flags have changed since this row was made",
    MIXED: "runs of more than one version or commit of the code",
}


@dataclass(frozen=True)
class Options:
    """Many seeds of a preset, and a table of their results. Further flags are those of the runs."""

    preset: list[Path] = positional("presets, such as runs/digits.yaml", default=())
    seeds: list[int] = setting((0, 1, 2, 3, 4), "of the runs", least=0, most=MOST_SEED)
    jobs: int | None = setting(
        None,
        "runs at once; as many as there are processors, or as the cluster takes, when not given",
        least=1,
        most=1024,
    )
    threads: int | None = setting(
        None,
        "of each run; its machine's processors over the runs at once there, when not given",
        least=1,
        most=1024,
    )
    backend: Literal["local", "dask", "ray"] = setting(
        "local", "where the runs go: to this machine, or to the workers of a cluster"
    )
    address: str | None = setting(
        None, "of the cluster's scheduler, such as tcp://scheduler:8786; Ray finds its own"
    )
    out: Path = setting(Path("runs"), "the runs' folders go here")
    results: Path = setting(RESULTS, "the JSON of each preset goes here")
    readme: bool = setting(False, "write the tables of README.md and docs/ as well")
    name: str | None = setting(None, "of the row, where further flags of the run change the preset")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return run(*asked(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --out or --results", file=sys.stderr)
    return 2


def asked(argv: Sequence[str] | None) -> tuple[Options, list[str]]:
    """What this command was told, and the flags that are for its runs.

    :raises UserError: for anything that the user gave wrong, for its runs too.
    """
    options, flags = parse(Options, argv, MODULE, others=run_flags.flags())
    for preset in options.preset:
        if not preset.is_file():
            raise UserError(
                f"no preset '{preset}'; give a YAML file such as runs/digits.yaml, before any flag "
                "of the runs"
            )
    if options.backend == "local" and options.address is not None:
        raise UserError("is a cluster's; add --backend dask or ray", "address", options.address)
    if options.backend == "dask" and not re.fullmatch(DASKS, options.address or ""):
        problem = "give the scheduler's, such as tcp://scheduler:8786"
        raise UserError(problem, "address", options.address)
    if flags and not options.name:
        raise UserError(f"{' '.join(flags)} changes the preset; give the row a --name")
    if options.name is not None and not re.fullmatch(r"[^|`<\n]*\w[^|`<\n]*", options.name):
        problem = "must have a letter or a digit in it, and no bar, backtick or <"
        raise UserError(problem, "name", repr(options.name))
    if options.name and len(options.preset) > 1:
        raise UserError("two presets would share a row of the table; run them one at a time")
    rows = [options.name or preset.stem for preset in options.preset]
    if len(set(rows)) < len(rows):
        raise UserError("two presets would share a row of the table; run them one at a time")
    for preset in options.preset:
        # Said once, instead of by each run.
        request = run_flags.read(["--config", str(preset), *flags])
        try:
            request.resolver.settings()
        except UserError as error:
            raise UserError(error.told(request.resolver.origin)) from error
    return options, flags


def run(options: Options, flags: Sequence[str]) -> int:
    """Run what is not finished and print the table; returns 1 where a run failed, else 0."""
    # joblib takes numpy along, which no wrong flag is worth.
    from pyro_infocat.seeds import workers

    failed = 0
    with workers(options.backend, options.address, options.jobs, options.threads) as taking:
        # Now rather than after the runs, where it cannot be made.
        options.results.mkdir(parents=True, exist_ok=True)
        for preset in options.preset:
            failed |= _row(preset, options, flags, taking)
    if failed and not any(options.results.glob("*.json")):
        return failed
    print(table(options.results))
    if options.readme:
        for document, text in documents(options.results).items():
            replace(document, text.encode())
    return failed


def _row(preset: Path, options: Options, flags: Sequence[str], workers: "Workers") -> int:
    """Run what a preset's row lacks and write the row; returns 1 where a run failed, else 0."""
    failed = 0
    name = options.name or preset.stem
    place = options.out / re.sub(r"\W+", "-", name)
    file = options.results / f"{place.name}.json"
    made_with = recipe(preset, flags)
    _keep_recipe(place, made_with)
    runs = _finished(file, made_with, name)
    jobs = {}
    for seed in options.seeds:
        if seed in runs:
            continue
        folder = place / f"seed{seed}"
        jobs[seed] = folder, _arguments(preset, seed, folder, flags)
        if (folder / METRICS).exists():
            _refuse_others(*jobs[seed])
    for seed, why in zip(jobs, workers.run(list(jobs.values())), strict=True):
        metrics = jobs[seed][0] / METRICS
        if why:
            failed = 1
            print(f"error: {name}: seed {seed} failed; {why}", file=sys.stderr)
        elif metrics.exists():
            runs[seed] = read_json(metrics, DELETE)
    if runs:
        record: dict[str, Any] = {"name": name, "preset": preset.name, "flags": list(flags)}
        in_order = [runs[seed] for seed in sorted(runs)]
        record |= {"recipe": made_with, "runs": in_order}
        record |= _agreed(name, file, made_with, place, sorted(runs))
        if len(versions(in_order)) > 1:
            print(f"{name}: {NOTES[MIXED]}: {', '.join(versions(in_order))}")
        replace(file, (json.dumps(record, indent=1) + "\n").encode())
    return failed


def _agreed(
    name: str, file: Path, recipe: str, place: Path, seeds: Sequence[int]
) -> dict[str, Any]:
    """How far the runs that lie here put the same test examples together.

    Nothing of one run alone, or of runs on test splits of several sizes. What the file of results
    says of more seeds of the same recipe is kept.

    :raises UserError: for a file that cannot be read.
    """
    found = {seed: place / f"seed{seed}" / TEST_CATEGORIES for seed in seeds}
    here = {seed: path for seed, path in found.items() if path.exists()}
    before = read_json(file, DELETE) if file.exists() else {}
    kept = before.get("agreement") if before.get("recipe") == recipe else None
    if len(here) < 2 or (kept and len(kept["seeds"]) > len(here)):
        return {"agreement": kept} if kept else {}
    # Take seconds to import, which only what is to be compared is worth.
    import numpy as np

    from pyro_infocat.evaluation.trust import agreement, kept_together

    of_each = {}
    for seed, path in here.items():
        try:
            of_each[seed] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"'{path}' cannot be read; delete it, and seeds are compared without it"
            ) from error
    if len({one.shape for one in of_each.values()}) > 1:
        return {}
    of_categories = {}
    for seed, one in of_each.items():
        others = [other for which, other in of_each.items() if which != seed]
        of_categories[str(seed)] = kept_together(one, others, int(one.max()) + 1)
    shares = [
        (share, of_seed, c)
        for of_seed, of_each_category in of_categories.items()
        for c, share in enumerate(of_each_category)
        if share is not None
    ]
    agreed = agreement(list(of_each.values()))
    print(f"{name}: {len(here)} seeds agree by {agreed:.3f} (adjusted Rand index, on average)")
    if shares:
        share, of_seed, c = min(shares)
        print(
            f"{name}: least kept together is category {c} of seed {of_seed}, {share:.0%} of its "
            "pairs of test examples"
        )
    return {"agreement": {"seeds": list(here), "ari": agreed, "of_categories": of_categories}}


def documents(results: Path) -> dict[Path, str]:
    """The README with its short table and the page in docs/ with the whole one, as they would be.

    :raises UserError: where one has no place for its table.
    """
    whole = README.parent / "docs" / "results_table.md"
    return {
        README: with_table(README.read_text(), summary(results)),
        whole: with_table(whole.read_text(), table(results)),
    }


def recipe(preset: Path, flags: Sequence[str]) -> str:
    """What a row's runs are made with: the preset without its comments, and the flags."""
    lines = [line for line in preset.read_text().splitlines() if not line.startswith("#")]
    return "\n".join([*lines, shlex.join(flags)]) + "\n"


def _finished(file: Path, recipe: str, name: str) -> dict[int, dict[str, Any]]:
    """The runs of this recipe that a file of results holds, by seed: another machine's count.

    :raises UserError: where the file is another row's.
    """
    record = read_json(file, DELETE) if file.exists() else {}
    if record.get("name", name) != name:
        raise UserError(
            f"'{file}' is of the row '{record['name']}'; choose another name", "name", repr(name)
        )
    if record.get("recipe") != recipe:
        return {}
    return {run["seed"]: run for run in record["runs"]}


def _keep_recipe(place: Path, recipe: str) -> None:
    """Refuse to count runs of another preset or other flags as this row's."""
    file = place / RECIPE
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        replace(file, recipe.encode())
    elif file.read_text() != recipe:
        raise UserError(
            f"'{place}' holds runs of another preset or other flags, see '{file}'; delete it, or "
            "choose another --out or --name",
            "out",
        )


def _refuse_others(folder: Path, arguments: Sequence[str]) -> None:
    """Refuse to count a run that has other settings than the row."""
    # torch takes seconds to import, which only finished runs are worth.
    from pyro_infocat.parts import up_to_date
    from pyro_infocat.settings import MACHINE
    from pyro_infocat.storage.folder import RunFolder, differences

    row = run_flags.read(arguments).resolver.settings()
    for key, then, now in differences(up_to_date(RunFolder(folder).settings()[0], row), row):
        if key not in MACHINE:
            raise UserError(
                f"'{folder}' holds a run with {key} {then}, and the row's has {now}; delete it, or "
                "choose another --out or --name",
                "out",
            )


def _arguments(preset: Path, seed: int, folder: Path, flags: Sequence[str]) -> list[str]:
    """The flags of a run."""
    return ["--config", str(preset), "--seed", str(seed), "--out", str(folder), *flags]


def table(results: Path, current: Mapping[str, str] | None = None) -> str:
    """Mean, spread (standard deviation) and worst of each metric, as Markdown.

    Rows of presets as they are come first, then those that something changes, each by name. A row
    of a preset that has changed since, or of several versions of the code, is marked.

    :param current: the recipe of each row as it would be run now; of the presets when not given.
    """
    rows = sorted(records(results), key=lambda row: not _of_a_preset(row))
    return _as_markdown(rows, tuple(COLUMNS), current)


def summary(results: Path, current: Mapping[str, str] | None = None) -> str:
    """The short form of :func:`table`: the presets as they are, and few of the metrics."""
    return _as_markdown([row for row in records(results) if _of_a_preset(row)], SHORT, current)


def _of_a_preset(row: Mapping[str, Any]) -> bool:
    """Whether a row is of a preset as it is."""
    return row["name"] == Path(row["preset"]).stem


def _as_markdown(
    rows: Sequence[dict[str, Any]], metrics: Sequence[str], current: Mapping[str, str] | None
) -> str:
    head = ["preset", "seeds", *(COLUMNS[metric][0] for metric in metrics)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    used: list[str] = []
    for row in rows:
        marks = list(marked(row, current))
        used += marks
        runs, name = row["runs"], " ".join([row["name"], *marks])
        cells = [name, str(len(runs)), *(_cell(runs, metric) for metric in metrics)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{mark} {text}" for mark, text in NOTES.items() if mark in used]
    return "\n".join([*lines, *(["", "; ".join(notes) + "."] if notes else [])])


def records(results: Path) -> list[dict[str, Any]]:
    """The rows in a folder of results, by name of file."""
    files = sorted(results.glob("*.json"), key=lambda path: path.stem)
    found = [read_json(path, DELETE, kind=object) for path in files]
    return [record for record in found if isinstance(record, dict) and record.get("runs")]


def marked(row: dict[str, Any], current: Mapping[str, str] | None = None) -> Iterator[str]:
    """The marks of a row."""
    preset = PRESETS / row["preset"]
    now = (current or {}).get(row["name"])
    if now is None and preset.is_file():
        now = recipe(preset, row.get("flags", []))
    then = row.get("recipe")
    if now is not None and (then is None or _in_any_precision(then) != _in_any_precision(now)):
        yield CHANGED
    if len(versions(row["runs"])) > 1:
        yield MIXED


def _in_any_precision(recipe: str) -> str:
    """A recipe without the precision, which a machine chooses: each run's metrics say which."""
    lines = recipe.splitlines()
    return "\n".join(line for line in lines if not line.startswith("precision:"))


def versions(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The versions of the code that runs were made by, each once. Older runs do not say."""
    found: dict[str, None] = {}
    for one in runs:
        made = one.get("made_by") or {}
        commit = (made.get("commit") or "no commit")[:12]
        changed = "" if made.get("clean") is not False else ", changed"
        found[f"{made['version']} ({commit}{changed})" if made else "before 0.2.0"] = None
    return list(found)


def _cell(runs: Sequence[dict[str, Any]], name: str) -> str:
    _, form, best = COLUMNS[name]
    values = [run[name] for run in runs if name in run]
    if not values:
        return NOTHING
    mean = form.format(statistics.mean(values))
    some = "" if len(values) == len(runs) else f" of {len(values)}"
    if len(values) == 1:
        return mean + some
    worst = min(values) if best is max else max(values)
    spread = form.format(statistics.stdev(values))
    return f"{mean} ± {spread} (worst {form.format(worst)}){some}"


if __name__ == "__main__":
    sys.exit(main())
