"""Clusters that need no training, near which a run's categories may begin.

Shapes: B batch, K categories, N examples, X features.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_infocat.catalogue import Column
from pyro_infocat.data.dataset import Split

MOST_EXAMPLES = 20_000
"""What k-means looks at, at most."""

MOST_IN_MIXTURE = 5_000
"""What the mixture looks at, at most: a step of it takes time in proportion to K N X^2."""

RESTARTS = 10
"""Of k-means, of which the one with the smallest squares is kept."""

MOST_REPEATED = 0.2
"""A feature of which one value takes a larger share of the examples is not continuous."""

MOST_MISSING = 0.05
"""A feature of which more is missing is not continuous, with its mean in the place of that."""

EXAMPLES_FOR_FEATURE = 3
"""Examples for each feature from which covariances are estimated."""

RIDGE = 1e-3
"""Added to the variance of each feature, that of a standardised one being 1."""

STEPS, TOLERANCE = 60, 3e-4
"""Of expectation maximisation: how many at most, and the mean change of a share that ends it."""


class Mixture(NamedTuple):
    """log p(k, y) up to what is alike for all k:  b_k - |A_k y - s_k|^2 / 2.

    :param whitening: A (K, X, X), or (1, X, X) where it is the same for all; ``shift`` is s (K, X)
        and ``offset`` b (K,).
    """

    whitening: Tensor
    shift: Tensor
    offset: Tensor

    def joint(self, y: Tensor) -> Tensor:
        """For y (B, X): (B, K)."""
        apart = torch.einsum("kij,bj->bki", self.whitening, y) - self.shift
        return self.offset - apart.square().sum(-1) / 2


class Scale:
    """Features on one scale: counts by their root, whose variance hardly depends on their mean.

    Real columns and roots of counts are standardised. What is 0 or 1 keeps its size, and so do the
    pixels of images. All features lose their mean, which stands for what is missing.

    :param x: the examples (N, X).
    :param kinds: of the features, those of a table's columns; none of images.
    """

    def __init__(self, x: Tensor, kinds: Sequence[str]) -> None:
        counts = [place for place, kind in enumerate(kinds) if kind == "count"]
        self.counts = torch.tensor(counts, dtype=torch.int64, device=x.device)
        x = self._rooted(x)
        self.mean = x.nanmean(0).nan_to_num()
        scale = (x - self.mean).square().nanmean(0).sqrt().nan_to_num()
        scaled = [kind in ("real", "count") for kind in kinds] or [False] * len(scale)
        as_it_is = ~torch.tensor(scaled, device=x.device) | (scale == 0)
        self.scale = scale.masked_fill(as_it_is, 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, X) on one scale, without NaN."""
        return ((self._rooted(x) - self.mean) / self.scale).nan_to_num()

    def _rooted(self, x: Tensor) -> Tensor:
        return x.index_copy(-1, self.counts, x[:, self.counts].clamp_min(0).sqrt())


class Clusters:
    """The likeliest cluster of an example, and how much that counts.

    An example counts in proportion to one over the root of its cluster's size, 1 on average: so
    small clusters are not passed over, and large ones still say more.

    :param sizes: examples of each cluster (K,).
    """

    def __init__(self, scale: Scale, mixture: Mixture, sizes: Tensor) -> None:
        self.scale, self.mixture = scale, mixture
        sizes = sizes.to(mixture.shift).clamp_min(1)
        self.weights = sizes.rsqrt() * sizes.sum() / sizes.sqrt().sum()

    def __call__(self, x: Tensor) -> Tensor:
        """For x (B, X), how much each example counts in the place of its cluster (B, K), else 0."""
        return one_hot(self.of(x), len(self.weights)) * self.weights

    def of(self, x: Tensor) -> Tensor:
        """The cluster of each example (B,), int64, for x (B, X)."""
        return self.mixture.joint(self.scale(x).to(self.mixture.shift.dtype)).argmax(-1)


class Scaled(NamedTuple):
    """Examples as clusters are looked for in them.

    :param y: the examples on one scale (N, X), float64; ``some`` are what the mixture looks at.
    :param gaussian: whether every feature is continuous, and there are examples enough for a
        covariance.
    """

    scale: Scale
    y: Tensor
    some: Tensor
    gaussian: bool


def scaled(split: Split, columns: Sequence[Column]) -> Scaled:
    """Examples on one scale.

    :param columns: of a table; none of images.
    """
    x = split.some(MOST_EXAMPLES).grey()
    kinds = [column.kind for column in columns for _ in range(column.width)]
    scale = Scale(x, kinds)
    y = scale(x).double().cpu()
    some = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:MOST_IN_MIXTURE]]
    gaussian = continuous(x, kinds) and len(some) >= EXAMPLES_FOR_FEATURE * y.shape[1]
    return Scaled(scale, y, some, gaussian)


def find(split: Split, columns: Sequence[Column], categories: int, seed: int) -> Clusters | None:
    """K clusters of the examples, without labels; None where fewer than K of them differ.

    They are those of k-means. Where every feature is continuous, and there are examples enough for
    a covariance, they go on as a Gaussian mixture: columns that go together then count once, and a
    cluster may be long and thin.

    :param columns: of a table; none of images.
    :param seed: of the restarts of k-means.
    """
    scale, y, some, gaussian = scaled(split, columns)
    if len(y.unique(dim=0)) < categories:
        return None
    mixture = by_k_means(y, categories, seed)
    if gaussian:
        refined = of_gaussians(some, one_hot(mixture.joint(some).argmax(1), categories).to(y.dtype))
        # A category that the mixture takes no example for would be lost from the start.
        if len(refined.joint(some).argmax(1).unique()) == categories:
            mixture = refined
    sizes = mixture.joint(some).argmax(1).bincount(minlength=categories)
    return Clusters(scale, Mixture(*(part.to(scale.mean) for part in mixture)), sizes)


def by_k_means(y: Tensor, categories: int, seed: int) -> Mixture:
    """K clusters of one shape, a ball, and one weight.

    :param y: examples (N, X), float64 on the CPU.
    :param seed: of the restarts.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(categories, n_init=RESTARTS, random_state=seed).fit(y.numpy())
    alike = torch.eye(y.shape[1], dtype=y.dtype).unsqueeze(0)
    centres = torch.from_numpy(found.cluster_centers_)
    return Mixture(alike, centres, torch.zeros(categories, dtype=y.dtype))


def continuous(x: Tensor, kinds: Sequence[str]) -> bool:
    """Whether all features of x (N, X) are real, and none says the same of many examples."""
    if not kinds or any(kind != "real" for kind in kinds):
        return False
    for feature in x.unbind(-1):
        there = feature[~feature.isnan()]
        if len(there) < (1 - MOST_MISSING) * len(feature):
            return False
        _, times = there.unique(return_counts=True)
        if times.max() > MOST_REPEATED * len(there):
            return False
    return True


def drawn_by(features: int) -> int:
    """As of how many further examples the common covariance counts in each cluster's own."""
    return 3 * features * (features + 10)


def of_gaussians(y: Tensor, shares: Tensor) -> Mixture:
    """A Gaussian mixture by expectation maximisation.

    Each covariance is drawn towards the common one as if that had been seen on 3 X (X + 10) further
    examples, some six for each of its numbers: clusters of few examples have a common shape, and
    large ones their own.

    :param y: examples (N, X).
    :param shares: of each cluster in each example at first (N, K).
    """
    number, features = y.shape
    further = drawn_by(features)
    identity = torch.eye(features, dtype=y.dtype, device=y.device)
    for _ in range(STEPS):
        held = shares.sum(0).clamp_min(torch.finfo(y.dtype).tiny)
        centres = shares.mT @ y / held.unsqueeze(-1)
        scatter = torch.stack(
            [
                (share.unsqueeze(-1) * (y - centre)).mT @ (y - centre)
                for share, centre in zip(shares.unbind(1), centres, strict=True)
            ]
        )
        common = scatter.sum(0) / number + RIDGE * identity
        covariance = (scatter + further * common) / (held + further)[:, None, None]
        factor = torch.linalg.cholesky(covariance + RIDGE * identity)
        whitening = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        shift = torch.einsum("kij,kj->ki", whitening, centres)
        size = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        mixture = Mixture(whitening, shift, (held / number).log() - size)
        before, shares = shares, mixture.joint(y).softmax(-1)
        if (shares - before).abs().mean() < TOLERANCE:
            break
    return mixture
