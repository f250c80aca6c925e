"""What a number of categories is worth, without labels.

Where q(c|x) learns from real examples (images) it is trained alone, from several starts: at the
right K they find the same categories. Where training begins near clusters (tables), these are
judged themselves.

Shapes: K categories, N examples, X features.
"""

import contextlib
import io
import itertools
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_infocat.build import Builder, observation
from pyro_infocat.data import DataSet, observe
from pyro_infocat.objective import ELBO_SIGNS
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import DECLARED, MOST_CATEGORIES, MOST_SEED, Part, Settings, default
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import train

STEPS = 400
"""Of each start of q(c|x) alone, unless the whole run has fewer."""

RATE = 2e-3
"""The learning rate of q(c|x) alone, where the run's is smaller: it has few steps."""

STARTS, MOST_STARTS = 2, 6
"""Starts of q(c|x) for each K, and for those that stay in doubt."""

MOST_EXAMPLES = 5_000
"""What q(c|x) alone is trained on, at most."""

DECIDED = 4.0
"""So many times the weight of the conditional entropy rises: only what is decided can agree."""

MOST_IN_BATCH = 128
"""Examples in a step of it, at most."""

BATCH = 1000
"""Examples that q(c|x) is asked about at a time."""

FOR_SILHOUETTE = 3_000
"""Examples that the silhouette looks at, at most: it takes time in proportion to their square."""


@dataclass(frozen=True)
class Tried:
    """A K, and what it is worth; the larger the better.

    :ivar seconds: that it took.
    :ivar starts: how many it was judged by; 0 where there are none.
    :ivar each: the same of each example (N,), whose mean is ``value``; None where it is of all.
    """

    categories: int
    value: float
    seconds: float = 0.0
    starts: int = 0
    each: Tensor | None = None


class Criterion(ABC):
    """Says what a K is worth.

    :ivar name: what the value is called.
    :ivar slow: whether a search that was stopped goes on with what was tried.
    :ivar most: there can be no more categories than this.
    """

    name: str
    slow: bool
    most: float = math.inf

    def __init__(
        self,
        settings: Settings,
        data: DataSet,
        device: torch.device,
        instances: Mapping[str, Any],
    ) -> None:
        self.settings, self.data, self.device = settings, data, device
        self.instances = instances

    @abstractmethod
    def __call__(self, categories: int, starts: int = STARTS) -> Tried:
        """What a number of categories is worth.

        :param starts: to judge it by, where there are any.
        """


class Agreement(Criterion):
    """What two starts of q(c|x) say of each other's categories: I(c; c') / log K.

    With one category too few it is chance which two kinds share one, with one too many which kind
    is divided; in both cases two starts differ. Of several starts the half of the pairs counts that
    agree most: some may have ended in a poor optimum, and two agree by chance.
    """

    name, slow = "agreement", True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._held: dict[tuple[int, int], Tensor] = {}

    def __call__(self, categories: int, starts: int = STARTS) -> Tried:
        for start in range(starts):
            # Those of before a search was stopped are made anew: their seed is their own.
            if (categories, start) not in self._held:
                self._held[categories, start] = self._learned(categories, start)
        q = [self._held[categories, start] for start in range(starts)]
        return Tried(categories, of_starts(q), starts=starts)

    @cached_property
    def _some(self) -> DataSet:
        return replace(self.data, train=self.data.train.some(MOST_EXAMPLES))

    def _learned(self, categories: int, start: int) -> Tensor:
        """q(c | x) of the examples (N, K), trained by the terms on real examples alone."""
        train_split = self._some.train
        settings = with_categories(alone(self.settings, len(train_split)), categories)
        instances = {role: one for role, one in self.instances.items() if role != "terms"}
        # What is said is of a run, and this is none.
        with (
            pyro.get_param_store().scope(),
            pyro.validation_enabled(False),
            torch.enable_grad(),
            tempfile.TemporaryDirectory() as place,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            seed = (settings.seed * MOST_CATEGORIES + categories) * MOST_STARTS + start
            pyro.set_rng_seed(seed % (MOST_SEED + 1))
            parts = Builder(settings, self._some.facts, instances=instances).parts(self.device)
            train(settings, self._some, parts, RunFolder(Path(place)), progress=False)
        observed = observation(settings, parts.model.decoder.likelihood)
        with evaluating(self.device, parts.guide):
            index = torch.arange(len(train_split), device=train_split.device)
            return torch.cat(
                [
                    parts.guide.category(observe(train_split.grey(part), observed)).probs.cpu()
                    for part in index.split(BATCH)
                ]
            )


class Clusters(Criterion):
    """What clusters are worth that training would begin near.

    Of a Gaussian mixture it is the Bayesian information criterion in nats per example,
    log p(x) - p log N / (2 N) with p numbers that were estimated; of k-means the silhouette.
    """

    slow = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._held: dict[int, Tensor] = {}

    @property
    def name(self) -> str:  # type: ignore[override]
        return "BIC in nats per row" if self._scaled.gaussian else "silhouette"

    @property
    def most(self) -> float:  # type: ignore[override]
        # One more is looked at.
        return len(self._scaled.y.unique(dim=0)) - 1

    @cached_property
    def _scaled(self) -> Any:
        # scikit-learn is imported for those who look for clusters alone.
        from pyro_infocat.training.clusters import scaled

        return scaled(self.data.train, self.data.facts.columns)

    def __call__(self, categories: int, starts: int = STARTS) -> Tried:
        from pyro_infocat.training.clusters import by_k_means

        _, y, some, gaussian = self._scaled
        if not gaussian:
            found = by_k_means(y, categories, self.settings.seed)
            return Tried(categories, silhouette(y, found.joint(y).argmax(1)))
        own = self._mixture(categories)
        # k-means may have divided one cluster and joined two others.
        joined = self._refined(merged(self._mixture(categories + 1).softmax(1)))
        each = max((bic(joint, some.shape[1]) for joint in (own, joined)), key=torch.mean)
        return Tried(categories, each.mean().item(), each=each)

    def _mixture(self, categories: int) -> Tensor:
        """log p(k, x) of the mixture that begins with k-means (N, K)."""
        from pyro_infocat.training.clusters import by_k_means

        if categories not in self._held:
            _, y, some, _ = self._scaled
            found = by_k_means(y, categories, self.settings.seed).joint(some)
            shares = one_hot(found.argmax(1), categories).to(y.dtype)
            # Of those before, one is asked for again.
            self._held = {categories: self._refined(shares)}
        return self._held[categories]

    def _refined(self, shares: Tensor) -> Tensor:
        from pyro_infocat.training.clusters import of_gaussians

        return of_gaussians(self._scaled.some, shares).joint(self._scaled.some)


def agreement(first: Tensor, second: Tensor) -> float:
    """I(c; c') / log K for q(c|x) and q'(c|x) (N, K) of the same examples, from 0 to 1.

    c and c' are drawn for the same x, one of the N.
    """
    joint = first.double().mT @ second.double() / len(first)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    nats = (torch.xlogy(joint, joint) - torch.xlogy(joint, apart)).sum()
    return nats.item() / math.log(first.shape[1])


def of_starts(q: Sequence[Tensor]) -> float:
    """The mean agreement of q(c|x) (N, K) over the half of all pairs of starts that agree most."""
    pairs = sorted(agreement(*two) for two in itertools.combinations(q, 2))
    return fmean(pairs[len(pairs) // 2 :])


def bic(joint: Tensor, features: int) -> Tensor:
    """The Bayesian information criterion of a mixture of Gaussians, the larger the better (N,).

    Its mean is that of log p(x) less p log N / (2 N), in nats per example. A covariance that is
    drawn towards the common one counts by the share of it that is the cluster's own.

    :param joint: log p(k, x) up to the factor that all Gaussians over X features share (N, K).
    :param features: X.
    """
    from pyro_infocat.training.clusters import drawn_by

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
    from sklearn.metrics import silhouette_score

    some = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:FOR_SILHOUETTE]
    y, clusters = y[some], clusters[some]
    if not 1 < len(clusters.unique()) < len(y):
        return -1.0
    return float(silhouette_score(y.numpy(), clusters.numpy()))


def with_categories(settings: Settings, categories: int) -> Settings:
    """The settings with a number of categories."""
    arguments = settings.prior.init_args | {"categories": categories}
    return replace(settings, prior=Part(settings.prior.class_path, arguments))


def alone(settings: Settings, examples: int) -> Settings:
    """Settings for q(c|x) alone: the terms on real examples, and none of the bound.

    :param examples: N that it is trained on.
    """
    batch = min(settings.batch_size, MOST_IN_BATCH)
    batches = math.ceil(examples / batch)
    own = {n: largest_weight(settings, n) for n in ("consistency", "marginal_entropy")}
    entropy = settings.weights.get("conditional_entropy", 0.0)
    return replace(
        settings,
        epochs=min(max(2, math.ceil(STEPS / batches)), settings.epochs),
        batch_size=batch,
        learning_rate=max(settings.learning_rate, RATE),
        anneal="constant",
        information_weight=0.0,
        weights=dict.fromkeys(ELBO_SIGNS, 0.0) | own | {"conditional_entropy": entropy},
        schedules={"conditional_entropy": [["60%", entropy], ["90%", DECIDED * entropy]]},
        known_labels=default(DECLARED["known_labels"]),
        terms=(),
        starts=1,
        patience=0,
        compile=False,
    )


def largest_weight(settings: Settings, term: str) -> float:
    """The largest weight of a term over the run."""
    points = settings.schedules.get(term, [[0, settings.weights.get(term, 0.0)]])
    return float(max(value for _, value in points))
