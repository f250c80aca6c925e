"""The training loop: what an epoch does and leaves."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from pyro_infocat import Batch
from pyro_infocat.data.readers import digits
from pyro_infocat.objective.terms import InformationBound
from pyro_infocat.settings import HISTORY
from pyro_infocat.storage.folder import RunFolder, flat
from pyro_infocat.training import loop
from pyro_infocat.training.feed import batches
from pyro_infocat.training.loop import adam, recordable, train
from tests.pyro_infocat.training.pieces import fit, make_parts, settings, timeless

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize(
    ("scheduled", "rates"),
    [
        ({}, [2e-3, 1.5e-3, 0.5e-3]),
        ({"learning_rate": [[0.0, 3e-3], [1.0, 3e-3], [2.0, 1e-4]]}, [3e-3, 3e-3, 1e-4]),
    ],
    ids=["cosine", "schedule"],
)
def test_weights_and_rates_reach_the_loop(
    scheduled: dict[str, list[list[float]]], rates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A term of weight 0 in an epoch might as well not be there; the rate is the optimiser's."""
    used: list[float] = []
    step = torch.optim.Adam.step

    def look(self: torch.optim.Adam) -> None:
        used.append(self.param_groups[0]["lr"])
        step(self)

    call = InformationBound.__call__

    def information_bound(self: InformationBound, batch: Batch) -> Tensor:
        # Measured without a gradient where it is not trained by.
        if torch.is_grad_enabled():
            trained.append(len(used))
        return call(self, batch)

    trained: list[int] = []
    monkeypatch.setattr(torch.optim.Adam, "step", look)
    monkeypatch.setattr(InformationBound, "__call__", information_bound)
    schedules = {"information_bound": [[1.0, 0.0], [2.0, 1.0]], **scheduled}
    chosen = settings(epochs=3, anneal="cosine", schedules=schedules, batch_size=2000)
    history, _ = fit(chosen)
    assert trained == [2]
    assert all(row["information_bound"] <= math.log(10) for row in history)
    assert used == pytest.approx(rates)


def test_adam_is_adam() -> None:
    """Kingma and Ba 2015, algorithm 1 with its own numbers, on the CPU."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = adam([parameter], 0.1)
    value, first, second = parameter.detach().clone(), torch.zeros(2), torch.zeros(2)
    for step, slope in enumerate(torch.tensor([[1.0, 0.5], [-2.0, 0.25], [0.3, 3.0]]), 1):
        parameter.grad = slope.double()
        optimizer.step()
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        unbiased = (second / (1 - 0.999**step)).sqrt() + 1e-8
        value = value - 0.1 * first / (1 - 0.9**step) / unbiased
    torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=0)


# What an epoch leaves.


def test_training_raises_the_bound() -> None:
    history, _ = fit(settings(learning_rate=3e-3, epochs=4))
    assert history[-1]["elbo"] > history[0]["elbo"] + 1
    lines = Path("out", HISTORY).read_text().splitlines()
    assert [json.loads(line) for line in lines] == history


def test_a_row_is_the_mean_over_all_examples() -> None:
    """Of batches of different sizes: the last has 497 examples, the other 800."""
    chosen = settings(
        "--encoder.norm", "false", epochs=1, batch_size=800, learning_rate=1e-30, weights={}
    )
    history, parts = fit(replace(chosen, information_weight=0.0, decoded=0))
    x = digits().train.grey()
    with torch.no_grad():
        terms = parts.bound.bound_terms(parts.model, parts.guide, x)
    for name in ("kl_z", "kl_c"):
        # In closed form: no draw is in them.
        assert history[0][name] == pytest.approx(terms[name].item() / len(x), rel=1e-5)
    assert history[0]["objective"] == pytest.approx(history[0]["elbo"], rel=1e-9)


def test_tensorboard_has_each_term_at_its_epoch() -> None:
    history, _ = fit(settings(epochs=2))
    events = EventAccumulator("out")
    events.Reload()
    for name in set(history[0]) - {"epoch"}:
        points = [(point.step, point.value) for point in events.Scalars(name)]
        assert [step for step, _ in points] == [1, 2]
        assert [value for _, value in points] == pytest.approx([row[name] for row in history])


def test_tensorboard_forgets_epochs_that_a_resumed_run_has_anew() -> None:
    """Such as one after which the run was killed, before its checkpoint was written."""
    chosen = settings(epochs=2)
    fit(chosen)
    place = RunFolder(Path("out"))
    checkpoint = place.checkpoint()
    before = {"epoch": 1, "history": checkpoint["history"][:1]}
    train(chosen, digits(), make_parts(chosen), place, checkpoint | before, progress=False)
    events = EventAccumulator("out")
    events.Reload()
    assert [point.step for point in events.Scalars("elbo")] == [1, 2]


def test_the_checkpoint_is_of_its_epoch_from_the_very_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One is there before the first step; each counts the epochs that it has behind it."""
    saved: list[tuple[int, int]] = []
    save = RunFolder.save

    def look(self: RunFolder, checkpoint: dict[str, Any], history: list) -> None:
        saved.append((checkpoint["epoch"], len(history)))
        save(self, checkpoint, history)

    monkeypatch.setattr(RunFolder, "save", look)
    fit(settings(epochs=2))
    assert saved == [(0, 0), (1, 1), (2, 2)]
    assert RunFolder(Path("out")).checkpoint()["epoch"] == 2


def test_going_on_needs_the_optimisers_moments() -> None:
    """The same numbers as without a stop, which a fresh Adam does not have."""
    whole, _ = fit(settings(epochs=3), folder="whole")
    chosen, place = settings(epochs=3), RunFolder(Path("stopped"))
    place.create(chosen)
    data = digits()
    train(chosen, data, make_parts(chosen), place, until=1, progress=False)
    checkpoint = place.checkpoint()
    moments = checkpoint["optimizer"]["state"][0]["exp_avg"]
    assert moments.any()
    again = make_parts(chosen, seed=9)
    history = train(chosen, data, again, place, checkpoint, progress=False)
    assert timeless(history) == timeless(whole)


# Batches.


@pytest.mark.parametrize(
    ("number", "size", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (5, 4, [5]),
        (2, 1, [2]),
    ],
)
def test_batches_take_every_example_once(number: int, size: int, sizes: list[int]) -> None:
    """One that is left over joins the last batch: batch normalisation needs two."""
    parts = batches(torch.arange(number), size)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).tolist() == list(range(number))


def test_of_two_processes_each_needs_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [len(part) for part in batches(torch.arange(11), 4)] == [4, 7]
    assert [len(part) for part in batches(torch.arange(12), 4)] == [4, 4, 4]


@pytest.mark.parametrize("change", ["graph", "device", "written_out", "processes", None])
def test_when_a_step_is_recorded(change: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one GPU, by one process, where no program asks the host, unless it is switched off."""

    if change == "processes":
        monkeypatch.setenv("WORLD_SIZE", "2")
    device = torch.device("cpu" if change == "device" else "cuda")
    chosen = settings(graph=change != "graph")
    assert recordable(chosen, device, change != "written_out") is (change is None)


@pytest.mark.parametrize("compile_", [True, False])
def test_networks_are_compiled_where_that_is_asked(
    compile_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And compute in the precision that is asked for, whichever that is."""
    asked: dict[str, Any] = {}

    def wrap(name: str) -> Callable:
        right = getattr(loop, name)

        def look(wanted: Any, *others: Any) -> Any:
            asked[name] = wanted
            return right(*(("float32",) if name == "computing_in" else (False,)), *others)

        return look

    for name in ("compiled", "computing_in"):
        monkeypatch.setattr(loop, name, wrap(name))
    fit(settings(epochs=1, compile=compile_, precision="bfloat16"))
    assert asked == {"compiled": compile_, "computing_in": "bfloat16"}


def test_nested_settings_are_flattened_as_flags_name_them() -> None:
    nested = {"epochs": 3, "prior": {"class_path": "P", "init_args": {"scale": 2.0, "modes": [1]}}}
    assert flat(nested) == {
        "epochs": 3,
        "prior.class_path": "P",
        "prior.scale": 2.0,
        "prior.modes": [1],
    }
