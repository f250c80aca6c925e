"""Reasons to doubt: each where it holds, and none where nothing is wrong."""

import pytest
import torch
from torch import Tensor

from pyro_infocat.evaluation.doubts import doubts, doubts_of_seeds


def taken(categories: int, **shares: float) -> Tensor:
    """All is taken for its own, but for shares ``of_for``."""
    table = torch.eye(categories)
    for name, share in shares.items():
        of, taken_for = map(int, name[1:].split("_"))
        table[of, of] -= share
        table[of, taken_for] += share
    return table


def said(
    counts: list[int] | None = None,
    expected: list[float] | None = None,
    confidence: float = 0.95,
    table: Tensor | None = None,
    given_back: list[float] | None = None,
) -> list[str]:
    table = taken(4) if table is None else table
    number = len(table)
    return doubts(
        counts or [100] * number,
        expected or [1 / number] * number,
        confidence,
        table,
        given_back or [1.0] * number,
    )


def test_nothing_is_said_of_what_is_right() -> None:
    assert said() == []
    assert doubts_of_seeds(0.8, 3) == []


@pytest.mark.parametrize(
    ("counts", "expected", "sentences"),
    [
        # Under 1% where a quarter was to be expected.
        ([333, 333, 331, 3], None, ["Category 3 is dead: 3 test examples."]),
        ([333, 333, 333, 1], None, ["Category 3 is dead: 1 test example."]),
        ([500, 500, 0, 0], None, ["Categories 2 and 3 are dead: no test examples."]),
        ([500, 495, 0, 5], None, ["Categories 2 and 3 are dead: 5 test examples together."]),
        ([330, 330, 330, 10], None, []),
        # Of one that p(c) gives 1%, a tenth of that is enough, and nothing is not.
        ([333, 333, 333, 2], [0.33, 0.33, 0.33, 0.01], []),
        ([333, 333, 334, 0], [0.33, 0.33, 0.33, 0.01], ["Category 3 is dead: no test examples."]),
    ],
)
def test_the_dead(counts: list[int], expected: list[float] | None, sentences: list[str]) -> None:
    assert said(counts, expected) == sentences


def test_many_categories_of_which_none_can_have_much() -> None:
    table = taken(200)
    assert said([5] * 200, table=table) == []
    (sentence,) = said([0] * 20 + [5] * 180, table=table)
    assert sentence == (
        "Categories 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10 others are dead: no test examples."
    )


def test_categories_that_are_one() -> None:
    """By turns, or all on one side; and a third that is one with the second alone."""
    of = "one: q(c|x) cannot tell apart what the model generates of them (overlap above 50%)."
    assert said(table=taken(4, _0_2=0.3, _2_0=0.3)) == [f"Categories 0 and 2 are {of}"]
    assert said(table=taken(4, _0_2=0.6)) == [f"Categories 0 and 2 are {of}"]
    assert said(table=taken(4, _0_2=0.2, _2_0=0.2)) == []
    chain = taken(4, _0_2=0.6, _3_2=0.6)
    assert said(table=chain) == [f"Categories 0, 2 and 3 are {of}"]
    # What they do not give back follows from it, and a dead one has been told.
    assert said(table=chain, given_back=[0.4, 1, 1, 0.4]) == [f"Categories 0, 2 and 3 are {of}"]
    (dead,) = said([100, 100, 0, 100], table=taken(4, _0_2=0.6))
    assert dead.startswith("Category 2 is dead")


def test_who_is_undecided() -> None:
    assert said(confidence=0.8) == []
    (sentence,) = said(confidence=0.55)
    assert sentence == (
        "q(c|x) is undecided: by its own account 45% of the test examples are in the wrong "
        "category."
    )


def test_what_is_not_given_back() -> None:
    assert said(given_back=[1, 0.5, 1, 1]) == []
    (one,) = said(given_back=[1, 0.25, 1, 1])
    assert one == (
        "Category 1 is not recognised: q(c|x) gives back 25% of what the model generates of it."
    )
    (two,) = said(given_back=[0.125, 0.25, 1, 1])
    assert two.startswith("Categories 0 and 1 are not recognised: q(c|x) gives back as little as 1")


def test_seeds_that_disagree() -> None:
    (sentence,) = doubts_of_seeds(0.512, 3)
    assert sentence.startswith("Seeds disagree: of 3 runs every two agree by 0.51 on average")
    # Three quarters of a category in one place and the rest in another.
    assert doubts_of_seeds(0.9, 3, [1.0, None, 0.75**2 + 0.25**2]) == []
    assert doubts_of_seeds(0.9, 3, [1.0, None, 0.6]) == [
        "Category 2 is not what other seeds find: they part more than 38% of its pairs of test "
        "examples."
    ]
