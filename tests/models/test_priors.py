"""Priors against geometry, quadrature and Bayes' rule.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-6 (5 standard errors).
"""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guides.encoders import MLP
from models.priors import Gaussian, Mixture, Orthogonal, Prior, Simplex, Vamp

pytestmark = pytest.mark.usefixtures("double")

FEATURES = 5


def mixture(categories: int, latent: int, **options) -> Mixture:
    """A mixture whose components differ in scale too, unlike a fresh one."""
    prior = Mixture(categories, latent, **options)
    torch.nn.init.uniform_(prior.log_scale, -0.7, 0.7)
    return prior


def vamp(categories: int, latent: int, **options) -> Vamp:
    return Vamp(lambda: MLP(FEATURES, [4]), FEATURES, categories, latent, **options)


# By name, since a prior made while pytest collects would be in float32.
PRIORS: dict[str, Callable[[], Prior]] = {
    "orthogonal-1d": lambda: Orthogonal(1, delta=1, scale=2),
    "orthogonal-2d": lambda: Orthogonal(2, delta=1, scale=2, weights=[1, 3]),
    "simplex-1d": lambda: Simplex(2, 1, scale=3),
    "simplex-2d": lambda: Simplex(3, 2, scale=3, weights=[1, 2, 3]),
    "gaussian-1d": lambda: Gaussian(1),
    "gaussian-2d": lambda: Gaussian(2),
    "mixture-1d": lambda: mixture(3, 1, weights=[1, 2, 3]),
    "mixture-2d": lambda: mixture(3, 2, learn_weights=True),
    "vamp-1d": lambda: vamp(3, 1, weights=[1, 2, 3]),
    "vamp-2d": lambda: vamp(3, 2),
}


@pytest.fixture(params=PRIORS)
def prior(request: pytest.FixtureRequest) -> Prior:
    """One of every prior, in 1 and 2 dimensions."""
    return PRIORS[request.param]()


def grid(dimensions: int) -> tuple[Tensor, float]:
    """Points (N, D) of the trapezoid rule, and the volume that each stands for."""
    axis = torch.linspace(-20, 20, 401)
    points = torch.cartesian_prod(*[axis] * dimensions).reshape(-1, dimensions)
    return points, float(axis[1] - axis[0]) ** dimensions


@pytest.mark.parametrize("categories", [1, 2, 5])
@pytest.mark.parametrize("delta", [1, 3])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_orthogonal_modes(categories: int, delta: int, scale: float) -> None:
    prior = Orthogonal(categories, delta, scale)
    assert prior.latent == categories * delta
    torch.testing.assert_close(
        prior.modes @ prior.modes.mT, delta * scale**2 * torch.eye(categories)
    )
    apart = torch.pdist(prior.modes)
    torch.testing.assert_close(apart, torch.full_like(apart, scale * math.sqrt(2 * delta)))
    # Each category owns delta coordinates, and every coordinate has one owner.
    torch.testing.assert_close((prior.modes > 0).sum(1), torch.full((categories,), delta))
    torch.testing.assert_close(
        (prior.modes != 0).sum(0), torch.ones(prior.latent, dtype=torch.int64)
    )


@pytest.mark.parametrize(("categories", "latent"), [(2, 1), (3, 2), (3, 7), (10, 9)])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_simplex_modes(categories: int, latent: int, scale: float) -> None:
    prior = Simplex(categories, latent, scale)
    cosine = -1 / (categories - 1)
    gram = torch.full((categories, categories), cosine).fill_diagonal_(1) * scale**2
    torch.testing.assert_close(prior.modes @ prior.modes.mT, gram)
    torch.testing.assert_close(prior.modes.mean(0), torch.zeros(latent))
    apart = torch.pdist(prior.modes)
    torch.testing.assert_close(apart, torch.full_like(apart, scale * math.sqrt(2 - 2 * cosine)))


def test_gaussian_is_a_standard_normal() -> None:
    z = torch.randn(4, 3)
    density = -(z**2).sum(-1) / 2 - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(Gaussian(3).log_prob(z), density)


@pytest.mark.parametrize("make", [lambda: Orthogonal(3, 2, 2.0), lambda: Simplex(3, 4, 2.0)])
def test_fixed_modes_have_unit_variance(make: Callable[[], Prior]) -> None:
    prior = make()
    z = torch.randn(5, prior.latent)
    squares = torch.cdist(z, prior.modes) ** 2
    density = -squares / 2 - prior.latent / 2 * math.log(2 * math.pi) - math.log(3)
    torch.testing.assert_close(prior.joint(z), density)


def test_densities_integrate_to_one(prior: Prior) -> None:
    points, volume = grid(prior.latent)
    for k in range(prior.categories):
        mass = prior.component(torch.tensor(k)).log_prob(points).exp().sum() * volume
        torch.testing.assert_close(mass, torch.tensor(1.0), rtol=0, atol=1e-9)
    mass = prior.log_prob(points).exp().sum() * volume
    torch.testing.assert_close(mass, torch.tensor(1.0), rtol=0, atol=1e-9)


def test_bayes_rule(prior: Prior) -> None:
    """Joint, marginal and responsibilities, each category on its own and in probabilities."""
    z = torch.randn(4, 3, prior.latent)
    weights = prior.category().probs
    joint = torch.stack(
        [
            weights[k] * prior.component(torch.tensor(k)).log_prob(z).exp()
            for k in range(prior.categories)
        ],
        -1,
    )
    marginal = joint.sum(-1)
    torch.testing.assert_close(prior.joint(z), joint.log())
    torch.testing.assert_close(prior.log_prob(z), marginal.log())
    torch.testing.assert_close(prior.responsibilities(z).exp(), joint / marginal.unsqueeze(-1))
    torch.testing.assert_close(prior.responsibilities(z).exp().sum(-1), torch.ones(4, 3))


def test_responsibilities_far_from_every_mode() -> None:
    """Where every density underflows the rule still holds, by the distances alone."""
    prior = Orthogonal(2, delta=1, scale=2)
    z = torch.tensor([60.0, 50.0])
    log_odds = prior.responsibilities(z).diff().squeeze()
    torch.testing.assert_close(log_odds, torch.tensor(2.0 * (50 - 60)))


@pytest.mark.parametrize("left", [(), (4,), (3, 1), (3, 2, 1)])
def test_component_shapes(prior: Prior, left: tuple[int, ...]) -> None:
    c = torch.randint(prior.categories, left)
    component = prior.component(c)
    assert component.batch_shape == left
    assert component.event_shape == (prior.latent,)
    assert component.has_rsample
    z = torch.randn(*left, prior.latent)
    every = prior.all_components()
    assert every.batch_shape == (prior.categories,)
    chosen = every.log_prob(z.unsqueeze(-2)).gather(-1, c.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(component.log_prob(z), chosen)


@pytest.mark.parametrize(("scale", "percent"), [(1, 47.9), (2, 87.5), (3, 99.0)])
def test_bayes_accuracy(scale: float, percent: float) -> None:
    """How well c can be told from z at delta 2 and K 10: theory, the design's figure and draws.

    The sum of a block over sqrt(delta) is N(scale sqrt(delta), 1) for the block of c and N(0, 1)
    for the others, and the largest is guessed.
    """
    categories, delta, draws = 10, 2, 20_000
    t = torch.linspace(-12, 20, 3201)
    ahead = torch.special.ndtr(t) ** (categories - 1)
    density = torch.exp(-((t - scale * math.sqrt(delta)) ** 2) / 2) / math.sqrt(2 * math.pi)
    theory = float(torch.trapezoid(density * ahead, t))
    assert round(100 * theory, 1) == percent

    prior = Orthogonal(categories, delta, scale)
    c = prior.category().sample((draws,))
    guess = prior.responsibilities(prior.component(c).sample()).argmax(-1)
    share = float((guess == c).double().mean())
    assert abs(share - theory) < 5 * math.sqrt(theory * (1 - theory) / draws)


@pytest.mark.parametrize("learn", [False, True])
def test_given_weights(learn: bool) -> None:
    prior = Orthogonal(3, weights=[2, 6, 8], learn_weights=learn)
    torch.testing.assert_close(prior.category().probs, torch.tensor([0.125, 0.375, 0.5]))
    assert ("logits" in dict(prior.named_parameters())) == learn
    assert "logits" in prior.state_dict()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Orthogonal(3),
        lambda: Simplex(3, 2),
        lambda: Mixture(3, 2, learn_weights=True),
        lambda: vamp(3, 2),
    ],
)
def test_weights_are_uniform_when_not_given(make: Callable[[], Prior]) -> None:
    torch.testing.assert_close(make().category().probs, torch.full((3,), 1 / 3))


def test_learned_weights_have_the_gradient_of_log_prob() -> None:
    """d log p(z) / d logit_c = p(c | z) - p(c), the softmax's own gradient."""
    prior = Orthogonal(3, delta=1, scale=1, weights=[1, 2, 3], learn_weights=True)
    z = torch.randn(3)
    prior.log_prob(z).backward()
    expected = prior.responsibilities(z).exp() - prior.category().probs
    torch.testing.assert_close(prior.logits.grad, expected.detach())


def test_mixture_parameters() -> None:
    prior = Mixture(4, 3, spread=10.0)
    assert prior.mean.shape == prior.log_scale.shape == (4, 3)
    torch.testing.assert_close(prior.all_components().variance, torch.ones(4, 3))
    # 12 draws of sd 10: by the chi square distribution one of four million seeds fails.
    assert 2 < prior.mean.square().mean().sqrt().item() < 25


def test_vamp_components_are_encoded_pseudo_inputs() -> None:
    prior = vamp(4, 3)
    assert prior.pseudo_logits.shape == (4, FEATURES)
    for k in range(4):
        pseudo = 1 / (1 + torch.exp(-prior.pseudo_logits[k]))
        raw = prior.head(prior.encoder(pseudo))
        component = prior.component(torch.tensor(k))
        torch.testing.assert_close(component.mean, raw[:3])
        log_scale = 5 * torch.tanh(raw[3:] / 5)
        torch.testing.assert_close(component.stddev.log(), log_scale)


@pytest.mark.parametrize("sign", [-1, 1])
def test_learned_scales_are_bounded(sign: int) -> None:
    """Whatever the optimiser does, a log-scale stays within 5 of zero."""
    wild_mixture, wild_vamp = Mixture(2, 3), vamp(2, 3)
    torch.nn.init.constant_(wild_mixture.log_scale, sign * 1e3)
    torch.nn.init.constant_(wild_vamp.head.bias, sign * 1e3)
    for prior in (wild_mixture, wild_vamp):
        log_scale = prior.all_components().stddev.log()
        torch.testing.assert_close(log_scale, torch.full((2, 3), sign * 5.0))


def test_small_learned_scales_are_what_they_say() -> None:
    prior = Mixture(2, 1)
    torch.nn.init.constant_(prior.log_scale, 0.01)
    torch.testing.assert_close(
        prior.all_components().stddev.log(), torch.full((2, 1), 0.01), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Orthogonal(0), "categories must be at least 1, not 0"),
        (lambda: Mixture(-1, 2), "categories must be at least 1, not -1"),
        (lambda: Orthogonal(delta=0), "delta must be at least 1, not 0"),
        (lambda: Orthogonal(scale=0), "scale must be above 0 and finite, not 0"),
        (lambda: Simplex(1, 3), "categories must be at least 2, not 1"),
        (lambda: Simplex(5, 3), "latent must be at least 4 for a simplex of 5 modes, not 3"),
        (lambda: Simplex(scale=-1.0), "scale must be above 0 and finite, not -1.0"),
        (lambda: Gaussian(0), "latent must be at least 1, not 0"),
        (lambda: Mixture(2, 0), "latent must be at least 1, not 0"),
        (lambda: vamp(2, 0), "latent must be at least 1, not 0"),
        (
            lambda: Orthogonal(3, weights=[1, 2]),
            "weights must be 3 positive numbers, not [1, 2]",
        ),
        (
            lambda: Simplex(3, 2, weights=[1, 0, 2]),
            "weights must be 3 positive numbers, not [1, 0, 2]",
        ),
        (
            lambda: Mixture(2, 2, weights=[1, math.nan]),
            "weights must be 2 positive numbers, not [1, nan]",
        ),
        (
            lambda: Mixture(2, 2, weights=[1, math.inf]),
            "weights must be 2 positive numbers, not [1, inf]",
        ),
    ],
)
def test_errors_name_the_value(make: Callable[[], Prior], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize("weights", [[1, 1e-46], [1, 1e39], [1e-300, 1e-301], [1e200, 1e100]])
def test_weights_that_float32_cannot_hold(weights: list[float]) -> None:
    """Their logarithms it can."""
    torch.set_default_dtype(torch.float32)
    logits = Orthogonal(2, 1, weights=weights).logits
    assert logits.dtype is torch.float32
    expected = math.log(weights[1]) - math.log(weights[0])
    assert (logits[1] - logits[0]).item() == pytest.approx(expected, rel=1e-6)


def test_every_prior_learns_its_weights_where_it_is_told_to() -> None:
    def encoder() -> MLP:
        return MLP(5, [4])

    made: list[Callable[[bool], Prior]] = [
        lambda learn: Simplex(3, learn_weights=learn),
        lambda learn: Vamp(encoder, 5, 3, 2, learn_weights=learn),
        lambda learn: Mixture(3, 2, learn_weights=learn),
        lambda learn: Orthogonal(3, learn_weights=learn),
    ]
    for make in made:
        assert "logits" in dict(make(True).named_parameters())
        assert "logits" not in dict(make(False).named_parameters())
