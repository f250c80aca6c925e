"""What holds of every prior: its geometry, Bayes' rule and what a permutation of c changes.

Shapes: B batch, K categories, D latent dimensions, S samples.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor, nn

from models import CatVAE, decoders, likelihoods, priors
from models.priors import Prior

pytestmark = pytest.mark.usefixtures("double")

SEEDS = st.integers(0, 2**31)
SCALES = st.floats(-3, 3).map(lambda power: 10**power)
WEIGHTS = st.lists(st.floats(-30, 30).map(lambda power: 10**power), min_size=1, max_size=6)
"""p(c) up to a factor: some categories next to impossible."""


class Line(nn.Module):
    """An encoder of Vamp's."""

    width = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def make(kind: str, weights: list[float], latent: int, learn: bool) -> Prior:
    """A prior of random modes and scales with these weights."""
    number = len(weights)
    shared = {"weights": weights, "learn_weights": learn}
    if kind == "orthogonal":
        return priors.Orthogonal(number, latent, 2.0, **shared)
    if kind == "simplex":
        return priors.Simplex(number, number + latent, 2.0, **shared)
    if kind == "fixed":
        return priors.FixedModes(torch.randn(number, latent), **shared)
    if kind == "vamp":
        return priors.Vamp(Line, 4, number, latent, **shared)
    mixture = priors.Mixture(number, latent, 2.0, **shared)
    nn.init.normal_(mixture.log_scale)
    return mixture


KINDS = st.sampled_from(["orthogonal", "simplex", "fixed", "vamp", "mixture"])


@st.composite
def drawn_priors(draw: st.DrawFn) -> Prior:
    kind, weights = draw(KINDS), draw(WEIGHTS)
    if kind == "simplex" and len(weights) < 2:
        weights = [*weights, 1.0]
    torch.manual_seed(draw(SEEDS))
    return make(kind, weights, draw(st.integers(1, 4)), draw(st.booleans()))


def log_densities(prior: Prior, z: Tensor) -> np.ndarray:
    """log p(z | c) of each c by SciPy: (..., K)."""
    found = []
    for k in range(prior.categories):
        component = prior.component(torch.tensor(k))
        mean, scale = component.mean.detach().numpy(), component.stddev.detach().numpy()
        found.append(norm(mean, scale).logpdf(z.numpy()).sum(-1))
    return np.stack(found, -1)


@given(st.integers(1, 12), st.integers(1, 5), SCALES)
def test_orthogonal_modes_are_orthogonal_and_equidistant(
    categories: int, delta: int, scale: float
) -> None:
    prior = priors.Orthogonal(categories, delta, scale)
    modes = prior.modes.double()
    assert modes.shape == (categories, categories * delta)
    assert prior.latent == categories * delta
    expected = scale**2 * delta * torch.eye(categories)
    torch.testing.assert_close(modes @ modes.mT, expected, rtol=1e-12, atol=0)
    apart = torch.cdist(modes, modes)[~torch.eye(categories, dtype=torch.bool)]
    torch.testing.assert_close(apart, torch.full_like(apart, scale * math.sqrt(2 * delta)))


@given(st.integers(2, 12), st.integers(0, 4), SCALES)
def test_simplex_modes_are_equidistant_and_centred(
    categories: int, spare: int, scale: float
) -> None:
    modes = priors.Simplex(categories, categories - 1 + spare, scale).modes
    cosines = modes @ modes.mT / scale**2
    off = -1 / (categories - 1)
    expected = torch.eye(categories) * (1 - off) + off
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(modes.sum(0) / scale, torch.zeros(len(modes[0])), rtol=0, atol=1e-12)


@given(drawn_priors(), st.floats(-1, 6), SEEDS)
def test_bayes_rule_wherever_z_is(prior: Prior, power: float, seed: int) -> None:
    """log p(c, z), log p(z) and log p(c | z) by SciPy, up to a million from every mode."""
    torch.manual_seed(seed)
    z = 10**power * torch.randn(3, prior.latent)
    with torch.no_grad():
        log_p = prior.category().logits.numpy()
        joint = log_densities(prior, z) + log_p
        # What is common to all categories is large there, and takes its digits with it.
        size = 1e-12 * max(1.0, float(np.abs(joint).max()))
        np.testing.assert_allclose(prior.joint(z).numpy(), joint, rtol=1e-12, atol=size)
        marginal = logsumexp(joint, -1)
        np.testing.assert_allclose(prior.log_prob(z).numpy(), marginal, rtol=1e-12, atol=size)
        log_share = prior.responsibilities(z)
    assert log_share.isfinite().all()
    np.testing.assert_allclose(log_share.exp().sum(-1).numpy(), 1, rtol=1e-12)
    np.testing.assert_allclose(
        log_share.numpy(), joint - marginal[:, None], rtol=1e-9, atol=4 * size
    )


@given(
    drawn_priors(), st.lists(st.integers(1, 3), max_size=2), st.lists(st.integers(1, 3), max_size=2)
)
def test_shapes(prior: Prior, left: list[int], samples: list[int]) -> None:
    c = torch.randint(prior.categories, left)
    component = prior.component(c)
    assert component.batch_shape == torch.Size(left)
    assert component.event_shape == (prior.latent,)
    z = component.sample(torch.Size(samples))
    assert z.shape == (*samples, *left, prior.latent)
    assert prior.joint(z).shape == (*samples, *left, prior.categories)
    assert prior.log_prob(z).shape == (*samples, *left)
    assert prior.category().batch_shape == ()
    torch.testing.assert_close(
        prior.all_components().mean[c].expand(component.mean.shape), component.mean
    )


@given(WEIGHTS, st.booleans(), SCALES)
def test_weights_are_shares_whatever_their_unit(
    weights: list[float], learn: bool, unit: float
) -> None:
    prior = priors.Orthogonal(len(weights), 1, weights=weights, learn_weights=learn)
    log_share = np.log(weights) - logsumexp(np.log(weights))
    found = prior.category().logits.detach().numpy()
    np.testing.assert_allclose(found, log_share, rtol=1e-12, atol=1e-12)
    scaled = priors.Orthogonal(len(weights), 1, weights=[unit * one for one in weights])
    np.testing.assert_allclose(scaled.category().logits.numpy(), log_share, rtol=1e-12, atol=1e-12)


@given(st.permutations(range(5)), SEEDS, st.floats(0, 4))
def test_a_permutation_of_the_categories_permutes_what_is_said_of_them(
    order: list[int], seed: int, power: float
) -> None:
    torch.manual_seed(seed)
    modes, weights = torch.randn(5, 3), torch.rand(5) + 0.1
    prior = priors.FixedModes(modes, weights.tolist())
    other = priors.FixedModes(modes[order], weights[order].tolist())
    z = 10**power * torch.randn(4, 3)
    torch.testing.assert_close(other.log_prob(z), prior.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        other.responsibilities(z), prior.responsibilities(z)[:, order], rtol=1e-9, atol=1e-9
    )


@given(WEIGHTS, SEEDS)
def test_a_mixture_on_a_line_integrates_to_one(weights: list[float], seed: int) -> None:
    """By the trapezoid rule, whose error for a normal of scale 3 steps is nothing."""
    torch.manual_seed(seed)
    prior = make("mixture", weights, 1, learn=False)
    nn.init.uniform_(prior.get_parameter("log_scale"), -1, 1)
    z = torch.arange(-45, 45, 0.1).unsqueeze(-1)
    mass = prior.log_prob(z).logsumexp(0) + math.log(0.1)
    assert mass.item() == pytest.approx(0, abs=1e-9)


@given(WEIGHTS, st.integers(1, 60), SEEDS)
def test_as_many_are_generated_of_each_category_as_its_share(
    weights: list[float], number: int, seed: int
) -> None:
    """Up to less than one, in whatever proportion."""
    torch.manual_seed(seed)
    prior = priors.Orthogonal(len(weights), 1, weights=weights)
    model = CatVAE(prior, decoders.MLP(prior.latent, 2, likelihoods.Bernoulli(), [2]))
    c, z, x = model.generate(number)
    assert (c.shape, z.shape, x.shape) == ((number,), (number, prior.latent), (number, 2))
    counts = torch.bincount(c, minlength=len(weights))
    assert ((counts - number * prior.category().probs).abs() < 1 + 1e-9).all()


@given(drawn_priors(), st.floats(0, 300), st.sampled_from([-1, 1]))
def test_no_learned_scale_leaves_its_bounds(prior: Prior, power: float, sign: int) -> None:
    """Whatever training does to the parameters."""
    for name, parameter in prior.named_parameters():
        if name in ("log_scale", "head.weight", "head.bias"):
            nn.init.constant_(parameter, sign * 10**power)
    scale = prior.all_components().stddev
    assert (scale >= math.exp(-5)).all()
    assert (scale <= math.exp(5)).all()
    assert (
        prior.component(torch.tensor(0)).log_prob(torch.zeros(prior.latent)).isnan().logical_not()
    )
