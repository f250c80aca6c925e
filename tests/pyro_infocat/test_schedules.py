"""Schedules and the learning rate."""

import math
from dataclasses import replace

import pytest

from pyro_infocat.arguments import parse
from pyro_infocat.schedules import interpolate, rate


@pytest.mark.parametrize(
    ("epoch", "value"), [(0, 2.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 3.0), (6, 2.0), (99, 2.0)]
)
def test_a_schedule_joins_its_points_by_straight_lines(epoch: int, value: float) -> None:
    assert interpolate([[2, 2], [4, 4], [6, 2]], epoch) == pytest.approx(value)


def test_a_schedule_of_one_point_is_constant() -> None:
    assert interpolate([[5, 0.5]], 0) == interpolate([[5, 0.5]], 9) == 0.5


def test_the_learning_rate_falls_by_half_a_cosine() -> None:
    settings = parse(["--learning_rate", "0.001"])[0]
    cosine = replace(settings, anneal="cosine", epochs=4, learning_rate=1.0)
    found = [rate(cosine, epoch) for epoch in range(4)]
    assert found == pytest.approx([1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4])
    assert [rate(settings, epoch) for epoch in range(4)] == [1e-3] * 4
