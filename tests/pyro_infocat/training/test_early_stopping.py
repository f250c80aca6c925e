"""The validation share, and that training keeps away from the test split and from labels."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models import CatVAE
from pyro_infocat import DataSet
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.training import loop
from pyro_infocat.training.loop import (
    held_out_elbo,
    validation_split,
    waited,
)
from tests.pyro_infocat.training.pieces import fit, make_parts, settings, timeless

pytestmark = pytest.mark.usefixtures("alone")


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


def test_the_validation_share_alone_decides_and_alone_is_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And decides in no epoch in which the bound has no weight."""
    asked: list[Tensor] = []

    def look(model: CatVAE, guide: Any, x: Tensor) -> float:
        asked.append(x)
        return -1.0

    trained: list[Split] = []

    class Stepped(loop.Step):
        def __init__(self, split: Split, *others: Any) -> None:
            trained.append(split)
            super().__init__(split, *others)

    monkeypatch.setattr(loop, "held_out_elbo", look)
    monkeypatch.setattr(loop, "Step", Stepped)
    chosen = settings(
        epochs=3,
        patience=9,
        batch_size=2000,
        schedules={name: [[0, 0], [1, 1]] for name in ("reconstruction", "kl_z", "kl_c")},
    )
    history, _ = fit(chosen)
    fitted, held_out = validation_split(digits().train, chosen)
    assert held_out is not None
    assert torch.equal(trained[0].pixels, fitted.pixels)
    assert ["validation_elbo" in row for row in history] == [False, True, True]
    assert len(asked) == 2
    assert all(torch.equal(x, held_out.grey()) for x in asked)


@pytest.mark.parametrize(
    ("bounds", "epochs"), [([], 0), ([-3.0], 0), ([-3, -2], 0), ([-2, -3, -3], 2), ([-2, -2], 1)]
)
def test_waiting_is_counted_from_the_best_epoch(bounds: list[float], epochs: int) -> None:
    assert waited([{"validation_elbo": bound} for bound in bounds]) == epochs


class Forbidden:
    """A test split that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"training looked at the test split's {name}")


def blind(data: DataSet) -> DataSet:
    """The data with a forbidden test split; what its images are is known already."""
    made = DataSet(data.facts, data.train, Forbidden())  # type: ignore[arg-type]
    made.__dict__["fingerprint"] = data.fingerprint
    return made


def test_training_and_early_stopping_never_look_at_the_test_split() -> None:
    still = settings("--encoder.norm", "false", learning_rate=1e-30, patience=1, epochs=9)
    history, _ = fit(still, blind(digits()))
    assert len(history) == 2
    assert "validation_elbo" in history[0]


def test_training_never_looks_at_labels() -> None:
    data = digits()
    unlabelled = Split(data.train.pixels, torch.full_like(data.train.labels, -1), 17)
    histories = [
        fit(settings(epochs=2), DataSet(data.facts, split, data.test), folder)[0]
        for folder, split in (("with", data.train), ("without", unlabelled))
    ]
    assert timeless(histories[0]) == timeless(histories[1])


def test_the_held_out_bound_is_the_same_at_every_call_and_leaves_no_trace() -> None:
    parts = make_parts(settings())
    split = digits().train.part(torch.arange(100))
    bounds = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        bounds.append(held_out_elbo(parts.model, parts.guide, split.fixed("grey")))
        assert torch.equal(torch.get_rng_state(), before)
    assert bounds[0] == bounds[1]
    assert parts.model.training
    assert parts.guide.training


def test_a_driver_that_is_too_old_ends_no_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch counts such a GPU and raises when asked anything of it."""

    def old(*_: object) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for asked in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, asked, old)
    assert len(fit(settings(epochs=1))[0]) == 1
