"""Figures of the test split against hand-made tables, quadrature and exact posteriors."""

import math
from functools import partial

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.distributions import kl_divergence

from guides import Bayes, Enumerated, encoders
from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import evaluate
from pyro_infocat.data import DataSet, digits
from pyro_infocat.evaluate import (
    clustering,
    generation,
    importance_weights,
    judge,
    log_likelihood,
    mean_terms,
)
from pyro_infocat.terms import elbo

# Clustering.


def test_categories_that_are_permuted_labels_are_perfect() -> None:
    labels = np.repeat(np.arange(4), 25)
    found = clustering(labels, np.array([2, 0, 3, 1])[labels], 4)
    assert found == {"accuracy": 1, "purity": 1, "nmi": 1, "ari": 1, "clusters_used": 4}


def test_two_categories_of_one_label_are_pure_but_one_of_them_is_no_hit() -> None:
    labels = np.array([0] * 6 + [1] * 4)
    categories = np.array([0] * 4 + [1] * 2 + [2] * 4)
    found = clustering(labels, categories, 3)
    assert found["purity"] == 1
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["clusters_used"] == 3
    # One category for each label: H(label) = I, so nmi = 2 H(label) / (H(label) + H(category)).
    entropies = [-sum(p * math.log(p) for p in table) for table in ((0.6, 0.4), (0.4, 0.2, 0.4))]
    assert found["nmi"] == pytest.approx(2 * entropies[0] / sum(entropies))


def test_one_category_for_everything() -> None:
    found = clustering(np.array([0] * 6 + [1] * 4), np.zeros(10, dtype=int), 5)
    assert found == {
        "accuracy": pytest.approx(0.6),
        "purity": pytest.approx(0.6),
        "nmi": 0,
        "ari": 0,
        "clusters_used": 1,
    }


def test_fewer_categories_than_labels() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    found = clustering(labels, np.array([1, 1, 1, 1, 1, 0, 0, 0, 0]), 2)
    assert found["accuracy"] == pytest.approx(7 / 9)
    assert found["purity"] == pytest.approx(7 / 9)


def test_hits_are_the_best_assignment_and_not_the_greedy_one() -> None:
    # Greedily category 0 takes label 0 for 5 and leaves category 1 with 0; 4 + 4 is better.
    table = np.array([[5, 4], [4, 0]])
    labels, categories = (np.repeat(axis, table.T.flatten()) for axis in ([0, 0, 1, 1], [0, 1] * 2))
    assert clustering(labels, categories, 2)["accuracy"] == pytest.approx(8 / 13)


def test_a_category_in_use_has_at_least_one_percent() -> None:
    labels = np.zeros(1000, dtype=int)
    for few, used in ((9, 1), (10, 2)):
        categories = np.array([3] * few + [1] * (1000 - few))
        assert clustering(labels, categories, 4)["clusters_used"] == used


# The log-likelihood, in float64.


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
@pytest.mark.parametrize("bayes", [False, True], ids=["enumerated", "bayes"])
@pytest.mark.parametrize(("latent", "points"), [(1, 20_001), (2, 401)])
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
        bound = elbo(mean_terms(model, guide, many))
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
        monkeypatch.setattr(evaluate, "SAMPLES_AT_ONCE", 3)
        monkeypatch.setattr(evaluate, "chunk_numbers", lambda x: 6 * 2 * 3)
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
    monkeypatch.setattr(evaluate, "chunk_numbers", lambda x: 500)
    with torch.no_grad():
        mean_terms(model, guide, torch.rand(31, features))
    assert 250 < max(sizes) <= 500


# Generated images.


class Shown(decoders.Decoder):
    """One picture (K, X) for each category, whose mode is the nearest to z."""

    def __init__(self, modes: Tensor, pictures: Tensor) -> None:
        super().__init__(likelihoods.Gaussian())
        self.modes, self.pictures = modes, pictures.clamp(1e-3, 1 - 1e-3).logit()

    def raw(self, z: Tensor) -> Tensor:
        nearest = torch.cdist(z.flatten(0, -2), self.modes).argmin(-1)
        return self.pictures[nearest].unflatten(0, z.shape[:-1]).unsqueeze(-1)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


@pytest.fixture(scope="module")
def classifier(data: DataSet) -> MLPClassifier:
    """The independent classifier."""
    return judge(data.train, 0)


@pytest.fixture
def trained_once(classifier: MLPClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "judge", lambda *_: classifier)


def scans(data: DataSet, labels: Tensor) -> Tensor:
    """The first training scan of each of the labels (K,): (K, X)."""
    return torch.stack([data.train.grey()[data.train.labels == label][0] for label in labels])


def showing(data: DataSet, labels: Tensor) -> CatVAE:
    """A model that shows a real scan of ``labels[c]`` for category c."""
    prior = priors.Orthogonal(len(labels), 1, 20.0)
    return CatVAE(prior, Shown(prior.modes, scans(data, labels)))


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_model_that_shows_what_its_categories_stand_for(
    data: DataSet, classifier: MLPClassifier
) -> None:
    labels = torch.arange(10)
    # Category c holds the label 9 - c.
    categories = 9 - data.test.labels.numpy()
    found = generation(showing(data, labels.flip(0)), data, categories, 0)
    assert found["generation_accuracy"] >= 0.9
    own = classifier.score(data.test.grey().numpy(), data.test.labels.numpy())
    assert found["generation_accuracy_classifier"] == own > 0.9
    # Every category shows its neighbour's label.
    found = generation(showing(data, labels.flip(0).roll(1)), data, categories, 0)
    assert found["generation_accuracy"] <= 0.1


@pytest.mark.usefixtures("alone", "trained_once")
def test_an_image_of_a_category_without_examples_is_wrong(data: DataSet) -> None:
    labels = torch.cat([torch.arange(10), torch.arange(10)])
    # Categories 10 to 19 show digits that the judge knows, but no test example falls into them.
    found = generation(showing(data, labels), data, data.test.labels.numpy(), 0)
    assert 0.45 <= found["generation_accuracy"] <= 0.5


@pytest.fixture
def halves(data: DataSet) -> tuple[np.ndarray, Tensor]:
    """A category for the digits 0 to 4 and one for the others; the likeliest digit of each."""
    counts = np.bincount(data.test.labels.numpy())
    majority = torch.tensor([counts[:5].argmax(), 5 + counts[5:].argmax()])
    return (data.test.labels >= 5).long().numpy(), majority


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_category_stands_for_its_majority_label(
    data: DataSet, halves: tuple[np.ndarray, Tensor]
) -> None:
    categories, majority = halves
    found = generation(showing(data, majority), data, categories, 0)
    assert found["generation_accuracy"] == 1
    assert generation(showing(data, majority.flip(0)), data, categories, 0) == found | {
        "generation_accuracy": 0
    }


@pytest.mark.usefixtures("alone", "trained_once")
@pytest.mark.parametrize("at_once", [1, 10, 10**6])
def test_equally_many_images_of_each_category_however_many_fit_in_memory(
    data: DataSet,
    halves: tuple[np.ndarray, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(evaluate, "GENERATED", 20)
    monkeypatch.setattr(evaluate, "chunk_numbers", lambda _: at_once * data.facts.features)
    categories, majority = halves
    # The third category has no examples, and a third of 20 images is not a whole number.
    shown = showing(data, torch.cat([majority, majority[:1]]))
    found = generation(shown, data, categories, 0)
    assert found["generation_samples"] == 21
    assert found["generation_accuracy"] == 14 / 21


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("number", [10, 40])
def test_the_judge_learns_from_few_examples(number: int) -> None:
    """Too few for a stratified share to stop early by."""
    data = digits()
    few = data.train.part(torch.arange(number))
    assert judge(few, 0).score(few.grey().numpy(), few.labels.numpy()) > 0.8


# Everything together.


@pytest.mark.usefixtures("alone")
def test_evaluation_repeats_itself_and_leaves_no_trace(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "JUDGE_EXAMPLES", 1)
    prior = priors.Orthogonal(6, 2)
    decoder = decoders.MLP(prior.latent, data.facts.features, likelihoods.Bernoulli(), [8])
    model = CatVAE(prior, decoder)
    guide = Enumerated(partial(encoders.MLP, data.facts.features, [8]), 6, prior.latent, 8)
    found = []
    for start, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(start)
        np.random.seed(start)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        found.append(evaluate.evaluate(model, guide, data, "binary", 3, seed))
        assert torch.equal(torch.get_rng_state(), before)
        assert np.random.get_state()[1].tolist() == numpy_before
    assert found[0] == found[1]
    for name in ("elbo", "nll", "reconstruction", "information_bound"):
        assert found[0][name] != found[2][name]
    # Categories are the likeliest and depend on no draw.
    assert found[0]["accuracy"] == found[2]["accuracy"]
    assert found[0]["nll_samples"] == 3
    assert all(parameter.grad is None for parameter in [*model.parameters(), *guide.parameters()])


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
