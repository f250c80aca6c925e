"""The terms beside the ELBO, and terms of a user's own.

Shapes: B batch, K categories, X features.
"""

import math

import pytest
import torch
from torch import Tensor

from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.by_hand import bound_by_hand, entropy, log_category_by_hand
from tests.pyro_infocat.objective.programs import B, K, X, make_programs
from tests.pyro_infocat.objective.ways import assert_same, expect, with_gradients

pytestmark = pytest.mark.usefixtures("double")

REAL = {"marginal_entropy": 0.3, "conditional_entropy": 0.2, "consistency": 5.0}


@pytest.mark.parametrize("with_view", [False, True])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
def test_real_terms_by_hand(guide: str, direct: bool, with_view: bool) -> None:
    """Information between c and real examples, and the agreement of two views of them."""
    model, guide, x = make_programs("weighted", guide, kl="sampled")
    view = torch.rand(B, X).round()
    named = {"view": view} if with_view else {}

    def by_hand() -> Tensor:
        torch.manual_seed(1)
        bound = bound_by_hand(model, guide, x)
        loss = -bound["reconstruction"] + bound["kl_z"] + bound.get("kl_c", 0)
        q = log_category_by_hand(model, guide, x).exp()
        loss = loss - 0.3 * B * entropy(q.mean(0)) + 0.2 * entropy(q).sum()
        if with_view:
            log_other = log_category_by_hand(model, guide, view)
            fixed = q.detach()
            loss = loss + 5 * (fixed * (fixed.log() - log_other)).sum()
        return loss

    objective = InfoCatELBO(0, weights=REAL, direct=direct)
    expected = with_gradients(by_hand(), model, guide)
    torch.manual_seed(1)
    loss = objective.differentiable_loss(model, guide, x, **named)
    assert_same(with_gradients(loss, model, guide), expected)
    assert ("consistency" in objective.terms) == with_view


def test_real_terms_are_bounded() -> None:
    """H(mean q) <= log K, mean H(q) <= H(mean q), and a view of itself is consistent."""
    model, guide, x = make_programs()
    objective = InfoCatELBO(0, weights=REAL)
    for scale in (1, 30):
        guide.classifier.weight.data.mul_(scale)
        objective.loss(model, guide, x, view=x)
        terms = {name: float(term) / B for name, term in objective.terms.items()}
        assert 0 <= terms["conditional_entropy"] < terms["marginal_entropy"] <= math.log(K)
        assert terms["consistency"] == pytest.approx(0, abs=1e-12)
        objective.loss(model, guide, x, view=1 - x)
        assert objective.terms["consistency"] > 0


def test_negative_weights() -> None:
    message = "the weight of information_bound must not be negative, not -0.5"
    with expect(ValueError, message):
        InfoCatELBO(-0.5)
    with expect(ValueError, "the weight of kl_z must not be negative, not nan"):
        InfoCatELBO(weights={"kl_z": math.nan})


def test_unknown_weight() -> None:
    with expect(ValueError, "no term 'kl' to weigh; there are reconstruction, kl_z, kl_c,"):
        InfoCatELBO(weights={"kl": 1.0})
