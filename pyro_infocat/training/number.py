"""The number of categories from the data: ``--prior.categories auto``.

Before the run each K from 2 on is tried, without labels. Where q(c|x) learns from real examples
(images) it is trained alone, from several starts: at the right K they find the same categories.
Where training begins near clusters (tables), these are judged themselves.

Shapes: K categories, N examples, X features.
"""

import contextlib
import io
import itertools
import json
import math
import tempfile
import time
import zlib
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
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet, observe
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.figures import STYLE
from pyro_infocat.objective import ELBO_SIGNS
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import (
    AFTERWARDS,
    AUTO,
    CONFIG,
    DECLARED,
    MACHINE,
    MOST_CATEGORIES,
    MOST_SEED,
    TRIED,
    Part,
    Settings,
    default,
)
from pyro_infocat.storage.files import read_json
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import train

FIGURE = "categories.png"
"""What each K was worth, among the run's figures."""

STEPS = 400
"""Of each start of q(c|x) alone, unless the whole run has fewer."""

RATE = 2e-3
"""The learning rate of q(c|x) alone, where the run's is smaller: it has few steps."""

STARTS, MOST_STARTS = 2, 6
"""Starts of q(c|x) for each K, and for those that stay in doubt."""

NEAR = {2: 0.1, 4: 0.05}
"""A K whose agreement is nearer to the best than this, after so many starts, gets two more."""

MOST_EXAMPLES = 5_000
"""What q(c|x) alone is trained on, at most."""

DECIDED = 4.0
"""So many times the weight of the conditional entropy rises: only what is decided can agree."""

MOST_IN_BATCH = 128
"""Examples in a step of it, at most."""

BATCH = 1000
"""Examples that q(c|x) is asked about at a time."""

PATIENCE = 6
"""No K is tried that is larger than the best one by more than this, or by more than half of it."""

ERRORS = 2.0
"""A smaller K is preferred to a better one that is better by no more standard errors than this."""

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
        settings = given(alone(self.settings, len(train_split)), categories)
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


def enough(tried: Sequence[Tried], most: float) -> bool:
    """Whether no larger K needs to be tried."""
    if not tried:
        return False
    best, last = max(tried, key=lambda one: one.value).categories, tried[-1].categories
    return last >= most or last - best >= max(PATIENCE, best // 2)


def in_doubt(tried: Sequence[Tried]) -> Tried | None:
    """The best K that more starts may still make or unmake the best of all."""
    top = max(one.value for one in tried)
    near = [one for one in tried if one.starts < MOST_STARTS and top - one.value < NEAR[one.starts]]
    return max(near, key=lambda one: one.value, default=None)


def left_to_the_data(settings: Settings) -> bool:
    """Whether the number of categories is left to the data."""
    return settings.prior.init_args.get("categories") == AUTO


def given(settings: Settings, categories: int) -> Settings:
    """The settings with a number of categories."""
    arguments = settings.prior.init_args | {"categories": categories}
    return replace(settings, prior=Part(settings.prior.class_path, arguments))


def for_a_try(settings: Settings) -> Settings:
    """The settings with a number in the place of ``auto``: any will do to try the parts."""
    return given(settings, 2) if left_to_the_data(settings) else settings


def alone(settings: Settings, examples: int) -> Settings:
    """Settings for q(c|x) alone: the terms on real examples, and none of the bound.

    :param examples: N that it is trained on.
    """
    batch = min(settings.batch_size, MOST_IN_BATCH)
    batches = math.ceil(examples / batch)
    own = {n: _weight(settings, n) for n in ("consistency", "marginal_entropy")}
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


def _weight(settings: Settings, term: str) -> float:
    """The largest weight of a term over the run."""
    points = settings.schedules.get(term, [[0, settings.weights.get(term, 0.0)]])
    return float(max(value for _, value in points))


def find_number(
    settings: Settings,
    data: DataSet,
    device: torch.device,
    folder: RunFolder,
    instances: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[str]]:
    """The settings with the number of categories that the data speak for, and a line that says so.

    What was tried is kept in the folder; a search that was stopped goes on from there.

    :param settings: with numbers for all else that may be ``auto``.
    :raises UserError: where there is nothing to tell a number from.
    """
    if (folder.path / CONFIG).exists():
        # A run that began here has its number. Whether it may go on is not for this to say.
        return given(settings, folder.settings()[0].prior.init_args["categories"]), []
    most = _most(settings, len(data.train))
    criterion = _criterion(settings)(settings, data, device, instances or {})
    _try_parts(criterion)
    with folder.locked():
        tried = search(criterion, folder.path / TRIED, most)
        best = chosen(tried)
        _draw(tried, best, criterion.name, folder.path / "figures" / FIGURE)
    near = [one for one in tried if abs(one.categories - best.categories) == 1]
    beside = " and ".join(f"{one.value:.3f} with {one.categories}" for one in near)
    line = (
        f"--prior.categories {best.categories}: auto, {criterion.name} {best.value:.3f}, {beside} "
        f"({sum(one.seconds for one in tried):.0f} s)"
    )
    return given(settings, best.categories), [line]


def _most(settings: Settings, examples: int) -> int:
    """The largest K to try."""
    most = settings.most_categories
    # The default is for any number of examples.
    if most > examples and (most != default(DECLARED["most_categories"]) or examples < 2):
        raise UserError(
            f"there are {examples} training examples; give as many at most, and at least 2",
            "most_categories",
            most,
        )
    return min(most, examples)


def _criterion(settings: Settings) -> type[Criterion]:
    """What tells numbers of categories apart under these settings."""
    if processes.world() > 1:
        raise UserError(
            "is found by one process; run without torchrun, or give a number",
            "prior.categories",
            AUTO,
        )
    if _weight(settings, "nearness"):
        return Clusters
    seen = settings.view.class_path != default(DECLARED["view"]).class_path
    if seen and _weight(settings, "consistency") and _weight(settings, "marginal_entropy"):
        return Agreement
    raise UserError(
        "needs terms on real examples: weights of consistency and marginal_entropy with a view, as "
        "the presets images, colour, digits and mnist have them, or of nearness, as table has; "
        "take one of these, or give a number",
        "prior.categories",
        AUTO,
    )


def _try_parts(criterion: Criterion) -> None:
    """Refuse what does not fit before the search, which may take minutes."""
    settings = for_a_try(criterion.settings)
    builder = Builder(settings, criterion.data.facts, instances=criterion.instances)
    parts = builder.parts(criterion.device)
    observed = observation(settings, parts.model.decoder.likelihood)
    try_parts(settings, parts, criterion.data.train, observed)


def search(criterion: Criterion, path: Path, most: int, said: bool = True) -> list[Tried]:
    """Every K that was tried, in order; each is written down at once.

    :param path: of the table.
    :param most: the largest K to try.
    :param said: whether to print a line for each.
    """
    head = {"of": _checksum(criterion), "criterion": criterion.name}
    rows = _written(path, head) if criterion.slow else []
    tried = {row["categories"]: Tried(**row) for row in rows}
    if tried and said:
        print(f"goes on after K = {rows[-1]['categories']}, see {path}", flush=True)
    while True:
        all_tried = list(tried.values())
        done = enough(all_tried, min(most, criterion.most))
        # Once there were enough, what is in doubt comes before what is larger.
        again = done or any(one.starts > STARTS for one in all_tried)
        doubtful = in_doubt(all_tried) if criterion.slow and again else None
        if doubtful is not None:
            number, starts = doubtful.categories, doubtful.starts + STARTS
        elif not done:
            number, starts = len(tried) + 2, STARTS
        else:
            return all_tried
        began = time.perf_counter()
        one = criterion(number, starts)
        before = tried[number].seconds if number in tried else 0.0
        one = replace(one, seconds=round(before + time.perf_counter() - began, 2))
        if said:
            by = f" ({one.starts} starts)" if one.starts else ""
            print(f"K = {number}: {criterion.name} {one.value:.3f}{by}", flush=True)
        tried[number] = one
        rows.append({n: getattr(one, n) for n in ("categories", "value", "seconds", "starts")})
        text = "".join(json.dumps(row) + "\n" for row in [head, *rows])
        replace_file(path, text.encode())


def _written(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an earlier search of the same settings and data has tried."""
    if not path.exists():
        return []
    first, *rows = read_json(path, "delete it to search anew", lines=True)
    return rows if first == head else []


def _checksum(criterion: Criterion) -> str:
    """Of all that the search depends on."""
    apart = MACHINE | AFTERWARDS | {"most_categories"}
    held = {n: one for n, one in criterion.settings.as_dict().items() if n not in apart}
    text = json.dumps([held, criterion.data.fingerprint], sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}"


def _draw(tried: Sequence[Tried], best: Tried, name: str, path: Path) -> None:
    """The criterion over K."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="categories", ylabel=name)
        axes.plot([one.categories for one in tried], [one.value for one in tried], ".-")
        axes.axvline(best.categories, color="0.7", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
