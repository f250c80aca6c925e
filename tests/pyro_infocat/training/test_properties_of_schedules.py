"""What holds of every schedule: its ends, its values, and an epoch that nothing before decides."""

import math
from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_infocat.build import Parts
from pyro_infocat.cli.run_flags import read
from pyro_infocat.settings import Settings
from pyro_infocat.storage.configuration import write_yaml
from pyro_infocat.training.schedules import (
    RATE,
    Schedule,
    first_above_zero,
    interpolate,
    rate,
)
from tests.pyro_infocat.training.pieces import make_parts, settings

Points = list[list[float]]

EPOCHS = st.integers(-4, 30) | st.floats(-4, 30, width=16)
VALUES = st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1e6)


def schedules(values: st.SearchStrategy[float] = VALUES) -> st.SearchStrategy[Points]:
    """[epoch, value] pairs with rising epochs, between whole ones and before the first as well."""
    epochs = st.lists(EPOCHS, min_size=1, max_size=5, unique=True).map(sorted)
    return epochs.flatmap(
        lambda at: st.lists(values, min_size=len(at), max_size=len(at)).map(
            lambda held: [[epoch, value] for epoch, value in zip(at, held, strict=True)]
        )
    )


def exactly(points: Points, epoch: int) -> Fraction:
    """The value in fractions, without a rounding."""
    at = [Fraction(one) for one, _ in points]
    values = [Fraction(one) for _, one in points]
    after = bisect_right(at, epoch)
    if after in (0, len(at)):
        return values[min(after, len(at) - 1)]
    share = (epoch - at[after - 1]) / (at[after] - at[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])


@given(schedules(VALUES | st.floats(-1e6, 0)), st.integers(0, 40))
def test_a_value_is_that_of_the_straight_line(points: Points, epoch: int) -> None:
    found = interpolate(points, epoch)
    values = [value for _, value in points]
    size = max(map(abs, values))
    assert found == pytest.approx(float(exactly(points, epoch)), rel=1e-9, abs=1e-12 * size)
    assert min(values) <= found <= max(values)
    for at, value in points:
        if at >= 0 and at == int(at):
            assert interpolate(points, int(at)) == value
    assert interpolate(points, 1000) == values[-1]


@given(schedules(), st.booleans())
def test_a_schedule_whose_values_rise_never_falls(points: Points, rises: bool) -> None:
    values = sorted((value for _, value in points), reverse=not rises)
    sorted_points = [[at, value] for (at, _), value in zip(points, values, strict=True)]
    found = [interpolate(sorted_points, epoch) for epoch in range(35)]
    steps = [(b - a) * (1 if rises else -1) for a, b in pairwise(found)]
    assert min(steps) >= -1e-12 * max(values)


@given(schedules())
def test_the_first_epoch_above_zero_is_the_first_of_all(points: Points) -> None:
    """After the last point a schedule is flat."""
    above = [epoch for epoch in range(35) if exactly(points, epoch) > 0]
    assert first_above_zero(points) == (above[0] if above else None)


@given(st.floats(1e-8, 10), st.integers(1, 300))
def test_a_cosine_falls_from_the_rate_and_never_reaches_zero(start: float, epochs: int) -> None:
    chosen = Settings(learning_rate=start, anneal="cosine", epochs=epochs)
    found = [rate(chosen, epoch) for epoch in range(epochs)]
    assert found[0] == start
    assert all(a > b > 0 for a, b in pairwise(found))
    # What is gone through up to an epoch and what is left are the two halves of a symmetric curve.
    for epoch in range(1, epochs):
        assert found[epoch] + found[epochs - epoch] == pytest.approx(start)


@cache
def small() -> tuple[Settings, Parts]:
    chosen = settings(
        *("--guide", "guides.relaxed.Gumbel", "--guide.hidden", "4"),
        *(
            "--encoder.hidden",
            "[4]",
            "--decoder.hidden",
            "[4]",
            "--view",
            "pyro_infocat.views.Same",
        ),
    )
    return chosen, make_parts(chosen)


NAMED = st.fixed_dictionaries(
    {},
    optional={
        "kl_z": schedules(),
        "information_bound": schedules(),
        "temperature": schedules(st.floats(0.01, 10)),
        RATE: schedules(st.floats(1e-8, 1)),
    },
)


@given(NAMED, st.integers(1, 40), st.integers(0, 39), st.sampled_from(["constant", "cosine"]))
def test_an_epoch_is_the_same_whatever_was_set_before_it(
    given_: dict[str, Points], epochs: int, epoch: int, anneal: str
) -> None:
    """As a run that goes on there is as one that has come there, weights and rate and part."""
    epoch = min(epoch, epochs - 1)
    chosen, parts = small()
    chosen = replace(chosen, schedules=given_, epochs=epochs, anneal=anneal)

    def state(*gone_through: int) -> dict[str, float]:
        parts.bound.weights = dict(weights)
        schedule = Schedule(chosen, parts)
        optimizer = torch.optim.SGD(parts.guide.parameters(), lr=99.0)
        parts.guide.temperature = 1.0
        for one in gone_through:
            schedule.set(one, optimizer)
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        now = {**parts.bound.weights, RATE: rates.pop(), "temperature": parts.guide.temperature}
        assert schedule.at(gone_through[-1]).items() <= now.items()
        return now

    weights = dict(parts.bound.weights)
    try:
        found = state(epoch)
        assert found == state(*range(epoch + 1)) == state(epochs - 1, 0, epoch)
    finally:
        parts.bound.weights = weights
    for name, points in given_.items():
        assert found[name] == pytest.approx(float(exactly(points, epoch)), rel=1e-9, abs=1e-9)
    for name, weight in weights.items():
        assert name in given_ or found[name] == weight


@given(schedules(st.floats(0, 10)))
def test_a_term_that_weighs_in_some_epoch_is_ever_weighted(points: Points) -> None:
    chosen, parts = small()
    schedule = Schedule(replace(chosen, schedules={"consistency": points}), parts)
    weighs = any(interpolate(points, epoch) > 0 for epoch in range(35))
    found = "consistency" in {term.name for term in schedule.ever_weighted()}
    assert found or not weighs


@given(
    st.dictionaries(
        st.sampled_from(["kl_z", "kl_c", RATE]), schedules(st.floats(0.5, 9)), min_size=1
    )
)
def test_a_schedule_on_the_command_line_is_what_it_says(given_: dict[str, Points]) -> None:
    """As YAML over several lines, as Python shows it, and each name by a flag of its own."""
    flags = [f"--schedules.{name}={points}" for name, points in given_.items()]
    ways = [["--schedules", write_yaml(given_)], ["--schedules", str(given_)], flags]
    for way in ways:
        found = read(["--config", "mnist-paper", *way]).resolver.plain()["schedules"]
        assert {name: found[name] for name in given_} == given_
        assert all(math.isfinite(value) for points in found.values() for _, value in points)
