"""Where the category of an example is observed, its sum over c keeps that category alone.

Shapes: B batch, K categories, D latent dimensions, M labelled examples, X features.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn
from torch.distributions import normal as normals
from torch.nn.functional import log_softmax

from guides import Bayes, Enumerated, SoftCode
from guides.guide import Guide
from models import CatVAE
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective import terms
from pyro_infocat.objective.bound import certain
from pyro_infocat.objective.terms import Known, Labels
from tests.pyro_infocat.objective.by_hand import (
    by_category,
    kl_normal,
    latent_by_hand,
    log_category_by_hand,
    prior_by_hand,
)
from tests.pyro_infocat.objective.programs import B, D, K, X, encoder, make_programs
from tests.pyro_infocat.objective.ways import Loss, assert_same, with_gradients

pytestmark = pytest.mark.usefixtures("double")

OBSERVED = torch.tensor([-1, 2, 0, -1, 1])
"""The categories (B,) of some of the examples."""


def known(x: Tensor, category: Tensor = OBSERVED) -> Known:
    return Known(category, x[:0], None, category[:0])


def loss_of(objective: InfoCatELBO, model: CatVAE, guide: Guide, x: Tensor, seen: Known) -> Loss:
    torch.manual_seed(1)
    loss = objective.differentiable_loss(model, guide, x, known=seen)
    return with_gradients(loss, model, guide)


def by_hand(model: CatVAE, guide: Enumerated, x: Tensor, observed: Tensor = OBSERVED) -> Loss:
    """Example after example: log p(x, c) of the given category's bound, or the sum over all."""
    torch.manual_seed(1)
    log_p, _, _ = prior_by_hand(model.prior)
    log_q = log_category_by_hand(model, guide, x)
    loss = torch.zeros(())
    for k, (fit, kl) in enumerate(by_category(model, guide, x)):
        for b, c in enumerate(observed.tolist()):
            if c == k:
                loss = loss - (fit[b] - kl[b] + log_p[k])
            elif c < 0:
                loss = loss - log_q[b, k].exp() * (fit[b] - kl[b] - log_q[b, k] + log_p[k])
    return with_gradients(loss, model, guide)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("direct", [True, False])
def test_the_sum_keeps_the_given_category(direct: bool, kl: str) -> None:
    """With a learned p(c), whose gradient the observed categories have a part in."""
    model, guide, x = make_programs("weighted", kl=kl)
    ours = loss_of(InfoCatELBO(0, direct=direct), model, guide, x, known(x))
    assert_same(ours, by_hand(model, guide, x))
    assert ours[1]["model.prior.logits"].abs().max() > 0.1


class Seen(nn.Module):
    """The generative program with some of c observed by Pyro's own means."""

    def __init__(self, model: CatVAE) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            p = self.inner.prior.category()
            c = pyro.sample("c", p, obs=OBSERVED.clamp_min(0), obs_mask=OBSERVED >= 0)
            z = pyro.sample("z", self.inner.prior.component(c))
            pyro.sample("x", self.inner.decoder(z), obs=x)


class Half(nn.Module):
    """The guide, which draws what is not observed."""

    def __init__(self, guide: Enumerated) -> None:
        super().__init__()
        self.inner = guide

    def forward(self, x: Tensor) -> None:
        category, latent = self.inner.posterior(x)
        with pyro.plate("batch", len(x)):
            with pyro.poutine.mask(mask=OBSERVED < 0):
                drawn = pyro.sample("c_unobserved", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(torch.where(OBSERVED >= 0, OBSERVED, drawn)))


def test_pyros_own_enumeration_with_c_observed_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyro draws z of an observed example K times, which is of no account without noise."""
    monkeypatch.setattr(normals, "_standard_normal", lambda shape, **kind: torch.zeros(shape))
    model, guide, x = make_programs("weighted", kl="sampled")
    ours = loss_of(InfoCatELBO(0), model, guide, x, known(x))
    plain = TraceEnum_ELBO(max_plate_nesting=1)
    loss = plain.differentiable_loss(Seen(model), Half(guide), x)
    assert_same(ours, with_gradients(loss, model, guide))
    free = loss_of(InfoCatELBO(0), model, guide, x, known(x, torch.full((B,), -1)))
    assert abs(free[0] - ours[0]) > 0.1


@pytest.mark.parametrize("decoded", [0, 1])
def test_of_an_observed_category_kl_c_is_its_price(decoded: int) -> None:
    """-log p(c); and the analytic KL, which has no noise, is that of the category alone."""
    model, guide, x = make_programs("weighted")
    category = torch.tensor([0, 1, 2, 1, 1])
    objective = InfoCatELBO(0, decoded=decoded)
    loss = loss_of(objective, model, guide, x, known(x, category))
    log_p, means, scales = prior_by_hand(model.prior)
    assert objective.terms["kl_c"].item() == pytest.approx(-log_p[category].sum().item(), rel=1e-12)
    expected = torch.zeros(())
    for b, k in enumerate(category.tolist()):
        mean, scale = latent_by_hand(guide, x[b : b + 1], k)
        expected = expected + kl_normal(mean, scale, means[k], scales[k]).sum()
    assert objective.terms["kl_z"].item() == pytest.approx(expected.item(), rel=1e-12)
    # What was given says nothing of q(c | x).
    assert not loss[1]["guide.classifier.weight"].any()


def test_a_category_that_the_guide_rules_out_may_be_the_given_one() -> None:
    """q(c | x) of it is 0, and the bound finite all the same."""
    model, guide, x = make_programs("weighted")
    with torch.no_grad():
        guide.classifier.bias[2] = -math.inf
    loss = loss_of(InfoCatELBO(0), model, guide, x, known(x, torch.full((B,), 2)))
    assert loss[0].isfinite()
    assert all(gradient.isfinite().all() for gradient in loss[1].values())


def test_a_relaxed_guide_mixes_in_the_given_category_alone() -> None:
    model, _, x = make_programs("weighted")
    guide = SoftCode(encoder(), K, D, hidden=5)
    category = torch.tensor([0, 1, 2, 1, 1])
    torch.manual_seed(1)
    found = InfoCatELBO(0).evaluate(model, guide, x, known=known(x, category))
    torch.manual_seed(1)
    z = guide.posterior(x).latent(category)
    z = z.mean + z.stddev * torch.randn(B, D)
    expected = model.decoder(z).log_prob(x).sum()
    torch.testing.assert_close(found["reconstruction"], expected)


def test_a_guide_without_a_site_c_is_refused() -> None:
    model, guide, x = make_programs(guide="bayes", kl="sampled")
    assert isinstance(guide, Bayes)
    with pytest.raises(ValueError, match=r"^Bayes has no site c, where known categories are obs"):
        InfoCatELBO(0).evaluate(model, guide, x, known=known(x))


# The term.

C = torch.tensor([1, 0, 1, 2])


def labelled(x: Tensor, view: Tensor | None) -> Known:
    return Known(torch.full((B,), -1), torch.rand(len(C), X).round(), view, C)


@pytest.mark.parametrize("looked", [False, True])
def test_the_term_is_the_mean_of_what_a_label_costs(looked: bool) -> None:
    """Times the batch; views have the label too."""
    model, guide, x = make_programs("weighted")
    seen = labelled(x, torch.rand(len(C), X).round() if looked else None)
    objective = InfoCatELBO(0, extra=[Labels()])
    objective.evaluate(model, guide, x, known=seen)
    costs = []
    for images in [seen.x, seen.view] if looked else [seen.x]:
        q = log_softmax(guide.classifier(guide.encoder(images)), -1).exp().tolist()
        costs += [-math.log(0.9 * q[m][c] + 0.1 / K) for m, c in enumerate(C.tolist())]
    assert objective.terms["labels"].item() == pytest.approx(B * sum(costs) / len(costs), rel=1e-12)


def test_the_term_is_weighed_against_the_objective() -> None:
    """It alone, with weight 7: a loss is 7 times as large, and only q(c|x) hears of it."""
    model, guide, x = make_programs("weighted")
    none = {"reconstruction": 0.0, "kl_z": 0.0, "kl_c": 0.0}
    objective = InfoCatELBO(0, extra=[Labels()], weights={**none, "labels": 7.0})
    loss, gradients = loss_of(objective, model, guide, x, labelled(x, None))
    assert loss.item() == pytest.approx(7 * objective.terms["labels"].item(), rel=1e-12)
    heard = {name for name, gradient in gradients.items() if gradient.any()}
    assert heard == {name for name in gradients if name.startswith(("guide.enc", "guide.class"))}


def test_a_wrong_label_costs_no_more_than_it_may() -> None:
    """However sure q(c|x) is of another category; and the surer it is, the less it is pulled."""
    model, guide, x = make_programs("weighted")
    seen = Known(torch.full((B,), -1), x, None, torch.full((B,), 0))
    costs, pulls = [], []
    for odds in (2.0, 20.0, 200.0):
        with torch.no_grad():
            guide.classifier.weight.zero_()
            guide.classifier.bias.copy_(torch.tensor([0.0, odds, 0.0]))
        cost = InfoCatELBO(0).beside(model, guide, x, [Labels()], known=seen)["labels"]
        costs.append(cost.item() / B)
        (pull,) = torch.autograd.grad(cost, guide.classifier.bias)
        pulls.append(pull.abs().max().item())
    assert costs[-1] == pytest.approx(math.log(K / terms.WRONG))
    assert costs == sorted(costs)
    assert pulls == sorted(pulls, reverse=True)
    assert pulls[-1] < 1e-6


def test_without_known_labels_the_term_is_nothing() -> None:
    model, guide, x = make_programs("weighted")
    objective = InfoCatELBO(0, extra=[Labels()])
    loss_without = objective.differentiable_loss(model, guide, x)
    assert objective.terms["labels"] == 0
    assert loss_without.isfinite()


def test_certain_is_certain() -> None:
    """And leaves q(c | x) of the others alone."""
    free = dist.Categorical(logits=torch.randn(B, K))
    made = certain(free, OBSERVED)
    for b, c in enumerate(OBSERVED.tolist()):
        if c < 0:
            torch.testing.assert_close(made.probs[b], free.probs[b])
        else:
            assert made.probs[b].tolist() == [float(k == c) for k in range(K)]
