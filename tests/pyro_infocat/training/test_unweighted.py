"""Terms that are measured without a weight, and views that no term asks for.

Shapes: X features.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_infocat import InfoCatELBO
from pyro_infocat.data.readers import digits
from pyro_infocat.settings import Part
from pyro_infocat.training.loop import (
    objective,
    unweighted,
)
from pyro_infocat.views import Affine, Same
from tests.pyro_infocat.training.pieces import fit, make_parts, settings

pytestmark = pytest.mark.usefixtures("alone")


def test_a_view_is_looked_at_only_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(self: Same, grey: Tensor, classifier: object) -> Tensor:
        raise AssertionError("the view was asked for")

    monkeypatch.setattr(Same, "__call__", asked)
    chosen = settings(epochs=1, view=Part("pyro_infocat.views.Same"))
    history, _ = fit(replace(chosen, weights={"consistency": 0.0}), folder="without")
    assert len(history) == 1
    with pytest.raises(AssertionError, match="asked for"):
        fit(replace(chosen, weights={"consistency": 1.0}), folder="with")


def test_what_is_only_looked_at_moves_no_statistics() -> None:
    chosen = settings(
        information_weight=0.0,
        weights={},
        encoder=Part("guides.encoders.MLP", {"hidden": [5], "norm": True}),
        terms=(Part("tests.users_parts.labelled_term.Supervised"),),
    )
    parts = make_parts(chosen)
    model, guide, bound = parts.model, parts.guide, parts.bound
    bound.weights["supervised"] = 0.0
    x = digits().train.grey(slice(50))
    bound(model, guide).train()
    bound.differentiable_loss(model, guide, x)
    before = {name: buffer.clone() for name, buffer in guide.named_buffers()}
    assert any("running_mean" in name for name in before)
    found = unweighted(bound, model, guide, x)
    # There is neither a view nor a label any more.
    assert set(found) == {"information_bound", "marginal_entropy", "conditional_entropy"}
    assert all(torch.equal(buffer, before[name]) for name, buffer in guide.named_buffers())
    assert guide.training
    assert model.training


def test_a_bound_without_weight_is_looked_at_too() -> None:
    """In nats per example, whatever the batch."""
    parts = make_parts(settings())
    bound = InfoCatELBO(0, weights=dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0))
    bound.weights["marginal_entropy"] = 1.0
    model, guide = parts.model.eval(), parts.guide.eval()
    x = digits().train.grey(slice(50))
    bound.loss(model, guide, x)
    found = unweighted(bound, model, guide, x)
    terms = bound.bound_terms(model.eval(), guide.eval(), x)
    for name in ("kl_z", "kl_c"):
        assert found[name] == pytest.approx(terms[name].item() / 50)
    assert found["elbo"] == pytest.approx(
        found["reconstruction"] - found["kl_z"] - found["kl_c"], rel=1e-5
    )
    assert "marginal_entropy" not in found


def test_the_objective_is_the_weighted_sum_of_the_terms() -> None:
    bound = InfoCatELBO(0.5, weights={"kl_z": 2.0, "marginal_entropy": 3.0})
    bound.weights["conditional_entropy"] = 0.1
    row = {"reconstruction": -80.0, "kl_z": 10.0, "kl_c": 2.0, "information_bound": 1.5}
    row |= {"marginal_entropy": 2.0, "conditional_entropy": 0.5}
    assert objective(row, bound) == pytest.approx(-80 - 2 * 10 - 2 + 0.75 + 6 - 0.05)


def test_a_term_without_weight_has_no_say() -> None:
    bound = InfoCatELBO(0, weights=dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0))
    bound.weights["consistency"] = 2.0
    row = {"kl_z": math.nan, "reconstruction": math.inf, "consistency": 3.0}
    assert objective(row, bound) == -6


def test_moves_follow_their_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = []

    def look(self: Affine, grey: Tensor, classifier: object) -> Tensor:
        moves.append(self.moves)
        return grey

    monkeypatch.setattr(Affine, "__call__", look)
    chosen = settings(
        epochs=3,
        batch_size=2000,
        view=Part("pyro_infocat.views.Affine"),
        weights={"consistency": 1.0},
        schedules={"moves": [[0.0, 0.0], [2.0, 1.0]]},
    )
    fit(chosen)
    assert moves == [0.0, 0.5, 1.0]
