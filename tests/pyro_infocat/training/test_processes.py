"""Two processes under torchrun do what one does with the same global batch."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from pyro_infocat import InfoCatELBO
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, HISTORY, METRICS
from tests import two_processes
from tests.brief import ROOT

pytestmark = pytest.mark.slow

BRIEF = ["--epochs", "2", "--nll_samples", "2", "--device", "cpu"]
BRIEF += ["--starts", "1", "--schedules", "{}"]


def torchrun(*command: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*start, "--nproc-per-node", str(processes), *command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    done = torchrun(str(ROOT / "tests" / "two_processes.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.usefixtures("double")
def test_terms_and_gradients_are_those_of_one_process(both: list[dict]) -> None:
    model, guide = two_processes.programs()
    bound = InfoCatELBO()
    module = bound(model, guide)
    x = two_processes.split().grey()
    loss, terms = torch.zeros(()), Counter()
    for rank in (0, 1):
        two_processes.noise(rank)
        loss = loss + module(x[rank::2]) / len(x)
        terms.update(bound.terms)
    loss.backward()
    for result in both:
        assert result["terms"].keys() == terms.keys()
        for name, term in terms.items():
            torch.testing.assert_close(result["terms"][name], term, rtol=1e-6, atol=1e-6)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(
                result["gradients"][name], parameter.grad, rtol=1e-6, atol=1e-6
            )


def test_weights_are_equal_on_both_processes_after_a_hundred_steps(both: list[dict]) -> None:
    first, second = (result["after"] for result in both)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_resumed_run_is_the_run_in_one_go(both: list[dict]) -> None:
    """Each process goes on with its own random numbers, where there are as many.

    A layer of the guide that no step uses ends nothing.
    """
    whole, resumed = both[0]["histories"]
    assert [row["epoch"] for row in whole] == [1, 2]
    assert resumed == whole
    assert both[1]["histories"][1][1]["elbo"] == pytest.approx(whole[1]["elbo"])


def test_a_run_on_two_processes_resumes_on_one_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    run = ["-m", "pyro_infocat.run", "--out", str(out), *BRIEF]
    done = torchrun(*run)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / HISTORY).read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert 0 < json.loads((out / METRICS).read_text())["accuracy"] <= 1
    # Of the first process: one of training, one of what was evaluated.
    assert len(list(out.glob("events*"))) == 2

    checkpoint = torch.load(out / CHECKPOINT, weights_only=True)
    back = checkpoint | {"epoch": 1, "history": checkpoint["history"][:1]}
    for again in (lambda: main([*run[2:], "--resume", "true"]), lambda: resumed(run)):
        torch.save(back, out / CHECKPOINT)
        assert again() == 0
        rows = [json.loads(line) for line in (out / HISTORY).read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]


def test_starts_and_patience_are_the_same_on_both(tmp_path: Path) -> None:
    """A process that stopped an epoch before the other, or went on with another start, would hang.

    No parameter changes at such a rate, so that no epoch is better than the first.
    """
    flags = [*BRIEF, "--starts", "2", "--start_epochs", "1", "--patience", "1", "--epochs", "6"]
    flags += ["--learning_rate", "1e-30", "--encoder.norm", "false"]
    done = torchrun("-m", "pyro_infocat.run", "--out", str(tmp_path), *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("goes on; the objectives are") == 1
    assert "stopped after epoch 2: 1 without a better bound" in done.stdout
    assert json.loads((tmp_path / METRICS).read_text())["epochs"] == 2


def test_fine_categories_are_found_once_and_are_the_same_on_both(tmp_path: Path) -> None:
    """A process that went on with other categories would pull the parameters elsewhere."""
    flags = [*BRIEF, "--finer", "2", "--finer_steps", "4", "--weights.nearness", "50"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = torchrun("-m", "pyro_infocat.run", "--out", str(whole), *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 fine categories merged to 10") == 1
    flags = ["-m", "pyro_infocat.run", "--out", str(parts), *flags, "--epochs", "1"]
    assert torchrun(*flags).returncode == 0
    done = torchrun(*flags[:4], "--resume", "true", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert "fine categories merged" not in done.stdout
    names = ("nearness", "reconstruction", "consistency")
    for one, other in zip(*map(_rows, (whole, parts)), strict=True):
        assert [one[name] for name in names] == pytest.approx([other[name] for name in names])


def _rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def resumed(run: list[str]) -> int:
    return torchrun(*run, "--resume", "true").returncode


def test_terms_are_means_over_the_whole_batch(tmp_path: Path) -> None:
    """Nearly the same in an epoch that changes nothing, whatever the number of processes.

    The draws of z differ: over ten of them the term's standard deviation was 0.02% of it, so that
    1% is 35 standard deviations of the difference.
    """
    means = []
    still = ["--learning_rate", "1e-30", "--encoder.norm", "false"]
    for processes in (1, 2):
        out = tmp_path / str(processes)
        run = ["-m", "pyro_infocat.run", "--out", str(out), "--epochs", "1", *still, *BRIEF[2:]]
        done = torchrun(*run, processes=processes)
        assert done.returncode == 0, done.stderr
        means.append(json.loads((out / HISTORY).read_text())["reconstruction"])
    assert abs(means[0] - means[1]) < 0.01 * abs(means[0])


def test_a_bound_without_weight_trains_on_two_processes(tmp_path: Path) -> None:
    """The decoder has no gradient then, for which processes that average theirs would wait."""
    weights = "{reconstruction: 0, kl_z: 0, kl_c: 0, consistency: 1, marginal_entropy: 1}"
    flags = ["--weights", weights, "--information_weight", "0", *BRIEF]
    done = torchrun("-m", "pyro_infocat.run", "--out", str(tmp_path), *flags)
    assert done.returncode == 0, done.stderr


def test_an_error_is_told_once() -> None:
    done = torchrun("-m", "pyro_infocat.run", "--epochs", "0")
    assert done.returncode != 0
    assert done.stderr.count("error: --epochs") == 1
