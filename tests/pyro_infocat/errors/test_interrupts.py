"""Ctrl-C at any moment: one line that says how to go on, and exit code 130."""

import shlex
import signal
import time
from pathlib import Path

import pytest

from pyro_infocat import experiment
from pyro_infocat.evaluation import figures
from pyro_infocat.run import main
from pyro_infocat.settings import HISTORY, METRICS
from tests.brief import SMALL, be_brief, start, wait_for
from tests.pyro_infocat.errors.refusals import OUT, checkpoint_in, interrupt

pytestmark = pytest.mark.usefixtures("alone")


def test_before_there_is_anything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "read_data", interrupt)
    assert main(["--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_in_the_folder_of_another_run(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the command has come to see whose it is."""
    monkeypatch.setattr(experiment, "read_data", interrupt)
    assert main(["--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_it_is_told_once(
    rank: str,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(experiment, "run", interrupt)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert main(["--out", OUT]) == 130
    # torchrun ends all as soon as one ends: the silent ones wait for the one that speaks.
    assert len(waits) == 1 - lines
    assert capsys.readouterr().err.count("\n") == lines


def test_between_the_settings_and_the_first_checkpoint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "train", interrupt)
    assert main([*SMALL, "--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; the same command begins again\n"


@pytest.mark.slow
@pytest.mark.usefixtures("brief", "interruptible")
def test_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder"
    process = start(*SMALL, "--epochs", "60", "--out", str(out))
    wait_for(lambda: (out / HISTORY).exists() and (out / HISTORY).read_text(), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.count("\n") == 1
    epoch = checkpoint_in(out)["epoch"]
    assert 1 <= epoch < 60
    command = shlex.split(error.split("continue with: ")[1])
    assert command[:3] == ["python", "-m", "pyro_infocat.run"]
    assert main(command[3:]) == 0
    assert len((out / HISTORY).read_text().splitlines()) == 60
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_real_command() -> None:
    """The exit code and the line of an error, as a shell sees them."""
    process = start("--prior.sale", "3")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == ""
    assert error.startswith("error: --prior: models.priors.Orthogonal takes no 'sale'")
    assert error.count("\n") == 1


def test_while_the_figures_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has its metrics is finished, as a benchmark takes it: it has its figures too."""
    with monkeypatch.context() as patch:
        be_brief(patch)
        patch.setattr(figures, "draw", interrupt)
        assert main([*SMALL, "--epochs", "1", "--out", OUT]) == 130
    assert checkpoint_in(Path(OUT))["epoch"] == 1
    assert not Path(OUT, METRICS).exists()
