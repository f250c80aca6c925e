"""Which start goes on, and what each is begun with; what trains is a stand-in."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_infocat.build import Builder
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data.readers import digits
from pyro_infocat.settings import Settings
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training import restarts
from pyro_infocat.training.restarts import best_start
from tests.pyro_infocat.training.pieces import CPU, settings

pytestmark = pytest.mark.usefixtures("alone")

OBJECTIVES = (-7.0, -5.0, -6.0)
BOUNDS = (-5.0, -7.0, -6.0)
"""In another order than the objectives."""


@dataclass
class Trainer:
    """Stands for training: each start has its objective, and takes as many seconds as its number
    and one."""

    seeds: list[int] = field(default_factory=list)
    untils: list[int | None] = field(default_factory=list)
    checkpoints: list[Mapping[str, Any] | None] = field(default_factory=list)

    def __call__(
        self,
        chosen: Settings,
        data: object,
        parts: object,
        place: RunFolder,
        checkpoint: Mapping[str, Any] | None,
        until: int | None,
        progress: bool | None,
        clusters: object,
    ) -> list[dict[str, float]]:
        number = int(place.path.name)
        self.seeds.append(torch.initial_seed())
        self.untils.append(until)
        self.checkpoints.append(checkpoint)
        row = {"epoch": 1, "seconds": 1.0 + number, "elbo": BOUNDS[number]}
        history = [row | {"objective": OBJECTIVES[number]}]
        held = {"epoch": 1, "model": {"start": torch.tensor(number)}, "guide": {}, "optimizer": {}}
        place.save(held | {"rng": {"cpu": torch.get_rng_state()}}, history)
        return history


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """And the generators that a seed sets, put back."""
    made, states = Trainer(), (random.getstate(), np.random.get_state())
    monkeypatch.setattr(restarts, "train", made)
    yield made
    random.setstate(states[0])
    np.random.set_state(states[1])


def choose(folder: str = "out", **changes: Any) -> dict[str, Any]:
    chosen = settings(**{"starts": 3, "start_epochs": 2, "epochs": 9} | changes)
    builder = Builder(chosen, DATA_SETS["digits"])
    return best_start(chosen, digits(), CPU, builder, RunFolder(Path(folder)), progress=False)


def test_the_largest_objective_decides_and_not_the_bound(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = choose()
    assert found["model"]["start"] == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "start 1 goes on; the objectives are -7.00, -5.00, -6.00 nats"
    assert said[:-1] == [f"start {number} of 0 to 2" for number in range(3)]


def test_its_checkpoint_is_the_runs_and_has_the_time_of_all(trainer: Trainer) -> None:
    found = choose()
    assert [row["seconds"] for row in found["history"]] == [1 + 2 + 3]
    place = RunFolder(Path("out"))
    assert place.history() == place.checkpoint()["history"] == found["history"]
    # The start's own folder tells its own.
    assert [row["seconds"] for row in RunFolder(Path("out/starts/1")).history()] == [2]


@pytest.mark.parametrize(("epochs", "until"), [(9, 2), (2, 2), (1, 1)])
def test_a_start_is_never_longer_than_the_run(epochs: int, until: int, trainer: Trainer) -> None:
    choose(epochs=epochs)
    assert trainer.untils == [until] * 3


def test_no_two_starts_of_any_runs_share_their_random_numbers(trainer: Trainer) -> None:
    for seed in (0, 1, 2, 2**32 - 1):
        choose(f"out{seed}", seed=seed)
    assert len(set(trainer.seeds)) == 12
    before = trainer.seeds[3:6]
    choose("again", seed=1)
    assert trainer.seeds[-3:] == before


def test_a_start_that_was_begun_goes_on_from_its_checkpoint(trainer: Trainer) -> None:
    choose()
    assert trainer.checkpoints == [None] * 3
    Path("out/starts/2/checkpoint.pt").unlink()
    Path("out/starts/2/history.jsonl").unlink()
    choose()
    again = trainer.checkpoints[3:]
    assert [one and one["model"]["start"] for one in again] == [0, 1, None]
