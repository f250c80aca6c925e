"""The objective against sums written out by hand, quadrature and information theory.

Every way to the bound (Pyro's traces, the direct sum, SVI, the ELBO module) is held to the same
number and the same gradients as a loop over categories in plain PyTorch under the same seed.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-5 each.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import SVI, Predictive, TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from guides import Bayes, Enumerated
from guides import encoders as enc
from guides.guide import Guide, Posterior, normal
from guides.relaxed import Gumbel, Relaxed, SoftCode
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.terms import direct_terms, elbo, information_bound

pytestmark = pytest.mark.usefixtures("double")

B, K, D, X = 5, 3, 3, 6
IMAGE = (4, 4)

Loss = tuple[Tensor, dict[str, Tensor]]
"""A loss and its gradient by each parameter, zero where it has none."""


# Worlds: every prior, network, likelihood and guide, small. By name, since what is made while
# pytest collects would be in float32.


def encoder(network: str = "mlp") -> Callable[[], enc.Encoder]:
    return {
        "mlp": lambda: enc.MLP(X, [4]),
        "convolutional": lambda: enc.Convolutional(IMAGE, width=2, hidden=4),
        "recurrent": lambda: enc.Recurrent(IMAGE, hidden=2),
    }[network]


def decoder(network: str, likelihood: likelihoods.Likelihood) -> decoders.Decoder:
    if network == "mlp":
        return decoders.MLP(D, X, likelihood, [4])
    if network == "convolutional":
        return decoders.Convolutional(D, IMAGE, likelihood, width=2)
    return decoders.Recurrent(D, IMAGE, likelihood, hidden=4)


def mixture() -> priors.Mixture:
    """Components of different scales, unlike a fresh one."""
    prior = priors.Mixture(K, D, learn_weights=True)
    nn.init.uniform_(prior.log_scale, -0.7, 0.7)
    return prior


PRIORS: dict[str, Callable[[], priors.Prior]] = {
    "orthogonal": lambda: priors.Orthogonal(K, delta=1, scale=2),
    "weighted": lambda: priors.Orthogonal(K, 1, 2, weights=[1, 2, 3], learn_weights=True),
    "simplex": lambda: priors.Simplex(K, D, scale=2),
    "gaussian": lambda: priors.Gaussian(D),
    "mixture": mixture,
    "vamp": lambda: priors.Vamp(encoder(), X, K, D),
}
LIKELIHOODS: dict[str, Callable[[], likelihoods.Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous": likelihoods.ContinuousBernoulli,
    "gaussian": lambda: likelihoods.Gaussian(0.5, learn_scale=True),
    "logistic": lambda: likelihoods.DiscretisedLogistic(4),
}
NETWORKS = ["mlp", "convolutional", "recurrent"]


def make_guide(name: str, network: str, prior: priors.Prior) -> Guide:
    if name == "bayes":
        return Bayes(encoder(network), prior, D)
    shared = name == "shared"
    return Enumerated(encoder(network), prior.categories, D, hidden=5, shared=shared)


def make_world(
    prior: str = "orthogonal",
    guide: str = "enumerated",
    likelihood: str = "bernoulli",
    network: str = "mlp",
    kl: str = "analytic",
) -> tuple[CatVAE, Guide, Tensor]:
    """A model, a guide and data that the likelihood allows."""
    of_c = PRIORS[prior]()
    world = decoder(network, LIKELIHOODS[likelihood]())
    model = CatVAE(of_c, world, kl=kl)
    x = torch.rand(B, X if network == "mlp" else math.prod(IMAGE))
    if likelihood == "bernoulli":
        x = x.round()
    if likelihood == "logistic":
        x = (3 * x).round() / 3
    return model, make_guide(guide, network, of_c), x


def parameters(model: Any, guide: Any) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{key}": parameter
        for name, module in (("model", model), ("guide", guide))
        for key, parameter in module.named_parameters()
    }


# The same objective by hand.


def log_normal(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log N(z; mean, scale^2), summed over the last dimension."""
    log_density = -(((z - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2
    return log_density.sum(-1)


def kl_normal(mean_q: Tensor, scale_q: Tensor, mean_p: Tensor, scale_p: Tensor) -> Tensor:
    """KL between diagonal normals, summed over the last dimension."""
    ratio = (scale_q / scale_p) ** 2
    return ((ratio + ((mean_q - mean_p) / scale_p) ** 2 - 1 - ratio.log()) / 2).sum(-1)


def split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and bounded scale from (..., 2 D)."""
    return raw[..., :D], torch.exp(5 * torch.tanh(raw[..., D:] / 5))


def prior_by_hand(prior: priors.Prior) -> tuple[Tensor, Tensor, Tensor]:
    """log p(c) (K,), and the components' means and scales (K, D)."""
    components = [prior.component(torch.tensor(k)) for k in range(prior.categories)]
    return (
        log_softmax(prior.logits, 0),
        torch.stack([component.mean for component in components]),
        torch.stack([component.stddev for component in components]),
    )


def log_category_by_hand(model: CatVAE, guide: Guide, x: Tensor) -> Tensor:
    """log q(c | x): (B, K)."""
    h = guide.encoder(x)
    if isinstance(guide, Enumerated):
        return log_softmax(guide.classifier(h), -1)
    log_p, means, scales = prior_by_hand(model.prior)
    mean, _ = split(guide.head(h))
    return log_softmax(log_p + log_normal(mean.unsqueeze(1), means, scales), -1)


def latent_by_hand(guide: Enumerated, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Mean and scale (B, D) of q(z | x, c = k)."""
    hidden = torch.relu(guide.from_x(guide.latent_encoder(x)) + guide.from_c.weight[k])
    return split(guide.head[1](hidden))


def bound_by_hand(model: CatVAE, guide: Guide, x: Tensor) -> dict[str, Tensor]:
    """The terms of the ELBO, category after category, for one draw of the noise."""
    log_p, means, scales = prior_by_hand(model.prior)
    terms = {name: torch.zeros(()) for name in ("reconstruction", "kl_z", "kl_c")}

    def log_likelihood(z: Tensor) -> Tensor:
        return model.decoder.likelihood(model.decoder.raw(z)).log_prob(x)

    if isinstance(guide, Bayes):
        mean, scale = split(guide.head(guide.encoder(x)))
        z = mean + scale * torch.randn(len(x), D)
        log_mixture = torch.logsumexp(log_p + log_normal(z.unsqueeze(1), means, scales), -1)
        terms["reconstruction"] = log_likelihood(z).sum()
        terms["kl_z"] = (log_normal(z, mean, scale) - log_mixture).sum()
        del terms["kl_c"]
        return terms

    log_q = log_category_by_hand(model, guide, x)
    for k, noise in enumerate(torch.randn(guide.categories, len(x), D)):
        mean, scale = latent_by_hand(guide, x, k)
        z = mean + scale * noise
        if model.kl == "analytic":
            kl = kl_normal(mean, scale, means[k], scales[k])
        else:
            kl = log_normal(z, mean, scale) - log_normal(z, means[k], scales[k])
        q = log_q[:, k].exp()
        terms["reconstruction"] = terms["reconstruction"] + (q * log_likelihood(z)).sum()
        terms["kl_z"] = terms["kl_z"] + (q * kl).sum()
        terms["kl_c"] = terms["kl_c"] + (q * (log_q[:, k] - log_p[k])).sum()
    return terms


def information_by_hand(model: CatVAE, guide: Guide, number: int) -> Tensor:
    """The information bound on ``number`` stratified draws, with the noise in generate's order."""
    log_p, means, scales = prior_by_hand(model.prior)
    points = (torch.arange(number) + torch.rand(())) / number
    # The category of a point is how many cumulated shares lie under it.
    c = (points.unsqueeze(1) > log_p.exp().cumsum(0)).sum(1)
    z = means[c] + scales[c] * torch.randn(number, D)
    x = model.decoder.likelihood(model.decoder.raw(z)).rsample()
    log_q = log_category_by_hand(model, guide, x)[torch.arange(number), c]
    # The gradient of an average over draws is the average of score times value.
    score = log_p[c] - log_p[c].detach()
    return (log_q + score * log_q.detach()).sum() - number * (log_p.exp() * log_p).sum()


def loss_by_hand(model: CatVAE, guide: Guide, x: Tensor, gamma: float) -> Loss:
    torch.manual_seed(1)
    bound = bound_by_hand(model, guide, x)
    loss = -bound["reconstruction"] + bound["kl_z"] + bound.get("kl_c", 0)
    if gamma:
        loss = loss - gamma * information_by_hand(model, guide, len(x))
    return with_gradients(loss, model, guide)


# The ways to the objective.


def with_gradients(loss: Tensor, model: CatVAE, guide: Guide) -> Loss:
    by_name = parameters(model, guide)
    gradients = torch.autograd.grad(loss, list(by_name.values()), allow_unused=True)
    return loss.detach(), {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(by_name.items(), gradients, strict=True)
    }


def through_loss(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    torch.manual_seed(1)
    return with_gradients(objective.differentiable_loss(model, guide, x), model, guide)


def through_module(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    module = objective(model, guide)
    assert {*module.parameters()} == {*parameters(model, guide).values()}
    torch.manual_seed(1)
    loss = module(x)
    loss.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters(model, guide).items()
    }
    module.zero_grad()
    return loss.detach(), gradients


def through_svi(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    """Gradients read off one step of plain gradient descent with rate 1."""
    by_name = parameters(model, guide)
    before = {name: parameter.detach().clone() for name, parameter in by_name.items()}
    torch.manual_seed(1)
    loss = SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective).step(x)
    gradients = {name: before[name] - by_name[name].detach() for name in by_name}
    # For the next way: the step is taken back.
    with torch.no_grad():
        for name, parameter in by_name.items():
            parameter.copy_(before[name])
    return torch.tensor(loss), gradients


WAYS = {"loss": through_loss, "module": through_module, "svi": through_svi}


def assert_same(ours: Loss, expected: Loss, way: str = "loss") -> None:
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-9, atol=0, msg=lambda m: f"{way}: {m}")
    assert ours[1].keys() == expected[1].keys()
    largest = max(gradient.abs().max() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        # What cancels to nearly nothing is held to the size of the whole gradient.
        torch.testing.assert_close(
            ours[1][name],
            gradient,
            rtol=1e-9,
            atol=1e-11 * float(largest),
            msg=lambda m, name=name: f"{way}, gradient of {name}: {m}",
        )


def assert_every_way(model: CatVAE, guide: Guide, x: Tensor, gamma: float) -> None:
    by_hand = loss_by_hand(model, guide, x, gamma)
    for direct in (False, True):
        for name, way in WAYS.items():
            ours = way(InfoCatELBO(gamma, direct=direct), model, guide, x)
            assert_same(ours, by_hand, f"{name}, direct={direct}")


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("guide", ["enumerated", "shared"])
@pytest.mark.parametrize("prior", PRIORS)
def test_enumerated_sum(prior: str, guide: str, likelihood: str, kl: str) -> None:
    """Loss and gradients, through every way, are those of the loop over categories."""
    assert_every_way(*make_world(prior, guide, likelihood, kl=kl), gamma=0.7)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("guide", ["enumerated", "shared"])
def test_enumerated_sum_without_information(guide: str, kl: str) -> None:
    assert_every_way(*make_world("mixture", guide, kl=kl), gamma=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("prior", PRIORS)
def test_marginal_sum(prior: str, likelihood: str) -> None:
    """With c left out of the guide the model's prior on z is log sum_c p(c) p(z | c)."""
    assert_every_way(*make_world(prior, "bayes", likelihood, kl="sampled"), gamma=0.7)


# Bayes has no analytic KL: its prior is the mixture.
@pytest.mark.parametrize(
    ("guide", "kl"),
    [
        ("enumerated", "analytic"),
        ("enumerated", "sampled"),
        ("shared", "analytic"),
        ("shared", "sampled"),
        ("bayes", "sampled"),
    ],
)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("network", ["convolutional", "recurrent"])
def test_images(network: str, likelihood: str, guide: str, kl: str) -> None:
    assert_every_way(*make_world("orthogonal", guide, likelihood, network, kl), gamma=0.7)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
@pytest.mark.parametrize("prior", PRIORS)
def test_sampled_bound_is_that_of_pyro(prior: str, guide: str, direct: bool, way: str) -> None:
    """CatVAE with a sampled KL is TraceEnum_ELBO itself."""
    world = make_world(prior, guide, kl="sampled")
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1), *world)
    assert_same(WAYS[way](InfoCatELBO(0, direct=direct), *world), plain)


RELAXED: dict[str, Callable[..., Relaxed]] = {
    "soft": SoftCode,
    "gumbel": lambda *arguments, **options: Gumbel(*arguments, **options, temperature=0.7),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("relaxed", RELAXED)
def test_relaxed_sum(relaxed: str, shared: bool) -> None:
    """One decoding of the mixed code; the KLs as in the bound."""
    model, _, x = make_world("weighted")
    guide = RELAXED[relaxed](encoder(), K, D, hidden=5, shared=shared)
    torch.manual_seed(1)
    log_q = log_category_by_hand(model, guide, x)
    weights = log_q.exp()
    if relaxed == "gumbel":
        noise = -torch.empty(B, K).exponential_().log()
        weights = torch.softmax((log_q + noise) / 0.7, -1)
    log_p, means, scales = prior_by_hand(model.prior)
    loss, mixed, log_scale = torch.zeros(()), torch.zeros(B, D), torch.zeros(B, D)
    for k in range(K):
        mean, scale = latent_by_hand(guide, x, k)
        mixed = mixed + weights[:, k : k + 1] * mean
        log_scale = log_scale + weights[:, k : k + 1] * scale.log()
        kl = kl_normal(mean, scale, means[k], scales[k]) + log_q[:, k] - log_p[k]
        loss = loss + (log_q[:, k].exp() * kl).sum()
    z = mixed + log_scale.exp() * torch.randn(B, D)
    loss = loss - model.decoder(z).log_prob(x).sum()
    loss = loss - 0.7 * information_by_hand(model, guide, B)
    by_hand = with_gradients(loss, model, guide)
    for name, way in WAYS.items():
        assert_same(way(InfoCatELBO(0.7), model, guide, x), by_hand, name)

    # Evaluation goes without the relaxation.
    torch.manual_seed(1)
    expected = bound_by_hand(model, guide, x)
    torch.manual_seed(1)
    terms = direct_terms(model, guide.posterior(x), x)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, rtol=1e-9, atol=0)


class Own(Guide):
    """A user's guide: ``posterior`` alone."""

    def __init__(self) -> None:
        super().__init__(K)
        self.odds, self.latent = nn.Linear(X, K), nn.Linear(X + K, 2 * D)

    def posterior(self, x: Tensor) -> Posterior:
        def latent(c: Tensor) -> dist.Distribution:
            c, left = (
                nn.functional.one_hot(c, K).to(x),
                torch.broadcast_shapes(c.shape, x.shape[:-1]),
            )
            both = [x.expand(*left, X), c.expand(*left, K)]
            return normal(self.latent(torch.cat(both, -1)))

        return Posterior(dist.Categorical(logits=self.odds(x)), latent)


@pytest.mark.parametrize("way", WAYS)
def test_a_guide_of_ones_own_needs_posterior_alone(way: str) -> None:
    """Pyro's path and the direct one agree on it, and with Pyro's own bound."""
    model, _, x = make_world(kl="sampled")
    guide = Own()
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1), model, guide, x)
    for direct in (False, True):
        assert_same(WAYS[way](InfoCatELBO(0, direct=direct), model, guide, x), plain)


# Terms.


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
@pytest.mark.parametrize("gamma", [0, 0.7])
def test_terms_add_up(guide: str, gamma: float, direct: bool) -> None:
    model, guide, x = make_world("weighted", guide, kl="sampled")
    torch.manual_seed(1)
    expected = bound_by_hand(model, guide, x)
    if gamma:
        expected["information_bound"] = information_by_hand(model, guide, B)
    objective = InfoCatELBO(gamma, direct=direct)
    torch.manual_seed(1)
    loss = objective.differentiable_loss(model, guide, x)
    assert objective.terms.keys() == expected.keys()
    for name, term in expected.items():
        assert not objective.terms[name].requires_grad
        torch.testing.assert_close(objective.terms[name], term.detach(), rtol=1e-9, atol=0)
    information = gamma * objective.terms.get("information_bound", torch.zeros(()))
    total = elbo(objective.terms) + information
    torch.testing.assert_close(loss.detach(), -total, rtol=1e-9, atol=0)


@pytest.mark.parametrize("direct", [False, True])
def test_weights_anneal_terms(direct: bool) -> None:
    model, guide, x = make_world("weighted")
    objective = InfoCatELBO(0.7, direct=direct)
    objective.weights |= {"kl_z": 0.3, "kl_c": 0.0, "information_bound": 2.0}
    loss = objective.loss(model, guide, x)
    terms = {name: float(term) for name, term in objective.terms.items()}
    expected = -terms["reconstruction"] + 0.3 * terms["kl_z"] - 2 * terms["information_bound"]
    assert loss == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("direct", [False, True])
def test_loss_needs_no_gradients(direct: bool) -> None:
    model, guide, x = make_world("vamp")
    objective = InfoCatELBO(0.7, direct=direct)
    expected, _ = through_loss(objective, model, guide, x)
    torch.manual_seed(1)
    with torch.no_grad():
        loss = objective.loss(model, guide, x)
    assert isinstance(loss, float)
    assert loss == pytest.approx(float(expected), rel=1e-9)
    torch.manual_seed(1)
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective)
    assert svi.evaluate_loss(x) == pytest.approx(loss, rel=1e-9)
    assert all(parameter.grad is None for parameter in parameters(model, guide).values())


@pytest.mark.parametrize("direct", [False, True])
def test_loss_and_grads_adds_to_gradients(direct: bool) -> None:
    """As Pyro's losses do, so that a caller can accumulate batches."""
    model, guide, x = make_world()
    objective = InfoCatELBO(0.7, direct=direct)
    loss, gradients = through_loss(objective, model, guide, x)
    for _ in range(2):
        torch.manual_seed(1)
        assert objective.loss_and_grads(model, guide, x) == pytest.approx(float(loss), rel=1e-9)
    for name, parameter in parameters(model, guide).items():
        expected = 2 * gradients[name]
        grad = torch.zeros_like(expected) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-11)


REAL = {"marginal_entropy": 0.3, "conditional_entropy": 0.2, "consistency": 5.0}


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(-1)


@pytest.mark.parametrize("with_view", [False, True])
@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
def test_real_terms_by_hand(guide: str, direct: bool, with_view: bool) -> None:
    """Information between c and real examples, and the agreement of two views of them."""
    model, guide, x = make_world("weighted", guide, kl="sampled")
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


@pytest.mark.parametrize("term", [*REAL, "information_bound"])
def test_svi_trains_by_one_term_alone(term: str) -> None:
    """As a head start for the classifier does, with no weight on the bound."""
    model, guide, x = make_world()
    others = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0)
    objective = InfoCatELBO(0, weights=others | {term: 1.0})
    before = guide.classifier.weight.detach().clone()
    SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective).step(x, view=1 - x)
    assert not torch.equal(guide.classifier.weight, before)


def test_real_terms_are_bounded() -> None:
    """H(mean q) <= log K, mean H(q) <= H(mean q), and a view of itself is consistent."""
    model, guide, x = make_world()
    objective = InfoCatELBO(0, weights=REAL)
    for scale in (1, 30):
        guide.classifier.weight.data.mul_(scale)
        objective.loss(model, guide, x, view=x)
        terms = {name: float(term) / B for name, term in objective.terms.items()}
        assert 0 <= terms["conditional_entropy"] < terms["marginal_entropy"] <= math.log(K)
        assert terms["consistency"] == pytest.approx(0, abs=1e-12)
        objective.loss(model, guide, x, view=1 - x)
        assert objective.terms["consistency"] > 0


# Particles.


def quadrature(model: CatVAE, guide: Guide, x: Tensor) -> Tensor:
    """Minus the ELBO in expectation over z, by Gauss-Hermite in D = 1, every category summed."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(60))
    log_q = guide.category(x).logits
    log_p, means, scales = prior_by_hand(model.prior)
    bound = torch.zeros(())
    for k in range(K):
        latent = guide.posterior(x).latent(torch.full((len(x),), k))
        z = latent.mean + latent.stddev * nodes.reshape(-1, 1, 1)
        log_likelihood = model.decoder(z).log_prob(x)
        expected = (weights / weights.sum()) @ log_likelihood
        kl = kl_normal(latent.mean, latent.stddev, means[k], scales[k])
        bound = bound + (log_q[:, k].exp() * (expected - kl - log_q[:, k] + log_p[k])).sum()
    return -bound


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(
    ("vectorize", "direct"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_particles_are_unbiased(vectorize: bool, direct: bool, kl: str) -> None:
    """Loss, and gradient along one direction, average to their expectation over z.

    30 repeats: |t| with 29 degrees of freedom exceeds 6 with probability 1.6e-6.
    """
    # A linear decoder is smooth in z, so that the quadrature is exact.
    likelihood = likelihoods.Bernoulli()
    model = CatVAE(mixture_on_a_line(), decoders.MLP(1, X, likelihood, []), kl=kl)
    guide = Enumerated(encoder(), K, 1, hidden=5)
    x = torch.rand(B, X).round()
    exact = with_gradients(quadrature(model, guide, x), model, guide)
    direction = {name: torch.randn_like(gradient) for name, gradient in exact[1].items()}

    def project(loss: Loss) -> Tensor:
        slope = sum((direction[name] * gradient).sum() for name, gradient in loss[1].items())
        return torch.stack([loss[0], slope])

    objective = InfoCatELBO(0, 8, vectorize_particles=vectorize, direct=direct)
    draws = torch.stack(
        [
            project(with_gradients(objective.differentiable_loss(model, guide, x), model, guide))
            for _ in range(30)
        ]
    )
    t = (draws.mean(0) - project(exact)) / (draws.std(0) / math.sqrt(len(draws)))
    assert t.abs().max() < 6
    # The reference has to be sharp: the draws are within a few percent of the loss.
    assert draws[:, 0].std() < 0.1 * exact[0]


def mixture_on_a_line() -> priors.Mixture:
    prior = priors.Mixture(K, 1, weights=[1, 2, 3])
    nn.init.uniform_(prior.log_scale, -0.5, 0.5)
    return prior


@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
@pytest.mark.parametrize("network", NETWORKS)
def test_vectorised_particles_are_those_of_pyro(guide: str, network: str) -> None:
    """The same draws, (K, S, B, D), as TraceEnum_ELBO: the same number and gradients."""
    world = make_world("weighted", guide, network=network, kl="sampled")
    options = {"num_particles": 4, "vectorize_particles": True}
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1, **options), *world)
    assert_same(through_loss(InfoCatELBO(0, direct=False, **options), *world), plain)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("vectorize", [False, True])
def test_particles_leave_exact_terms_alone(vectorize: bool, direct: bool) -> None:
    """Closed-form KLs are the same for one particle and many."""
    model, guide, x = make_world("weighted")
    one = InfoCatELBO(0, direct=direct)
    many = InfoCatELBO(0, 7, vectorize_particles=vectorize, direct=direct)
    one.loss(model, guide, x)
    many.loss(model, guide, x)
    for name in ("kl_z", "kl_c"):
        torch.testing.assert_close(many.terms[name], one.terms[name], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_particles_by_hand(kl: str) -> None:
    """Each draw counts, and counts the same."""
    model, guide, x = make_world("weighted", kl=kl)
    posterior = guide.posterior(x)
    torch.manual_seed(1)
    found = direct_terms(model, posterior, x, particles=4)
    torch.manual_seed(1)
    q = posterior.category.probs
    every = torch.arange(K).unsqueeze(-1)
    latent, component = posterior.latent(every), model.prior.component(every)
    z = latent.mean + latent.stddev * torch.randn(4, K, B, D)
    fit = torch.stack([model.decoder(draw).log_prob(x) for draw in z]).mean(0)
    torch.testing.assert_close(found["reconstruction"], (q.mT * fit).sum(), rtol=1e-9, atol=0)
    if kl == "sampled":
        cost = torch.stack([latent.log_prob(draw) - component.log_prob(draw) for draw in z])
        torch.testing.assert_close(found["kl_z"], (q.mT * cost.mean(0)).sum(), rtol=1e-9, atol=0)


# The information bound.


STATES = 8
"""x has 3 binary features in the exact case."""


def small_world() -> tuple[CatVAE, Tensor, Tensor]:
    """A model with D = 2 and 8 states of x, its p(c) p(x | c) (K, 8), and the states (8, 3).

    p(x | c) is integrated over z with the trapezoid rule.
    """
    prior = priors.Simplex(K, 2, scale=2, weights=[1, 2, 3])
    model = CatVAE(prior, decoders.MLP(2, 3, likelihoods.Bernoulli(), [8]))
    with torch.no_grad():
        # A fresh decoder hardly looks at z: there would be no information to bound.
        model.decoder.network[-1].weight.mul_(8)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    axis = torch.linspace(-9, 9, 121)
    z = torch.cartesian_prod(axis, axis)
    volume = float(axis[1] - axis[0]) ** 2
    with torch.no_grad():
        p_x = model.decoder(z.unsqueeze(1)).log_prob(states).exp()
        p_z = torch.exp(-(torch.cdist(prior.modes, z) ** 2) / 2) / (2 * math.pi) * volume
        joint = torch.tensor([1.0, 2, 3]).unsqueeze(1) / 6 * (p_z @ p_x)
    torch.testing.assert_close(joint.sum(), torch.tensor(1.0), rtol=0, atol=1e-9)
    return model, joint, states


class Table(nn.Module):
    """A critic that looks q(c | x) up: log_q (8, K)."""

    def __init__(self, log_q: Tensor) -> None:
        super().__init__()
        self.log_q = log_q

    def critic(self, x: Tensor) -> dist.Categorical:
        state = x @ torch.tensor([4.0, 2, 1])
        return dist.Categorical(logits=self.log_q[state.round().long()])


def mutual_information(joint: Tensor) -> float:
    independent = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    return float((joint * (joint / independent).log()).sum())


def average_bound(model: CatVAE, guide: Any) -> tuple[float, float]:
    """The information bound of an example and its standard error, from 40 batches of 500."""
    with torch.no_grad():
        draws = torch.stack([information_bound(model, guide, 500) / 500 for _ in range(40)])
    return float(draws.mean()), float(draws.std()) / math.sqrt(len(draws))


def test_information_bound_is_tight_for_the_true_posterior() -> None:
    """With q = p(c | x) the bound is I(c; x): |t| of 39 degrees exceeds 5.5 once in 4e5 seeds."""
    model, joint, _ = small_world()
    information = mutual_information(joint)
    assert 0.1 < information < math.log(K)
    mean, error = average_bound(model, Table((joint / joint.sum(0)).log().mT))
    assert abs(mean - information) < 5.5 * error
    assert error < 0.02


@pytest.mark.parametrize("seed", range(4))
def test_information_bound_of_any_classifier(seed: int) -> None:
    """It falls short of I(c; x) by E KL(p(c | x) || q(c | x)), so it is never above."""
    torch.manual_seed(seed)
    model, joint, states = small_world()
    guide = Enumerated(lambda: enc.MLP(3, [6]), K, 2, hidden=5)
    with torch.no_grad():
        log_q = guide.category(states).logits.mT
        gap = float((joint * ((joint / joint.sum(0)).log() - log_q)).sum())
    information = mutual_information(joint)
    mean, error = average_bound(model, guide)
    assert gap > 0
    assert abs(mean - (information - gap)) < 5.5 * error
    assert mean < information + 5.5 * error


def test_training_the_bound_approaches_the_information() -> None:
    """Raising the bound by the classifier alone brings it near I(c; x) from below.

    Of 14 seeds the widest gap was 0.009.
    """
    model, joint, states = small_world()
    guide = Enumerated(lambda: enc.MLP(3, [16]), K, 2, hidden=5)
    optimiser = torch.optim.Adam(guide.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        (-information_bound(model, guide, 200)).backward()
        optimiser.step()
    with torch.no_grad():
        log_q = guide.category(states).logits.mT
        gap = float((joint * ((joint / joint.sum(0)).log() - log_q)).sum())
    assert 0 <= gap < 0.05


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_information_bound_trains_decoder_and_classifier(likelihood: str) -> None:
    model, guide, _ = make_world("mixture", "shared", likelihood)
    information_bound(model, guide, 100).backward()
    assert model.prior.mean.grad.abs().max() > 0
    for module in (model.decoder, guide.encoder, guide.classifier):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


# SVI and other Pyro programs.


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
def test_a_second_model_of_the_same_name_trains(guide: str, direct: bool) -> None:
    """And leaves the first, whose names Pyro's store holds, as it was."""
    worlds = [make_world(guide=guide, kl="sampled") for _ in range(2)]
    for model, q, x in worlds:
        before = {name: p.detach().clone() for name, p in parameters(model, q).items()}
        others = [p for w in worlds if w[0] is not model for p in parameters(*w[:2]).values()]
        others_before = [p.detach().clone() for p in others]
        svi = SVI(model, q, pyro.optim.Adam({"lr": 0.1}), InfoCatELBO(0.7, direct=direct))
        for _ in range(2):
            svi.step(x)
        for name, parameter in parameters(model, q).items():
            assert not torch.equal(parameter, before[name]), name
        for parameter, value in zip(others, others_before, strict=True):
            assert torch.equal(parameter, value)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("gamma", [0, 1.0])
def test_training_lowers_the_loss(gamma: float, direct: bool) -> None:
    """By SVI, from its own start, on a batch that two categories explain.

    Of 14 seeds the highest loss was 0.68 of the first.
    """
    model, guide, _ = make_world()
    x = torch.tensor([[0.0] * X, [1.0] * X]).repeat(10, 1)
    objective = InfoCatELBO(gamma, direct=direct)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), objective)
    start = objective.loss(model, guide, x)
    for _ in range(60):
        svi.step(x)
    assert objective.loss(model, guide, x) < 0.8 * start


def plain_model(kl: str) -> Callable[[Tensor], None]:
    """p(c) p(z | c) p(x | z) without a module, under names of its own."""

    def program(x: Tensor) -> None:
        modes = pyro.param("modes", lambda: torch.randn(K, D))
        weight = pyro.param("weight", lambda: torch.randn(X, D))
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(logits=torch.tensor([0.1, 0.2, 0.3])))
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1), infer={"kl": kl})
            mean = code @ weight.mT
            pyro.sample("image", dist.Normal(mean, 0.5).to_event(1), obs=x)

    return program


def plain_guide(x: Tensor) -> None:
    odds = pyro.param("odds", lambda: torch.randn(X, K))
    mean = pyro.param("mean", lambda: torch.randn(K, X, D))
    scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
    with pyro.plate("images", len(x)):
        kind = pyro.sample(
            "kind", dist.Categorical(logits=x @ odds), infer={"enumerate": "parallel"}
        )
        centre = (x.unsqueeze(-2) @ mean[kind]).squeeze(-2)
        pyro.sample("code", dist.Normal(centre, scale).to_event(1))


MASK = torch.tensor([True, True, False, True, False])
HANDLERS: dict[str, tuple[Callable, list[float]]] = {
    "none": (lambda program: program, [1.0] * B),
    "scale": (poutine.scale(scale=2.5), [2.5] * B),
    "mask": (poutine.mask(mask=MASK), [1.0, 1, 0, 1, 0]),
}
"""What Pyro's users wrap programs in, and how much each of the B examples then counts."""


def plain_loss_by_hand(x: Tensor, kl: str, counts: Tensor) -> Tensor:
    """Minus the bound of the plain program, each example as often as it counts."""
    value = {name: pyro.param(name) for name in ("modes", "weight", "odds", "mean", "scale")}
    log_q = log_softmax(x @ value["odds"], -1)
    log_p = log_softmax(torch.tensor([0.1, 0.2, 0.3]), 0)
    scale, unit = value["scale"].expand(D), torch.ones(D)
    bound = torch.zeros(len(x))
    for k, noise in enumerate(torch.randn(K, len(x), D)):
        centre = x @ value["mean"][k]
        z = centre + scale * noise
        if kl == "analytic":
            cost = kl_normal(centre, scale, value["modes"][k], unit)
        else:
            cost = log_normal(z, centre, scale) - log_normal(z, value["modes"][k], unit)
        fit = log_normal(x, z @ value["weight"].mT, torch.full((X,), 0.5))
        bound = bound + log_q[:, k].exp() * (fit - cost - log_q[:, k] + log_p[k])
    return -(bound * counts).sum()


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
    torch.testing.assert_close(-elbo(objective.terms), expected.detach(), rtol=1e-9, atol=0)


def test_a_chain_of_analytic_kls() -> None:
    """Of two latents the second hangs on the first, in the model and in the guide."""
    modes, means = torch.randn(K, D), torch.randn(K, D)
    odds = torch.tensor([0.1, 0.2, 0.7])

    def model(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(odds.flip(0)))
            analytic = {"kl": "analytic"}
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1), infer=analytic)
            shade = pyro.sample("shade", dist.Normal(code, 2).to_event(1), infer=analytic)
            pyro.sample("image", dist.Normal(shade, 1).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(odds), infer={"enumerate": "parallel"})
            code = pyro.sample("code", dist.Normal(x + means[kind], 0.5).to_event(1))
            pyro.sample("shade", dist.Normal(code / 2, 0.7).to_event(1))

    x = torch.randn(B, D)
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(model, guide, x)
    torch.manual_seed(1)
    code = x + means.unsqueeze(1) + 0.5 * torch.randn(K, B, D)
    shade = code / 2 + 0.7 * torch.randn(K, B, D)
    unit = torch.ones(D)
    costs = (
        kl_normal(x + means.unsqueeze(1), 0.5 * unit, modes.unsqueeze(1), unit)
        + kl_normal(code / 2, 0.7 * unit, code, 2 * unit)
        + (odds / odds.flip(0)).log().unsqueeze(-1)
    )
    expected = odds @ (log_normal(x, shade, unit) - costs)
    assert loss == pytest.approx(-expected.sum().item(), rel=1e-9)


def assert_equals_pyro(model: Callable, guide: Callable, x: Tensor) -> None:
    """The loss is that of TraceEnum_ELBO under the same noise."""
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(model, guide, x)
    torch.manual_seed(1)
    plain = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    assert loss == pytest.approx(plain.loss(model, guide, x), rel=1e-9)


def test_an_analytic_kl_is_not_asked_of_what_is_observed() -> None:
    """A condition on the code leaves its likelihood to count."""

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    model = poutine.condition(plain_model("analytic"), {"code": torch.randn(B, D)})
    assert_equals_pyro(model, guide, torch.randn(B, X))


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
    """The image hangs on a kind that the guide leaves out, the code does not."""
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
    assert elbo(objective.terms).item() == pytest.approx(-loss, rel=1e-9)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_handler_around_the_loss_is_heeded(handler: str) -> None:
    """Written out, the sum would pass it by."""
    model, guide, x = make_world(kl="sampled")
    wrap, _ = HANDLERS[handler]
    losses = []
    for objective in (InfoCatELBO(0), TraceEnum_ELBO(max_plate_nesting=1)):
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), objective)
        for work in (svi.step, svi.evaluate_loss):
            torch.manual_seed(1)
            losses.append(wrap(work)(x))
    assert losses == pytest.approx(losses[-1:] * 4, rel=1e-9)


COUNTED: dict[str, tuple[Callable, Tensor]] = {
    "masked and scaled": (
        lambda program: poutine.mask(poutine.scale(program, 3.0), mask=MASK),
        3.0 * MASK,
    ),
    "scaled one by one": (
        lambda program: poutine.scale(program, torch.linspace(0.5, 2, B)),
        torch.linspace(0.5, 2, B),
    ),
    "masked as a whole": (lambda program: poutine.mask(program, mask=False), torch.zeros(B)),
}


@pytest.mark.parametrize(("wrap", "counts"), COUNTED.values(), ids=COUNTED)
def test_an_analytic_kl_counts_as_often_as_its_site(wrap: Callable, counts: Tensor) -> None:
    x = torch.randn(B, X)
    objective = InfoCatELBO(0)
    torch.manual_seed(1)
    objective.loss(plain_model("analytic"), plain_guide, x)
    torch.manual_seed(1)
    loss = objective.loss(wrap(plain_model("analytic")), wrap(plain_guide), x)
    torch.manual_seed(1)
    assert loss == pytest.approx(plain_loss_by_hand(x, "analytic", counts).item(), rel=1e-9)


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda program: poutine.scale(program, 0.1), "scale"),
        (lambda program: poutine.mask(program, mask=MASK), "mask"),
    ],
)
def test_no_analytic_kl_where_the_model_alone_counts_otherwise(wrap: Callable, kind: str) -> None:
    said = f"site 'code': no analytic KL while its {kind} in the guide is not the model's"
    with pytest.raises(ValueError, match=said):
        InfoCatELBO(0).loss(wrap(plain_model("analytic")), plain_guide, torch.randn(B, X))


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
    for objective in (
        InfoCatELBO(0, num_particles=2),
        TraceEnum_ELBO(2, 1, strict_enumeration_warning=False),
    ):
        torch.manual_seed(1)
        losses.append(objective.loss(model, guide, *arguments, **named))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_plain_pyro_programs_train_by_svi() -> None:
    """Of 14 seeds the highest ratio of losses was 0.17."""
    x = torch.randn(20, X)
    objective = InfoCatELBO(information_weight=0)
    svi = SVI(plain_model("analytic"), plain_guide, pyro.optim.Adam({"lr": 0.05}), objective)
    losses = [svi.step(x) for _ in range(100)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


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


@pytest.mark.parametrize("method", ["loss", "bound_terms"])
@pytest.mark.parametrize("given", ["by name", "in place", "nothing"])
def test_what_a_program_does_not_take_is_not_passed_over(method: str, given: str) -> None:
    model, guide, x = make_world()
    named = {"y": x} if given == "by name" else {}
    arguments = {"by name": [x], "in place": [x, x], "nothing": []}[given]
    with pytest.raises(TypeError, match="forward"):
        getattr(InfoCatELBO(0), method)(model, guide, *arguments, **named)


@pytest.mark.parametrize("guide", ["enumerated", "shared", "bayes"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_predictive(likelihood: str, guide: str) -> None:
    """Posterior predictive draws, x drawn anew."""
    model, guide, x = make_world("weighted", guide, likelihood)
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


# Errors.


def expect(error: type[Exception], message: str) -> Any:
    """The message from its start; Pyro puts the shapes of a failed trace after it."""
    return pytest.raises(error, match=f"^{re.escape(message)}")


def test_negative_weights() -> None:
    message = "the weight of information_bound must not be negative, not -0.5"
    with expect(ValueError, message):
        InfoCatELBO(-0.5)
    with expect(ValueError, "the weight of kl_z must not be negative, not nan"):
        InfoCatELBO(weights={"kl_z": math.nan})


def test_unknown_weight() -> None:
    with expect(ValueError, "no term 'kl' to weigh; there are reconstruction, kl_z, kl_c,"):
        InfoCatELBO(weights={"kl": 1.0})


@pytest.mark.parametrize("word", ["exact", None])
def test_unknown_kl(word: Any) -> None:
    message = f"site 'code': infer kl must be 'analytic' or 'sampled', not {word!r}"
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model(word), plain_guide, torch.randn(B, X))


@pytest.mark.parametrize("direct", [False, True])
def test_unknown_kl_of_the_model(direct: bool) -> None:
    """Said where the model is made or at the first bound, on either path."""

    def evaluate() -> None:
        InfoCatELBO(0, direct=direct).loss(*make_world(kl="exakt"))

    with pytest.raises(ValueError, match="kl must be 'analytic' or 'sampled', not 'exakt'"):
        evaluate()


def test_analytic_kl_of_a_marginalised_category() -> None:
    message = (
        "site 'z': no analytic KL while the model sums out 'c'; "
        "use kl='sampled', or a guide that samples it"
    )
    world = make_world(guide="bayes", kl="analytic")
    with expect(ValueError, message):
        InfoCatELBO(0).loss(*world)


def test_analytic_kl_where_the_guide_draws_the_parent_later() -> None:
    def backwards(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            code = pyro.sample("code", dist.Normal(x[:, :D], 1).to_event(1))
            odds = dist.Categorical(logits=code)
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    message = (
        "site 'code': no analytic KL while the guide draws 'kind' after it; "
        "use kl='sampled', or draw it first"
    )
    x = torch.randn(B, X)
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model("analytic"), backwards, x)
    # The way out that the message names.
    assert_equals_pyro(plain_model("sampled"), backwards, x)


@pytest.mark.parametrize("event_dims", [0, 1])
def test_analytic_kl_of_an_unregistered_pair(event_dims: int) -> None:
    """The message names the two distributions, not what wraps them."""

    def model(kl: str) -> Callable[[Tensor], None]:
        def program(x: Tensor) -> None:
            standard = dist.Normal(torch.zeros_like(x), 1).to_event(event_dims)
            with pyro.plate("images", B):
                code = pyro.sample("code", standard, infer={"kl": kl})
                pyro.sample("image", dist.Normal(code, 1).to_event(event_dims), obs=x)

        return program

    def guide(x: Tensor) -> None:
        with pyro.plate("images", B):
            pyro.sample("code", dist.StudentT(5.0, x).to_event(event_dims))

    x = torch.randn([B, D][: event_dims + 1])
    message = "site 'code': no analytic KL between StudentT and Normal; use kl='sampled'"
    with expect(ValueError, message):
        InfoCatELBO(0).loss(model("analytic"), guide, x)
    assert_equals_pyro(model("sampled"), guide, x)


def test_analytic_kl_of_a_guide_that_is_not_reparameterised() -> None:
    def guide(x: Tensor) -> None:
        code = NonreparameterizedNormal(x[:, :D], torch.ones(D)).to_event(1)
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.ones(K))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})
            pyro.sample("code", code)

    message = "site 'code': an analytic KL needs a reparameterised guide, not "
    x = torch.randn(B, X)
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model("analytic"), guide, x)
    assert_equals_pyro(plain_model("sampled"), guide, x)


# Pyro warns of it too, on its way to the error.
@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
def test_analytic_kl_of_a_site_that_the_guide_lacks() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.ones(K))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    with expect(ValueError, "site 'code': an analytic KL needs the site in the guide too"):
        InfoCatELBO(0).loss(plain_model("analytic"), guide, torch.randn(B, X))


@pytest.mark.parametrize("missing", ["generate", "prior", "critic"])
def test_information_bound_says_what_it_needs(missing: str) -> None:
    model, guide, x = make_world(kl="sampled")
    message = (
        "the information bound needs model.generate(number), model.prior and guide.critic(x), "
        "as models.CatVAE and guides.guide.Guide have them; information_weight=0 needs none"
    )

    def program(x: Tensor) -> Tensor:
        """Runs the model, without its methods."""
        return model(x)

    def inference(x: Tensor) -> None:
        """Runs the guide, without its methods."""
        guide(x)

    pair = (program, guide) if missing == "generate" else (model, inference)
    with expect(TypeError, message):
        InfoCatELBO(0.1).loss(*pair, x)
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(*pair, x)
    assert loss == pytest.approx(float(loss_by_hand(model, guide, x, 0)[0]), rel=1e-9)
