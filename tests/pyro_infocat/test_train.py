"""The training loop's parts, and that it keeps away from the test split."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guides.guide import Guide
from models import CatVAE
from pyro_infocat import build, objective, terms
from pyro_infocat.arguments import parse
from pyro_infocat.data import DataSet, Split, digits
from pyro_infocat.record import Record, flat
from pyro_infocat.settings import HISTORY, Component, Settings
from pyro_infocat.train import (
    held_out_elbo,
    train,
    unweighted,
    validation_split,
    waited,
)
from pyro_infocat.views import Affine, Same
from tests.brief import SMALL

pytestmark = pytest.mark.usefixtures("alone")


def settings(**changes: Any) -> Settings:
    return replace(parse([*SMALL, "--epochs", "3"])[0], **changes)


def fit(chosen: Settings, data: DataSet, folder: str = "out") -> list[dict[str, float]]:
    torch.manual_seed(0)
    model, guide, view = build.build(chosen, torch.device("cpu"))
    record = Record(Path(folder))
    record.create(chosen)
    return train(chosen, data, model, guide, view, record)


@pytest.mark.parametrize(
    ("scheduled", "rates"),
    [
        ({}, [1e-3, 0.75e-3, 0.25e-3]),
        ({"learning_rate": [[0.0, 3e-3], [1.0, 3e-3], [2.0, 1e-4]]}, [3e-3, 3e-3, 1e-4]),
    ],
    ids=["cosine", "schedule"],
)
def test_weights_and_rates_reach_the_loop(
    scheduled: dict[str, list[list[float]]], rates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A term weighed 0 in every epoch might as well not be there; the rate is the optimiser's."""
    seen: list[float] = []
    step = torch.optim.Adam.step

    def look(self: torch.optim.Adam) -> None:
        seen.append(self.param_groups[0]["lr"])
        step(self)

    def information_bound(model: CatVAE, guide: Guide, number: int) -> Tensor:
        trained.append(len(seen))
        return terms.information_bound(model, guide, number)

    trained: list[int] = []
    monkeypatch.setattr(torch.optim.Adam, "step", look)
    monkeypatch.setattr(objective, "information_bound", information_bound)
    schedules = {"information_bound": [[1.0, 0.0], [2.0, 1.0]], **scheduled}
    chosen = settings(anneal="cosine", schedules=schedules, batch_size=2000)
    history = fit(chosen, digits())
    assert trained == [2]
    assert all(row["information_bound"] <= math.log(10) for row in history)
    assert seen == pytest.approx(rates)


def test_the_validation_share_is_held_out() -> None:
    split = Split(torch.arange(200, dtype=torch.uint8).unsqueeze(1), torch.arange(200), 256)
    chosen = settings(patience=1, validation=0.25)
    fitted, held_out = validation_split(split, chosen)
    assert held_out is not None
    assert len(held_out) == 50
    assert sorted([*fitted.labels.tolist(), *held_out.labels.tolist()]) == list(range(200))
    assert torch.equal(fitted.pixels[:, 0], fitted.labels.to(torch.uint8))
    # The same share for a resumed run, another for another seed.
    torch.manual_seed(3)
    again, other = (validation_split(split, replace(chosen, seed=seed))[1] for seed in (0, 1))
    assert again is not None
    assert other is not None
    assert torch.equal(again.labels, held_out.labels)
    assert not torch.equal(other.labels, held_out.labels)


def test_nothing_is_held_out_without_patience() -> None:
    split = digits().train
    assert validation_split(split, settings()) == (split, None)


@pytest.mark.parametrize(
    ("bounds", "epochs"), [([], 0), ([-3.0], 0), ([-3, -2], 0), ([-2, -3, -3], 2), ([-2, -2], 1)]
)
def test_waiting_is_counted_from_the_best_epoch(bounds: list[float], epochs: int) -> None:
    assert waited([{"validation_elbo": bound} for bound in bounds]) == epochs


class Forbidden:
    """A test split that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"training looked at the test split's {name}")


def test_training_and_early_stopping_never_look_at_the_test_split() -> None:
    data = digits()
    blind = DataSet(data.facts, data.train, Forbidden())  # type: ignore[arg-type]
    still, _, _ = parse([*SMALL, "--encoder.norm", "false", "--learning_rate", "1e-30"])
    history = fit(replace(still, patience=1, epochs=9), blind)
    assert len(history) == 2
    assert "validation_elbo" in history[0]


def test_training_never_looks_at_labels() -> None:
    data = digits()
    unlabelled = Split(data.train.pixels, torch.full_like(data.train.labels, -1), 17)
    histories = [
        fit(settings(), DataSet(data.facts, split, data.test), folder)
        for folder, split in (("with", data.train), ("without", unlabelled))
    ]
    with_labels, without = ([row | {"seconds": 0} for row in history] for history in histories)
    assert with_labels == without


def test_the_held_out_bound_is_the_same_at_every_call_and_leaves_no_trace() -> None:
    chosen = settings()
    model, guide, _ = build.build(chosen, torch.device("cpu"))
    split = digits().train.part(torch.arange(100))
    bounds = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        bounds.append(held_out_elbo(model, guide, split.fixed("grey")))
        assert torch.equal(torch.get_rng_state(), before)
    assert bounds[0] == bounds[1]
    assert model.training
    assert guide.training


def test_a_driver_that_is_too_old_ends_no_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch counts such a GPU and raises when asked anything of it."""

    def old(*_: object) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for asked in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, asked, old)
    assert len(fit(settings(epochs=1), digits())) == 1


def test_training_raises_the_bound() -> None:
    history = fit(settings(learning_rate=3e-3, epochs=5), digits())
    assert history[-1]["elbo"] > history[0]["elbo"] + 1
    lines = Path("out", HISTORY).read_text().splitlines()
    assert [json.loads(line) for line in lines] == history


def test_a_view_is_looked_at_only_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(self: Same, grey: Tensor, classifier: object) -> Tensor:
        raise AssertionError("the view was asked for")

    monkeypatch.setattr(Same, "__call__", asked)
    chosen = settings(epochs=1, view=Component("pyro_infocat.views.Same"))
    assert len(fit(replace(chosen, weights={"consistency": 0.0}), digits(), "without")) == 1
    with pytest.raises(AssertionError, match="asked for"):
        fit(replace(chosen, weights={"consistency": 1.0}), digits(), "with")


def test_what_is_only_looked_at_moves_no_statistics() -> None:
    chosen = settings(
        information_weight=0.0,
        encoder=Component("guides.encoders.MLP", {"hidden": [5], "norm": True}),
    )
    torch.manual_seed(0)
    model, guide, _ = build.build(chosen, torch.device("cpu"))
    bound = build.objective(chosen)
    x = digits().train.grey(slice(50))
    bound(model, guide).train()
    bound.differentiable_loss(model, guide, x)
    before = {name: buffer.clone() for name, buffer in guide.named_buffers()}
    assert any("running_mean" in name for name in before)
    found = unweighted(bound, model, guide, x)
    assert list(found) == ["information_bound"]
    assert all(torch.equal(buffer, before[name]) for name, buffer in guide.named_buffers())
    assert guide.training
    assert model.training


def test_moves_follow_their_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = []

    def look(self: Affine, grey: Tensor, classifier: object) -> Tensor:
        moves.append(self.moves)
        return grey

    monkeypatch.setattr(Affine, "__call__", look)
    chosen = settings(
        batch_size=2000,
        view=Component("pyro_infocat.views.Affine"),
        weights={"consistency": 1.0},
        schedules={"moves": [[0.0, 0.0], [2.0, 1.0]]},
    )
    fit(chosen, digits())
    assert moves == [0.0, 0.5, 1.0]


def test_nested_settings_are_flattened_as_flags_name_them() -> None:
    nested = {"epochs": 3, "prior": {"class_path": "P", "init_args": {"scale": 2.0, "modes": [1]}}}
    assert flat(nested) == {
        "epochs": 3,
        "prior.class_path": "P",
        "prior.scale": 2.0,
        "prior.modes": [1],
    }
