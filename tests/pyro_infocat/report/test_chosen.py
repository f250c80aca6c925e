"""Which examples stand for a category, and what is said of the categories."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pyro_infocat.evaluation import Tested
from pyro_infocat.report import chosen as module
from pyro_infocat.report.chosen import Chosen
from tests.pyro_infocat.report.pieces import examined, sure


def random_q(number: int, categories: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (3 * torch.randn(number, categories, generator=generator)).softmax(-1)


def test_the_chosen_are_the_extremes_of_their_category() -> None:
    """Against a sort of each category's examples by the three numbers, computed one by one."""
    q = random_q(60, 4)
    of = examined(q, labels=[n % 3 for n in range(60)], classes=["a", "b", "c"])
    modes = 3.0 * torch.eye(4)
    found = Chosen(of, 3).all()
    assert [one.count for one in found] == sorted((one.count for one in found), reverse=True)
    for one in found:
        here = [n for n in range(60) if int(q[n].argmax()) == one.number]
        assert one.count == len(here)
        # Of unit normals the likeliest point is the nearest.
        away = {n: math.dist(of.z[n].tolist(), modes[one.number].tolist()) for n in here}
        gap = {n: sorted(q[n].tolist())[-1] - sorted(q[n].tolist())[-2] for n in here}
        assert one.typical == sorted(here, key=away.__getitem__)[:3]
        assert one.doubtful == sorted(here, key=gap.__getitem__)[:3]
        assert one.unlikely == sorted(here, key=lambda n: of.log_p[n].item())[:3]
        labels = [n % 3 for n in here]
        most = max(range(3), key=labels.count)
        assert one.label is not None
        assert labels.count(most) == max(labels.count(y) for y in range(3))
        assert one.label[1] == pytest.approx(labels.count(most) / len(here))


def test_the_two_likeliest_of_an_example() -> None:
    of = examined(torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.1, 0.2]]))
    assert Chosen(of, 2).doubt(0) == [(1, pytest.approx(0.5)), (2, pytest.approx(0.4))]
    assert Chosen(of, 2).doubt(1) == [(0, pytest.approx(0.7)), (2, pytest.approx(0.2))]


def test_one_category_has_no_doubt() -> None:
    of = examined(torch.ones(5, 1))
    (only,) = Chosen(of, 2).all()
    assert (only.count, only.doubtful, only.label) == (5, [], None)
    assert len(only.typical) == 2
    assert list(Chosen(of, 2).sentences(True)) == []


def test_an_empty_category_shows_nothing() -> None:
    found = Chosen(examined(sure([0, 0, 1], 3)), 2).all()
    assert [(one.number, one.count) for one in found] == [(0, 2), (1, 1), (2, 0)]
    assert found[-1].typical == found[-1].doubtful == found[-1].unlikely == []


def said(of: Tested, decoded: bool = False) -> list[str]:
    return list(Chosen(of, 2).sentences(decoded))


def test_of_healthy_categories_that_alone_is_said() -> None:
    assert said(examined(sure([0, 1, 2] * 10, 3))) == [
        "All 3 categories have at least 1% of the test examples."
    ]


@pytest.mark.parametrize(
    ("categories", "number", "line"),
    [
        ([0, 1] * 100, 3, "Category 2 has under 1% of the test examples (0 of 200)."),
        (
            [0, 1] * 100 + [2],
            5,
            "Categories 2, 3 and 4 each have under 1% of the test examples (1 of 201 together).",
        ),
        (
            [0] * 10,
            15,
            "Categories 1, 2, 3, 4, 5 and 9 others each have under 1% of the test examples "
            "(0 of 10 together).",
        ),
    ],
)
def test_categories_out_of_use_are_named(categories: list[int], number: int, line: str) -> None:
    assert said(examined(sure(categories, number))) == [line]


def test_two_in_use_at_exactly_one_per_cent_are_in_use() -> None:
    (line,) = said(examined(sure([0] * 99 + [1], 2)))
    assert line == "All 2 categories have at least 1% of the test examples."


def test_what_q_leaves_open_is_counted() -> None:
    q = torch.cat([sure([0, 1, 2] * 10, 3), torch.tensor([[0.4, 0.3, 0.3], [0.2, 0.3, 0.5]])])
    assert said(examined(q))[1:] == [
        "q(c|x) is undecided about 1 of 32 test examples (3.1%): no category has half of it."
    ]


def test_categories_that_look_alike_are_named_where_they_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """0 and 1 are told apart by a coin; 3 is taken for 2, but holds no example."""
    taken = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1.0, 0], [0, 0, 1.0, 0]])
    monkeypatch.setattr(module, "taken_for", lambda *_: taken)
    of = examined(sure([0, 1, 2] * 10, 4))
    alike = [line for line in said(of, decoded=True) if "alike" in line]
    assert alike == [
        "Categories 0 and 1 look alike: what the model generates of the two overlaps by 100% "
        "in q(c|x)."
    ]
    assert not [line for line in said(of) if "alike" in line]


def test_of_many_pairs_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "taken_for", lambda *_: torch.full((4, 4), 0.25))
    lines = said(examined(sure([0, 1, 2, 3] * 5, 4)), decoded=True)
    assert len([line for line in lines if "look alike:" in line]) == 5
    assert lines[-1] == "1 more pairs of categories look alike."


def labelled(categories: Sequence[int], labels: Sequence[int], classes: Sequence[str]) -> Tested:
    return examined(sure(categories, max(categories) + 1), labels, classes)


def test_a_label_without_a_category_is_named_with_where_it_went() -> None:
    of = labelled([0] * 9 + [1] * 5, [0] * 6 + [2] * 3 + [1] * 4 + [2], ["one", "two", "three"])
    assert said(of)[1:] == [
        "No category is mostly of label three: 75% of its test examples are in category 0, which "
        "is mostly of label one."
    ]
    assert said(labelled([0, 1, 1], [0, 1, 1], ["one", "two"]))[1:] == []
    # Nothing can be said of a label that no test example has.
    assert said(labelled([0, 1, 1], [0, 1, 1], ["one", "two", "three"]))[1:] == []
