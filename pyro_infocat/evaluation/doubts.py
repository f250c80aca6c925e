"""When a result is not to be trusted: sentences for the reader. No label is read.

Shapes: K categories.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from pyro_infocat.evaluation.clustering import USED
from pyro_infocat.evaluation.overlap import overlaps

DEAD = 0.1
"""A category is dead with less than this share of what p(c) gives it, and less than 1% of all: of
10 equal categories that is 1%, and of 100 nobody expects as much of each."""

ALIKE = 0.5
"""Two categories are one above this overlap, as to the monitor of training: half of what q(c|x)
says of the two is wrong, which is what a coin would do."""

UNDECIDED = 0.8
"""q(c|x) is undecided below this mean confidence: by its own account one example in five is in the
wrong category."""

GIVEN_BACK = 0.5
"""A category is not recognised below this share: most of what it generates is taken for others."""

AGREEING = 0.8
"""Seeds disagree below this adjusted Rand index: about that of two runs that each have one example
in twenty in a wrong place of its own."""

TOGETHER = 0.625
"""A category depends on the seed where others keep less of its pairs of examples together: that is
what they keep with three quarters of it in one place and the rest in another."""

MOST_SAID = 10
"""Categories that a sentence names, and sentences about categories that are one."""


def doubts(
    counts: Sequence[int],
    expected: Sequence[float],
    confidence: float,
    taken: Tensor,
    given_back: Sequence[float],
) -> list[str]:
    """A sentence for each reason to doubt the categories; none where there is no reason.

    :param counts: test examples of each category, K.
    :param expected: p(c), K.
    :param confidence: mean of the largest q(c|x) over test examples.
    :param taken: what generated examples of each category are taken for, on average (K, K).
    :param given_back: the share of each category's that are taken for its own, K.
    """
    dead = _dead(counts, expected)
    alive = [c for c in range(len(counts)) if c not in dead]
    groups = _groups(overlaps(taken), alive)
    grouped = {c for group in groups for c in group}
    lost = [c for c in alive if c not in grouped and given_back[c] < GIVEN_BACK]
    return [
        *_of_the_dead(dead, sum(counts[c] for c in dead)),
        *_of_the_grouped(groups),
        *_of_the_undecided(confidence),
        *_of_the_lost(lost, given_back),
    ]


def doubts_of_seeds(
    agreement: float, seeds: int, together: Sequence[float | None] = ()
) -> list[str]:
    """A sentence where runs of several seeds disagree, and one where they do of some categories.

    :param agreement: mean adjusted Rand index of every two of them.
    :param together: the share of each category's pairs of examples that the others keep together,
        K; None where there are no pairs.
    """
    found = []
    if agreement < AGREEING:
        found.append(
            f"Seeds disagree: of {seeds} runs every two agree by {agreement:.2f} on average "
            f"(adjusted Rand index; {AGREEING:g} or more is agreement), so other seeds find other "
            "categories."
        )
    parted = [c for c, share in enumerate(together) if share is not None and share < TOGETHER]
    if parted:
        whose = "its" if len(parted) == 1 else "their"
        found.append(
            f"{_named(parted)} not what other seeds find: they part more than "
            f"{1 - TOGETHER:.0%} of {whose} pairs of test examples."
        )
    return found


def _dead(counts: Sequence[int], expected: Sequence[float]) -> list[int]:
    total = sum(counts)
    return [
        c
        for c, (count, share) in enumerate(zip(counts, expected, strict=True))
        if count < min(USED, DEAD * share) * total
    ]


def _of_the_dead(dead: Sequence[int], count: int) -> Iterator[str]:
    if dead:
        noun = "example" if count == 1 else "examples"
        together = " together" if count and len(dead) > 1 else ""
        yield f"{_named(dead)} dead: {count or 'no'} test {noun}{together}."


def _groups(overlap: Tensor, alive: Sequence[int]) -> list[list[int]]:
    """Categories that are one: each overlaps with some other of its group by more than ALIKE."""
    left, groups = list(alive), []
    while left:
        group = [left.pop(0)]
        # The group grows while this goes over it.
        for a in group:
            near = [b for b in left if overlap[a, b] > ALIKE]
            left = [b for b in left if b not in near]
            group += near
        if len(group) > 1:
            groups.append(sorted(group))
    return groups


def _of_the_grouped(groups: Sequence[Sequence[int]]) -> Iterator[str]:
    for group in groups[:MOST_SAID]:
        yield (
            f"{_named(group)} one: q(c|x) cannot tell apart what the model generates of them "
            f"(overlap above {ALIKE:.0%})."
        )
    if len(groups) > MOST_SAID:
        yield f"So are those of {len(groups) - MOST_SAID} more groups of categories."


def _of_the_undecided(confidence: float) -> Iterator[str]:
    if confidence < UNDECIDED:
        yield (
            f"q(c|x) is undecided: by its own account {1 - confidence:.0%} of the test examples "
            "are in the wrong category."
        )


def _of_the_lost(lost: Sequence[int], given_back: Sequence[float]) -> Iterator[str]:
    if lost:
        least = min(given_back[c] for c in lost)
        of = f"{least:.0%}" if len(lost) == 1 else f"as little as {least:.0%}"
        yield (
            f"{_named(lost)} not recognised: q(c|x) gives back {of} of what the model generates "
            f"of {'it' if len(lost) == 1 else 'them'}."
        )


def _named(categories: Sequence[int]) -> str:
    """``Category 3 is``, ``Categories 3, 4 and 5 are``."""
    if len(categories) == 1:
        return f"Category {categories[0]} is"
    shown = [str(c) for c in categories[:MOST_SAID]]
    if len(categories) > MOST_SAID:
        shown.append(f"{len(categories) - MOST_SAID} others")
    return f"Categories {', '.join(shown[:-1])} and {shown[-1]} are"
