"""kill -9 at random moments; what goes on as the documents say is the run that was left alone."""

import contextlib
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from pyro_infocat import run
from pyro_infocat.settings import CHECKPOINT
from tests.brief import ROOT
from tests.campaigns import children, data, operations
from tests.campaigns.folders import TINY, different, torn
from tests.campaigns.tally import Tally
from tests.runs import timeless

USUAL = 100
"""Kills of a campaign."""

EPOCHS, FEWER = 12, 4
STARTS = ["--starts", "3", "--start_epochs", "3"]
ORDER = (
    *("run", "resume", "starts", "torchrun", "run"),
    *("starts", "resume", "run", "benchmark", "resume"),
    *("table", "folder", "parquet", "folder"),
)
"""What the tries kill, in turn."""

PRESET = f"""\
data: digits
epochs: {EPOCHS}
batch_size: 400
nll_samples: 1
prior: models.priors.Orthogonal
encoder: {{class_path: guides.encoders.MLP, init_args: {{hidden: [20]}}}}
decoder: {{class_path: models.decoders.MLP, init_args: {{hidden: [20]}}}}
guide: {{class_path: guides.enumerated.Enumerated, init_args: {{hidden: 20}}}}
"""
SEEDS = (0, 1)

Begin = Callable[[], int]


class Kind:
    """What is killed, and how it is gone on with.

    :ivar alone: seconds that it takes when left alone.
    """

    forked = True

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.place = name, place
        self.left_alone = place / f"{name}-left-alone"
        began = time.monotonic()
        children.emptied(self.left_alone)
        ended = self.ended(self.left_alone, self.prepared(self.left_alone))
        if ended.code:
            raise RuntimeError(f"{name} left alone: {ended.tail()}")
        self.alone = time.monotonic() - began

    def prepared(self, out: Path) -> bool:
        """Whether what is killed goes on with something; makes that."""
        return False

    def command(self, out: Path) -> list[str]:
        """Arguments of the command, which is given again where there is nothing to go on with."""
        flags = STARTS if self.name == "starts" else []
        return [*TINY, "--epochs", str(EPOCHS), *flags, "--out", str(out)]

    def going_on(self, out: Path) -> list[str]:
        """Arguments of what goes on, by the README."""
        if not (out / CHECKPOINT).exists():
            return self.command(out)
        return ["--out", str(out), "--resume", "true", "--epochs", str(EPOCHS)]

    def begin(self, out: Path, arguments: list[str], moment: int | None = None) -> int:
        """Begin it; the process that does."""

        def before() -> None:
            os.setsid()
            os.chdir(self.place)
            children.hurried()
            data.in_small_blocks()
            if moment is not None:
                operations.killed(out, moment)

        return children.begin(functools.partial(self.work, arguments), self.log(out), before)

    def work(self, arguments: list[str]) -> int:
        """What the process does."""
        return run.main(arguments)

    def log(self, out: Path) -> Path:
        """Where it says what it says."""
        return out.with_name(f"{out.name}-log")

    def ended(self, out: Path, again: bool) -> children.Ended:
        """How it ends when it is left alone."""
        arguments = self.going_on(out) if again else self.command(out)
        return children.wait(self.begin(out, arguments), self.log(out))

    def different(self, out: Path) -> str | None:
        """What is other than in the run that was left alone."""
        return different(self.left_alone, out)


class Resumed(Kind):
    """A run of few epochs that goes on for more."""

    def prepared(self, out: Path) -> bool:
        arguments = [*TINY, "--epochs", str(FEWER), "--out", str(out)]
        children.wait(self.begin(out, arguments), self.log(out))
        return True


class OfData(Kind):
    """A run on a table or a folder of pictures."""

    def command(self, out: Path) -> list[str]:
        return [*super().command(out), *data.flags(self.name, self.place / "data")]


class Auto(OfData):
    """One whose epochs follow from the data; it goes on with as many."""

    def going_on(self, out: Path) -> list[str]:
        if not (out / CHECKPOINT).exists():
            return self.command(out)
        return ["--out", str(out), "--resume", "true"]


class Torchrun(Kind):
    """A run in two processes."""

    forked = False

    def work(self, arguments: list[str]) -> int:
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [sys.executable, "-m", *start, "-m", "pyro_infocat.run", *arguments]
        os.execve(command[0], command, os.environ | {"PYTHONPATH": str(ROOT)})


class Benchmark(Kind):
    """Two seeds of a preset, a process each; killed, the same command goes on."""

    forked = False

    def command(self, out: Path) -> list[str]:
        preset = self.place / "tiny.yaml"
        preset.write_text(PRESET)
        seeds = ["--seeds", *map(str, SEEDS), "--jobs", "2"]
        return [str(preset), *seeds, "--out", str(out), "--results", str(out / "results")]

    def going_on(self, out: Path) -> list[str]:
        return self.command(out)

    def work(self, arguments: list[str]) -> int:
        command = [sys.executable, "-m", "pyro_infocat.benchmark", *arguments]
        os.execve(command[0], command, os.environ | {"PYTHONPATH": str(ROOT)})

    def different(self, out: Path) -> str | None:
        for seed in SEEDS:
            places = [one / "tiny" / f"seed{seed}" for one in (self.left_alone, out)]
            if found := different(*places):
                return f"seed {seed}: {found}"
        rows = [json.loads((one / "results" / "tiny.json").read_text())
                for one in (self.left_alone, out)]  # fmt: skip
        rows = [row | {"runs": list(map(timeless, row["runs"]))} for row in rows]
        return None if rows[0] == rows[1] else f"results: {rows}"


KINDS: dict[str, type[Kind]] = {
    "run": Kind,
    "resume": Resumed,
    "starts": Kind,
    "benchmark": Benchmark,
    "torchrun": Torchrun,
    "table": Auto,
    "parquet": OfData,
    "folder": OfData,
}


def campaign(
    place: Path, numbers: range, random_of: Callable[[int], Random], until: float
) -> Tally:
    """Kill and go on, until there were so many kills or the time is over."""
    tally, kinds = Tally(), {}
    children.must(lambda: data.write(Path()), children.emptied(place / "data"))
    for number in numbers:
        kind = ORDER[number % len(ORDER)]
        if time.monotonic() > until or sum(tally.ends.values()) >= len(numbers):
            break
        if kind not in kinds:
            kinds[kind] = KINDS[kind](kind, place)
        began = time.monotonic()
        one(kinds[kind], number, random_of(number), tally)
        seconds = time.monotonic() - began
        print(f"{number}: {kind}, {sum(tally.ends.values())} kills so far, {seconds:.0f} s")
    return tally


def one(kind: Kind, number: int, random: Random, tally: Tally) -> None:
    """Kill once or several times on the way to the end; compare."""
    out = place_of(kind, number)
    again, killed = kind.prepared(out), 0
    for _ in range(random.choice((1, 1, 2, 3))):
        arguments = kind.going_on(out) if again else kind.command(out)
        how = random.choice(("clock", "operation")) if kind.forked else "clock"
        moment = random.randint(1, 60 if kind.name == "resume" else 150)
        process = kind.begin(out, arguments, moment if how == "operation" else None)
        if how == "clock":
            _kill_later(kind, process, random)
        ended = children.wait(process, kind.log(out))
        again = True
        if ended.code == 0:
            break
        killed += 1
        for name in torn(out):
            tally.fail(number, kind.name, f"torn after a kill: {name}")
        if kind.forked and ended.code != -signal.SIGKILL:
            tally.fail(number, kind.name, children.wrong(ended) or ended.tail())
            return
    ended = kind.ended(out, again)
    complaint = children.wrong(ended, lines=None) if kind.forked else None
    if complaint or ended.code:
        tally.fail(number, kind.name, complaint or f"did not go on: {ended.tail()}")
    elif found := kind.different(out):
        tally.fail(number, kind.name, f"goes on otherwise: {found}")
    else:
        tally.ends[kind.name] += killed


def place_of(kind: Kind, number: int) -> Path:
    """The folder of a try."""
    return children.emptied(kind.place / f"{kind.name}{number}")


def _kill_later(kind: Kind, process: int, random: Random) -> None:
    """Kill a process at a random moment, with all that it has started or one of that alone."""
    end = time.monotonic() + random.uniform(0.0 if kind.forked else 0.3, 1.0) * kind.alone
    while time.monotonic() < end and _runs(process):
        time.sleep(0.005)
    started = children.below(process)
    if started and random.random() < 0.5:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(started), signal.SIGKILL)
    else:
        children.kill_with_all_below(process)


def _runs(process: int) -> bool:
    """Whether a child has not ended; one that has waits for its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
