"""Accuracy, purity, NMI and ARI against hand-made tables."""

import math

import numpy as np
import pytest

from pyro_infocat.evaluation.clustering import clustering


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
