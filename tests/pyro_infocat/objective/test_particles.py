"""Several draws of z for each category and example.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math

import numpy as np
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from guides import Enumerated
from guides.guide import Guide
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective.bound import direct_terms
from tests.pyro_infocat.objective.by_hand import kl_normal, prior_by_hand
from tests.pyro_infocat.objective.programs import NETWORKS, B, D, K, X, encoder, make_programs
from tests.pyro_infocat.objective.ways import Loss, assert_same, through_loss, with_gradients

pytestmark = pytest.mark.usefixtures("double")


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


def mixture_on_a_line() -> priors.Mixture:
    prior = priors.Mixture(K, 1, weights=[1, 2, 3])
    nn.init.uniform_(prior.log_scale, -0.5, 0.5)
    return prior


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize(
    ("vectorize", "direct"),
    [
        pytest.param(False, False, marks=pytest.mark.slow),
        (True, False),
        (False, True),
        (True, True),
    ],
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


@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
@pytest.mark.parametrize("network", NETWORKS)
def test_vectorised_particles_are_those_of_pyro(guide: str, network: str) -> None:
    """The same draws, (K, S, B, D), as TraceEnum_ELBO: the same number and gradients."""
    programs = make_programs("weighted", guide, network=network, kl="sampled")
    options = {"num_particles": 4, "vectorize_particles": True}
    plain = through_loss(TraceEnum_ELBO(max_plate_nesting=1, **options), *programs)
    assert_same(through_loss(InfoCatELBO(0, direct=False, **options), *programs), plain)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("vectorize", [False, True])
def test_particles_leave_exact_terms_alone(vectorize: bool, direct: bool) -> None:
    """Closed-form KLs are the same for one particle and many."""
    model, guide, x = make_programs("weighted")
    one = InfoCatELBO(0, direct=direct)
    many = InfoCatELBO(0, 7, vectorize_particles=vectorize, direct=direct)
    one.loss(model, guide, x)
    many.loss(model, guide, x)
    for name in ("kl_z", "kl_c"):
        torch.testing.assert_close(many.terms[name], one.terms[name], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_particles_by_hand(kl: str) -> None:
    """Each draw counts, and counts the same."""
    model, guide, x = make_programs("weighted", kl=kl)
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
