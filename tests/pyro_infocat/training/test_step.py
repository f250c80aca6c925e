"""A step: from the indices of a batch to the optimiser's update.

Shapes: B batch, X features.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_infocat.data.readers import digits
from pyro_infocat.objective import Terms
from pyro_infocat.settings import Part
from pyro_infocat.views import Same
from tests.pyro_infocat.training.pieces import make_parts, make_step, settings

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("size", [3, 7])
def test_a_step_follows_the_mean_gradient_of_its_batch(size: int) -> None:
    """Nats per example, however many there are; gradients of before are forgotten."""
    chosen = settings("--weights", "{}", "--information_weight", "0")
    parts = make_parts(chosen)
    take = make_step(chosen, parts)
    before = {name: p.detach().clone() for name, p in take.module.named_parameters()}
    x = digits().train.grey(torch.arange(size))
    torch.manual_seed(1)
    loss = parts.bound.differentiable_loss(parts.model, parts.guide, x)
    mean = torch.autograd.grad(loss / size, list(take.module.parameters()))
    for parameter in take.module.parameters():
        parameter.grad = torch.full_like(parameter, 9.0)
    torch.manual_seed(1)
    terms = take(torch.arange(size))
    for (name, parameter), slope in zip(take.module.named_parameters(), mean, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - slope)
    assert max(slope.abs().max() for slope in mean) > 0.1
    # Sums over the batch, without a gradient.
    assert -sum(
        parts.bound.signs[name] * term.item() for name, term in terms.items()
    ) == pytest.approx(loss.item(), rel=1e-5)
    assert not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("observation", ["binary", "grey"])
def test_what_the_likelihood_and_the_view_get(
    observation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view is of grey levels, and observed as the examples are, by another draw."""
    likelihood = "Bernoulli" if observation == "binary" else "ContinuousBernoulli"
    chosen = settings(
        "--likelihood",
        f"models.likelihoods.{likelihood}",
        view=Part("pyro_infocat.views.Same"),
        weights={"consistency": 1.0},
    )
    parts = make_parts(chosen)
    take = make_step(chosen, parts)
    grey, got = digits().train.grey(torch.arange(20)), {}

    def look(self: Same, x: Tensor, classifier: Any) -> Tensor:
        got["grey"], got["classifier"] = x, classifier
        return 1 - x

    def evaluate(model: Any, guide: Any, x: Tensor, **others: Tensor) -> Terms:
        got.update(others, x=x)
        return right(model, guide, x, **others)

    right = parts.bound.evaluate
    monkeypatch.setattr(Same, "__call__", look)
    parts.bound.evaluate = evaluate  # type: ignore[method-assign]
    take(torch.arange(20))
    assert torch.equal(got["grey"], grey)
    assert got["classifier"] == parts.guide.category
    assert torch.equal(got["x"], take.x)
    assert set(got) == {"grey", "classifier", "x", "view"}
    if observation == "grey":
        assert torch.equal(got["x"], grey)
        assert torch.equal(got["view"], 1 - grey)
    else:
        assert set(got["x"].unique().tolist()) == {0, 1}
        assert set(got["view"].unique().tolist()) == {0, 1}
        assert torch.equal(got["x"][grey == 1], torch.ones_like(grey[grey == 1]))
        assert torch.equal(got["view"][grey == 1], torch.zeros_like(grey[grey == 1]))


@pytest.mark.parametrize("needed", [False, True])
def test_labels_are_of_the_batch_and_only_for_a_term_that_needs_them(needed: bool) -> None:
    terms = (Part("tests.users_parts.labelled_term.Supervised"),)
    chosen = replace(settings(weights={"supervised": float(needed)}), terms=terms)
    parts = make_parts(chosen)
    take = make_step(chosen, parts)
    got: list[dict[str, Tensor]] = []
    take.module.register_forward_pre_hook(
        lambda module, arguments, named: got.append(named), with_kwargs=True
    )
    index = torch.tensor([5, 3, 90])
    found = take(index)
    assert ("labels" in got[0]) is needed
    assert ("supervised" in found) is needed
    if needed:
        assert torch.equal(got[0]["labels"], digits().train.labels[index])


def test_a_process_takes_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second example, its gradient so many times as large: processes average theirs."""
    chosen = settings("--weights", "{}", "--information_weight", "0")
    parts = make_parts(chosen)
    take = make_step(chosen, parts)
    before = {name: p.detach().clone() for name, p in take.module.named_parameters()}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    index = torch.arange(7)
    x = digits().train.grey(index[1::2])
    torch.manual_seed(1)
    loss = parts.bound.differentiable_loss(parts.model, parts.guide, x)
    mean = torch.autograd.grad(2 * loss / 7, list(take.module.parameters()))
    torch.manual_seed(1)
    take(index)
    assert torch.equal(take.x, x)
    for (name, parameter), slope in zip(take.module.named_parameters(), mean, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - slope)
