"""Mutation testing: change the code in one place, and see whether a test notices.

    python tests/mutation/run.py [--files models guides/bayes.py] [--jobs 2] [--limit 500]
    python tests/mutation/run.py --report

Mutants come in random order, so that a run may be stopped at any time: what was run is a sample of
all of them, and the report gives its score with an interval. A further run goes on. Each mutant is
tried against the tests that run its line, but for slow ones: those of its own package first.

All is kept in a folder: a copy of the tree, which tests run which line, and results.jsonl. Where
the tree has changed, the copy is made anew, and results of files that are as they were stay.
"""

import argparse
import contextlib
import dataclasses
import gc
import hashlib
import importlib
import itertools
import json
import math
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from multiprocessing import get_context, util
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("models", "guides", "pyro_infocat")

HEAVY = (
    *("torch", "torchvision", "pyro", "pyro.ops.contract", "numpy", "scipy.optimize"),
    *("sklearn.datasets", "sklearn.metrics", "sklearn.neural_network", "matplotlib.figure"),
    *("pydantic", "yaml", "filelock", "tqdm", "torch.utils.tensorboard"),
    *("hypothesis", "pytest"),
)
"""Imported once, in front of the fork for each mutant."""

FIRST = 20
"""How many of the tests are tried before the files of all the others are imported."""

NOT_COMPILING = "PYTHONDONTWRITEBYTECODE"

OPTIONS = (
    *("-x", "-n", "0", "-p", "no:cacheprovider"),
    # Of hypothesis, which is imported in front of the fork.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)

Tests = dict[str, Any]


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def prepare(folder: Path, tests: list[str]) -> None:
    """Copy the tree, and record which tests run which line, unless the copy is still the tree."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\n")
    names = sorted(name for name in names if (ROOT / name).is_file())
    code = [n for n in names if n.endswith((".py", ".toml")) and not n.startswith("tests/mutation")]
    state = " ".join([digest(*(ROOT / name for name in code)), *tests])
    if (folder / "state").exists() and (folder / "state").read_text() == state:
        return
    shutil.rmtree(folder / "tree", ignore_errors=True)
    for name in names:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "tree" / name)
    if (ROOT / "data").exists():
        (folder / "tree/data").symlink_to(ROOT / "data")
    recorder = [sys.executable, HERE / "record.py", folder / "tree", folder, *tests]
    # The copies of the tree come with compiled files.
    compiling = {key: held for key, held in os.environ.items() if key != NOT_COMPILING}
    subprocess.run(recorder, check=True, env=compiling)
    (folder / "state").write_text(state)


def tests_for(mutant: Mutant, recorded: Tests, seconds: float) -> list[str]:
    """The tests that may notice a mutant, those of its own package and the quickest first.

    :param seconds: that they take together, at most; what they miss counts as survived.
    """
    lines = recorded["lines"].get(mutant.file, {})
    if mutant.lines:
        here = [lines.get(str(line), []) for line in range(mutant.lines[0], mutant.lines[1] + 1)]
    elif "def " in mutant.text:
        # What runs when the file is imported shows wherever the file is used.
        here = list(lines.values())
    else:
        here = [recorded["seconds"]]
    own = f"tests/{Path(mutant.file).parent}/"
    nearest = sorted(
        set().union(*here), key=lambda test: (not test.startswith(own), recorded["seconds"][test])
    )
    passed = itertools.accumulate(recorded["seconds"][test] for test in nearest)
    return [test for test, end in zip(nearest, passed, strict=True) if end <= seconds] or nearest[
        :1
    ]


class First:
    """A plugin of pytest that tells which test failed first."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.pipe, report.nodeid.encode() + b"\n")

    pytest_collectreport = pytest_runtest_logreport


def copy(tree: Path) -> None:
    """Begin a worker: a copy of the tree of its own, and a place for what tests leave behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So that it ends what it has started, and takes its copy away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    place = Path(tempfile.mkdtemp(prefix="mutation-"))
    util.Finalize(None, shutil.rmtree, (place, True), exitpriority=1)
    shutil.copytree(tree, place / "tree", symlinks=True)
    (place / "temporary").mkdir()
    os.chdir(place / "tree")
    os.environ["TMPDIR"] = str(place / "temporary")
    tempfile.tempdir = None


def attempt(task: tuple[Mutant, list[str], float]) -> dict[str, Any]:
    """Run the tests on a mutant."""
    mutant, tests, limit = task
    path = Path(mutant.file)
    original, times = path.read_bytes(), path.stat()
    result = {"file": mutant.file, "line": mutant.line, "old": mutant.old, "new": mutant.new}
    result["digest"] = digest(path)
    if not tests:
        return result | {"outcome": "no test"}
    path.write_text(mutant.text)
    # Another time than that of the original, whose compiled file is there.
    os.utime(path, (times.st_atime, times.st_mtime + 7))
    try:
        return result | outcome(tests, limit)
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def outcome(tests: list[str], limit: float) -> dict[str, Any]:
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os._exit(run_tests(tests, limit, here))
        finally:
            os._exit(1)
    os.close(here)
    handle = os.pidfd_open(child)
    try:
        # The limit is one of the processor's time; what waits for ever is ended too.
        ended, _, _ = select.select([handle], [], [], 600 + 10 * limit)
    finally:
        # With what tests have started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.close(handle)
    _, status = os.waitpid(child, 0)
    with os.fdopen(there) as pipe:
        failed = pipe.readline().strip()
    if not ended or os.WTERMSIG(status) == signal.SIGXCPU:
        return {"outcome": "timeout"}
    return {"outcome": "caught", "test": failed} if status else {"outcome": "survived"}


def run_tests(tests: list[str], limit: float, pipe: int) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 10))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    import pytest

    sys.path.remove(str(HERE))
    options = [*OPTIONS, f"--basetemp={os.environ['TMPDIR']}/base"]
    for batch in (tests[:FIRST], tests[FIRST:]):
        code = pytest.main([*options, *batch], [First(pipe)]) if batch else 0
        if code == pytest.ExitCode.USAGE_ERROR:
            # The mutant changes the names of parameters.
            files = sorted({test.partition("::")[0] for test in batch})
            code = pytest.main([*options, "-m", "not slow", *files], [First(pipe)])
        if code:
            return 1
    return 0


def known(folder: Path) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """The last result of each mutant, of files that are still the same."""
    results: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    if not (folder / "results.jsonl").exists():
        return results
    now: dict[str, str] = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        path = folder / "tree" / result["file"]
        if result["file"] not in now:
            now[result["file"]] = digest(path) if path.exists() else ""
        if result["digest"] == now[result["file"]]:
            results[result["file"], result["old"], result["new"], result["line"]] = result
    return results


def equivalents() -> set[tuple[str, str, str]]:
    """Mutants that no test can notice, as (file, old, new)."""
    lines = (HERE / "equivalent.jsonl").read_text().splitlines()
    return {(one["file"], one["old"], one["new"]) for one in map(json.loads, lines)}


def within(file: str, chosen: Iterable[str]) -> bool:
    return any(Path(file).is_relative_to(one) for one in chosen)


def run(
    folder: Path,
    files: list[str],
    tests: list[str],
    jobs: int,
    limit: int | None,
    again: bool,
    kept: bool,
    seconds: float,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not kept:
        prepare(folder, tests)
    tree = folder / "tree"
    recorded = json.loads((folder / "tests.json").read_text())
    done, same = known(folder), equivalents()
    found = [
        mutant
        for path in sorted(path for package in PACKAGES for path in (tree / package).rglob("*.py"))
        if within(file := str(path.relative_to(tree)), files)
        for mutant in mutants(file, path.read_text())
        if mutant.key[:3] not in same
    ]
    random.Random(0).shuffle(found)
    left = [
        mutant
        for mutant in found
        if mutant.key not in done or (again and done[mutant.key]["outcome"] in MISSED)
    ][:limit]
    print(f"{len(found)} mutants, of which {len(left)} are to run", flush=True)
    for module in HEAVY:
        importlib.import_module(module)
    sys.dont_write_bytecode, os.environ[NOT_COMPILING] = True, "1"
    # Collections in the children pass over what is there already.
    gc.freeze()
    with (
        get_context("fork").Pool(jobs, copy, (tree,)) as pool,
        (folder / "results.jsonl").open("a") as results,
    ):
        first = dataclasses.replace(found[0], text=(tree / found[0].file).read_text())
        quickest = sorted(recorded["seconds"], key=recorded["seconds"].__getitem__)[:100]
        sound = pool.apply(attempt, ((first, quickest, 600.0),))
        if sound["outcome"] != "survived":
            sys.exit(f"tests fail without a mutant: {sound}")
        for result in pool.imap_unordered(attempt, tasks(left, recorded, seconds)):
            results.write(json.dumps(result) + "\n")
            results.flush()
        pool.close()
        pool.join()


def tasks(
    left: list[Mutant], recorded: Tests, seconds: float
) -> Iterator[tuple[Mutant, list[str], float]]:
    for mutant in left:
        tests = tests_for(mutant, recorded, seconds)
        yield mutant, tests, 30 + 4 * sum(recorded["seconds"][test] for test in tests)


MISSED = ("survived", "no test")


def report(folder: Path, files: list[str]) -> None:
    """Print what survived, and a table of the packages."""
    same = equivalents()
    results = [
        result
        for (*names, _), result in sorted(known(folder).items(), key=lambda one: one[0][::3])
        if within(result["file"], files) and tuple(names) not in same
    ]
    for result in results:
        if result["outcome"] in MISSED:
            print(f"{result['file']}:{result['line']}  {result['outcome']}")
            for sign, lines in (("-", result["old"]), ("+", result["new"])):
                print(*(f"    {sign} {line}" for line in lines.splitlines()), sep="\n")
    packages = [str(Path(result["file"]).parent) for result in results]
    apart = [str(Path(file).parent) for file, *_ in same if within(file, files)]
    print(f"{'':26}{'run':>6}{'caught':>8}{'by time':>8}{'score':>7}{'95 %':>13}{'equivalent':>12}")
    for package in [*sorted(set(packages)), "all"]:
        outcomes = [
            result["outcome"]
            for result, one in zip(results, packages, strict=True)
            if package in (one, "all")
        ]
        number, missed = len(outcomes), sum(outcome in MISSED for outcome in outcomes)
        low, high = interval(number - missed, number)
        print(
            f"{package:26}{number:6}{number - missed:8}{outcomes.count('timeout'):8}"
            f"{100 * (number - missed) / max(1, number):7.1f}{100 * low:7.1f}-{100 * high:5.1f}"
            f"{sum(package in (one, 'all') for one in apart):12}"
        )


def interval(caught: int, number: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share."""
    if number == 0:
        return 0.0, 1.0
    share, z = caught / number, 1.96
    middle, scale = share + z**2 / (2 * number), 1 + z**2 / number
    half = z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return (middle - half) / scale, (middle + half) / scale


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", nargs="+", default=PACKAGES, help="files or folders of the tree")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="tests that may notice")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--limit", type=int, help="no more mutants than this")
    parser.add_argument("--seconds", type=float, default=math.inf, help="of tests for each mutant")
    parser.add_argument("--again", action="store_true", help="what survived too, for new tests")
    parser.add_argument("--kept", action="store_true", help="the copy, even if the tree changed")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="of all results")
    parser.add_argument("--report", action="store_true", help="what has been found")
    given = vars(parser.parse_args())
    given["folder"] = given["folder"].resolve()
    if given.pop("report"):
        report(given["folder"], given["files"])
    else:
        run(**given)
