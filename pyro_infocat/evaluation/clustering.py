"""How well categories recover labels. Only evaluation reads labels.

Shapes: N examples.
"""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

USED = 0.01
"""Least share of the test examples that a category in use has."""


def clustering(labels: np.ndarray, categories: np.ndarray, number: int) -> dict[str, Any]:
    """How well categories (N,) of ``number`` recover labels (N,).

    ``accuracy`` gives each category at most one label (Hungarian method), ``purity`` the label
    that most of its examples have.
    """
    table = contingency_matrix(labels, categories)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        "accuracy": float(table[rows, columns].sum() / table.sum()),
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "nmi": float(normalized_mutual_info_score(labels, categories)),
        "ari": float(adjusted_rand_score(labels, categories)),
        "clusters_used": in_use(categories, number),
    }


def in_use(categories: np.ndarray, number: int) -> int:
    """How many of ``number`` categories have at least the share ``USED`` of categories (N,)."""
    shares = np.bincount(categories, minlength=number) / len(categories)
    return int((shares >= USED).sum())
