"""What q(c|x) is worth, against counting and against what is known of normal distributions.

Shapes: K categories, M generated examples, N examples.
"""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.dataset import Split
from pyro_infocat.evaluation import trust
from pyro_infocat.evaluation.clustering import clustering
from pyro_infocat.evaluation.trust import (
    Trust,
    agreement,
    calibration_error,
    kept_together,
    recognised,
    stands_for,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


class Shows(decoders.Decoder):
    """x is z with a little noise, or much."""

    def __init__(self, noise: float = 1e-3) -> None:
        super().__init__(likelihoods.Gaussian())
        self.noise = noise

    def raw(self, z: Tensor) -> Tensor:
        raise AssertionError

    def forward(self, z: Tensor) -> dist.Distribution:
        return dist.Normal(z, self.noise).to_event(1)


class Exact(Guide):
    """p(c | z) at z = x, or that to a power: of 1 it is calibrated where x is z."""

    def __init__(self, prior: priors.Prior, power: float = 1.0) -> None:
        super().__init__(prior.categories)
        self.of, self.power = [prior], power

    def posterior(self, x: Tensor) -> Posterior:
        logits = self.power * self.of[0].responsibilities(x)
        return Posterior(dist.Categorical(logits=logits), lambda c: dist.Normal(x, 0.1).to_event(1))


@pytest.fixture(autouse=True)
def fixed_seed() -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


# Calibration.


@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(0, 1), st.sampled_from([b / 15 for b in range(16)])),
            st.booleans(),
            st.floats(0.01, 5),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_the_calibration_error_by_going_through_the_bins(
    examples: list[tuple[float, bool, float]],
) -> None:
    weight = sum(w for _, _, w in examples)
    expected = 0.0
    for b in range(1, 16):
        here = [one for one in examples if max(1, math.ceil(one[0] * 15)) == b]
        total = sum(w for _, _, w in here)
        if here:
            right = sum(w for _, hit, w in here if hit) / total
            sure = sum(w * q for q, _, w in here) / total
            expected += total / weight * abs(right - sure)
    _, right, weights = map(torch.tensor, zip(*examples, strict=True))
    # In double: rounding would move what lies at the edge of a bin.
    sure = torch.tensor([q for q, _, _ in examples], dtype=torch.float64)
    assert calibration_error(sure, right, weights) == pytest.approx(expected, abs=1e-6)


def test_who_is_right_as_often_as_sure_has_no_error_and_who_boasts_has_it() -> None:
    """Each bin's gap has a standard error of 0.5 / sqrt(40000 / 15) = 1% at most."""
    sure = torch.rand(40_000)
    right = torch.rand(40_000) < sure
    assert calibration_error(sure, right) < 0.02
    assert calibration_error((sure + 0.2).clamp_max(1), right) == pytest.approx(0.18, abs=0.02)
    half = torch.arange(10) % 2 == 0
    assert calibration_error(torch.full((10,), 0.8), half) == pytest.approx(0.3)


# Generated examples.


def test_as_much_is_given_back_as_bayes_rule_allows() -> None:
    """Two modes d = 2 sqrt(2) apart: Phi(d / 2) of the draws are nearer to their own.

    2,000 draws have a standard error of 0.6%: the bounds are five of them.
    """
    prior = priors.Orthogonal(2, 1, 2.0)
    truth, draws, means = recognised(CatVAE(prior, Shows()), Exact(prior))
    assert truth.bincount().tolist() == [1000, 1000]
    bayes = (1 + math.erf(math.sqrt(2) / math.sqrt(2))) / 2
    for q in (draws, means):
        assert ((q.argmax(-1) == truth).float().mean() - bayes).abs() < 0.03
    # The posterior itself is calibrated, and a power of it is too sure.
    sure, likeliest = draws.max(-1)
    assert calibration_error(sure, likeliest == truth) < 0.03
    _, boasting, _ = recognised(CatVAE(prior, Shows()), Exact(prior, 8.0))
    sure, likeliest = boasting.max(-1)
    assert calibration_error(sure, likeliest == truth) > 0.04


def test_draws_are_of_x_and_means_are_not() -> None:
    prior = priors.Orthogonal(3, 1, 10.0)
    truth, draws, means = recognised(CatVAE(prior, Shows(50.0)), Exact(prior), 7)
    assert (means.argmax(-1) == truth).all()
    assert (draws.argmax(-1) == truth).float().mean() < 0.6


def examined(labels: bool, prior: priors.Prior, guide: Guide, number: int = 40) -> Tested:
    x = torch.randn(number, prior.latent)
    split = Split.of_real_numbers(x)
    split = replace(split, labels=torch.arange(number) % 2, labelled=labels)
    facts = Facts("mine", (prior.latent,), 0, ("a", "b") if labels else ())
    # Of much noise: draws of x are not what their means are.
    model = CatVAE(prior, Shows(1.0))
    return Tested(model, guide, DataSet(facts, split, split), "grey", [])


def test_the_metric_is_of_these_parts() -> None:
    prior = priors.Orthogonal(2, 1, 1.0, weights=[0.9, 0.1])
    guide = Exact(prior, 3.0)
    tested = examined(True, prior, guide)
    torch.manual_seed(5)
    found = Trust()(tested)
    torch.manual_seed(5)
    truth, draws, means = recognised(tested.model, guide)
    q = tested.logits.exp()
    assert found["confidence"] == pytest.approx(q.max(-1).values.mean().item())
    back = means.argmax(-1) == truth
    shares = [back[truth == c].float().mean().item() for c in range(2)]
    assert found["given_back"] == pytest.approx(shares)
    assert found["given_back_mean"] == pytest.approx(sum(shares) / 2)
    # A category counts as often as the program draws it.
    weights = torch.tensor([0.9, 0.1])[truth]
    sure, likeliest = draws.max(-1)
    error = calibration_error(sure, likeliest == truth, weights)
    assert found["calibration_error"] == pytest.approx(error)
    assert abs(error - calibration_error(sure, likeliest == truth)) > 0.01
    right = torch.from_numpy(stands_for(tested.labels.numpy(), tested.category.numpy()))
    by_labels = calibration_error(q.max(-1).values, right == tested.labels)
    assert found["calibration_error_labels"] == pytest.approx(by_labels)


def test_without_labels_one_figure_is_missing() -> None:
    prior = priors.Orthogonal(2, 1, 1.0)
    keys = Trust()(examined(True, prior, Exact(prior))).keys()
    without = Trust()(examined(False, prior, Exact(prior))).keys()
    assert keys - without == {"calibration_error_labels"}


def test_a_plain_vae_is_sure_of_its_one_category() -> None:
    prior = priors.Gaussian(2)
    found = Trust()(examined(False, prior, Exact(prior)))
    assert (found["confidence"], found["given_back"], found["doubts"]) == (1, [1], [])
    assert found["calibration_error"] == pytest.approx(0, abs=1e-9)


def test_many_categories_have_five_draws_each() -> None:
    prior = priors.Orthogonal(500, 1, 30.0)
    truth, _, means = recognised(CatVAE(prior, Shows()), Exact(prior), 50)
    assert truth.bincount().tolist() == [trust.FEWEST_DRAWN] * 500
    assert (means.argmax(-1) == truth).all()


# Labels and seeds.


@given(PAIRS)
def test_categories_stand_for_the_labels_that_accuracy_counts(pairs: list[tuple[int, int]]) -> None:
    labels, categories = np.array(pairs).T
    found = stands_for(labels, categories)
    assert (found == labels).mean() == pytest.approx(clustering(labels, categories, 5)["accuracy"])
    of = {c: set(found[categories == c].tolist()) for c in set(categories.tolist())}
    assert all(len(one) == 1 for one in of.values())
    given_out = [label for (label,) in of.values() if label >= 0]
    assert len(given_out) == len(set(given_out))


@given(PAIRS)
def test_what_stays_together_by_going_through_the_pairs(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs).T
    found = kept_together(one, [other], 5)
    for c in range(5):
        of_c = list(itertools.combinations([b for a, b in pairs if a == c], 2))
        expected = sum(a == b for a, b in of_c) / len(of_c) if of_c else None
        assert found[c] == (expected if expected is None else pytest.approx(expected))
    # The mean over other runs; the run itself keeps all together.
    twice = kept_together(one, [other, one], 5)
    for alone, both in zip(found, twice, strict=True):
        assert both == (alone if alone is None else pytest.approx((alone + 1) / 2))


def test_seeds_agree_whatever_the_numbers_of_their_categories() -> None:
    random = np.random.default_rng(0)
    one = random.integers(0, 4, 4000)
    renamed = np.array([2, 0, 3, 1])[one]
    assert agreement([one, renamed, one]) == pytest.approx(1)
    by_chance = random.integers(0, 4, 4000)
    assert abs(agreement([one, by_chance])) < 0.005
    # The mean of the pairs: one that agrees and two that do not.
    assert agreement([one, renamed, by_chance]) == pytest.approx(1 / 3, abs=0.005)
