"""``python -m pyro_infocat.categorise RUN DATA``: the category of every example, as a table.

Shapes: D latent dimensions, K categories, N examples.
"""

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_infocat.cli.command_line import answer, positional, writing
from pyro_infocat.errors import UserError
from pyro_infocat.settings import MOST_SEED, setting
from pyro_infocat.storage.configuration import check_run
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.storage.files import replaced

if TYPE_CHECKING:
    from pyro_infocat.assignment import Assignment

MODULE = "pyro_infocat.categorise"

ARRAYS, TABLES = (".npz",), (".csv", ".tsv")


@dataclass(frozen=True)
class Options:
    """Write the category of every example, with q(c|x), log p(x) and z."""

    run: Path = positional("the folder of a run")
    data: str = positional(
        "a file, a folder or a name, as --data of a run takes; all of its examples, in their order"
    )
    out: Path | None = setting(
        None, ".csv, .tsv or .npz, for the table; default RUN/categories.csv"
    )
    nll_samples: int = setting(
        50, "importance samples of log p(x); 0 leaves it out", least=0, most=1_000_000
    )
    trust: list[str] | None = setting(
        None,
        "modules outside this project whose code may be run, where the run's config names them",
    )
    data_root: str = setting("data", "where archives of data sets by name are")
    seed: int = setting(0, "of every random number", least=0, most=MOST_SEED)
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return answer(Options, argv, MODULE, write)


def write(options: Options) -> None:
    """Write the table: a row an example, in the order of the data.

    :raises UserError: for anything that the user gave wrong.
    """
    out = options.out or options.run / "categories.csv"
    if out.suffix not in (*ARRAYS, *TABLES):
        raise UserError("give a name that ends in .csv, .tsv or .npz", "out", out)
    check_run(options.run)
    from pyro_infocat.assignment import assign, class_names
    from pyro_infocat.experiment import reader_of
    from pyro_infocat.loading import load
    from pyro_infocat.runtime.device import pick

    pick(options.device)
    trust = options.trust or ()
    run = load(options.run, options.device, trust)
    there = replace(run.settings, data=options.data, data_root=options.data_root)
    examples = reader_of(there, trust).again(run.facts)
    if not examples.names:
        raise UserError("holds no examples", "data", options.data)
    assigned = assign(run, examples.split, options.nll_samples, options.seed)
    classes = class_names(run)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix in ARRAYS:
            _write_arrays(out, examples.names, assigned, classes)
        else:
            _write_table(out, examples.names, assigned, classes)
    print(f"{out}: {len(examples.names)} examples")


def _write_table(
    out: Path, names: Sequence[str], assigned: Iterable["Assignment"], classes: Mapping[int, str]
) -> None:
    """Some examples at a time.

    :param classes: that categories stand for; a column of them where there are any.
    """
    left = iter(names)
    with replaced(out) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        table = csv.writer(text, delimiter="\t" if out.suffix == ".tsv" else ",")
        for number, part in enumerate(assigned):
            if not number:
                table.writerow(_head(part, bool(classes)))
            for row, category in enumerate(part.category):
                log_p = [] if part.log_p is None else [_digits(part.log_p[row])]
                q, z = map(_digits, part.probabilities[row]), map(_digits, part.z[row])
                its_class = [classes.get(int(category), "")] if classes else []
                table.writerow([next(left), int(category), *its_class, *log_p, *q, *z])
        # The file stays open until it is on the disk.
        text.detach()


def _head(part: "Assignment", classes: bool) -> list[str]:
    q = [f"q_{c}" for c in range(part.probabilities.shape[1])]
    z = [f"z_{d}" for d in range(part.z.shape[1])]
    named = ["name", "category", *(["class"] if classes else [])]
    return [*named, *([] if part.log_p is None else ["log_p"]), *q, *z]


def _digits(value: float) -> str:
    """A float32 as text that reads back to the same bits."""
    return f"{value:.9g}"


def _write_arrays(
    out: Path, names: Sequence[str], assigned: Iterable["Assignment"], classes: Mapping[int, str]
) -> None:
    import numpy as np

    parts = list(assigned)
    arrays = {
        "name": np.array(names),
        "c": np.concatenate([part.category for part in parts]),
        "q": np.concatenate([part.probabilities for part in parts]),
        "z": np.concatenate([part.z for part in parts]),
    }
    if classes:
        arrays["class"] = np.array([classes.get(c, "") for c in arrays["c"].tolist()])
    log_p = [part.log_p for part in parts if part.log_p is not None]
    if log_p:
        arrays["log_p"] = np.concatenate(log_p)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    replace_file(out, content.getvalue())


if __name__ == "__main__":
    sys.exit(main())
