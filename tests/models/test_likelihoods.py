"""Likelihoods against sums, quadrature and draws.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-6 each.
"""

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import logsigmoid

from models import likelihoods
from models.likelihoods import (
    Bernoulli,
    BernoulliLogMass,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    GreyBernoulli,
    Likelihood,
)

pytestmark = pytest.mark.usefixtures("double")

# By name, since a likelihood made while pytest collects would be in float32.
LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian-learned": lambda: Gaussian(0.1, learn_scale=True),
    "logistic-2": lambda: DiscretisedLogistic(2),
    "logistic-5": lambda: DiscretisedLogistic(5),
    "logistic-256": lambda: DiscretisedLogistic(256),
}
DISCRETE = ["bernoulli", "logistic-2", "logistic-5", "logistic-256"]


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request: pytest.FixtureRequest) -> Likelihood:
    """One of every likelihood."""
    return LIKELIHOODS[request.param]()


def random_raw(likelihood: Likelihood, *shape: int) -> Tensor:
    """Raw numbers (\\*shape, outputs) as a decoder might give them, with gradients."""
    return (2 * torch.randn(*shape, likelihood.outputs)).requires_grad_()


def levels(likelihood: Likelihood) -> Tensor:
    """Every value that a feature of a discrete x can take."""
    top = getattr(likelihood, "levels", 2) - 1
    return torch.arange(top + 1) / top


@pytest.mark.parametrize("name", DISCRETE)
def test_masses_sum_to_one(name: str) -> None:
    """Over every x of 2 features."""
    likelihood = LIKELIHOODS[name]()
    raw = random_raw(likelihood, 6, 2)
    states = torch.cartesian_prod(*[levels(likelihood)] * 2)
    mass = likelihood(raw.detach()).log_prob(states.unsqueeze(1)).exp().sum(0)
    torch.testing.assert_close(mass, torch.ones(6), rtol=0, atol=1e-9)


def test_bernoulli_masses_by_hand() -> None:
    raw = torch.randn(3, 1)
    p = (1 / (1 + torch.exp(-raw))).squeeze(-1)
    for state in itertools.product([0.0, 1.0], repeat=3):
        x = torch.tensor(state)
        mass = torch.where(x == 1, p, 1 - p).prod()
        torch.testing.assert_close(Bernoulli()(raw).log_prob(x).exp(), mass)


@pytest.mark.parametrize("features", [1, 31, 32, 33, 64, 784])
def test_bernoulli_masses_of_many_features(features: int) -> None:
    """Logarithms are taken of products of 32 features, and of what is left over."""
    raw = (3 * torch.randn(5, features, 1)).requires_grad_()
    x = torch.rand(5, features).round()
    found = Bernoulli()(raw).log_prob(x)
    logits = raw.squeeze(-1)
    expected = (x * logsigmoid(logits) + (1 - x) * logsigmoid(-logits)).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    slopes = [torch.autograd.grad(mass.sum(), raw)[0] for mass in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-14)


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("log_scale", [-4.0, 0.0, 4.0])
def test_logistic_masses_by_hand(levels: int, log_scale: float) -> None:
    """Differences of the logistic distribution function between the middles of the levels."""
    likelihood = DiscretisedLogistic(levels)
    raw = torch.tensor([[[0.13, log_scale]]])
    # The decoder's zero stands for a location of 1/2 and a log-scale of 5 tanh(-2 / 5).
    scale = torch.tensor(5.0).mul(torch.tanh(torch.tensor((log_scale - 2) / 5))).exp()
    middles = (torch.arange(levels - 1) + 0.5) / (levels - 1)
    below = torch.sigmoid((middles - 0.63) / scale)
    edges = torch.cat([torch.zeros(1), below, torch.ones(1)])
    x = torch.linspace(0, 1, levels).reshape(-1, 1, 1)
    mass = likelihood(raw).log_prob(x).exp().squeeze(-1)
    torch.testing.assert_close(mass, edges.diff(), rtol=1e-6, atol=1e-14)


def unit_square(features: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points (N, X) and weights (N,) on [0, 1]^X."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(60))
    points = torch.cartesian_prod(*[(nodes + 1) / 2] * features).reshape(-1, features)
    return points, torch.cartesian_prod(*[weights / 2] * features).reshape(-1, features).prod(-1)


@pytest.mark.parametrize("features", [1, 2])
def test_continuous_bernoulli_integrates_to_one(features: int) -> None:
    """Logits near 0 pass the normaliser's removable singularity."""
    logits = torch.tensor([-10.0, -3, -0.01, -0.003, -9e-4, -1e-9, 0, 1e-5, 0.0039, 0.0041, 1, 10])
    x, weights = unit_square(features)
    raw = torch.stack([logits, logits.flip(0)], -1)[:, :features].unsqueeze(-1)
    mass = weights @ ContinuousBernoulli()(raw).log_prob(x.unsqueeze(1)).exp()
    torch.testing.assert_close(mass, torch.ones(len(logits)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("logit", [-30.0, -20.0, -10.0, -0.01, 0.01, 10.0, 20.0, 30.0])
def test_continuous_bernoulli_integrates_to_one_in_float32(logit: float) -> None:
    """Pixels that are always black or white drive logits this far."""
    x, weights = unit_square(1)
    raw = torch.full((1, 1, 1), logit, dtype=torch.float32)
    mass = weights @ ContinuousBernoulli()(raw).log_prob(x.float().unsqueeze(1)).double().exp()
    torch.testing.assert_close(mass, torch.ones(1), rtol=0, atol=1e-4)


CURVED = [-700.0, -40.0, -17.0, -1.0, -0.5, -1e-3, -9e-4, 0.0]
CURVED += [1e-9, 0.05, 0.7, 1.0, 3.0, 17.0, 40.0, 90.0]


@pytest.mark.parametrize("logit", CURVED)
def test_draws_and_mean_of_the_continuous_bernoulli(logit: float) -> None:
    """The distribution function undoes ``icdf``, whose average is the mean; no gradient is lost."""
    size = abs(logit)
    raw = torch.tensor([[logit]], requires_grad=True)
    distribution = ContinuousBernoulli()(raw).base_dist
    u, weights = unit_square(1)
    # The nodes crowd where x runs off, as a logarithm of u or of 1 - u.
    u, weights = u**3, 3 * u.squeeze(-1) ** 2 * weights
    if logit <= 0:
        u = 1 - u
    x = distribution.icdf(u)
    # Of the mirrored variable, whose density falls, so that nothing overflows.
    fallen = 1 - x if logit > 0 else x
    below = torch.expm1(-size * fallen) / math.expm1(-size) if size else fallen
    torch.testing.assert_close(below, 1 - u if logit > 0 else u, rtol=0, atol=1e-11)
    torch.testing.assert_close(weights @ x.squeeze(-1), distribution.mean[0], rtol=0, atol=1e-7)

    def at(shifted: float) -> Tensor:
        return ContinuousBernoulli()(torch.tensor([[shifted]])).base_dist.icdf(u)

    (slope,) = torch.autograd.grad(x.sum(), raw)
    step = 1e-5 * max(1, size)
    difference = (at(logit + step) - at(logit - step)).sum() / (2 * step)
    torch.testing.assert_close(slope.squeeze(), difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("u", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-90.0, -20.0, 0.0, 20.0, 90.0])
def test_the_ends_of_the_continuous_bernoulli_are_finite_in_float32(logit: float, u: float) -> None:
    raw = torch.tensor([[logit]], dtype=torch.float32, requires_grad=True)
    x = ContinuousBernoulli()(raw).base_dist.icdf(torch.tensor(u, dtype=torch.float32))
    (slope,) = torch.autograd.grad(x.sum(), raw)
    assert 0 <= x <= 1
    assert slope.isfinite()


def test_no_rounding_takes_a_draw_of_the_continuous_bernoulli_out_of_its_support() -> None:
    logits = torch.linspace(-1.1, 1.1, 2201, dtype=torch.float32).unsqueeze(-1)
    u = 1 - torch.arange(4, dtype=torch.float32).reshape(-1, 1, 1) * 2**-24
    distribution = ContinuousBernoulli()(logits.unsqueeze(-1)).base_dist
    assert distribution.support.check(distribution.icdf(u)).all()


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 3.0])
def test_gaussian_integrates_to_one(features: int, scale: float) -> None:
    axis = 0.5 + torch.linspace(-15, 15, 401) * scale
    x = torch.cartesian_prod(*[axis] * features).reshape(-1, features)
    volume = float(axis[1] - axis[0]) ** features
    density = Gaussian(scale)(torch.randn(1, features, 1)).log_prob(x).exp()
    torch.testing.assert_close(density.sum() * volume, torch.tensor(1.0), rtol=0, atol=1e-9)


def test_gaussian_by_hand() -> None:
    raw, x = torch.randn(4, 3, 1), torch.randn(4, 3)
    mean = 1 / (1 + torch.exp(-raw.squeeze(-1)))
    density = torch.exp(-(((x - mean) / 0.2) ** 2) / 2) / (0.2 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(Gaussian(0.2)(raw).log_prob(x), density.log().sum(-1))


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("learn", [False, True])
def test_gaussian_scale_is_the_one_asked_for(scale: float, learn: bool) -> None:
    likelihood = Gaussian(scale, learn_scale=learn)
    torch.testing.assert_close(likelihood(torch.zeros(2, 1)).stddev, torch.full((2,), scale))
    assert ("log_scale" in dict(likelihood.named_parameters())) == learn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [2, 256])
def test_logistic_is_finite_at_the_extremes(dtype: torch.dtype, levels: int) -> None:
    """Log-masses and gradients, however far the decoder's numbers go."""
    ends = torch.tensor([-1e4, -3, 0, 3, 1e4], dtype=dtype)
    raw = torch.cartesian_prod(ends, ends).unsqueeze(1).requires_grad_()
    x = torch.tensor([0, 1 / (levels - 1), 1], dtype=dtype).reshape(-1, 1, 1)
    log_mass = DiscretisedLogistic(levels)(raw).log_prob(x)
    assert log_mass.dtype == dtype
    assert log_mass.isfinite().all()
    assert (log_mass <= 0).all()
    log_mass.sum().backward()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_likelihood_is_finite_for_large_numbers(
    likelihood: Likelihood, dtype: torch.dtype
) -> None:
    likelihood = likelihood.to(dtype)
    raw = torch.tensor([-80.0, 80.0], dtype=dtype).reshape(2, 1, 1)
    raw = raw.expand(2, 1, likelihood.outputs).clone().requires_grad_()
    x = torch.tensor([0.0, 1.0], dtype=dtype).reshape(2, 1, 1)
    log_prob = likelihood(raw).log_prob(x)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("name", DISCRETE)
def test_draws_have_the_right_masses(name: str) -> None:
    """Chi-square, levels that are expected under 10 times counted together."""
    likelihood = LIKELIHOODS[name]()
    raw = random_raw(likelihood, 3, 1).detach()
    draws, values = 20_000, levels(likelihood)
    x = likelihood(raw).rsample((draws,)).squeeze(-1)
    masses = likelihood(raw).log_prob(values.reshape(-1, 1, 1)).exp()
    for feature, mass in zip(x.T, masses.T, strict=True):
        counts = (feature.unsqueeze(-1) == values).sum(0).double()
        assert int(counts.sum()) == draws
        rare = draws * mass < 10
        observed = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
        expected = torch.cat([mass[~rare], mass[rare].sum(0, keepdim=True)]) * draws
        # Where next to nothing is rare the pooled cell is left out, as the test is asymptotic.
        if expected[-1] < 10:
            observed, expected = observed[:-1], expected[:-1]
            expected = expected * observed.sum() / expected.sum()
        if len(observed) > 1:
            assert stats.chisquare(observed, expected).pvalue > 1e-7


@pytest.mark.parametrize("name", ["continuous", "gaussian", "gaussian-learned"])
def test_draws_have_the_right_density(name: str) -> None:
    """Kolmogorov-Smirnov against the distribution function that quadrature of log_prob gives."""
    likelihood = LIKELIHOODS[name]()
    raw = random_raw(likelihood, 3, 1).detach()
    x = likelihood(raw).sample((5_000,)).squeeze(-1)
    ends = (0, 1) if name == "continuous" else (-10, 10)
    axis = torch.linspace(*ends, 4001)
    densities = likelihood(raw).log_prob(axis.reshape(-1, 1, 1)).exp().detach()
    for feature, density in zip(x.T, densities.T, strict=True):
        below = torch.cumulative_trapezoid(density, axis).numpy()
        result = stats.kstest(feature.numpy(), lambda v, b=below: np.interp(v, axis[1:].numpy(), b))
        assert result.pvalue > 1e-7


@pytest.mark.parametrize("with_gradient", [False, True])
def test_draws_lie_on_the_support(likelihood: Likelihood, with_gradient: bool) -> None:
    """Exactly: what a straight-through draw adds for the gradient's sake must be zero."""
    distribution = likelihood(random_raw(likelihood, 500, 7).detach().requires_grad_(with_gradient))
    x = distribution.rsample()
    assert x.shape == (500, 7)
    assert distribution.support.check(x).all()
    if hasattr(likelihood, "levels") or likelihood.binary:
        assert torch.isin(x, levels(likelihood)).all()
    assert not distribution.sample().requires_grad


@pytest.mark.parametrize("sample_shape", [(), (4,), (2, 3)])
def test_shapes(likelihood: Likelihood, sample_shape: tuple[int, ...]) -> None:
    distribution = likelihood(random_raw(likelihood, 2, 5, 3))
    assert distribution.batch_shape == (2, 5)
    assert distribution.event_shape == (3,)
    assert distribution.has_rsample
    x = distribution.rsample(torch.Size(sample_shape))
    assert x.shape == (*sample_shape, 2, 5, 3)
    assert distribution.log_prob(x.detach().clamp(0, 1).round()).shape == (*sample_shape, 2, 5)
    assert distribution.mean.shape == (2, 5, 3)


def test_bernoulli_gradient_is_that_of_the_mean() -> None:
    raw = random_raw(Bernoulli(), 5, 3)
    Bernoulli()(raw).rsample().sum().backward()
    p = raw.detach().sigmoid()
    torch.testing.assert_close(raw.grad, p * (1 - p))


@pytest.mark.parametrize("left", [(2,), (3, 2)])
def test_bernoulli_masses_have_gradients_by_logits_and_by_x(left: tuple[int, ...]) -> None:
    """Against differences of the formula, which holds between 0 and 1 too."""
    logits = torch.randn(*left, 33).requires_grad_()
    x = torch.rand(2, 33).requires_grad_()
    assert torch.autograd.gradcheck(BernoulliLogMass.apply, (logits, x))


def test_logistic_gradient_is_that_of_the_draw_before_rounding() -> None:
    likelihood = DiscretisedLogistic(5)
    raw = random_raw(likelihood, 5, 3)
    torch.manual_seed(1)
    likelihood(raw).rsample().sum().backward()
    torch.manual_seed(1)
    noise = torch.rand(5, 3).logit()
    squashed = torch.tanh((raw[..., 1].detach() - 2) / 5)
    by_log_scale = noise * torch.exp(5 * squashed) * (1 - squashed**2)
    torch.testing.assert_close(raw.grad, torch.stack([torch.ones(5, 3), by_log_scale], -1))


@pytest.mark.parametrize("name", ["continuous", "gaussian", "gaussian-learned"])
def test_continuous_draws_are_differentiable(name: str) -> None:
    """The gradient of a draw is its finite difference under the same noise."""
    likelihood = LIKELIHOODS[name]()
    raw = random_raw(likelihood, 4, 1)
    parameters = [raw, *likelihood.parameters()]

    def draw() -> Tensor:
        torch.manual_seed(1)
        return likelihood(raw).rsample()

    for parameter in parameters:
        (gradient,) = torch.autograd.grad(draw().sum(), parameter)
        step = 1e-6
        with torch.no_grad():
            parameter += step
            above = draw().sum()
            parameter -= 2 * step
            below = draw().sum()
            parameter += step
        difference = (above - below) / (2 * step)
        assert gradient.abs().min() > 0
        torch.testing.assert_close(gradient.sum(), difference, rtol=1e-5, atol=1e-8)


def test_learned_scale_receives_gradient() -> None:
    likelihood = Gaussian(0.3, learn_scale=True)
    x, raw = torch.randn(4), torch.randn(4, 1)
    likelihood(raw).log_prob(x).backward()
    # d log N / d log sigma, times the slope of the bound at log sigma.
    error = (x - raw.squeeze(-1).sigmoid()) / 0.3
    slope = 1 - (torch.tensor(0.3).log() / 5) ** 2
    torch.testing.assert_close(likelihood.log_scale.grad, (error**2 - 1).sum() * slope)


def test_expand(likelihood: Likelihood) -> None:
    # Zeros are the middle of every likelihood, where draws differ.
    distribution = likelihood(torch.zeros(1, 3, likelihood.outputs))
    expanded = distribution.expand(torch.Size([4, 2]))
    assert expanded.batch_shape == (4, 2)
    assert expanded.event_shape == (3,)
    x = torch.randint(0, 2, (4, 2, 3)).double()
    torch.testing.assert_close(expanded.log_prob(x), distribution.log_prob(x))
    torch.testing.assert_close(expanded.mean, distribution.mean.expand(4, 2, 3))
    draws = expanded.rsample((20,))
    assert draws.shape == (20, 4, 2, 3)
    # A draw of its own for every place, or the batch would share its noise.
    places = draws.flatten(1, 2)
    assert not torch.equal(places, places[:, :1].expand_as(places))


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [("bernoulli", 0.5), ("bernoulli", 2.0), ("logistic-256", 1.5), ("continuous", -0.5)],
)
def test_values_off_the_support_are_rejected(name: str, value: float, expanded: bool) -> None:
    """Grey pixels have no mass under Bernoulli; Pyro's plates expand what they hold."""
    likelihood = LIKELIHOODS[name]()
    distribution = likelihood(torch.zeros(1, 3, likelihood.outputs))
    if expanded:
        distribution = distribution.expand(torch.Size([2]))
    with pytest.raises(ValueError, match="to be within the support"):
        distribution.log_prob(torch.full((2, 3), value))


def test_grey_bernoulli_is_cross_entropy() -> None:
    """Of any grey level, with the mean for a draw, and Bernoulli's own mass at 0 and 1."""
    raw, x = torch.randn(4, 3, 1), torch.rand(4, 3)
    p = raw.squeeze(-1).sigmoid()
    distribution = GreyBernoulli()(raw)
    cross = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(distribution.log_prob(x), cross)
    torch.testing.assert_close(distribution.rsample(), p)
    state = x.round()
    torch.testing.assert_close(distribution.log_prob(state), Bernoulli()(raw).log_prob(state))
    torch.testing.assert_close(distribution.expand(torch.Size([2, 4])).log_prob(x)[1], cross)
    with pytest.raises(ValueError, match="to be within the support"):
        distribution.log_prob(x + 1)


def test_binary_is_said_of_what_holds_0_and_1_alone() -> None:
    binary = {
        kind.__name__
        for kind in vars(likelihoods).values()
        if isinstance(kind, type) and issubclass(kind, Likelihood) and kind.binary
    }
    assert binary == {"Bernoulli", "AutoregressiveBernoulli"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "scale must lie between 0.0067 and 148.4, not 0.0"),
        (lambda: Gaussian(-1.0), "scale must lie between 0.0067 and 148.4, not -1.0"),
        (lambda: DiscretisedLogistic(1), "levels must be at least 2, not 1"),
    ],
)
def test_errors_name_the_value(make: Callable[[], Likelihood], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_gaussian_scales_out_of_reach_are_named(scale: float) -> None:
    """The bounded log-scale cannot take these: the message must say which number was wrong."""
    with pytest.raises(ValueError, match=re.escape(str(scale))):
        Gaussian(scale)


EXPANDED: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "grey": GreyBernoulli,
    "logistic": lambda: DiscretisedLogistic(5),
    "autoregressive": lambda: likelihoods.AutoregressiveBernoulli((2, 2), 1, 1, 3),
}


@pytest.mark.parametrize("name", EXPANDED)
def test_an_expanded_distribution_validates_where_it_did(name: str) -> None:
    """As in a plate."""
    likelihood = EXPANDED[name]()
    outside = torch.full((4,), 7.0)
    distribution = likelihood(torch.zeros(3, 4, likelihood.outputs))
    with pytest.raises(ValueError, match="to be within the support"):
        distribution.expand((2, 3)).log_prob(outside)
    distribution._validate_args = False
    assert distribution.expand((2, 3)).log_prob(outside).shape == (2, 3)


@pytest.mark.parametrize("name", EXPANDED)
def test_what_was_not_validated_may_be_nan_when_it_is_expanded(name: str) -> None:
    """So that it reaches the loss, which tells the term."""
    likelihood = EXPANDED[name]()
    with pyro.validation_enabled(False):
        distribution = likelihood(torch.full((3, 4, likelihood.outputs), math.nan))
    assert distribution.expand((2, 3)).log_prob(torch.ones(4)).isnan().all()


@pytest.mark.parametrize("name", [*LIKELIHOODS, *EXPANDED])
def test_x_is_binary_where_the_support_says_so(name: str) -> None:
    likelihood = (LIKELIHOODS | EXPANDED)[name]()
    support = likelihood(torch.zeros(4, likelihood.outputs)).support
    grey = torch.full((4,), 0.5)
    ends = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert support.check(ends).all()
    assert likelihood.binary is (not support.check(grey).all())


def test_the_mean_of_rounded_levels_is_the_location_within_the_levels() -> None:
    location = torch.tensor([[-0.3, 0.0, 0.4, 1.0, 1.7]])
    levels = likelihoods.LogisticLevels(location, torch.zeros(1, 5), 256)
    assert torch.equal(levels.mean, torch.tensor([[0.0, 0.0, 0.4, 1.0, 1.0]]))
