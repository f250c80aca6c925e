"""What holds of every clustering and every importance-weighted likelihood: by brute force.

Shapes: B batch, N examples, S samples.
"""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn import metrics
from torch import Tensor

from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.evaluation import likelihood
from pyro_infocat.evaluation.clustering import clustering
from pyro_infocat.evaluation.likelihood import importance_weights, log_likelihood
from tests.pyro_infocat.objective.test_properties_of_the_bound import Table

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)
"""Label and category of each example, not all of which need be there."""


def found_of(pairs: list[tuple[int, int]], number: int = 5) -> dict[str, Any]:
    labels, categories = np.array(pairs).T
    return clustering(labels, categories, number)


@given(PAIRS)
def test_hits_and_purity_by_trying_every_assignment(pairs: list[tuple[int, int]]) -> None:
    counts = Counter(pairs)
    best = max(
        sum(counts[label, category] for category, label in enumerate(order))
        for order in itertools.permutations(range(5))
    )
    most = sum(max(counts[label, category] for label in range(5)) for category in range(5))
    found = found_of(pairs)
    assert found["accuracy"] == pytest.approx(best / len(pairs))
    assert found["purity"] == pytest.approx(most / len(pairs))
    assert found["accuracy"] <= found["purity"]


@given(PAIRS)
def test_information_and_pairs_by_counting(pairs: list[tuple[int, int]]) -> None:
    """NMI over the mean of the entropies; ARI of the pairs of examples that are put together."""
    number = len(pairs)
    both, ones, others = (Counter(pairs), *(Counter(side) for side in zip(*pairs, strict=True)))

    def entropy(counts: Counter) -> float:
        return -sum(n / number * math.log(n / number) for n in counts.values())

    information = entropy(ones) + entropy(others) - entropy(both)
    mean = (entropy(ones) + entropy(others)) / 2
    found = found_of(pairs)
    # Two partitions into one are the same, and say nothing.
    assert found["nmi"] == pytest.approx(information / mean if mean else 1.0, abs=1e-9)
    assert -1e-9 <= found["nmi"] <= 1 + 1e-9

    def together(counts: Counter) -> int:
        return sum(math.comb(n, 2) for n in counts.values())

    most = (together(ones) + together(others)) / 2
    chance = together(ones) * together(others) / max(1, math.comb(number, 2))
    expected = (together(both) - chance) / (most - chance) if most > chance else 1.0
    assert found["ari"] == pytest.approx(expected, abs=1e-9)
    assert found["ari"] == metrics.adjusted_rand_score(*zip(*pairs, strict=True))


@given(PAIRS, st.permutations(range(5)), st.permutations(range(5)))
def test_names_of_labels_and_categories_do_not_count(
    pairs: list[tuple[int, int]], labels: list[int], categories: list[int]
) -> None:
    other = found_of([(labels[a], categories[b]) for a, b in pairs])
    assert other == pytest.approx(found_of(pairs), abs=1e-9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=400), st.integers(4, 9))
def test_categories_in_use_are_those_of_one_percent(categories: list[int], number: int) -> None:
    counts = Counter(categories)
    used = sum(100 * n >= len(categories) for n in counts.values())
    found = found_of([(0, category) for category in categories], number)
    assert found["clusters_used"] == used


@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 200),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_every_sample_counts_once_however_they_are_made(
    examples: int, samples: int, numbers: int, at_once: int, seed: int
) -> None:
    """log 1/S sum_s of the weights that were drawn, however many fit in memory at once."""
    prior = priors.Orthogonal(2, 1)
    model = CatVAE(prior, decoders.MLP(prior.latent, 3, likelihoods.Bernoulli(), [2]))
    # The first number of an example is its name.
    x = torch.arange(float(examples)).unsqueeze(-1).expand(-1, 3)
    random = np.random.default_rng(seed)
    drawn: dict[int, list[float]] = {number: [] for number in range(examples)}

    def weights(_model: Any, _guide: Any, part: Tensor, number: int) -> Tensor:
        assert 1 <= number <= at_once
        assert number * len(part) * 3 <= max(numbers, 3 * number)
        made = 300 * random.standard_normal((number, len(part)))
        for column, name in enumerate(part[:, 0].long().tolist()):
            drawn[name] += made[:, column].tolist()
        return torch.from_numpy(made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "chunk_numbers", lambda _: numbers)
        patch.setattr(likelihood, "SAMPLES_AT_ONCE", at_once)
        patch.setattr(likelihood, "importance_weights", weights)
        found = log_likelihood(model, None, x, samples)  # type: ignore[arg-type]
    assert {len(one) for one in drawn.values()} == {samples}
    expected = [logsumexp(drawn[name]) - math.log(samples) for name in range(examples)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double")
@given(st.integers(1, 4), st.integers(0, 2**31))
def test_the_likelihood_of_more_samples_is_nearer_to_the_true_one(
    categories: int, seed: int
) -> None:
    """E[L_1] <= E[L_4] <= E[L_16] <= log p(x), the last by the trapezoid rule.

    Each of the first is a mean over thousands of draws, the fewer samples those of the more, so
    that the first two hold draw by draw on average over subsets. The last is within six standard
    errors: an error rate under 1e-8 for each example.
    """
    torch.manual_seed(seed)
    prior = priors.Mixture(categories, 1, 2.0)
    model = CatVAE(prior, decoders.MLP(1, 3, likelihoods.Bernoulli(), [4]))
    guide = Table(categories, 2, 1, torch.zeros(2, categories, dtype=torch.bool))
    x = torch.rand(2, 3).round()
    with torch.no_grad():
        # Wider than the prior and nearly in its place, so that no weight is rare and large.
        guide.mean.copy_(prior.mean.unsqueeze(1) + guide.mean / 4)
        guide.log_scale.fill_(0.4)
        guide.odds.div_(4)
        weights = importance_weights(model, guide, x, 16 * 500)
        z = torch.arange(-30, 30, 0.01).unsqueeze(-1)
        joint = prior.log_prob(z) + model.decoder(z).log_prob(x.unsqueeze(1))
        true = joint.logsumexp(-1) + math.log(0.01)
    means = []
    for number in (1, 4, 16):
        log_mean = weights.reshape(-1, number, 2).logsumexp(1) - math.log(number)
        means.append(log_mean.mean(0))
        error = log_mean.std(0) / math.sqrt(len(log_mean))
        assert (log_mean.mean(0) <= true + 6 * error).all()
    assert (means[0] <= means[1] + 1e-12).all()
    assert (means[1] <= means[2] + 1e-12).all()
    # The weights themselves have the likelihood as their mean.
    ratio = (weights - true).exp()
    spread = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - 1).abs() <= 6 * spread + 1e-9).all()
