"""What the example prints, and what it says where something given was wrong."""

import sys
from pathlib import Path

import pyro
import pytest
import torch
import yaml

from examples.posterior_predictive import SHOWN, main
from pyro_infocat import run
from pyro_infocat.evaluation import figures
from tests.brief import SMALL, judge_little


def made(out: Path, *flags: str) -> str:
    """The folder of a run of one epoch on the digits, without figures."""
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_: None)
        judge_little(patch)
        assert run.main([*SMALL, *flags, "--epochs", "1", "--out", str(out)]) == 0
    pyro.enable_validation(True)
    return str(out)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of the example with these arguments."""
    capsys.readouterr()
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("error: ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "RUN is missing: the folder of a run; see --help\n"),
        (["nowhere"], "'nowhere' is not the folder of a run"),
        (["nowhere", "--draws", "3"], "no such flag: --draws 3"),
    ],
)
def test_no_run(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *argv)


def test_a_line_for_each_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = made(tmp_path / "out")
    capsys.readouterr()
    with torch.random.fork_rng(devices=[]):
        assert main([out]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == SHOWN
    for line in lines:
        label, categories, distance = line.split("   ")
        assert label in [f"label {digit}" for digit in range(10)]
        likeliest, second = (float(part.split(": ")[1]) for part in categories.split(", "))
        assert 1 >= likeliest >= second >= 0
        assert 0 < float(distance.split()[-3]) < 2


def test_one_category_has_no_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaussian = ["--prior", "models.priors.Gaussian", "--prior.latent", "3"]
    out = made(tmp_path / "out", *gaussian)
    capsys.readouterr()
    with torch.random.fork_rng(devices=[]):
        assert main([out]) == 0
    assert "categories 0: 1.00   distance" in capsys.readouterr().out


def test_a_run_whose_guide_no_pyro_program_expresses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = made(tmp_path / "out", "--guide", "guides.SoftCode")
    error = refused(capsys, out)
    assert error.startswith(f"'{out}': SoftCode mixes the codes of all categories")
    assert error.endswith("give a run of another guide\n")


def test_the_reader_of_a_folder_that_someone_sent_is_not_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = made(tmp_path / "out")
    (tmp_path / "sent_along.py").write_text("raise SystemExit('executed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tmp_path / "out" / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["reader"] = {"class_path": "sent_along.Images", "init_args": {}}
    config.write_text(yaml.safe_dump(settings))
    error = refused(capsys, out)
    assert "'sent_along.Images' is code outside this project and was not imported" in error
    assert "sent_along" not in sys.modules
