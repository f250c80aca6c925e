"""Categories that q(c | x) rules out (logit -inf: labels known not to be) add nothing.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from guides import Enumerated, SoftCode
from guides.guide import Posterior
from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.by_hand import (
    by_category,
    prior_by_hand,
)
from tests.pyro_infocat.objective.programs import B, D, K, X, encoder, make_programs
from tests.pyro_infocat.objective.ways import WAYS, Loss, assert_same, through_loss, with_gradients

pytestmark = pytest.mark.usefixtures("double")

ALLOWED = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=torch.bool)
"""(B, K): of two examples one category is left."""


class RuledOut(Enumerated):
    """A guide that knows of each example what it is not."""

    allowed = ALLOWED

    def posterior(self, x: Tensor) -> Posterior:
        category, latent = super().posterior(x)
        return Posterior(self._barred(category), latent)

    def category(self, x: Tensor) -> dist.Categorical:
        return self._barred(super().category(x))

    def _barred(self, category: dist.Categorical) -> dist.Categorical:
        return dist.Categorical(logits=category.logits.masked_fill(~self.allowed, -math.inf))


def make(kl: str = "analytic") -> tuple[nn.Module, RuledOut, Tensor]:
    model, _, x = make_programs("weighted", kl=kl)
    return model, RuledOut(encoder(), K, D, hidden=5), x


def by_hand(model: nn.Module, guide: RuledOut, x: Tensor) -> Loss:
    """The bound's loss as a sum over what is allowed alone."""
    torch.manual_seed(1)
    log_p, _, _ = prior_by_hand(model.prior)
    odds = guide.classifier(guide.encoder(x))
    loss = torch.zeros(())
    for k, (fit, kl) in enumerate(by_category(model, guide, x)):
        for b in range(B):
            if ALLOWED[b, k]:
                # Normalised over what is allowed.
                place = ALLOWED[b, :k].sum()
                log_q = log_softmax(odds[b][ALLOWED[b]], -1)[place]
                loss = loss - log_q.exp() * (fit[b] - kl[b] - log_q + log_p[k])
    return with_gradients(loss, model, guide)


def assert_finite(loss: Loss) -> None:
    assert loss[0].isfinite()
    for name, gradient in loss[1].items():
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_the_bound_is_the_sum_over_what_is_allowed(way: str, direct: bool, kl: str) -> None:
    """And has a gradient without NaN, whichever way."""
    programs = make(kl)
    expected = by_hand(*programs)
    assert_finite(expected)
    assert_same(WAYS[way](InfoCatELBO(0, direct=direct), *programs), expected)


def test_pyros_own_loss_agrees() -> None:
    programs = make("sampled")
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1), *programs)
    assert_finite(plain)
    assert_same(through_loss(InfoCatELBO(0), *programs), plain)


def test_what_is_decoded_for_certain_is_all_where_no_more_is_allowed() -> None:
    """Of one or two that are allowed one is decoded for certain and the rest is the other.

    The analytic KL has no noise, so that the two sums are the same number.
    """
    model, guide, x = make()
    guide.allowed = ALLOWED[1:]
    terms = []
    for decoded in (0, 1):
        objective = InfoCatELBO(0, decoded=decoded)
        assert_finite(through_loss(objective, model, guide, x[1:]))
        terms.append(objective.terms["kl_z"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-12)


def test_a_relaxed_guide_mixes_in_nothing_of_them() -> None:
    """Its weights of them are 0, and the terms finite."""

    class Soft(RuledOut, SoftCode):
        pass

    model, _, x = make_programs("weighted")
    guide = Soft(encoder(), K, D, hidden=5)
    assert not guide.mix(guide.category(x).logits)[~ALLOWED].any()
    assert_finite(through_loss(InfoCatELBO(0), model, guide, x))


WEIGHTS = {"marginal_entropy": 0.3, "conditional_entropy": 0.2, "consistency": 5.0}


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_terms_on_real_examples_take_0_log_0_for_0(bound: float) -> None:
    """The entropies and the consistency with another image of the same example."""
    model, guide, x = make("sampled")
    view = torch.rand(B, X).round()
    weights = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], bound) | WEIGHTS
    expected = by_hand(model, guide, x)[0] * bound
    with torch.no_grad():
        q, other = (guide.category(images).probs for images in (x, view))
    marginal = entropy_of(q.mean(0))
    conditional = sum(entropy_of(row) for row in q)
    allowed = [(float(q[b, k]), float(other[b, k])) for b, k in ALLOWED.nonzero().tolist()]
    consistency = sum(p * math.log(p / r) for p, r in allowed)
    expected += -0.3 * B * marginal + 0.2 * conditional + 5 * consistency
    objective = InfoCatELBO(0, weights=weights)
    torch.manual_seed(1)
    loss = with_gradients(objective.differentiable_loss(model, guide, x, view=view), model, guide)
    assert_finite(loss)
    assert loss[0].item() == pytest.approx(expected.item(), rel=1e-9)
    assert objective.terms["conditional_entropy"].item() == pytest.approx(conditional, rel=1e-9)


def entropy_of(p: Tensor) -> float:
    return -sum(one * math.log(one) for one in p.tolist() if one > 0)
