"""A disk that is full at the n-th write: one line, nothing torn; with room again it goes on."""

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from pyro_infocat import benchmark, categorise, export, run, sample
from pyro_infocat.settings import CHECKPOINT
from tests.campaigns import children, data, operations
from tests.campaigns.folders import TINY, different, torn
from tests.campaigns.kills import PRESET
from tests.campaigns.tally import Tally

USUAL = 1000
"""Tries of each command at most: all operations of each are fewer."""


class Run:
    """A run of two epochs."""

    name, epochs = "run", 2
    flags: tuple[str, ...] = ()

    def __init__(self, place: Path) -> None:
        self.place = place

    def prepare(self, out: Path) -> None:
        """What there is before the disk fills."""

    def arguments(self, out: Path) -> list[str]:
        """Of the command."""
        return [*TINY, "--epochs", str(self.epochs), *self.flags, "--out", str(out)]

    def work(self, out: Path) -> int:
        """The command."""
        children.hurried()
        return run.main(self.arguments(out))

    def going_on(self, out: Path) -> int:
        """The command that goes on once there is room, by the README."""
        if not (out / CHECKPOINT).exists():
            return self.work(out)
        children.hurried()
        return run.main(["--out", str(out), "--resume", "true", "--epochs", str(self.epochs)])

    def different(self, one: Path, other: Path) -> str | None:
        """What the results of two folders differ in."""
        return different(one, other)


class Starts(Run):
    """Of two starts."""

    name, flags = "starts", ("--starts", "2", "--start_epochs", "1")


class Resumed(Run):
    """A finished run that goes on."""

    name, epochs = "resume", 3

    def prepare(self, out: Path) -> None:
        run.main([*TINY, "--epochs", "2", "--out", str(out)])

    def work(self, out: Path) -> int:
        return self.going_on(out)


class Sample(Run):
    """Samples in the place of others."""

    name = "sample"

    def prepare(self, out: Path) -> None:
        run.main([*TINY, "--epochs", "1", "--out", str(out)])
        sample.main([str(out), "--device", "cpu"])

    def work(self, out: Path) -> int:
        return sample.main([str(out), "--device", "cpu"])

    going_on = work

    def different(self, one: Path, other: Path) -> str | None:
        first, second = (np.load(out / "samples" / "samples.npz") for out in (one, other))
        return None if all((first[name] == second[name]).all() for name in first) else "samples"


class FromDisk(Run):
    """A run on data that are written to a scratch file, which lies beside the run's folder."""

    epochs = 1

    def arguments(self, out: Path) -> list[str]:
        return [*super().arguments(out), *data.flags(self.name, self.place / "data")]

    def work(self, out: Path) -> int:
        data.in_small_blocks()
        return super().work(out)


class Folder(FromDisk):
    """On pictures."""

    name = "folder"


class Array(FromDisk):
    """On a table that is written twice: column after column, and row after row."""

    name = "array"


class Categorise(Run):
    """The table of categories in the place of another."""

    name, made = "categorise", "categories.csv"

    def prepare(self, out: Path) -> None:
        table = data.flags("table", self.place / "data")
        run.main([*TINY, *table, "--epochs", "1", "--out", str(out)])
        self.work(out)

    def work(self, out: Path) -> int:
        return categorise.main(
            [str(out), str(self.place / "data" / "table.csv"), "--nll_samples", "1"]
        )

    def going_on(self, out: Path) -> int:
        return self.work(out)

    def different(self, one: Path, other: Path) -> str | None:
        first, second = ((out / self.made).read_bytes() for out in (one, other))
        return None if first == second else self.made


class Export(Categorise):
    """The program in the place of another."""

    name, made = "export", "model.pt2"

    def work(self, out: Path) -> int:
        return export.main([str(out)])


class Benchmark(Run):
    """A benchmark whose run is finished: its recipe, log and results."""

    name = "benchmark"

    def prepare(self, out: Path) -> None:
        (self.place / "tiny.yaml").write_text(PRESET)
        run.main(["--config", str(self.place / "tiny.yaml"), "--out", str(out / "tiny" / "seed0")])

    def work(self, out: Path) -> int:
        to = ["--out", str(out), "--results", str(out / "results")]
        return benchmark.main([str(self.place / "tiny.yaml"), "--seeds", "0", *to])

    going_on = work

    def different(self, one: Path, other: Path) -> str | None:
        first, second = ((out / "results" / "tiny.json").read_text() for out in (one, other))
        return None if first == second else "results"


CASES: tuple[type[Run], ...] = (
    *(Run, Resumed, Starts, Sample, Benchmark),
    *(Folder, Array, Categorise, Export),
)


def campaign(
    place: Path, numbers: range, random_of: Callable[[int], Random], until: float
) -> Tally:
    """Fill the disk at every operation of every command; now and then for one operation alone."""
    tally = Tally()
    children.must(lambda: data.write(Path()), children.emptied(place / "data"))
    cases = [kind(place) for kind in CASES]
    folders = {case.name: _left_alone(case) for case in cases}
    for number in numbers:
        for case in list(cases):
            if time.monotonic() > until:
                return tally
            passing = random_of(number).random() < 0.2
            if one(case, *folders[case.name], number + 1, passing, tally):
                tally.completed.append(f"all of {case.name}")
                cases.remove(case)
    return tally


def _left_alone(case: Run) -> tuple[Path, Path]:
    """What there is before a command, and after it when it is left alone."""
    before = children.emptied(case.place / f"{case.name}-before")
    alone = case.place / f"{case.name}-left-alone"
    children.must(functools.partial(case.prepare, before), before)
    shutil.copytree(before, alone)
    children.must(functools.partial(case.work, alone), alone)
    return before, alone


def one(case: Run, before: Path, alone: Path, first: int, passing: bool, tally: Tally) -> bool:
    """Fill the disk at an operation and see; whether the command had fewer.

    :param passing: whether there is room again at the next one.
    """
    out = case.place / case.name / "out"
    shutil.rmtree(out.parent, ignore_errors=True)
    shutil.copytree(before, out)
    what = f"{case.name}, full {'once' if passing else 'from'} there"

    def filled() -> None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(out.parent)
        operations.full(out.parent, first, first if passing else None)

    ended = children.done(lambda: case.work(out), out.parent, filled)
    if ended.code == 0 and not passing:
        return True
    if complaint := children.wrong(ended):
        tally.fail(first - 1, what, complaint)
        return False
    for name in torn(out):
        tally.fail(first - 1, what, f"torn: {name}")
    ended = children.done(lambda: case.going_on(out), out.parent)
    if ended.code or (complaint := children.wrong(ended)):
        tally.fail(first - 1, what, f"does not go on: {ended.code} {ended.tail()}")
    elif found := case.different(alone, out):
        tally.fail(first - 1, what, f"goes on otherwise: {found}")
    else:
        tally.end(case.name)
    return False
