"""Many runs at once, each in a process of its own: here, or on the workers of a cluster.

joblib hands the runs out, to threads of this process or to Dask or Ray. A run's folder has to lie
where all workers see it: it says what is done and what goes on, whichever worker takes the run.
"""

import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib

from pyro_infocat.errors import UserError, reason
from pyro_infocat.settings import CHECKPOINT, METRICS

PATIENCE = 10.0
"""Seconds to wait for a scheduler, and for the first of its workers."""


@dataclass(frozen=True)
class Run:
    """What a worker needs to know of a run.

    :ivar flags: of ``python -m pyro_infocat.run``.
    :ivar where: the working folder, so that relative paths mean the same on every worker.
    :ivar threads: that it computes on; None for its share of the worker's machine.
    """

    flags: list[str]
    folder: Path
    where: Path
    threads: int | None

    @property
    def log(self) -> Path:
        """Where it prints to."""
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True)
class Workers:
    """What takes runs.

    :ivar backend: ``local``, ``dask`` or ``ray``.
    :ivar jobs: runs at once; None for as many as the workers take.
    :ivar threads: of each run; None for its share of the worker's machine.
    """

    backend: str
    jobs: int | None
    threads: int | None

    def run(self, jobs: Sequence[tuple[Path, list[str]]]) -> list[str]:
        """Run what is not finished, and say why each failed: "" where it did not.

        :param jobs: the folder and the flags of each run.
        :raises UserError: a worker does not see the folder, or the cluster failed.
        :raises OSError: a log cannot be written.
        """
        runs = [Run(flags, folder, Path.cwd(), self.threads) for folder, flags in jobs]
        # Dask's backend knows no number of jobs: what limits it is how many are handed out at once.
        parallel = joblib.Parallel(self.jobs or -1, pre_dispatch=self.jobs or "all", batch_size=1)
        try:
            ended = parallel(joblib.delayed(outcome)(run) for run in runs)
        except Exception as error:
            if self.backend == "local":
                raise
            raise UserError(
                f"the cluster failed: {reason(error)}; the same command goes on",
                "backend",
                self.backend,
            ) from error
        for one in ended:
            if isinstance(one, UserError | OSError):
                raise one
        return [reason(one) if isinstance(one, BaseException) else one for one in ended]


def outcome(run: Run) -> str | Exception:
    """Run it where this is called, and say why it failed: "" where it did not.

    What would be raised is returned: joblib drops all other runs for the first that raises.
    """
    try:
        return "" if _code(run) == 0 else f"'{run.log}' says why"
    except (UserError, OSError) as error:
        return error


def _code(run: Run) -> int:
    """The exit code of a run; one that has been finished is not started."""
    folder = run.where / run.folder
    if not folder.parent.is_dir():
        raise UserError(
            f"'{folder.parent}' is not seen on {socket.gethostname()}; all workers have to see it, "
            "and the folder that the command is given in",
            "out",
        )
    if (folder / METRICS).exists():
        return 0
    command = [sys.executable, "-m", "pyro_infocat.run", *run.flags]
    if (folder / CHECKPOINT).exists():
        command += ["--resume", "true"]
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        "OMP_NUM_THREADS": str(run.threads or _share()),
        "PYTHONPATH": path,
    }
    with (run.where / run.log).open("a") as log:
        return subprocess.run(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=run.where,
            check=False,
        ).returncode


def _share() -> int:
    """Threads for a run on this Dask worker: its processors, over the runs it takes at once."""
    worker = importlib.import_module("distributed").get_worker()
    return max(1, joblib.cpu_count() // worker.state.nthreads)


@contextmanager
def workers(
    backend: str, address: str | None, jobs: int | None, threads: int | None
) -> Iterator[Workers]:
    """This machine (``local``), or the cluster (``dask``, ``ray``) at the address.

    :raises UserError: a package is missing, or there is no such cluster.
    """
    if backend == "local":
        processors = os.cpu_count() or 1
        jobs = jobs or processors
        with joblib.parallel_config("threading"):
            yield Workers(backend, jobs, threads or max(1, processors // jobs))
    elif backend == "dask":
        with _dask(address or ""):
            yield Workers(backend, jobs, threads)
    else:
        # Ray reserves processors for a run before it has a machine.
        with _ray(address or "auto", jobs, threads or 1) as taken:
            yield Workers(backend, taken, threads or 1)


def _dasks(client: Any) -> Any:
    """joblib's backend of a Dask client, without what it leaves open."""
    # Loads Dask, which runs on this machine do not need.
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            # What has one place only joblib runs here, instead of on that one worker.
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            # joblib would wait for ever for what Dask gives up: a run that several workers died of.
            def given_up(done: Any) -> None:
                if error := done.exception():
                    callback(error)

            future = super().submit(func, callback)
            future.add_done_callback(given_up)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            given_up = isinstance(out, BaseException)
            return [out] if given_up else super().retrieve_result_callback(out)

    return Backend(client=client)


@contextmanager
def _dask(address: str) -> Iterator[None]:
    """Runs go to the workers of this scheduler."""
    distributed = _package("distributed", "dask[distributed]", "dask")
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers ({reason(error)}); start one with 'dask scheduler'",
            "address",
            address,
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise UserError(
                f"the scheduler has no worker; start one with 'dask worker {address}'",
                "address",
                address,
            ) from error
        # A worker that cannot read what it is sent dies of it, and the run would wait for another.
        for worker, found in client.run(find_spec, "pyro_infocat").items():
            if found is None:
                raise UserError(
                    f"its worker {worker} has no pyro_infocat; install it there, or start the "
                    "worker with the checkout in PYTHONPATH",
                    "address",
                    address,
                )
        with joblib.parallel_config(_dasks(client)):
            yield


@contextmanager
def _ray(address: str, jobs: int | None, threads: int) -> Iterator[int]:
    """Runs go to the nodes of this cluster; yields how many at once."""
    ray = _package("ray", "ray", "ray")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if address != "auto":
            # Ray itself would try for more than a minute.
            socket.create_connection((host, int(port)), PATIENCE).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers ({reason(error)}); start one with 'ray start --head'",
            "address",
            address,
        ) from error
    try:
        places = int(ray.cluster_resources().get("CPU", 0)) // threads
        taken = min(jobs or places, places)
        if taken < 2:
            # What has one place only joblib runs here, instead of on the cluster.
            raise UserError(
                "with --backend ray at least 2, and processors for two runs on it", "jobs"
            )
        importlib.import_module("ray.util.joblib").register_ray()
        with joblib.parallel_config("ray", ray_remote_args={"num_cpus": threads}):
            yield taken
    finally:
        ray.shutdown()


def _package(name: str, requirement: str, backend: str) -> Any:
    """An optional package.

    :raises UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"needs the package {name}; pip install '{requirement}'", "backend", backend
        ) from error
