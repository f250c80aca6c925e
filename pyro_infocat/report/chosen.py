"""What the page shows of each category, and what can be said of all of them.

Shapes: N test examples, K categories, L labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_infocat.evaluation.clustering import USED
from pyro_infocat.evaluation.likelihood import knows_its_density
from pyro_infocat.evaluation.overlap import overlaps, taken_for
from pyro_infocat.evaluation.part import Tested
from pyro_infocat.report.words import counted, listed, percent

ALIKE = 0.5
"""Two categories look alike above this overlap, as to the monitor of training."""

UNDECIDED = 0.5
"""An example is undecided where no category has this much of q(c|x)."""

MOST_SAID = 5
"""Categories, pairs or labels that a sentence names."""


@dataclass(frozen=True)
class Category:
    """A category's test examples (indices), as the page shows them.

    :ivar count: how many there are.
    :ivar typical: those whose z lies where p(z|c) is highest.
    :ivar doubtful: those of the smallest gap between the two likeliest categories.
    :ivar unlikely: those of the lowest log p(x); none where it is not known.
    :ivar label: the one that most of them have, with its share; None without labels or examples.
    :ivar name: of the class that it stands for; "" where no known label said so.
    """

    number: int
    count: int
    typical: list[int]
    doubtful: list[int]
    unlikely: list[int]
    label: tuple[str, float] | None
    name: str = ""


class Chosen:
    """The test examples sorted by category.

    Reads what evaluation has computed already: q(c|x), z and log p(x) of each example.
    """

    def __init__(self, tested: Tested, most: int) -> None:
        self.tested, self.most = tested, most
        self.probabilities = tested.logits.softmax(-1).cpu()
        self.categories = self.probabilities.shape[1]
        best = self.probabilities.topk(min(2, self.categories), -1)
        self.largest, self.nearest = best.values[:, 0], best.indices
        # A plain VAE has one category and no doubt.
        second = best.values[:, 1] if self.categories > 1 else torch.zeros_like(self.largest)
        self.gap = self.largest - second
        component = tested.model.prior.component(tested.category)
        self.density = component.log_prob(tested.z).cpu()
        self.log_p = tested.log_p.cpu() if knows_its_density(tested.model) else None
        self.assigned = tested.category.cpu()
        self.counts = self.assigned.bincount(minlength=self.categories).tolist()

    def all(self) -> list[Category]:
        """Every category, the fullest first."""
        order = sorted(range(self.categories), key=lambda c: (-self.counts[c], c))
        return [self._of(c) for c in order]

    def _of(self, c: int) -> Category:
        here = (self.assigned == c).nonzero()[:, 0]
        classes, label = self.tested.data.facts.classes, None
        if classes and len(here):
            of_each = self.tested.labels.cpu()[here].bincount(minlength=len(classes))
            label = classes[int(of_each.argmax())], of_each.max().item() / len(here)
        return Category(
            c,
            len(here),
            self._first(here, -self.density),
            self._first(here, self.gap) if self.categories > 1 else [],
            [] if self.log_p is None else self._first(here, self.log_p),
            label,
            self.tested.data.names.get(c, ""),
        )

    def _first(self, here: Tensor, by: Tensor) -> list[int]:
        """The examples of least ``by`` (N,)."""
        order = by[here].argsort(stable=True)[: self.most]
        found: list[int] = here[order].tolist()
        return found

    def doubt(self, index: int) -> list[tuple[int, float]]:
        """The two likeliest categories of an example with their q(c|x)."""
        return [(c, self.probabilities[index, c].item()) for c in self.nearest[index].tolist()]

    def sentences(self, decoded: bool) -> Iterator[str]:
        """What the numbers support.

        :param decoded: whether generated examples say anything: reconstruction had a weight.
        """
        total = len(self.assigned)
        empty = [c for c, n in enumerate(self.counts) if n < USED * total]
        if empty:
            having = sum(self.counts[c] for c in empty)
            noun, each = ("Category", "has") if len(empty) == 1 else ("Categories", "each have")
            yield (
                f"{noun} {_some(empty)} {each} under 1% of the test examples"
                f" ({having:,} of {total:,}{' together' if len(empty) > 1 else ''})."
            )
        elif self.categories > 1:
            yield f"All {self.categories} categories have at least 1% of the test examples."
        if decoded and self.categories > 1:
            yield from self._alike(set(range(self.categories)) - set(empty))
        undecided = int((self.largest < UNDECIDED).sum())
        if undecided:
            yield (
                f"q(c|x) is undecided about {undecided:,} of {counted(total, 'test example')} "
                f"({percent(undecided / total)}): no category has half of it."
            )
        if self.tested.data.facts.classes:
            yield from self._without_category()

    def _alike(self, alive: set[int]) -> Iterator[str]:
        overlap = overlaps(taken_for(self.tested.model, self.tested.guide))
        first, second = overlap.triu(1).gt(ALIKE).nonzero(as_tuple=True)
        pairs = [
            (overlap[a, b].item(), a, b)
            for a, b in zip(first.tolist(), second.tolist(), strict=True)
            if a in alive and b in alive
        ]
        for amount, a, b in sorted(pairs, reverse=True)[:MOST_SAID]:
            yield (
                f"Categories {a} and {b} look alike: what the model generates of the two overlaps "
                f"by {amount:.0%} in q(c|x)."
            )
        if len(pairs) > MOST_SAID:
            yield f"{len(pairs) - MOST_SAID} more pairs of categories look alike."

    def _without_category(self) -> Iterator[str]:
        """Labels that are no category's most frequent one."""
        classes, labels = self.tested.data.facts.classes, self.tested.labels.cpu()
        cells = (self.assigned * len(classes) + labels).bincount(
            minlength=self.categories * len(classes)
        )
        table = cells.reshape(self.categories, len(classes))
        stands = set(table[table.sum(1) > 0].argmax(1).tolist())
        missed = [y for y in range(len(classes)) if y not in stands and table[:, y].any()]
        for y in missed[:MOST_SAID]:
            c = int(table[:, y].argmax())
            share = table[c, y].item() / int(table[:, y].sum())
            other = classes[int(table[c].argmax())]
            yield (
                f"No category is mostly of label {classes[y]}: {share:.0%} of its test examples "
                f"are in category {c}, which is mostly of label {other}."
            )
        if len(missed) > MOST_SAID:
            yield f"{len(missed) - MOST_SAID} more labels have no category of their own."


def _some(numbers: list[int]) -> str:
    """The first few of some categories."""
    if len(numbers) <= 2 * MOST_SAID:
        return listed(numbers)
    return f"{', '.join(map(str, numbers[:MOST_SAID]))} and {len(numbers) - MOST_SAID} others"
