"""Training that diverges in its last step, or on the validation share: one line."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch

import pyro_infocat as pic
from pyro_infocat.data.archive import checked
from pyro_infocat.data.images import of_archive
from pyro_infocat.evaluation import metrics
from pyro_infocat.settings import CHECKPOINT
from pyro_infocat.training import loop
from tests import brief
from tests.runs import history

pytestmark = pytest.mark.usefixtures("brief")

QUICK = {"preset": "digits", **brief.QUICK}
IMAGES = np.random.default_rng(0).random((60, 6, 5))
PARTS: dict[str, dict[str, Any]] = {
    "preset": {},
    "gumbel": {"guide": "guides.Gumbel"},
    "gaussian": {"likelihood": "models.likelihoods.Gaussian"},
    "mixture": {"prior": "models.priors.Mixture"},
    "patience": {"patience": 2},
}


@pytest.mark.parametrize("rate", [1e15, 1e25, 1e30])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_single_step_that_diverges(parts: dict[str, Any], rate: float) -> None:
    """One batch is the whole epoch: no later step sees what the update did."""
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(IMAGES, out="mine", **QUICK | {"learning_rate": rate} | parts)
    line = str(refusal.value)
    assert line.startswith("training stopped at step 1 of epoch 1: ")
    assert line.endswith(
        "; the checkpoint of the epoch before is kept. A smaller learning_rate usually helps"
    )
    assert torch.load(Path("mine", CHECKPOINT), weights_only=True)["epoch"] == 0
    run = pic.fit(IMAGES, out="other", **QUICK | parts)
    assert math.isfinite(run.metrics["elbo"])


def test_looking_after_the_epoch_changes_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    given = QUICK | {"epochs": 3, "batch_size": 20, "encoder.norm": True}
    looked = pic.fit(IMAGES, out="looked", **given)
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(loop, "diverged", lambda *parts: asked.append(parts))
    unseen = pic.fit(IMAGES, out="unseen", **given)
    for one, other in zip(looked.history, unseen.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }
    assert len(asked) == 3
    first, second = looked.guide.state_dict(), unseen.guide.state_dict()
    assert any("running_mean" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_term_without_weight_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """As reconstruction in a head start for the classifier."""
    found = {"reconstruction": torch.tensor(math.nan), "kl_c": torch.tensor(1.0)}
    bound = pic.InfoCatELBO(weights={"reconstruction": 0.0}, decoded=2)
    asked: list[dict[str, int]] = []
    monkeypatch.setattr(bound, "bound_terms", lambda *_, **named: asked.append(named) or found)
    nothing: Any = None
    assert loop.diverged(bound, nothing, nothing, nothing) is None
    assert loop.diagnose(bound, nothing, nothing, nothing) == "reconstruction is nan"
    # After each epoch no more is decoded than in a step; for the error all is.
    assert asked == [{"decoded": 2}, {"decoded": 0}]
    found["kl_c"] = torch.tensor(math.inf)
    assert loop.diverged(bound, nothing, nothing, nothing) == "kl_c is inf"


def test_where_no_term_of_the_elbo_trains_none_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = pic.check_parts(IMAGES, **QUICK)
    weights = dict.fromkeys(("reconstruction", "kl_z", "kl_c"), 0.0)
    bound = pic.InfoCatELBO(weights=weights)
    monkeypatch.setattr(bound, "bound_terms", None)
    x = torch.zeros(2, 30)
    assert loop.diverged(bound, parts.model, parts.guide, x) is None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_bound_of_the_validation_share_that_is_not_finite(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkpoint's history it would make the checkpoint a corrupt one."""
    values = iter([-10.0, value])
    monkeypatch.setattr(loop, "held_out_elbo", lambda *_: next(values))
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(IMAGES, out="mine", **QUICK | {"epochs": 3, "patience": 2})
    assert str(refusal.value).startswith(
        f"training stopped at step 1 of epoch 2: the bound on the validation share is {value}; the "
        "checkpoint of the epoch before is kept"
    )
    assert [row["validation_elbo"] for row in history("mine")] == [-10.0]
    monkeypatch.setattr(loop, "held_out_elbo", lambda *_: -9.0)
    run = pic.fit(IMAGES, out="mine", resume=True, **QUICK | {"epochs": 3, "patience": 2})
    assert [row["validation_elbo"] for row in run.history] == [-10.0, -9.0, -9.0]


@pytest.mark.parametrize("diverged", [True, False])
def test_a_metric_of_what_is_not_finite(diverged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the test split alone shows it. Another error is the caller's to see."""
    run = pic.fit(IMAGES, out="mine", **QUICK)

    def fails(*_: object) -> None:
        raise RuntimeError("another one")

    if diverged:
        torch.nn.init.constant_(next(run.guide.encoder.parameters()), math.nan)
    else:
        monkeypatch.setattr(metrics.Bound, "__call__", fails)
    data = of_archive(checked({"x_train": IMAGES}, "the data"), "the data")
    tested = pic.Tested(run.model, run.guide, data, run.observation, run.history, 2)
    if diverged:
        with pyro.validation_enabled(False), pytest.raises(pic.UserError) as refusal:
            metrics.evaluate(tested)
        assert str(refusal.value) == (
            "nll cannot be measured: q(c|x) of the test split is not finite. Training diverged; a "
            "smaller --learning_rate usually helps"
        )
    else:
        with pytest.raises(RuntimeError, match="another one"):
            metrics.evaluate(tested)
