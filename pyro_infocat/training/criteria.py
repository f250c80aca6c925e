"""What a number of clusters is worth, without labels, where training begins near clusters.

Shapes: K clusters, N examples, X features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_infocat.data import DataSet
from pyro_infocat.training.clusters import (
    by_k_means,
    drawn_by,
    of_gaussians,
    scaled,
)

FOR_SILHOUETTE = 3_000
"""Examples that the silhouette looks at, at most: it takes time in proportion to their square."""


@dataclass(frozen=True)
class Tried:
    """A K, and what it is worth; the larger the better.

    :ivar each: the same of each example (N,), whose mean is ``value``; None where it is of all.
    """

    categories: int
    value: float
    each: Tensor | None = None


class Clusters:
    """What numbers of clusters are worth, of one set of examples.

    Of a Gaussian mixture it is the Bayesian information criterion in nats per example,
    log p(x) - p log N / (2 N) with p numbers that were estimated; of k-means the silhouette.

    :ivar name: what the value is called.
    :ivar most: there can be no more clusters than this.
    :param seed: of the restarts of k-means.
    """

    def __init__(self, data: DataSet, seed: int) -> None:
        self._scaled, self._seed = scaled(data.train, data.facts.columns), seed
        self.name = "BIC in nats per row" if self._scaled.gaussian else "silhouette"
        # One more is looked at.
        self.most = len(self._scaled.y.unique(dim=0)) - 1
        self._held: dict[int, Tensor] = {}

    def __call__(self, categories: int) -> Tried:
        _, y, some, gaussian = self._scaled
        if not gaussian:
            found = by_k_means(y, categories, self._seed)
            return Tried(categories, silhouette(y, found.joint(y).argmax(1)))
        own = self._mixture(categories)
        # k-means may have divided one cluster and joined two others.
        joined = self._refined(merged(self._mixture(categories + 1).softmax(1)))
        each = max((bic(joint, some.shape[1]) for joint in (own, joined)), key=torch.mean)
        return Tried(categories, each.mean().item(), each)

    def _mixture(self, categories: int) -> Tensor:
        """log p(k, x) of the mixture that begins with k-means (N, K)."""
        if categories not in self._held:
            _, y, some, _ = self._scaled
            found = by_k_means(y, categories, self._seed).joint(some)
            shares = one_hot(found.argmax(1), categories).to(y.dtype)
            # Of those before, one is asked for again.
            self._held = {categories: self._refined(shares)}
        return self._held[categories]

    def _refined(self, shares: Tensor) -> Tensor:
        return of_gaussians(self._scaled.some, shares).joint(self._scaled.some)


PATIENCE = 6
"""No K is tried that is larger than the best one by more than this, or by more than half of it."""

ERRORS = 2.0
"""A smaller K is preferred to a better one that is better by no more standard errors than this."""


def search(worth: Callable[[int], Tried], most: float, least: int = 2) -> list[Tried]:
    """Every K that was tried, in order.

    :param most: the largest K to try, and ``least`` the smallest.
    """
    tried: list[Tried] = []
    while not enough(tried, most):
        tried.append(worth(len(tried) + least))
    return tried


def enough(tried: Sequence[Tried], most: float) -> bool:
    """Whether no larger K needs to be tried."""
    if not tried:
        return False
    best, last = max(tried, key=lambda one: one.value).categories, tried[-1].categories
    return last >= most or last - best >= max(PATIENCE, best // 2)


def chosen(tried: Sequence[Tried]) -> Tried:
    """The best K, or the smallest that is worse by no more than chance explains."""
    best = max(tried, key=lambda one: one.value)
    for one in tried:
        if best.value - one.value <= _chance(best, one):
            return one
    return best


def _chance(best: Tried, other: Tried) -> float:
    """So many standard errors of the mean difference of two values; 0 where they are of all."""
    if best.each is None or other.each is None or best is other:
        return 0.0
    apart = best.each - other.each
    return ERRORS * apart.std().item() / math.sqrt(len(apart))


def bic(joint: Tensor, features: int) -> Tensor:
    """The Bayesian information criterion of a mixture of Gaussians, the larger the better (N,).

    Its mean is that of log p(x) less p log N / (2 N), in nats per example. A covariance that is
    drawn towards the common one counts by the share of it that is the cluster's own.

    :param joint: log p(k, x) up to the factor that all Gaussians over X features share (N, K).
    :param features: X.
    """
    number, categories = joint.shape
    held = joint.softmax(1).sum(0)
    own = (held / (held + drawn_by(features))).sum()
    covariances = (1 + own) * features * (features + 1) / 2
    estimated = covariances + categories * features + categories - 1
    log_p = joint.logsumexp(1) - features / 2 * math.log(2 * math.pi)
    return log_p - estimated * math.log(number) / (2 * number)


def merged(shares: Tensor) -> Tensor:
    """Shares of clusters in examples, with the two that share most examples as one (N, K - 1).

    :param shares: of each cluster in each example (N, K).
    """
    size = shares.sum(0).clamp_min(torch.finfo(shares.dtype).tiny).sqrt()
    alike = (shares.mT @ shares / size / size[:, None]).fill_diagonal_(-1)
    first, second = sorted(divmod(int(alike.argmax()), len(size)))
    kept = [k for k in range(len(size)) if k != second]
    both = shares.clone()
    both[:, first] += both[:, second]
    return both[:, kept]


def silhouette(y: Tensor, clusters: Tensor) -> float:
    """The mean silhouette (Rousseeuw 1987) of examples (N, X) in clusters (N,); -1 of one alone."""
    some = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:FOR_SILHOUETTE]
    y, clusters = y[some], clusters[some]
    if not 1 < len(clusters.unique()) < len(y):
        return -1.0
    return float(silhouette_score(y.numpy(), clusters.numpy()))
