"""Which value wins, and what is refused, where settings come from several places."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import pyro_infocat as pic
from pyro_infocat.cli.run_flags import parse, read
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, Part, Settings
from tests.brief import SMALL
from tests.runs import history, metrics

pytestmark = pytest.mark.usefixtures("brief")


def settings(*flags: str) -> Settings:
    return parse(read(flags))[0]


def write(name: str, **values: Any) -> str:
    Path(name).write_text(yaml.safe_dump(values))
    return name


@pytest.fixture
def run() -> Path:
    assert main([*SMALL, "--epochs", "1", "--seed", "3", "--out", "run"]) == 0
    return Path("run")


# A slip over a run's config, whose own unknown arguments are passed over.

SLIPS = (
    ["--prior.scael", "9"],
    ["--prior", "{class_path: models.priors.Simplex, init_args: {scael: 3}}"],
    ["--prior", "models.priors.Simplex", "--prior.scael", "4"],
)


@pytest.mark.parametrize("flags", SLIPS)
def test_a_slip_over_a_runs_config_is_refused(
    flags: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(run / CONFIG), *flags, "--out", "other"]) == 2
    assert "takes no 'scael'; it takes categories" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_slip_over_a_runs_config_in_python_is_refused(run: Path) -> None:
    with pytest.raises(pic.UserError, match=r"^prior: models.priors.Orthogonal takes no 'scael'"):
        pic.check_parts(preset=run / CONFIG, **{"prior.scael": 9})


# Going on with a run.


def test_resuming_takes_the_folders_settings(run: Path) -> None:
    """Whatever flags it was begun with."""
    assert main(["--out", "run", "--resume", "true", "--epochs", "2"]) == 0
    assert len(history(run)) == 2
    config = yaml.safe_load((run / CONFIG).read_text())
    assert (config["seed"], config["batch_size"], config["epochs"]) == (3, 400, 2)
    assert main(["--out", "run", "--resume"]) == 0
    assert len(history(run)) == 2


def test_resuming_scales_no_schedule_once_more() -> None:
    schedule = "{kl_z: [[0, 0.7], [1, 0.1], [2, 3]]}"
    flags = [*SMALL, "--config", write("mine.yaml", schedules=yaml.safe_load(schedule))]
    flags += ["--weights.kl_z", "0.3", "--out", "run"]
    assert main([*flags, "--epochs", "1"]) == 0
    before = yaml.safe_load(Path("run", CONFIG).read_text())["schedules"]
    flags = ["--out", "run", "--resume", "true", "--weights.kl_z", "0.3", "--epochs", "2"]
    assert main(flags) == 0
    assert yaml.safe_load(Path("run", CONFIG).read_text())["schedules"] == before


def test_what_comes_after_training_may_change(run: Path) -> None:
    assert metrics(run)["nll_samples"] == 2
    assert main(["--out", "run", "--resume", "true", "--nll_samples", "3"]) == 0
    assert metrics(run)["nll_samples"] == 3


# Configs and flags.


@pytest.mark.parametrize("name", ["mnist-paper", "runs/mnist-paper.yaml"])
def test_a_preset_by_its_name(name: str) -> None:
    assert settings("--config", name).weights == {"marginal_entropy": 20.0}


def test_a_file_of_ones_own_goes_before_a_preset_of_the_name() -> None:
    write("digits", epochs=7)
    assert settings("--config", "digits").epochs == 7


def test_a_second_config_adds_to_the_first() -> None:
    path = "models.priors.Orthogonal"
    one = write("one.yaml", prior={"class_path": path, "init_args": {"scale": 5}}, epochs=3)
    two = write("two.yaml", prior={"class_path": path, "init_args": {"delta": 1}})
    found = settings("--config", one, "--config", two)
    assert (found.prior.init_args["scale"], found.prior.init_args["delta"]) == (5, 1)
    assert found.epochs == 3


def test_arguments_without_a_class_are_for_the_class_below() -> None:
    found = settings("--prior", "{init_args: {scale: 7}}").prior
    assert found.class_path == "models.priors.Orthogonal"
    assert (found.init_args["scale"], found.init_args["delta"]) == (7, 2)


def test_a_flag_for_several_classes_given_twice_is_two() -> None:
    place = "tests.users_parts.measures."
    metrics_given = ["--metrics", f"{place}Fullest", "--metrics", f"{place}PerLabel"]
    assert [part.class_path for part in settings(*metrics_given).metrics] == [
        f"{place}Fullest",
        f"{place}PerLabel",
    ]


def test_what_earlier_versions_printed_is_read() -> None:
    printed = write("printed.yaml", config=None, out=None, resume=False, epochs=4)
    assert settings("--config", printed).epochs == 4


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_true_in_any_case(word: str) -> None:
    assert settings("--compile", word).compile
    assert read(["--resume", word, "--out", "none"]).resume


def test_the_class_that_was_probably_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prior", "Simplx"]) == 2
    assert "'Simplx' is no class; did you mean models.priors.Simplex?" in capsys.readouterr().err


def test_no_class_for_what_needs_one() -> None:
    with pytest.raises(pic.UserError, match=r"^prior null: is no class; leave it out"):
        pic.check_parts(prior=None)
    assert settings("--reader", "null").reader is None
    assert isinstance(settings().prior, Part)


def test_a_run_without_a_checkpoint_is_not_taken_for_settings() -> None:
    """The folder of a run that never began is refused as before."""
    Path("run").mkdir()
    write("run/config.yaml", epochs=3)
    assert main(["--out", "run", "--resume", "true"]) == 2
    assert not Path("run", CHECKPOINT).exists()
