"""Seeds of a preset on the workers of a cluster: a real Dask scheduler and workers, all here."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import pytest
from filelock import FileLock

from pyro_infocat import benchmark, report, seeds
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation import figures
from pyro_infocat.places import PRESETS
from pyro_infocat.run import main as train
from pyro_infocat.settings import CHECKPOINT, HISTORY, METRICS
from pyro_infocat.storage.folder import LOCK
from pyro_infocat.version import made_by
from tests.brief import ROOT, SMALL
from tests.runs import timeless

pytestmark = pytest.mark.usefixtures("alone")

ROW = [
    *(str(PRESETS / "digits.yaml"), "--name", "tiny", "--results", "results", "--threads", "1"),
    *(*SMALL, "--epochs", "10"),
]
"""The same runs with a cluster and without."""

PATIENCE = 300
"""Seconds until a test gives up."""


def until(condition: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Wait for it; fails where the process ends first."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


class Cluster:
    """A scheduler, and workers that take one run each, in a folder that is not the command's.

    Each leads a session: killed with it, a worker takes its run along, as its machine would.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.file = folder / "scheduler.json"
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        self.environment = os.environ | {"PYTHONPATH": path}

    @property
    def address(self) -> str:
        return json.loads(self.file.read_text())["address"]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--scheduler-file", str(self.file)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def measure(self, *flags: str) -> subprocess.Popen[str]:
        """The command, in the test's own folder."""
        there = ["--backend", "dask", "--address", self.address, *flags]
        return subprocess.Popen(
            [sys.executable, "-m", "pyro_infocat.benchmark", *ROW, *there],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """It has one worker until a test starts another."""
    pytest.importorskip("distributed")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        scheduler = made.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        until(made.file.exists, scheduler)
        made.worker()
        yield made
    finally:
        for process in made.processes:
            kill(process)


def place(seed: int) -> Path:
    return Path("runs", "tiny", f"seed{seed}")


def row() -> dict[str, Any]:
    """The row, without times."""
    record = json.loads(Path("results", "tiny.json").read_text())
    return record | {"runs": list(map(timeless, record["runs"]))}


def row_without_a_cluster(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In this process, which imports torch once, and without what is for eyes."""

    def here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "pyro_infocat.run"]
        return subprocess.CompletedProcess(command, train(command[3:]))

    made_by()  # Known from here on: it asks git, in a process.
    folder.mkdir()
    with patch.context() as inner:
        inner.chdir(folder)
        inner.setattr(figures, "draw", lambda *_: None)
        inner.setattr(report, "write", lambda *_: None)
        inner.setattr(subprocess, "run", here)
        assert benchmark.main([*ROW, "--seeds", "0", "1", "--jobs", "1"]) == 0
        return row()


# On a cluster.


@pytest.mark.slow
def test_a_killed_workers_run_goes_on_and_the_row_is_as_without_a_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cluster.worker()
    command = cluster.measure("--seeds", "0", "1")
    until(lambda: all((place(seed) / CHECKPOINT).exists() for seed in (0, 1)), command)
    kill(second)
    kept = {seed: (place(seed) / HISTORY).read_text() for seed in (0, 1)}
    assert not list(Path().rglob(METRICS)), "it was killed too late"
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, err) == (0, "")
    assert "| tiny | 2 |" in out
    for seed, before in kept.items():
        # It holds the seconds of each epoch: begun anew, it would be another.
        assert (place(seed) / HISTORY).read_text().startswith(before)
        assert f"{place(seed)}: accuracy" in place(seed).with_suffix(".log").read_text()
    assert row() == row_without_a_cluster(tmp_path / "other", monkeypatch)


@pytest.mark.slow
def test_a_run_whose_folder_is_locked_fails_with_the_locks_line(cluster: Cluster) -> None:
    """One run at once, on a cluster of one worker: that is where it runs, and not here."""
    place(2).mkdir(parents=True)
    with FileLock(place(2) / LOCK):
        command = cluster.measure("--seeds", "2", "--jobs", "1")
        _, err = command.communicate(timeout=PATIENCE)
    log = place(2).with_suffix(".log")
    assert (command.returncode, err) == (1, f"error: tiny: seed 2 failed; '{log}' says why\n")
    assert "another process is writing to" in log.read_text()


@pytest.mark.slow
def test_a_worker_that_takes_one_run_gives_it_all_processors(cluster: Cluster) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster.address, set_as_default=False) as client:
        assert client.submit(seeds._share).result(PATIENCE) == joblib.cpu_count()


def test_a_finished_run_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    place(1).mkdir(parents=True)
    (place(1) / METRICS).write_text("{}")
    assert seeds.outcome(seeds.Run([], place(1), Path.cwd(), 1)) == ""


# What is refused, in one line.


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert benchmark.main([*ROW, "--seeds", "0", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(Path().iterdir()), "before anything is written"
    return error.removeprefix("error: ").strip()


WRONG = {
    "backend": (
        ["--backend", "spark"],
        "--backend: expected one of 'local', 'dask', 'ray', not 'spark'",
    ),
    "no address": (
        ["--backend", "dask"],
        "--address: give the scheduler's, such as tcp://scheduler:8786",
    ),
    "no scheme": (
        ["--backend", "dask", "--address", "scheduler:8786"],
        "--address scheduler:8786: give the scheduler's, such as tcp://scheduler:8786",
    ),
    "no port": (
        ["--backend", "dask", "--address", "tcp://scheduler"],
        "--address tcp://scheduler: give the scheduler's, such as tcp://scheduler:8786",
    ),
    "no cluster": (
        ["--address", "tcp://scheduler:8786"],
        "--address tcp://scheduler:8786: is a cluster's; add --backend dask or ray",
    ),
    "no threads": (["--threads", "0"], "--threads 0: must be at least 1"),
}


@pytest.mark.parametrize(("flags", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_flag(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *flags) == said


@pytest.mark.parametrize(
    ("backend", "package", "requirement"),
    [("dask", "distributed", "dask[distributed]"), ("ray", "ray", "ray")],
)
def test_a_package_that_is_missing(
    backend: str,
    package: str,
    requirement: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    assert refused(capsys, "--backend", backend, "--address", "tcp://127.0.0.1:1") == (
        f"--backend {backend}: needs the package {package}; pip install '{requirement}'"
    )


def test_no_scheduler(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    assert seeds.PATIENCE <= 15
    monkeypatch.setattr(seeds, "PATIENCE", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        error = refused(capsys, "--backend", "dask", "--address", address)
    assert error.startswith(f"--address {address}: no Dask scheduler answers (")
    assert error.endswith("; start one with 'dask scheduler'")


def test_a_worker_that_does_not_see_the_folder(tmp_path: Path) -> None:
    run = seeds.Run([], place(0), tmp_path / "elsewhere", 1)
    error = seeds.outcome(run)
    assert isinstance(error, UserError)
    assert f"'{run.where / 'runs' / 'tiny'}' is not seen on {socket.gethostname()}" in str(error)


def test_threads_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def here(command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
        given.append(named["env"]["OMP_NUM_THREADS"])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", here)
    assert benchmark.main([*ROW, "--seeds", "0", "--jobs", "2", "--threads", "5"]) == 0
    assert given == ["5"]
