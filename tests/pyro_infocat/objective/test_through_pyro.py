"""Pyro programs of a user's own: functions, handlers around them, sites of other names.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from pyro_infocat import InfoCatELBO
from pyro_infocat.objective import elbo_of
from tests.pyro_infocat.objective.by_hand import log_normal, plain_loss_by_hand
from tests.pyro_infocat.objective.programs import (
    HANDLERS,
    LIKELIHOODS,
    B,
    D,
    K,
    X,
    make_programs,
    plain_guide,
    plain_model,
)
from tests.pyro_infocat.objective.ways import assert_equals_pyro

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_plain_pyro_programs(kl: str, handler: str) -> None:
    """Functions whose sites have other names, also scaled (as subsampling does) and masked."""
    x = torch.randn(B, X)
    wrap, factor = HANDLERS[handler]
    model, guide = wrap(plain_model(kl)), wrap(plain_guide)
    objective = InfoCatELBO(information_weight=0)
    torch.manual_seed(1)
    # The first pass draws the parameters, too.
    objective.loss(model, guide, x)
    torch.manual_seed(1)
    loss = objective.differentiable_loss(model, guide, x)
    torch.manual_seed(1)
    expected = plain_loss_by_hand(x, kl, torch.tensor(factor))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    leaves = [pyro.param(name).unconstrained() for name in sorted(pyro.get_param_store())]
    assert len(leaves) == 5
    for ours, by_hand in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, by_hand, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(-elbo_of(objective.terms), expected.detach(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("handler", HANDLERS)
def test_plain_pyro_program_whose_category_the_guide_leaves_out(handler: str) -> None:
    def model(x: Tensor) -> None:
        modes = torch.tensor([[0.0, 1, 2], [1, 1, 0], [3, 0, 1]])
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
            kind = pyro.sample("kind", odds, infer={"enumerate": "parallel"})
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1))
            pyro.sample("image", dist.Normal(code, 1).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            pyro.sample("code", dist.Normal(x, 0.5).to_event(1))

    wrap, _ = HANDLERS[handler]
    assert_equals_pyro(wrap(model), wrap(guide), torch.randn(B, D))


def test_what_is_observed_beside_what_the_model_sums_out_is_reconstruction() -> None:
    """The image depends on a kind that the guide leaves out, the code does not."""
    steps, log_p = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.2, 0.3, 0.5]).log()

    def model(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            code = pyro.sample("code", dist.Normal(torch.zeros(D), 1).to_event(1))
            kind = pyro.sample(
                "kind", dist.Categorical(logits=log_p), infer={"enumerate": "parallel"}
            )
            mean = code + steps[kind].unsqueeze(-1)
            pyro.sample("image", dist.Normal(mean, 1).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            pyro.sample("code", dist.Normal(x / 2, 0.5).to_event(1))

    x = torch.randn(B, D)
    torch.manual_seed(1)
    # A weight that anneals the code's term must leave the likelihood alone.
    objective = InfoCatELBO(0, weights={"kl_z": 2.0})
    loss = objective.loss(model, guide, x)
    torch.manual_seed(1)
    code = x / 2 + 0.5 * torch.randn(B, D)
    unit = torch.ones(D)
    fits = [log_p[k] + log_normal(x, code + steps[k], unit) for k in range(K)]
    fit = torch.stack(fits).logsumexp(0).sum()
    cost = (log_normal(code, x / 2, 0.5 * unit) - log_normal(code, 0 * code, unit)).sum()
    assert objective.terms["reconstruction"].item() == pytest.approx(fit.item(), rel=1e-9)
    assert objective.terms["kl_code"].item() == pytest.approx(cost.item(), rel=1e-9)
    assert elbo_of(objective.terms).item() == pytest.approx(-loss, rel=1e-9)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_around_the_loss_is_heeded(handler: str) -> None:
    """Written out, the sum would pass it by."""
    model, guide, x = make_programs(kl="sampled")
    wrap, _ = HANDLERS[handler]
    losses = []
    for objective in (InfoCatELBO(0), TraceEnum_ELBO(max_plate_nesting=1)):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), objective)
        for work in (svi.step, svi.evaluate_loss):
            torch.manual_seed(1)
            losses.append(wrap(work)(x))
    assert losses == pytest.approx(losses[-1:] * 4, rel=1e-9)


@pytest.mark.parametrize("how", ["by name", "in a dictionary", "nothing"])
def test_programs_that_take_no_tensor_in_front(how: str) -> None:
    images = torch.randn(B, D)

    def model(data: Any = None) -> None:
        x = images if data is None else data["x"] if isinstance(data, dict) else data
        with pyro.plate("images", len(x)):
            code = pyro.sample("code", dist.Normal(torch.zeros(D), 1).to_event(1))
            pyro.sample("image", dist.Normal(code, 1).to_event(1), obs=x)

    def guide(data: Any = None) -> None:
        with pyro.plate("images", B):
            pyro.sample("code", dist.Normal(torch.ones(B, D), 0.5).to_event(1))

    arguments = [{"x": images}] if how == "in a dictionary" else []
    named = {"data": images} if how == "by name" else {}
    losses = []
    # Nothing is there to enumerate.
    quiet = {"strict_enumeration_warning": False}
    for objective in (InfoCatELBO(0, 2, **quiet), TraceEnum_ELBO(2, 1, **quiet)):
        torch.manual_seed(1)
        losses.append(objective.loss(model, guide, *arguments, **named))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("by_name", [False, True])
def test_programs_of_more_than_one_argument(by_name: bool) -> None:
    """What model and guide take besides x reaches both, as with Pyro's own losses."""

    def model(x: Tensor, y: Tensor | None = None) -> None:
        weight = pyro.param("weight", torch.zeros(2, X))
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.4, 0.6])))
            mean = kind.unsqueeze(-1) + (0 if y is None else y @ weight)
            pyro.sample("image", dist.Normal(mean, 1).to_event(1), obs=x)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        odds = pyro.param("odds", torch.zeros(X, 2))
        with pyro.plate("images", len(x)):
            logits = x @ odds if y is None else x @ odds + y
            category = dist.Categorical(logits=logits)
            pyro.sample("kind", category, infer={"enumerate": "parallel"})

    x, y = torch.randn(B, X), torch.randn(B, 2)
    arguments, named = ((x,), {"y": y}) if by_name else ((x, y), {})
    losses, gradients = [], []
    for objective in (InfoCatELBO(0), TraceEnum_ELBO(max_plate_nesting=1)):
        pyro.clear_param_store()
        losses.append(objective.loss_and_grads(model, guide, *arguments, **named))
        store = pyro.get_param_store()
        gradients.append([pyro.param(name).grad for name in sorted(store)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is not None
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("guide", ["enumerated", "shared", "bayes"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_predictive(likelihood: str, guide: str) -> None:
    """Posterior predictive draws, x drawn anew."""
    model, guide, x = make_programs("weighted", guide, likelihood)
    predictive = Predictive(poutine.uncondition(model), guide=guide, num_samples=7)
    draws = predictive(x)
    assert {name: draws[name].shape for name in ("c", "z", "x")} == {
        "c": (7, B),
        "z": (7, B, D),
        "x": (7, B, X),
    }
    assert draws["c"].min() >= 0
    assert draws["c"].max() < K
    assert model.decoder(draws["z"]).support.check(draws["x"]).all()
    assert not torch.equal(draws["x"][0], x)


def test_nothing_enumerated_is_warned_of_as_by_pyro() -> None:
    """c is drawn then and its gradient the score function's; the argument switches the word off."""
    modes, odds = torch.randn(K, X), nn.Linear(X, K)

    def model(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(K) / K))
            pyro.sample("image", dist.Normal(modes[kind], 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        """``infer={"enumerate": "parallel"}`` was forgotten."""
        with pyro.plate("images", len(x)):
            pyro.sample("kind", dist.Categorical(logits=odds(x)))

    x = torch.randn(B, X)
    for loss in (InfoCatELBO(0), TraceEnum_ELBO(max_plate_nesting=1)):
        with pytest.warns(UserWarning, match="found no sample sites configured for enumeration"):
            loss.loss(model, guide, x)
    assert_equals_pyro(model, guide, x, strict_enumeration_warning=False)
    # With warnings as errors a word would fail this.
    InfoCatELBO(0).loss(model, config_enumerate(guide), x)
    InfoCatELBO(0, direct=False).loss(*make_programs())
