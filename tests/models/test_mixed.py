"""Rows of tables: the likelihood of mixed columns against scipy, sums, quadrature and draws.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-6 each.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from models.tables import Mixed, MixedRow, log_negative_binomial
from tests.tables import COLUMNS, WHERE, rows

pytestmark = pytest.mark.usefixtures("double")

X = 9
WIDE = 5
"""A normal's standard deviations, beyond which 6e-7 of it lies."""


def mixed() -> Mixed:
    """One whose every scale and shape is another."""
    made = Mixed(COLUMNS)
    made.log_scale.data = torch.tensor([-0.4, 0.3])
    made.log_shape.data = torch.tensor([0.9])
    return made


def by_scipy(likelihood: Mixed, raw: Tensor, x: Tensor) -> float:
    """log p of one row, column by column."""
    raw, x = raw.detach(), x.detach()
    scale = (5 * torch.tanh(likelihood.log_scale / 5)).exp().tolist()
    r = math.exp(5 * math.tanh(likelihood.log_shape.item() / 5))
    total = 0.0
    for place, spread in ((0, scale[0]), (8, scale[1])):
        mean = 10 * math.tanh(raw[place].item() / 10)
        total += stats.norm.logpdf(x[place].item(), mean, spread)
    mean = math.exp(1.2 + 0.7 * 10 * math.tanh(raw[4].item() / 10))
    total += stats.nbinom.logpmf(x[4].item(), r, r / (r + mean))
    total += stats.bernoulli.logpmf(x[5].item(), 1 / (1 + math.exp(-raw[5].item())))
    for block in ("animal", "size"):
        shares = raw[WHERE[block]].softmax(-1)
        total += math.log(shares[x[WHERE[block]].argmax()])
    return total


def test_log_prob_is_the_sum_of_scipys_over_columns() -> None:
    likelihood, raw, x = mixed(), torch.randn(3, 4, X), rows(4)
    found = likelihood(raw.unsqueeze(-1)).log_prob(x)
    for s, b in itertools.product(range(3), range(4)):
        assert found[s, b].item() == pytest.approx(by_scipy(likelihood, raw[s, b], x[b]), abs=1e-10)


def every_value(name: str, likelihood: Mixed) -> tuple[Tensor, float]:
    """All that a column may hold (V, its width), and how much each counts in a sum."""
    if name == "animal":
        return torch.eye(3), 1.0
    if name == "size":
        return torch.eye(2), 1.0
    if name == "tame":
        return torch.tensor([[0.0], [1.0]]), 1.0
    if name == "visits":
        return torch.arange(3000.0).unsqueeze(-1), 1.0
    step = 0.01
    return torch.arange(-20, 20, step).unsqueeze(-1), step


@pytest.mark.parametrize("name", WHERE)
def test_a_missing_value_is_summed_or_integrated_out(name: str) -> None:
    likelihood, raw, x = mixed(), torch.randn(X), rows()
    row = likelihood(raw.unsqueeze(-1))
    values, step = every_value(name, likelihood)
    filled = x.expand(len(values), X).clone()
    filled[:, WHERE[name]] = values
    together = row.log_prob(filled).logsumexp(0) + math.log(step)
    x[WHERE[name]] = torch.nan
    assert row.log_prob(x).item() == pytest.approx(together.item(), abs=1e-9)


def test_a_missing_value_leaves_no_trace_in_any_gradient() -> None:
    likelihood = mixed()
    raw = torch.randn(5, X, requires_grad=True)
    x = rows(5)
    for row, name in enumerate(("length", "animal", "visits", "tame", "size")):
        x[row, WHERE[name]] = torch.nan
    likelihood(raw.unsqueeze(-1)).log_prob(x).sum().backward()
    assert raw.grad is not None
    assert torch.equal(raw.grad == 0, x.isnan())
    assert raw.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in likelihood.parameters())


def test_of_a_row_without_values_nothing_is_said() -> None:
    row = mixed()(torch.randn(2, X, 1))
    assert torch.equal(row.log_prob(torch.full((2, X), torch.nan)), torch.zeros(2))


@pytest.mark.parametrize("kind", ["real", "count", "binary", "category"])
def test_a_table_of_one_kind_will_do(kind: str) -> None:
    columns = [column for column in COLUMNS if column.kind == kind]
    width = sum(column.width for column in columns)
    row = Mixed(columns)(torch.randn(3, width, 1))
    x = row.rsample((2,))
    assert x.shape == (2, 3, width)
    assert row.log_prob(x).isfinite().all()
    assert row.support.check(x).all()


def test_expanding_changes_nothing() -> None:
    raw, x = torch.randn(2, X, 1), rows(3, 2)
    row = mixed()(raw)
    wider = row.expand(torch.Size((3, 2)))
    assert isinstance(wider, MixedRow)
    assert wider.batch_shape == (3, 2)
    torch.testing.assert_close(wider.log_prob(x), row.log_prob(x))


def test_draws_have_the_mean_and_the_variance_of_the_distribution() -> None:
    number = 20_000
    likelihood, raw = mixed(), 0.5 * torch.randn(X)
    row = likelihood(raw.unsqueeze(-1))
    with torch.no_grad():
        x, mean = row.rsample((number,)), row.mean
        scale = (5 * torch.tanh(likelihood.log_scale / 5)).exp()
        r = (5 * torch.tanh(likelihood.log_shape / 5)).exp().item()
    variance = mean * (1 - mean)
    variance[[0, 8]] = scale.square()
    variance[4] = mean[4] + mean[4] ** 2 / r
    assert ((x.mean(0) - mean).abs() < WIDE * (variance / number).sqrt()).all()
    # A variance's own error is that of the mean of squares, by the draws themselves.
    squares = (x - mean).square()
    error = squares.std(0) / math.sqrt(number)
    assert ((squares.mean(0) - variance).abs() < WIDE * error + 1e-12).all()
    assert row.support.check(x).all()


def test_a_draws_gradient_is_the_means_where_it_is_discrete() -> None:
    likelihood, raw = mixed(), torch.randn(X, requires_grad=True)
    weight = torch.randn(X)
    (of_draw,) = torch.autograd.grad((likelihood(raw.unsqueeze(-1)).rsample() * weight).sum(), raw)
    (of_mean,) = torch.autograd.grad((likelihood(raw.unsqueeze(-1)).mean * weight).sum(), raw)
    torch.testing.assert_close(of_draw, of_mean)


def test_a_real_columns_draw_reaches_its_scale() -> None:
    likelihood = mixed()
    torch.manual_seed(3)
    x = likelihood(torch.zeros(X, 1)).rsample()
    (by_scale,) = torch.autograd.grad(x[[0, 8]].sum(), likelihood.log_scale)
    # x = mean + e^s noise, s = 5 tanh(raw / 5).
    slope = 1 - torch.tanh(likelihood.log_scale / 5).square()
    torch.testing.assert_close(by_scale, (x[[0, 8]] * slope).detach())


def test_no_decoder_reaches_beyond_ten_standard_deviations() -> None:
    mean = Mixed(COLUMNS)(torch.full((X, 1), 1e9)).mean
    assert mean[0].item() == 10
    assert mean[4].item() == pytest.approx(math.exp(1.2 + 7))
    assert mean.isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 999, 1_000_000, 2**24])
def test_counts_of_millions_are_exact_in_float32(count: int) -> None:
    log_mean, log_shape = torch.tensor(9.0).float(), torch.tensor(-0.5).float()
    found = log_negative_binomial(torch.tensor(count).float(), log_mean, log_shape).item()
    r, mean = math.exp(-0.5), math.exp(9)
    assert found == pytest.approx(stats.nbinom.logpmf(count, r, r / (r + mean)), rel=1e-6)


def test_what_no_table_holds_is_outside_of_the_support() -> None:
    support = mixed()(torch.zeros(X, 1)).support
    x = rows()
    assert support.check(x)
    for place, wrong in ((0, np.inf), (4, -1), (4, 1.5), (5, 2), (1, 0.5), (7, 3)):
        other = x.clone()
        other[place] = wrong
        assert not support.check(other), (place, wrong)
    half_missing = x.clone()
    half_missing[WHERE["size"]] = 1.0
    assert not support.check(half_missing)


def test_the_scale_is_where_it_begins_and_learned_where_asked() -> None:
    learned, fixed = Mixed(COLUMNS, 0.3), Mixed(COLUMNS, 0.3, learn_scale=False)
    for one in (learned, fixed):
        found = one(torch.zeros(X, 1)).log_scale.exp()
        torch.testing.assert_close(found, torch.full((2,), 0.3))
    assert "log_scale" in dict(learned.named_parameters())
    assert "log_scale" not in dict(fixed.named_parameters())


def test_data_without_columns_and_scales_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the columns of a table"):
        Mixed(())
    for scale in (0.0, 200.0, math.nan):
        with pytest.raises(ValueError, match="scale must lie between"):
            Mixed(COLUMNS, scale)


def test_what_a_row_says_of_itself() -> None:
    likelihood = mixed()
    row = likelihood(torch.zeros(3, X, 1))
    assert row.has_rsample
    assert not row.support.is_discrete
    assert (row.support.event_dim, row.event_shape, row.batch_shape) == (1, (X,), (3,))
    assert row.support.check(rows(3)).shape == (3,)
    checked = MixedRow(row.raw, row.places, row.log_scale, row.log_shape, validate_args=True)
    for one in (checked, checked.expand(torch.Size([3]))):
        one.log_prob(rows(3))
        with pytest.raises(ValueError, match="to be within the support"):
            one.log_prob(torch.full((3, X), 0.5))
    # Beyond a batch it is not looked at again: that takes as long as the sum itself.
    MixedRow(row.raw, row.places, row.log_scale, row.log_shape, validate_args=False).log_prob(
        torch.full((3, X), 0.5)
    )


def test_a_checkpoint_of_it_holds_what_is_learned_alone() -> None:
    assert list(mixed().state_dict()) == ["log_scale", "log_shape"]


def test_the_spread_of_a_real_column_begins_at_one_half() -> None:
    likelihood = Mixed(COLUMNS)
    row = likelihood(torch.zeros(1, X, 1))
    torch.testing.assert_close(row.log_scale.exp(), torch.full((2,), 0.5))


@pytest.mark.parametrize("scale", [math.exp(-5), math.exp(5), math.nan, 0.0])
def test_a_spread_at_the_bounds_or_beyond(scale: float) -> None:
    with pytest.raises(ValueError, match=r"^scale must lie between 0\.0067 and 148\.4, not"):
        Mixed(COLUMNS, scale=scale)
