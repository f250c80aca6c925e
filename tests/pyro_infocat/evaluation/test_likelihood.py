"""The bound and log p(x) against quadrature, exact posteriors and closed forms."""

import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from guides import Bayes, Enumerated, encoders
from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.evaluation import likelihood
from pyro_infocat.evaluation.likelihood import importance_weights, log_likelihood, mean_terms
from pyro_infocat.objective import elbo_of


class Plain(likelihoods.Likelihood):
    """x = raw + noise of standard deviation 0.7."""

    scale = 0.7

    def forward(self, raw: Tensor) -> dist.Distribution:
        return dist.Normal(raw.squeeze(-1), self.scale).to_event(1)


class Linear(decoders.Decoder):
    """raw = W z + b."""

    def __init__(self, latent: int, features: int) -> None:
        super().__init__(Plain())
        self.map = nn.Linear(latent, features)

    def raw(self, z: Tensor) -> Tensor:
        return self.map(z).unsqueeze(-1)


class Exact(Guide):
    """p(c, z | x) of a mixture prior and a linear decoder."""

    def __init__(self, prior: priors.FixedModes, decoder: Linear) -> None:
        super().__init__(prior.categories)
        self.weight, self.bias = decoder.map.weight.detach(), decoder.map.bias.detach()
        self.prior, self.noise = prior, Plain.scale**2

    def marginal(self) -> dist.Distribution:
        """p(x | c), batch shape (K,)."""
        eye = torch.eye(len(self.bias))
        mean = self.prior.modes @ self.weight.T + self.bias
        return dist.MultivariateNormal(mean, self.noise * eye + self.weight @ self.weight.T)

    def posterior(self, x: Tensor) -> Posterior:
        precision = torch.eye(self.prior.latent) + self.weight.T @ self.weight / self.noise
        pull = (x - self.bias) @ self.weight / self.noise
        logits = self.prior.category().logits + self.marginal().log_prob(x.unsqueeze(-2))

        def latent(c: Tensor) -> dist.Distribution:
            mean = torch.linalg.solve(precision, (self.prior.modes[c] + pull).unsqueeze(-1))
            return dist.MultivariateNormal(mean.squeeze(-1), precision_matrix=precision)

        return Posterior(dist.Categorical(logits=logits), latent)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("categories", "latent"), [(1, 1), (3, 2), (4, 5)])
def test_under_the_true_posterior_every_weight_is_the_likelihood(
    categories: int, latent: int
) -> None:
    weights = [1.0 + c for c in range(categories)]
    prior = priors.FixedModes(2 * torch.randn(categories, latent), weights)
    decoder = Linear(latent, 3)
    model, guide = CatVAE(prior, decoder), Exact(prior, decoder)
    x = torch.randn(7, 3)
    expected = (prior.category().logits + guide.marginal().log_prob(x.unsqueeze(1))).logsumexp(-1)
    with torch.no_grad():
        found = importance_weights(model, guide, x, 11)
        assert found.shape == (11, 7)
        torch.testing.assert_close(found, expected.expand(11, -1), rtol=1e-9, atol=1e-9)
        for samples in (1, 5):
            found = log_likelihood(model, guide, x, samples)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def crooked(latent: int, bayes: bool = False) -> tuple[CatVAE, Guide, Tensor]:
    """A small random model with a nonlinear decoder, an untrained guide and x (5, 4) of 0 and 1."""
    prior = priors.FixedModes(1.5 * torch.randn(3, latent), [1.0, 2.0, 3.0])
    decoder = decoders.MLP(latent, 4, likelihoods.Bernoulli(), [6])
    encoder = partial(encoders.MLP, 4, [6])
    guide = Bayes(encoder, prior, latent) if bayes else Enumerated(encoder, 3, latent, 6)
    for name, parameter in guide.named_parameters():
        if name.startswith("head") and name.endswith("bias"):
            # Wider than the prior, so that the weights have a variance.
            parameter.data[latent:] += 1
    return CatVAE(prior, decoder), guide, torch.randint(2, (5, 4)).double()


def quadrature(model: CatVAE, x: Tensor, points: int) -> Tensor:
    """log p(x) (B,) by the trapezoid rule on a grid that reaches 9 deviations past the modes."""
    axis = torch.linspace(-15, 15, points)
    latent = model.prior.latent
    z = torch.cartesian_prod(*[axis] * latent).reshape(-1, latent)
    joint = model.prior.log_prob(z) + model.decoder(z).log_prob(x.unsqueeze(1))
    return joint.logsumexp(-1) + latent * math.log(30 / (points - 1))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "bayes", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["enumerated", "bayes"]
)
@pytest.mark.parametrize(
    ("latent", "points"), [(1, 20_001), pytest.param(2, 401, marks=pytest.mark.slow)]
)
def test_the_log_likelihood_reaches_quadrature(latent: int, points: int, bayes: bool) -> None:
    samples = 40_000
    with torch.no_grad():
        model, guide, x = crooked(latent, bayes)
        exact = quadrature(model, x, points)
        torch.testing.assert_close(quadrature(model, x, 2 * points - 1), exact, rtol=0, atol=1e-7)
        weights = (importance_weights(model, guide, x, samples) - exact).exp()
        # The mean weight is p(x). Five standard errors: one of 350,000 seeds fails in 5 examples.
        error = weights.std(0) / samples**0.5
        assert error.max() < 0.05
        assert ((weights.mean(0) - 1).abs() < 5 * error).all()
        found = log_likelihood(model, guide, x, samples)
        assert ((found - exact).abs() < 6 * error).all()


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_more_samples_raise_the_bound_towards_the_likelihood() -> None:
    with torch.no_grad():
        model, guide, x = crooked(2)
        exact = quadrature(model, x, 401)
        means, errors = [], []
        for samples in (1, 10, 100):
            bounds = log_likelihood(model, guide, x.repeat(4000, 1), samples).view(4000, 5).mean(1)
            means.append(bounds.mean())
            errors.append(bounds.std() / 4000**0.5)
    # Each gap is at least six standard errors wide: by chance, fewer than one of 1e9 seeds.
    for before, after in ((0, 1), (1, 2)):
        assert means[after] - means[before] > 6 * (errors[before] + errors[after])
    assert means[2] < exact.mean() + 5 * errors[2]
    assert exact.mean() - means[2] < (exact.mean() - means[0]) / 3


@pytest.mark.usefixtures("double")
def test_one_sample_is_on_average_the_elbo_with_c_summed_out() -> None:
    """log p(x, z) - log q(z | x) is at least the bound that also pays for c."""
    with torch.no_grad():
        model, guide, x = crooked(2)
        many = x.repeat(4000, 1)
        single = log_likelihood(model, guide, many, 1)
        bound = elbo_of(mean_terms(model, guide, many))
    # Six standard errors of 20,000 draws: by chance, fewer than one of 1e8 seeds.
    assert single.mean() - bound > 6 * single.std() / len(single) ** 0.5


@pytest.mark.usefixtures("double")
def test_chunks_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = priors.FixedModes(2 * torch.randn(3, 2))
    decoder = Linear(2, 3)
    model, guide = CatVAE(prior, decoder), Exact(prior, decoder)
    x = torch.randn(9, 3)
    with torch.no_grad():
        whole = log_likelihood(model, guide, x, 7)
        # Two examples at a time, three samples at a time, the last of each fewer.
        monkeypatch.setattr(likelihood, "SAMPLES_AT_ONCE", 3)
        monkeypatch.setattr(likelihood, "chunk_numbers", lambda x: 6 * 2 * 3)
        torch.testing.assert_close(log_likelihood(model, guide, x, 7), whole)


@pytest.mark.parametrize("features", [5, 50])
def test_no_tensor_of_every_category_is_larger_than_a_chunk(
    features: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of x, (K, B, X), nor of z, (K, B, D)."""
    prior = priors.Orthogonal(4, 5)
    model = CatVAE(prior, decoders.MLP(20, features, likelihoods.Gaussian(), [3]))
    guide = Enumerated(partial(encoders.MLP, features, [3]), 4, 20, 3)
    sizes: list[int] = []
    guide.head.register_forward_hook(lambda *of: sizes.append(of[-1].numel() // 2))
    model.decoder.register_forward_hook(lambda *of: sizes.append(of[-1].mean.numel()))
    monkeypatch.setattr(likelihood, "chunk_numbers", lambda x: 500)
    with torch.no_grad():
        mean_terms(model, guide, torch.rand(31, features))
    assert 250 < max(sizes) <= 500


@pytest.mark.usefixtures("double")
def test_mean_terms_are_means_over_examples() -> None:
    """1,700 examples in two parts, against the KLs of all of them at once."""
    with torch.no_grad():
        model, guide, _ = crooked(2)
        x = torch.randint(2, (1700, 4)).double()
        found = mean_terms(model, guide, x)
        category, latent = guide.posterior(x)
        every = torch.arange(3).unsqueeze(-1)
        kl_z = kl_divergence(latent(every), model.prior.component(every))
        expected = (
            (category.probs.mT * kl_z).sum(0).mean(),
            kl_divergence(category, model.prior.category().expand([1700])).mean(),
        )
    assert found["kl_z"] == pytest.approx(expected[0].item())
    assert found["kl_c"] == pytest.approx(expected[1].item())
    assert found["information_bound"] <= model.prior.category().entropy()
