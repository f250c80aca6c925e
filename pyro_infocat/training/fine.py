"""Fine categories: some times K of them, learned from real examples alone and then merged to K.

Where q(c|x) learns K categories at once, one may end with two kinds and two others with one, and no
step leads out of that. With some times K each kind has several to itself. Which belong together is
what a view of an example shows: see :mod:`pyro_infocat.training.merging`.

Shapes: B batch, F fine categories, K categories, N examples, X features.
"""

import io
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import Categorical
from torch import Tensor, nn
from torch.nn.functional import one_hot

from guides.encoders import Encoder
from pyro_infocat.build import Builder, Parts
from pyro_infocat.data import DataSet, Observation, Split, observe
from pyro_infocat.errors import UserError, reason
from pyro_infocat.networks import computing_in
from pyro_infocat.objective import ELBO_SIGNS, InfoCatELBO, Terms
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import DECLARED, FINE, MOST_SEED, Settings, default
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.training.feed import Feed
from pyro_infocat.training.loop import adam, recordable, validation_split
from pyro_infocat.training.merging import agreement, merge
from pyro_infocat.training.progress import Bar
from pyro_infocat.training.step import Step
from pyro_infocat.views import View

STARTS = 3
"""How often fine categories are learned."""

SHARPER = ((0.6, 2.0), (0.75, 3.0), (0.9, 4.0))
"""From which share of the steps on the conditional entropy weighs so many times as much: only what
is decided can be merged."""

REAL = ("consistency", "marginal_entropy", "conditional_entropy")
"""The terms of real examples that fine categories are learned by."""

MOST = 150
"""Fine categories, unless there are more categories: merging takes time in proportion to F^4."""

LEAST_EXAMPLES = 10
"""Of a fine category, on average: there are fewer of them where examples are few."""

LOOKS, MOST_TIMES = 10_000, 20
"""Examples with a view each that the merging looks at, at most; and how often at each."""


BATCH = 256
"""Examples that are looked at together: a view may measure distances among them."""


class Fine(nn.Module):
    """q(c|x) over F fine categories: an encoder of the run's, and a layer.

    :param encoder: from x (..., X) to hidden features (..., H), with ``width`` H.
    :param categories: F.
    """

    def __init__(self, encoder: Encoder, categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.width, categories)

    def category(self, x: Tensor) -> Categorical:
        """q(c|x) for x (..., B, X)."""
        return Categorical(logits=self.classifier(self.encoder(x)))


class Alone(nn.Module):
    """Minus the weighted terms of real examples, summed over a batch, in nats: a loss."""

    def __init__(self, bound: InfoCatELBO, fine: Fine) -> None:
        super().__init__()
        self.bound, self.fine = bound, fine

    def forward(self, x: Tensor, view: Tensor) -> Tensor:
        terms: Terms = self.bound.beside(None, self.fine, x, self.bound.weighted(), view=view)
        self.bound.terms = {name: term.detach() for name, term in terms.items()}
        signs, weights = self.bound.signs, self.bound.weights
        return -torch.stack([signs[n] * weights[n] * term for n, term in terms.items()]).sum()


class Merged(nn.Module):
    """Which of K categories the fine ones of an example are of: what training begins near.

    :ivar group: the category of each fine one (F,).
    :param categories: K.
    """

    def __init__(self, fine: Fine, group: Tensor, categories: int) -> None:
        super().__init__()
        self.fine, self.categories = fine, categories
        self.group: Tensor
        self.register_buffer("group", group)

    def forward(self, x: Tensor) -> Tensor:
        """q(c|x) of K categories (B, K), sums over those of the fine ones."""
        with torch.no_grad():
            of_fine = self.fine.category(x).probs
            return of_fine @ one_hot(self.group, self.categories).to(of_fine.dtype)


class Candidate(NamedTuple):
    """Categories that training may begin near.

    :param start: the number of the start that they come from.
    :param q: of the same examples for all candidates (N, K).
    """

    start: int
    merged: Merged
    q: Tensor


def joint_of_views(
    fine: Fine,
    split: Split,
    observed: Observation,
    view: Callable[[Tensor, Any], Tensor],
) -> Tensor:
    """p(c, c') with c ~ q(c|x), c' ~ q(c'|view of x), on average over examples (F, F).

    The same examples and views at every call; few examples are looked at several times.
    """
    with evaluating(split.device, fine):
        some = split.some(LOOKS)
        total: Tensor | float = 0.0
        times = min(max(1, LOOKS // (2 * len(some))), MOST_TIMES)
        for _ in range(times):
            for index in some.shuffled().split(BATCH):
                grey = some.grey(index)
                seen = view(grey, fine.category)
                of_x = fine.category(observe(grey, observed)).probs.double()
                total = total + of_x.mT @ fine.category(observe(seen, observed)).probs.double()
    assert isinstance(total, Tensor)
    return total.cpu() / (times * len(some))


def number_of(wanted: int, categories: int, examples: int) -> int:
    """F: as many as are wanted, at most ``MOST``, fewer for few examples, and never below K."""
    return max(categories, min(wanted, MOST, examples // LEAST_EXAMPLES))


def steps_of(settings: Settings, examples: int) -> int:
    """How long fine categories are learned: no longer than the run itself."""
    batches = math.ceil(examples / settings.batch_size)
    return min(settings.finer_steps, settings.epochs * batches)


def learn(
    fine: Fine,
    settings: Settings,
    split: Split,
    observed: Observation,
    view: View,
    weights: Mapping[str, float],
    steps: int,
    bar: Bar,
) -> None:
    """Fit q(c|x) over fine categories to real examples, by the run's terms of these.

    :param weights: of these terms.
    :param steps: to take.
    :raises UserError: where it diverges.
    """
    bound = InfoCatELBO(0.0, weights=dict.fromkeys(ELBO_SIGNS, 0.0) | dict(weights))
    module = Alone(bound, fine).train()
    parts: Any = Parts(None, fine, view, bound)  # type: ignore[arg-type]
    feed = Feed(split, settings.batch_size)
    recorded = recordable(settings, split.device, True)
    constants = (lambda: tuple(bound.weights.values())) if recorded else None
    optimizer = adam(fine.parameters(), settings.learning_rate)
    step = Step(feed.split, observed, parts, processes.wrap(module, False), optimizer, constants)
    taken = 0
    with computing_in(settings.precision, module):
        while taken < steps:
            for index in feed(processes.shared(split.shuffled())):
                if taken == steps:
                    break
                sharper = max((by for at, by in SHARPER if taken >= at * steps), default=1.0)
                bound.weights["conditional_entropy"] = sharper * weights["conditional_entropy"]
                step(index)
                taken += 1
                bar.update()
    if not all(value.isfinite().all() for value in fine.state_dict().values()):
        raise UserError(
            f"fine categories are not finite after {steps} steps. A smaller --learning_rate "
            "usually helps"
        )
    fine.eval()


class Start(NamedTuple):
    """Fine categories that one start learned.

    :param number: of the start.
    :param joints: p(c, c') for each of the :func:`looks` at an example, (F, F) each.
    """

    number: int
    fine: Fine
    joints: list[Tensor]


class Found(NamedTuple):
    """Where training begins.

    :param merged: the categories.
    :param seconds: that they took.
    """

    merged: Merged
    seconds: float


def starts(
    settings: Settings,
    split: Split,
    builder: Builder,
    parts: Parts,
    observed: Observation,
    number: int,
    steps: int,
    progress: bool | None = None,
) -> list[Start]:
    """Fine categories, learned several times.

    :param split: what is trained on.
    :param parts: the run's, of which the view is used.
    :param number: F.
    :param steps: of each time.
    :raises UserError: where they diverge.
    """
    weights = {name: settings.largest_weight(name) for name in REAL}
    weights["conditional_entropy"] = settings.weights.get("conditional_entropy", 0.0)
    found = []
    with Bar(STARTS * steps, 0, progress) as bar:
        for start in range(STARTS):
            pyro.set_rng_seed((settings.seed * STARTS + start) % (MOST_SEED + 1))
            fine = Fine(builder.encoder(), number).to(split.device)
            learn(fine, settings, split, observed, parts.view, weights, steps, bar)
            for buffer in fine.buffers():
                # What is remembered of the data is of each process's own share.
                processes.shared(buffer)
            joints = [joint_of_views(fine, split, observed, look) for look in looks(parts.view)]
            # Every process goes on with the same.
            shared = [processes.shared(joint.to(split.device)).cpu() for joint in joints]
            found.append(Start(start, fine, shared))
    return found


def near(
    found: Sequence[Start], categories: int, split: Split, observed: Observation
) -> tuple[Merged, str]:
    """The fine categories merged to K, and a line that says so.

    They are those of the start that agrees best with the others.
    """
    candidates: list[Candidate] = []
    for start in found:
        for joint in start.joints:
            group = merge(joint, categories).group.to(split.device)
            merged = Merged(start.fine, group, categories).eval().requires_grad_(False)
            candidates.append(Candidate(start.number, merged, _of(merged, split, observed)))
    agreed = agreements(candidates)
    best = int(processes.shared(agreed.to(split.device).argmax()))
    chosen = candidates[best]
    line = (
        f"{len(chosen.merged.group)} fine categories merged to {categories}: start {chosen.start} "
        f"of 0 to {len(found) - 1} agrees best with the others, by {agreed[best]:.3f}"
    )
    return chosen.merged, line


def wanting(settings: Settings, categories: int) -> str | None:
    """Why no fine categories are learned, to be merged to K; None where they are."""
    if settings.finer == 1:
        return "none are asked for"
    if categories == 1:
        return "there is one category"
    if not settings.largest_weight("nearness"):
        return "nearness has no weight"
    return unlearnable(settings)


def unlearnable(settings: Settings) -> str | None:
    """Why q(c|x) cannot learn from real examples alone; None where it can."""
    for name in ("consistency", "marginal_entropy"):
        if not settings.largest_weight(name):
            return f"{name} has no weight"
    if settings.view.class_path == default(DECLARED["view"]).class_path:
        return "there is no view"
    return None


def find(
    settings: Settings,
    data: DataSet,
    builder: Builder,
    parts: Parts,
    observed: Observation,
    folder: Path,
    progress: bool | None = None,
) -> Found:
    """Categories that training begins near; those of the folder, where it has them.

    :param parts: the run's, of which the view is used.
    :param folder: the run's, which keeps what was found.
    """
    categories, device = parts.model.prior.categories, parts.model.prior.logits.device
    of = origin(settings, data, categories)
    kept = read(folder / FINE, of, builder.encoder, categories)
    if kept is not None:
        return Found(kept.merged.to(device).eval().requires_grad_(False), kept.seconds)
    began = time.perf_counter()
    split = validation_split(data.train, settings)[0]
    number = number_of(settings.finer * categories, categories, len(split))
    steps = steps_of(settings, len(split))
    found = starts(settings, split, builder, parts, observed, number, steps, progress)
    merged, line = near(found, categories, split, observed)
    if processes.rank() == 0:
        print(line, flush=True)
    made = Found(merged, time.perf_counter() - began)
    write(folder / FINE, made, of)
    return made


def looks(view: View) -> list[Callable[[Tensor, Any], Tensor]]:
    """By what fine categories may be merged: the view, and what of it asks no classifier.

    A step towards the nearest boundary shows where examples are few, and moves show what changes
    within a kind; it depends on the data which of the two parts kinds better.
    """
    found: list[Callable[[Tensor, Any], Tensor]] = [view]
    if view.asks:
        found.append(lambda grey, _: view.moved(grey))
    return found


def _of(merged: Merged, split: Split, observed: Observation) -> Tensor:
    """q(c|x) of the merged categories of some examples (N, K), the same for every start."""
    with evaluating(split.device, merged):
        some = split.some(LOOKS)
        index = torch.arange(len(some), device=some.device)
        parts = [merged(observe(some.grey(part), observed)).cpu() for part in index.split(BATCH)]
    return torch.cat(parts)


def agreements(candidates: Sequence[Candidate]) -> Tensor:
    """How far each agrees with those of other starts: the mean of I(c; c') / log K over them.

    A bad start is bad in its own way.
    """
    return torch.tensor(
        [
            fmean(agreement(one.q, other.q) for other in candidates if other.start != one.start)
            for one in candidates
        ]
    )


def origin(settings: Settings, data: DataSet, categories: int) -> str:
    """What fine categories and their merging depend on, as one text.

    :param categories: K.
    """
    names = ("seed", "finer", "finer_steps", "batch_size", "observe", "encoder", "view")
    held = settings.as_dict()
    chosen = {name: held[name] for name in names}
    return json.dumps([data.fingerprint, categories, chosen], sort_keys=True, default=str)


def write(path: Path, found: Found, of: str) -> None:
    """Keep what was found, for a run that goes on.

    :param of: its :func:`origin`.
    """
    if processes.rank() > 0:
        return
    held = {"merged": found.merged.state_dict(), "seconds": found.seconds, "of": of}
    buffer = io.BytesIO()
    torch.save(held, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())


def read(path: Path, of: str, encoder: Callable[[], Encoder], categories: int) -> Found | None:
    """What was found earlier; None where nothing was, or something of another origin.

    :param encoder: builds a network of the run's.
    :param categories: K.
    :raises UserError: where the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with warnings.catch_warnings():
            # Of old pickles, which are refused below.
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
        if held["of"] != of:
            return None
        group = held["merged"]["group"]
        merged = Merged(Fine(encoder(), len(group)), torch.zeros_like(group), categories)
        own = merged.state_dict()
        merged.load_state_dict(held["merged"])
        for name, value in held["merged"].items():
            if value.dtype != own[name].dtype or not value.isfinite().all():
                raise ValueError(f"'{name}' is {value.dtype}, or not finite")
        seconds = float(held["seconds"])
        if group.unique().tolist() != list(range(categories)) or not 0 <= seconds < math.inf:
            raise ValueError("it holds what no run writes")
    except Exception as error:
        raise UserError(
            f"'{path}' is damaged ({reason(error)}); delete it to have its categories found anew"
        ) from error
    return Found(merged, seconds)
