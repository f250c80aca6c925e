"""A few labels that training sees: which ones, and what a step draws of them.

Shapes: B batch, K categories, M labelled examples of a step, N examples, X features.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyro_infocat.build import Parts
from pyro_infocat.data import DataSet, Observation, Split
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation.known import labelled
from pyro_infocat.networks import statistics_kept
from pyro_infocat.objective.terms import Known, Labels
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import Settings

MOST_DRAWN = 64
"""Labelled examples that a step draws beside its batch, at most; and half as many as it holds."""

MOST_HELD = 20_000
"""Labelled examples to draw from, at most, where the training split does not lie on the device."""


FADES = (("0%", 1.0), ("40%", 1.0), ("60%", 0.01))
"""How the weight of the term ``labels`` falls over a run, as shares of its largest."""


def fading(settings: Settings) -> Settings:
    """The settings with a schedule for the term ``labels``, where they have none.

    At first labels decide what the categories are. Later what all examples say is right more often
    than a label that does not fit it.
    """
    if not settings.known_labels or Labels.name in settings.schedules:
        return settings
    most = settings.weights.get(Labels.name, Labels.weight)
    points: list[list[float | str]] = [[at, most * share] for at, share in FADES]
    return replace(settings, schedules={**settings.schedules, Labels.name: points})


def see(data: DataSet, settings: Settings) -> DataSet:
    """The data set as training sees it: labels that it does not see are -1 in its training split.

    They are drawn by the run's seed, evenly over the classes, the same on every machine.

    :raises UserError: where there are not as many.
    """
    train, number = data.train, settings.known_labels
    labels = train.labels.cpu().clone() if train.labelled else torch.full((len(train),), -1)
    # What is held out is not trained on.
    labels[validation_order(len(train), settings.seed)[: settings.held_out(len(train))]] = -1
    there = int((labels >= 0).sum())
    if not there:
        raise UserError("the data have no known labels; leave it out", "known_labels", number)
    if isinstance(number, int) and number > there:
        held = int((data.test.labels >= 0).sum()) if data.test.labelled else 0
        others = f" ({held:,} are of the test split)" if held else ""
        raise UserError(
            f"there are {there:,} known labels to train with{others}; give no more, or all",
            "known_labels",
            number,
        )
    chosen = drawn_evenly(labels, there if isinstance(number, str) else number, settings.seed)
    seen = torch.full_like(labels, -1)
    seen[chosen] = labels[chosen]
    last = int(labels[chosen].max())
    if last >= len(data.facts.classes):
        raise UserError(
            f"there are labels up to {last}, and names of {len(data.facts.classes)} classes; give "
            "each class a name",
            "known_labels",
            number,
        )
    made = replace(
        data,
        train=replace(train, labels=seen.to(train.device)),
        # A reader that does not know of this says so.
        said=data.said.replace(", for evaluation alone", ""),
        names={int(k): data.facts.classes[int(k)] for k in labels[chosen].unique()},
    )
    made.__dict__["fingerprint"] = data.fingerprint
    return made


def drawn_evenly(labels: Tensor, number: int, seed: int) -> Tensor:
    """Indices of ``number`` known labels: of each class as many, where there are as many.

    :param labels: (N,), -1 where it is not known.
    :returns: (``number``,), rising.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order] >= 0]
    # One of each class, then a second one of each, and so on.
    turn = torch.zeros_like(order)
    for label in labels[order].unique():
        here = labels[order] == label
        turn[here] = torch.arange(int(here.sum()))
    return order[turn.argsort(stable=True)][:number].sort().values


def check_known(settings: Settings, parts: Parts, data: DataSet, observation: Observation) -> None:
    """Refuse known labels that the parts have no place for.

    :param data: as training sees them.
    :raises UserError: naming the first.
    """
    model, guide = parts.model, parts.guide
    last = max(data.names)
    if last >= model.prior.categories:
        raise UserError(
            f"category {last} would stand for class {data.names[last]}, and there are "
            f"{model.prior.categories}; give at least {last + 1}",
            "prior.categories",
        )
    looking = [term.name for term in parts.bound.declared if "labels" in term.needs]
    if looking:
        raise UserError(
            f"{', '.join(looking)} looks at the labels of all examples, and --known_labels hides "
            "some; leave one of the two out",
            "terms",
        )
    some = data.train.part(torch.arange(2, device=data.train.device))
    x, c = some.fixed(observation), torch.full_like(some.labels, last)
    with (
        attributed("guide", settings.guide.class_path),
        evaluating(x.device, guide),
        statistics_kept(model, guide),
    ):
        parts.bound.evaluate(model, guide, x, known=Known(c, x, None, c))


def counted(data: DataSet) -> str:
    """How many labels training sees, of how many classes, in words."""
    counts = data.train.labels[data.train.labels >= 0].bincount()
    counts = counts[counts > 0]
    least, most = int(counts.min()), int(counts.max())
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    of = f"each of {len(counts)} classes" if len(counts) > 1 else "one class"
    return (
        f"training sees {int(counts.sum()):,} labels of {len(data.train):,} examples, {each} of "
        f"{of}; category k stands for class k"
    )


class Labelled:
    """Examples whose labels training sees, on the device.

    :param split: what is trained on; labels that are not seen are -1 in it.
    """

    def __init__(self, split: Split) -> None:
        self.places = (split.labels >= 0).nonzero()[:, 0]
        self.split = split
        if not split.resident:
            self.split = split.part(self.places).some(MOST_HELD)
            self.places = torch.arange(len(self.split), device=split.device)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """Grey levels (M, X) and categories (M,) of some, which a CUDA graph can record.

        :param batch: B.
        """
        number = min(MOST_DRAWN, (batch + 1) // 2)
        chosen = torch.randint(len(self.places), (number,), device=self.places.device)
        index = self.places[chosen]
        return self.split.grey(index), self.split.labels[index]


def aligned(
    clusters: Callable[[Tensor], Tensor], split: Split, categories: int
) -> Callable[[Tensor], Tensor]:
    """Clusters in the places of the categories whose labels lie in them most often.

    :param clusters: how much each example of x (B, X) counts in the place of its cluster (B, K).
    :param split: what is trained on; labels that are not seen are -1 in it.
    """
    some = labelled(split).some(MOST_HELD)
    cells = some.labels * categories + clusters(some.grey()).argmax(-1)
    table = cells.bincount(minlength=categories**2).reshape(categories, categories)
    _, cluster = linear_sum_assignment(table.cpu().numpy(), maximize=True)
    place = torch.from_numpy(cluster).to(split.device)
    return lambda x: clusters(x)[:, place]


def validation_order(number: int, seed: int) -> Tensor:
    """The order of a training split of which the first are held out (N,)."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed))
