"""What a run hands to training and evaluation, and what it holds meanwhile; both are stand-ins."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from torch.distributions import Distribution

from pyro_infocat import experiment
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation import figures
from pyro_infocat.loading import Run
from pyro_infocat.settings import METRICS
from pyro_infocat.storage.folder import RunFolder
from tests.brief import SMALL
from tests.runs import parse

pytestmark = pytest.mark.usefixtures("alone")

FLAGS = [*SMALL, "--seed", "5", "--epochs", "3"]
HISTORY = [{"epoch": float(n), "seconds": 2.0, "elbo": -9.0} for n in (1, 2, 3)]
OUT = Path("out")


class Stage:
    """Stands for training and evaluation: it looks round and keeps what it got."""

    def __init__(self) -> None:
        self.trained: dict[str, Any] = {}
        self.tested: Any = None
        self.checkpoint: Any = None

    def train(self, settings: Any, data: Any, parts: Any, *others: Any, **named: Any) -> Any:
        self.parts, self.checkpoint = parts, others[1]
        try:
            with RunFolder(OUT).locked():
                locked = False
        except UserError:
            locked = True
        self.trained = {
            "locked": locked,
            "grad": torch.is_grad_enabled(),
            "validated": Distribution._validate_args,
            "params": list(pyro.get_param_store()),
        }
        pyro.param("of the run", torch.zeros(1))
        parts.model.train(), parts.guide.train()
        return list(HISTORY)

    def evaluate(self, tested: Any, *_: Any) -> dict[str, Any]:
        self.tested = tested
        self.modes = {part.training for part in (tested.model, tested.guide)}
        return {"elbo": -1.0, "clusters_used": 2}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage()
    monkeypatch.setattr(experiment, "train", made.train)
    monkeypatch.setattr(experiment, "evaluate", made.evaluate)
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    pyro.get_param_store().clear()
    yield made
    pyro.get_param_store().clear()


def begin(*flags: str, resume: bool = False) -> Run:
    return experiment.run(parse([*FLAGS, *flags])[0], OUT, resume, progress=False)


def test_training_has_the_folder_and_the_process_to_itself(stage: Stage) -> None:
    validated = Distribution._validate_args
    with torch.no_grad():
        begin()
        assert not torch.is_grad_enabled()
    assert stage.trained == {"locked": True, "grad": True, "validated": False, "params": []}
    assert list(pyro.get_param_store()) == []
    assert Distribution._validate_args is validated
    with RunFolder(OUT).locked():
        pass


def test_evaluation_gets_what_was_trained_and_the_settings(stage: Stage) -> None:
    run = begin("--nll_samples", "7")
    tested = stage.tested
    assert tested.model is run.model is stage.parts.model
    assert tested.guide is run.guide is stage.parts.guide
    assert stage.modes == {False}
    assert (tested.nll_samples, tested.seed) == (7, 5)
    assert tested.history == HISTORY
    assert tested.observation == run.observation


def test_metrics_tell_the_run_itself(stage: Stage) -> None:
    begin()
    found = json.loads((OUT / METRICS).read_text())
    assert found["epochs"] == 3
    assert found["train_seconds"] == 6
    assert found["examples_per_second"] == pytest.approx(3 * 1297 / 6)
    assert (found["seed"], found["device"]) == (5, "cpu")


def test_the_seed_decides_what_is_begun_with(stage: Stage) -> None:
    held = []
    for number, seed in enumerate(("1", "1", "2")):
        torch.manual_seed(number)
        run = experiment.run(parse([*FLAGS, "--seed", seed])[0], Path(f"out{number}"))
        held.append([value.tolist() for value in run.guide.state_dict().values()])
    assert held[0] == held[1] != held[2]


# Going on.


@pytest.fixture
def begun(stage: Stage) -> Stage:
    """A run with a checkpoint after two epochs."""
    settings, place = parse([*FLAGS, "--starts", "2"])[0], RunFolder(OUT)
    place.create(settings)
    held = {"epoch": 2, "model": {}, "guide": {}, "optimizer": {}}
    place.save(held | {"rng": {"cpu": torch.get_rng_state()}}, HISTORY[:2])
    return stage


def test_a_run_that_goes_on_begins_no_start_again(
    begun: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a start was begun")

    monkeypatch.setattr(experiment, "best_start", never)
    begin("--starts", "2", resume=True)
    assert begun.checkpoint["epoch"] == 2
    assert begun.trained["locked"]
    with RunFolder(OUT).locked():
        pass


def test_a_run_that_begins_goes_on_with_its_best_start(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = {"epoch": 1}
    monkeypatch.setattr(experiment, "best_start", lambda *_: best)
    begin("--starts", "2")
    assert stage.checkpoint is best


def test_a_folder_that_another_process_writes_to_is_not_gone_on_with(begun: Stage) -> None:
    with RunFolder(OUT).locked(), pytest.raises(UserError, match="another process is writing"):
        begin("--starts", "2", resume=True)
    assert begun.checkpoint is None
