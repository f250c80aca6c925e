"""What holds of every likelihood, whatever its raw numbers: by sums, long decimals and SciPy.

Shapes: X features, S samples.
"""

import decimal
import itertools
import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor

from models.likelihoods import (
    AutoregressiveBernoulli,
    Bernoulli,
    BernoulliPixels,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    GreyBernoulli,
    Likelihood,
)

pytestmark = pytest.mark.usefixtures("double")

EXACT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
"""Sixty digits, and exponents that no exponential here leaves."""

SIZES = st.floats(-6, 6).map(lambda power: 10**power)
NUMBERS = st.one_of(
    st.just(0.0),
    st.floats(-3, 3),
    st.builds(lambda sign, size: sign * size, st.sampled_from([-1, 1]), SIZES),
)
"""Raw numbers as a decoder may give them, of every size from 1e-6 to 1e6."""

KINDS = ["bernoulli", "continuous", "gaussian", "logistic", "grey", "autoregressive"]


def make(kind: str, features: int = 6) -> Likelihood:
    """A likelihood; the autoregressive one with a context that tells pixels apart."""
    if kind == "autoregressive":
        shape = (2, features // 2) if features % 2 == 0 else (1, features)
        made = AutoregressiveBernoulli(shape, reach=2, rank=2, hidden=3)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter)
        return made
    return {
        "bernoulli": Bernoulli,
        "continuous": ContinuousBernoulli,
        "gaussian": lambda: Gaussian(0.3),
        "logistic": lambda: DiscretisedLogistic(5),
        "grey": GreyBernoulli,
    }[kind]()


def raws(features: int, outputs: int) -> st.SearchStrategy[Tensor]:
    number = features * outputs
    return st.lists(NUMBERS, min_size=number, max_size=number).map(
        lambda flat: torch.tensor(flat).reshape(features, outputs)
    )


def sigmoid(x: Decimal) -> Decimal:
    """Of either tail without a difference of nearly equal numbers."""
    power = EXACT.exp(-abs(x))
    return EXACT.divide(1 if x > 0 else power, EXACT.add(1, power))


def softplus(x: Decimal) -> Decimal:
    """log(1 + e^x)."""
    return EXACT.add(max(x, Decimal(0)), EXACT.ln(EXACT.add(1, EXACT.exp(-abs(x)))))


@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=70))
def test_bernoulli_masses_and_their_slopes_to_every_digit(pixels: list[tuple[float, bool]]) -> None:
    with decimal.localcontext(EXACT):
        expected = -sum(softplus(Decimal(-logit if on else logit)) for logit, on in pixels)
        slopes = [float(on - sigmoid(Decimal(logit))) for logit, on in pixels]
    logits, x = torch.tensor(pixels).double().unbind(-1)
    logits.requires_grad_()
    found = Bernoulli()(logits.unsqueeze(-1)).log_prob(x)
    assert found.item() == pytest.approx(float(expected), rel=1e-12, abs=1e-15)
    (slope,) = torch.autograd.grad(found, logits)
    assert slope.tolist() == pytest.approx(slopes, rel=1e-12, abs=1e-15)


@given(
    st.integers(2, 256).flatmap(
        lambda levels: st.tuples(st.just(levels), st.integers(0, levels - 1))
    ),
    NUMBERS,
    NUMBERS,
)
def test_logistic_masses_to_every_digit(at: tuple[int, int], location: float, raw: float) -> None:
    """The distribution function's difference between the middles of the levels; tails beyond."""
    levels, level = at
    with decimal.localcontext(EXACT):
        # The log-scale is rounded as in the code: the mass is compared given the scale.
        inverse = Decimal(math.exp(-5 * math.tanh((raw - 2) / 5)))
        centre = Decimal(level) / (levels - 1) - Decimal(location) - Decimal("0.5")
        half = Decimal("0.5") / (levels - 1)
        upper, lower = (centre + half) * inverse, (centre - half) * inverse
        if level == 0:
            mass = sigmoid(upper)
        elif level == levels - 1:
            mass = sigmoid(-lower)
        elif lower > 0:
            mass = sigmoid(-lower) - sigmoid(-upper)
        else:
            mass = sigmoid(upper) - sigmoid(lower)
        expected = float(mass.ln())
    x = torch.tensor([level / (levels - 1)])
    found = DiscretisedLogistic(levels)(torch.tensor([[location, raw]])).log_prob(x)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(NUMBERS, st.floats(0, 1))
def test_continuous_bernoulli_density_and_mean_to_every_digit(logit: float, x: float) -> None:
    with decimal.localcontext(EXACT):
        size = Decimal(logit)
        # Nearer to 0 sixty digits are too few, and the density is flat.
        if abs(logit) > 1e-12:
            # Mirrored, so that the exponential does not overflow.
            a, at = abs(size), Decimal(x) if logit < 0 else 1 - Decimal(x)
            density = float((a / (1 - (-a).exp())).ln() - a * at)
            falling = 1 / a - 1 / (a.exp() - 1)
            mean = float(falling if logit < 0 else 1 - falling)
        else:
            density, mean = 0.0, 0.5
    pixel = ContinuousBernoulli()(torch.tensor([[logit]]))
    found = pixel.log_prob(torch.tensor([x])).item()
    # Of log_prob's own terms the larger is |logit|, whose rounding stays.
    assert found == pytest.approx(density, rel=1e-9, abs=1e-9 + 1e-15 * abs(logit))
    assert pixel.mean.item() == pytest.approx(mean, rel=1e-8)


@given(st.floats(math.exp(-4.9), math.exp(4.9)), NUMBERS, st.floats(0, 1), st.booleans())
def test_gaussian_is_scipys(scale: float, raw: float, x: float, learn: bool) -> None:
    found = Gaussian(scale, learn)(torch.tensor([[raw]]))
    expected = norm(expit(raw), scale).logpdf(x)
    assert found.log_prob(torch.tensor([x])).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found.mean.item() == pytest.approx(expit(raw), rel=1e-12)
    assert found.stddev.item() == pytest.approx(scale, rel=1e-9)


@given(st.integers(2, 6).flatmap(lambda k: st.tuples(st.just(k), raws(2, 2))))
def test_masses_sum_to_one_over_every_image(drawn: tuple[int, Tensor]) -> None:
    levels, raw = drawn
    grey = torch.arange(levels) / (levels - 1)
    every = torch.cartesian_prod(grey, grey)
    logistic = DiscretisedLogistic(levels)(raw.unsqueeze(0))
    assert logistic.log_prob(every).logsumexp(0).item() == pytest.approx(0, abs=1e-8)
    binary = torch.cartesian_prod(*[torch.arange(2.0)] * 2)
    bernoulli = Bernoulli()(raw[None, :, :1])
    assert bernoulli.log_prob(binary).logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    mean = (bernoulli.log_prob(binary).exp().unsqueeze(-1) * binary).sum(0)
    torch.testing.assert_close(mean, bernoulli.mean.squeeze(0), rtol=0, atol=1e-12)


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**20),
    st.floats(-2, 2),
)
def test_autoregressive_pixels_are_given_those_before_them(
    height: int, width: int, reach: int, rank: int, seed: int, power: float
) -> None:
    """All masses sum to one, and a pixel's logit is that of its mass given what comes before."""
    torch.manual_seed(seed)
    number = height * width
    likelihood = AutoregressiveBernoulli((height, width), reach, rank, hidden=3)
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter)
    pixels = likelihood(10**power * torch.randn(number, 1 + rank))
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=number)))
    log_mass = pixels.log_prob(every)
    assert log_mass.logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    for pixel in range(number):
        # In this order images that agree up to a pixel stand beside one another.
        marginal = log_mass.reshape(2**pixel, 2, -1).logsumexp(-1)
        ratio = marginal[:, 1] - marginal[:, 0]
        logits = pixels.logits(every)[:, pixel].reshape(2**pixel, -1)
        # Where one of two masses is nothing to sixteen digits, their ratio is not known.
        torch.testing.assert_close(
            logits, ratio.unsqueeze(-1).expand_as(logits), rtol=1e-7, atol=1e-7
        )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_log_prob_and_its_gradient_are_finite_at_the_extremes(
    kind: str, data: st.DataObject
) -> None:
    likelihood = make(kind)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    likelihood = likelihood.to(dtype)
    raw = data.draw(raws(6, likelihood.outputs)).to(dtype).requires_grad_()
    distribution = likelihood(raw)
    top = 4 if kind == "logistic" else 1
    x = (
        torch.tensor(data.draw(st.lists(st.integers(0, top), min_size=6, max_size=6))).to(dtype)
        / top
    )
    value = distribution.log_prob(x)
    draw = distribution.rsample()
    slopes = torch.autograd.grad(value + draw.sum(), raw)[0]
    assert value.isfinite()
    assert slopes.isfinite().all()
    assert distribution.mean.isfinite().all()
    if kind not in ("continuous", "gaussian"):
        assert value <= 0
    support = distribution.support.check(draw.detach())
    assert support.all()
    if kind == "logistic":
        torch.testing.assert_close(
            draw.detach() * 4, (draw.detach() * 4).round(), rtol=0, atol=1e-5
        )
    if kind != "gaussian":
        assert ((draw >= 0) & (draw <= 1)).all()
    if kind != "logistic":
        assert ((distribution.mean >= 0) & (distribution.mean <= 1)).all()


@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(1, 3), max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
    st.lists(st.integers(1, 3), max_size=1),
    st.integers(1, 4),
)
def test_shapes_and_each_row_alone(
    kind: str, left: list[int], samples: list[int], more: list[int], features: int
) -> None:
    """A distribution over a batch is the distribution of each of its rows."""
    likelihood = make(kind, features)
    raw = torch.randn(*left, features, likelihood.outputs)
    distribution = likelihood(raw)
    assert distribution.batch_shape == torch.Size(left)
    assert distribution.event_shape == (features,)
    assert distribution.mean.shape == (*left, features)
    for draw in (
        distribution.sample(torch.Size(samples)),
        distribution.rsample(torch.Size(samples)),
    ):
        assert draw.shape == (*samples, *left, features)
    x = torch.randint(2, (*left, features)).double()
    found = distribution.log_prob(x)
    assert found.shape == torch.Size(left)
    for index in np.ndindex(*left):
        alone = likelihood(raw[index]).log_prob(x[index])
        torch.testing.assert_close(found[index], alone, rtol=1e-12, atol=1e-12)
    wide = distribution.expand(torch.Size([*more, *left]))
    assert wide.batch_shape == (*more, *left)
    torch.testing.assert_close(wide.log_prob(x), found.expand([*more, *left]))


@given(NUMBERS, st.lists(st.floats(0, 1), min_size=2, max_size=9), st.booleans())
def test_the_continuous_bernoullis_quantiles_rise_from_0_to_1(
    logit: float, shares: list[float], short: bool
) -> None:
    dtype = torch.float32 if short else torch.float64
    pixel = ContinuousBernoulli()(torch.tensor([[logit]], dtype=dtype)).base_dist
    u = torch.tensor(sorted(shares), dtype=dtype).unsqueeze(-1)
    x = pixel.icdf(u)
    assert ((x >= 0) & (x <= 1)).all()
    # Neighbours may be rounded past one another.
    assert (x.diff(dim=0) >= -4 * torch.finfo(dtype).eps).all()
    if not short and abs(logit) < 600:
        # The share below x is u again, to what the rounding of x changes in it.
        below = torch.expm1(logit * x) / math.expm1(logit) if abs(logit) > 1e-9 else x
        torch.testing.assert_close(below, u, rtol=0, atol=1e-12 * max(1, abs(logit)))


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_means_rise_with_the_logit(logits: list[float]) -> None:
    raw = torch.tensor(sorted(logits)).unsqueeze(-1)
    for kind in ("bernoulli", "continuous", "gaussian", "grey"):
        mean = make(kind)(raw).mean
        assert (mean.diff() >= -1e-12).all(), kind


@given(st.integers(1, 80), st.integers(0, 2**20), SIZES)
def test_grey_bernoulli_is_a_straight_line_between_black_and_white(
    features: int, seed: int, size: float
) -> None:
    """Its cross-entropy is linear in each grey level, as that of Bernoulli is at the ends."""
    torch.manual_seed(seed)
    raw, x = size * torch.randn(features, 1), torch.rand(features)
    ends = torch.stack([BernoulliPixels(raw).log_prob(torch.full((1,), on)) for on in (0.0, 1.0)])
    expected = ((1 - x) * ends[0] + x * ends[1]).sum()
    found = GreyBernoulli()(raw).log_prob(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
