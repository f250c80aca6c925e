"""A run can be repeated and continued to the bit."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyro_infocat.data import Split
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY, METRICS
from tests.brief import SMALL, start, wait_for
from tests.runs import history, metrics, same_run

pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ctrl-C in the middle of the third epoch of a run; appends the batches of each epoch."""
    shuffled, grey = Split.shuffled, Split.grey
    begun: list[int] = []

    def epoch(self: Split) -> Tensor:
        begun.append(0)
        return shuffled(self)

    def batch(self: Split, index: Tensor | slice = slice(None)) -> Tensor:
        if begun:
            begun[-1] += 1
            if len(begun) == 3 and begun[-1] == 2:
                raise KeyboardInterrupt
        return grey(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Split, "shuffled", epoch)
        patch.setattr(Split, "grey", batch)
        yield begun


def test_the_config_fed_back_reproduces_the_run() -> None:
    assert main([*SMALL, "--epochs", "2", "--out", "first"]) == 0
    torch.manual_seed(5)
    assert main(["--config", f"first/{CONFIG}", "--out", "second"]) == 0
    assert same_run("first", "second")
    assert Path("first", CONFIG).read_bytes() == Path("second", CONFIG).read_bytes()
    assert main(["--config", f"first/{CONFIG}", "--seed", "1", "--out", "third"]) == 0
    first, third = metrics("first"), metrics("third")
    for name in ("elbo", "nll", "reconstruction", "kl_z", "kl_c", "information_bound"):
        assert first[name] != third[name]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        *(
            pytest.param(flags.split(), marks=pytest.mark.slow)
            for flags in (
                "--anneal cosine --schedules.kl_z [[0,0],[3,1]]",
                "--patience 9 --particles 2 --likelihood models.likelihoods.Bernoulli",
                "--encoder.norm true --prior models.priors.Vamp",
                "--guide guides.Bayes --kl sampled --prior models.priors.Mixture",
            )
        ),
    ],
    ids=["default", "annealed", "binary", "batch norm", "Bayes"],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    flags: list[str], interrupted: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*(flag for flag in SMALL if "guide" not in flag and flag != "16"), *flags]
    flags += ["--epochs", "4"]
    assert main([*flags, "--out", "stopped"]) == 130
    assert torch.load(f"stopped/{CHECKPOINT}", weights_only=True)["epoch"] == 2
    assert len(history("stopped")) == 2
    assert not Path("stopped", METRICS).exists()
    capsys.readouterr()
    assert main([*flags, "--out", "whole"]) == 0, capsys.readouterr().err
    torch.manual_seed(5)
    assert main([*flags, "--out", "stopped", "--resume", "true"]) == 0
    assert len(interrupted) == 3 + 4 + 2
    assert same_run("whole", "stopped")


@pytest.mark.slow
def test_a_finished_run_is_taken_to_more_epochs() -> None:
    flags = [*SMALL, "--schedules", "{kl_z: [[0, 0], [3, 1]]}"]
    assert main([*flags, "--epochs", "2", "--out", "longer"]) == 0
    assert main([*flags, "--epochs", "4", "--out", "longer", "--resume", "true"]) == 0
    assert main([*flags, "--epochs", "4", "--out", "whole"]) == 0
    assert same_run("whole", "longer")
    assert Path("whole", CONFIG).read_bytes() == Path("longer", CONFIG).read_bytes()
    assert metrics("longer")["epochs"] == 4


@pytest.mark.slow
def test_stopped_on_its_way_beyond_its_end_a_run_has_no_metrics_of_before(
    interrupted: list[int],
) -> None:
    assert main([*SMALL, "--epochs", "1", "--out", "out"]) == 0
    flags = [*SMALL, "--epochs", "3", "--out", "out", "--resume", "true"]
    # The third epoch in all.
    assert main(flags) == 130
    assert len(history("out")) == 2
    assert not Path("out", METRICS).exists()
    assert main(flags) == 0
    assert metrics("out")["epochs"] == 3


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits() -> None:
    """``kill -9`` while checkpoints are written about every 30 ms, after different delays."""
    out = Path("killed")
    flags = [*SMALL, "--epochs", "60", "--out", str(out)]
    for delay, resume in ((0.05, []), (0.27, ["--resume", "true"])):
        before = len(history(out)) if resume else 0
        process = start(*flags, *resume)
        wait_for(
            lambda before=before: (out / HISTORY).exists() and len(history(out)) > before, process
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        checkpoint = torch.load(out / CHECKPOINT, weights_only=True)
        assert before < checkpoint["epoch"] < 60
        # The history may be one epoch behind, never torn and never ahead.
        assert checkpoint["epoch"] - 1 <= len(history(out)) <= checkpoint["epoch"]
    assert main([*flags, "--resume", "true"]) == 0
    assert main([*flags[:-1], "whole"]) == 0
    assert same_run("whole", out)


@pytest.mark.slow
def test_killed_before_its_first_checkpoint_a_run_can_be_begun_again() -> None:
    flags = [*SMALL, "--epochs", "1", "--out", "out"]
    assert main(flags) == 0
    config = Path("out", CONFIG).read_bytes()
    for path in Path("out").iterdir():
        path.unlink()
    Path("out", CONFIG).write_bytes(config)
    assert main([*flags, "--seed", "1"]) == 2
    assert Path("out", CONFIG).read_bytes() == config
    assert main(flags) == 0
