"""What the examples say where something given was wrong; that they run is test_documents.py's."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from pyro_infocat.run import main
from pyro_infocat.train import set_validation
from tests.brief import SMALL


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str) -> str:
    """The one line on stderr of the example with these arguments."""
    monkeypatch.setattr(sys, "argv", ["posterior_predictive", *argv])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("examples.posterior_predictive", run_name="__main__")
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [([], "required: run; see --help"), (["nowhere"], "'nowhere' is not the folder of a run")],
)
def test_no_run(
    argv: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert said in refused(capsys, monkeypatch, *argv)


def test_one_category_has_no_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    gaussian = ["--prior", "models.priors.Gaussian", "--prior.latent", "3"]
    with torch.random.fork_rng(devices=[]):
        assert main([*SMALL, *gaussian, "--epochs", "1", "--out", out]) == 0
    set_validation(True)
    monkeypatch.setattr(sys, "argv", ["posterior_predictive", out])
    capsys.readouterr()
    runpy.run_module("examples.posterior_predictive", run_name="__main__")
    assert "categories 0: 1.00   distance" in capsys.readouterr().out


def test_a_run_whose_guide_no_pyro_program_expresses(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    with torch.random.fork_rng(devices=[]):
        assert main([*SMALL, "--epochs", "1", "--guide", "guides.SoftCode", "--out", out]) == 0
    set_validation(True)
    error = refused(capsys, monkeypatch, out)
    assert f"'{out}': SoftCode mixes the codes of all categories" in error
    assert "a run of another guide" in error
