"""Schedules: what they may set, when, and what they refuse."""

import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_infocat import UserError
from pyro_infocat.build import Parts
from pyro_infocat.objective import Terms
from pyro_infocat.settings import Part, Settings
from pyro_infocat.training import step
from pyro_infocat.training.schedules import Schedule, first_above_zero, interpolate, rate
from pyro_infocat.training.step import WARM_UP
from tests.pyro_infocat.training.pieces import fit, make_parts, make_step, settings

pytestmark = pytest.mark.usefixtures("alone")

USERS = "tests.users_parts.scheduled"
ROLES = ["prior", "likelihood", "decoder", "encoder", "guide", "view", "model", "terms"]


def users_part(role: str, **changes: Any) -> Settings:
    """A run with a part of a user's own, which declares the attribute ``amount``."""
    if role == "terms":
        return settings(terms=(Part(f"{USERS}.Amounts"),), **changes)
    chosen = settings(**changes)
    arguments = {"hidden": [4]} if role in ("decoder", "encoder") else {}
    return replace(chosen, **{role: Part(f"{USERS}.{role.capitalize()}", arguments)})


def of_role(parts: Parts, role: str) -> list[Any]:
    """The instances of a part."""
    return {
        "prior": [parts.model.prior],
        "likelihood": [parts.model.decoder.likelihood],
        "decoder": [parts.model.decoder],
        "encoder": [parts.guide.encoder, parts.guide.latent_encoder],
        "guide": [parts.guide],
        "view": [parts.view],
        "model": [parts.model],
        "terms": [parts.bound.declared[-1]],
    }[role]


def optimizer_of(parts: Parts, learning_rate: float = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD(parts.model.parameters(), lr=learning_rate)


def refuse(chosen: Settings) -> str:
    """The line that refuses settings."""
    with pytest.raises(UserError) as caught:
        Schedule(chosen, make_parts(chosen))
    return str(caught.value)


# Values of an epoch.


@pytest.mark.parametrize(
    ("epoch", "value"), [(0, 2.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 3.0), (6, 2.0), (99, 2.0)]
)
def test_a_schedule_joins_its_points_by_straight_lines(epoch: int, value: float) -> None:
    assert interpolate([[2, 2], [4, 4], [6, 2]], epoch) == pytest.approx(value)


def test_a_schedule_of_one_point_is_constant() -> None:
    assert interpolate([[5, 0.5]], 0) == interpolate([[5, 0.5]], 9) == 0.5


def test_the_learning_rate_falls_by_half_a_cosine() -> None:
    constant = settings(learning_rate=0.001)
    cosine = replace(constant, anneal="cosine", epochs=4, learning_rate=1.0)
    found = [rate(cosine, epoch) for epoch in range(4)]
    assert found == pytest.approx([1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4])
    assert [rate(constant, epoch) for epoch in range(4)] == [1e-3] * 4


@pytest.mark.parametrize(
    ("points", "epoch"),
    [
        *(([[0, 1]], 0), ([[3, 0], [5, 1]], 4), ([[0, 0], [9, 0]], None)),
        *(([[2.5, 0], [2.6, 1]], 3), ([[-1, 1]], 0), ([[-5, 0], [-3, 2]], 0)),
        # Without going through every epoch up to there.
        *(([[0, 0], [1e300, 0]], None), ([[1e15, 0], [1e16, 1]], 10**15 + 1)),
    ],
)
def test_the_first_epoch_above_zero(points: list[list[float]], epoch: int | None) -> None:
    assert first_above_zero(points) == epoch


def test_everything_is_set_for_an_epoch() -> None:
    chosen = settings(
        "--guide",
        "guides.Gumbel",
        "--view",
        "pyro_infocat.views.Affine",
        weights={"consistency": 7.0},
        schedules={
            "kl_z": [[0, 0.5], [2, 1.0]],
            "temperature": [[0, 1.0], [2, 0.5]],
            "view.moves": [[0, 0.0], [4, 1.0]],
            "learning_rate": [[0, 1e-3], [2, 2e-3]],
        },
    )
    parts = make_parts(chosen)
    optimizer = optimizer_of(parts)
    schedule = Schedule(chosen, parts)
    for epoch, (kl_z, temperature, moves, speed) in enumerate(
        [(0.5, 1.0, 0.0, 1e-3), (0.75, 0.75, 0.25, 1.5e-3), (1.0, 0.5, 0.5, 2e-3)]
    ):
        schedule.set(epoch, optimizer)
        assert parts.bound.weights["kl_z"] == pytest.approx(kl_z)
        assert parts.bound.weights["consistency"] == 7.0
        assert parts.bound.weights["kl_c"] == 1.0
        assert parts.guide.temperature == pytest.approx(temperature)
        assert parts.view.moves == pytest.approx(moves)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(speed)
        assert set(parts.bound.weights) == set(parts.bound.signs)


@pytest.mark.parametrize("name", ["temperature", "guide.temperature"])
def test_the_guides_temperature_by_either_name(name: str) -> None:
    chosen = settings("--guide", "guides.Gumbel", schedules={name: [[0, 2.0], [2, 1.0]]})
    parts = make_parts(chosen)
    schedule = Schedule(chosen, parts)
    # It is tried with every value, and put back.
    assert parts.guide.temperature == 1.0
    schedule.set(1, optimizer_of(parts))
    assert parts.guide.temperature == 1.5


def test_a_run_follows_the_schedule_of_its_temperature() -> None:
    chosen = settings(
        "--guide", "guides.Gumbel", epochs=3, schedules={"guide.temperature": [[0, 2], [2, 0.5]]}
    )
    drawn: list[float] = []

    def look(parts: Parts) -> None:
        mix = parts.guide.mix

        def mixed(log_q: Tensor) -> Tensor:
            drawn.append(parts.guide.temperature)
            return mix(log_q)

        parts.guide.mix = mixed

    fit(chosen, before=look)
    assert list(dict.fromkeys(drawn)) == [2, 1.25, 0.5]


# A user's part.


@pytest.mark.parametrize("role", ROLES)
def test_what_a_users_part_declares_may_be_scheduled(role: str) -> None:
    """By its name, and by that of the part: a term's own for a term. All instances get it."""
    name = "amounts" if role == "terms" else role
    for key in ("amount", f"{name}.amount"):
        chosen = users_part(role, schedules={key: [[0, 2.0], [2, 4.0]]})
        parts = make_parts(chosen)
        Schedule(chosen, parts).set(1, optimizer_of(parts))
        assert [part.amount for part in of_role(parts, role)] == [3.0] * len(of_role(parts, role))


def test_a_users_term_has_a_weight_to_schedule() -> None:
    chosen = users_part("terms", schedules={"amounts": [[0, 0.0], [2, 4.0]]})
    parts = make_parts(chosen)
    schedule = Schedule(chosen, parts)
    for epoch, weight in enumerate((0.0, 2.0, 4.0, 4.0)):
        schedule.set(epoch, optimizer_of(parts))
        assert parts.bound.weights["amounts"] == weight
        assert ("amounts" in [term.name for term in parts.bound.weighted()]) == (weight > 0)


def test_an_attribute_of_two_parts_needs_the_parts_name() -> None:
    terms = (Part(f"{USERS}.Tempered"),)
    flags = ["--guide", "guides.Gumbel"]
    points = {"temperature": [[0, 2.0]]}
    assert refuse(settings(*flags, terms=terms, schedules=points)) == (
        "--schedules: 'temperature' is of several parts; say guide.temperature or "
        "tempered.temperature"
    )
    chosen = settings(*flags, terms=terms, schedules={"tempered.temperature": [[0, 2.0]]})
    parts = make_parts(chosen)
    Schedule(chosen, parts).set(0, optimizer_of(parts))
    assert parts.guide.temperature == 1.0
    assert parts.bound.declared[-1].temperature == 2.0


# What is refused.


def test_a_name_of_nothing() -> None:
    """What there is, each once, and which class of the part would have it."""
    flags = ["--view", "pyro_infocat.views.Affine"]
    encoder = users_part("encoder").encoder
    chosen = settings(*flags, encoder=encoder, schedules={"guide.temperature": [[0, 1.0]]})
    there = "reconstruction, kl_z, kl_c, information_bound, marginal_entropy, conditional_entropy"
    assert refuse(chosen) == (
        f"--schedules: nothing is called 'guide.temperature'; there are {there}, consistency, "
        "nearness, learning_rate, amount, moves; guides.relaxed.Gumbel has temperature"
    )
    for name in ("speed", "guide.moves"):
        # No guide has moves.
        assert refuse(settings(schedules={name: [[0, 1.0]]})).endswith("learning_rate, moves")


def test_the_attribute_of_another_part() -> None:
    error = refuse(users_part("guide", schedules={"prior.amount": [[0, 1.0]]}))
    assert error.startswith("--schedules: nothing is called 'prior.amount'; there are ")


@pytest.mark.parametrize("role", ROLES)
def test_a_value_that_its_part_refuses(role: str) -> None:
    points = [[0.0, 1.0], [3.0, 10.0]]
    assert refuse(users_part(role, schedules={"amount": points})) == (
        "--schedules: amount is [[0.0, 1.0], [3.0, 10.0]]; amount must be between 0 and 9, not 10"
    )


def test_values_of_this_projects_parts() -> None:
    chosen = settings("--guide", "guides.Gumbel", schedules={"temperature": [[0, 1], [2, 0]]})
    assert refuse(chosen).endswith("; temperature must be above 0 and finite, not 0")
    chosen = settings("--view", "pyro_infocat.views.Affine", schedules={"moves": [[0, -1]]})
    assert refuse(chosen).endswith("; moves must be at least 0 and finite, not -1")


def test_a_value_between_two_points_that_its_part_refuses() -> None:
    """Told at once, not when an epoch has come to it."""
    guide = Part(f"{USERS}.Whole")
    points = [[0.0, 1.0], [4.0, 3.0]]
    assert refuse(settings(guide=guide, epochs=3, schedules={"steps": points})) == (
        f"--schedules: steps is {points}; steps must be a whole number, not 1.5"
    )
    # Nobody would come to it.
    Schedule(*with_parts(settings(guide=guide, epochs=1, schedules={"steps": points})))


def with_parts(chosen: Settings) -> tuple[Settings, Parts]:
    return chosen, make_parts(chosen)


def test_a_refused_value_leaves_the_part_as_it_was() -> None:
    chosen = users_part("view", schedules={"amount": [[0, 5.0], [3, 10.0]]})
    parts = make_parts(chosen)
    with pytest.raises(UserError):
        Schedule(chosen, parts)
    assert parts.view.amount == 1.0


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_part_that_declares_what_it_has_not(scheduled: bool) -> None:
    schedules = {"amount": [[0.0, 1.0]]} if scheduled else {}
    assert refuse(settings(view=Part(f"{USERS}.Missing"), schedules=schedules)) == (
        f"--view {USERS}.Missing: declares that 'amount' may be scheduled, which is None; it must "
        "be an attribute that holds a number"
    )


def test_a_part_that_declares_what_cannot_be_set() -> None:
    chosen = settings(view=Part(f"{USERS}.Fixed"), schedules={"amount": [[0.0, 1.0]]})
    error = refuse(chosen)
    assert error.startswith("--schedules: amount is [[0.0, 1.0]]; ")
    assert "amount" in error.partition(";")[2]


def test_a_negative_weight_and_a_rate_of_nothing() -> None:
    assert refuse(settings(schedules={"kl_z": [[0, 0.5], [2, -1]]})) == (
        "--schedules: kl_z is [[0, 0.5], [2, -1]]; a weight must not be negative, not -1"
    )
    assert refuse(settings(schedules={"learning_rate": [[0, 0.0]]})) == (
        "--schedules: learning_rate is [[0, 0.0]]; every value must be above 0"
    )
    assert refuse(users_part("terms", schedules={"amounts": [[0, -2]]})).endswith("not -2")


def test_an_epoch_in_which_nothing_weighs() -> None:
    nothing = {name: [[0, 0.0], [3, 0.0], [4, 1.0]] for name in ("kl_z", "kl_c", "reconstruction")}
    chosen = settings(information_weight=0.0, weights={}, schedules=nothing)
    error = refuse(chosen)
    assert error == (
        "--weights: no term of the objective has a weight in epoch 1; give one to some term, or "
        "let --schedules begin there"
    )
    # A term of the user's own is enough.
    Schedule(*with_parts(replace(chosen, terms=(Part(f"{USERS}.Amounts"),))))


def test_nothing_weighs_from_before_the_first_epoch_on() -> None:
    nothing = {name: [[-9, 1.0], [-3, 0.0]] for name in ("kl_z", "kl_c", "reconstruction")}
    error = refuse(settings(information_weight=0.0, weights={}, schedules=nothing))
    assert error.startswith("--weights: no term of the objective has a weight in epoch 1; give")


# Which terms ever have a weight.


@pytest.mark.parametrize(
    ("weights", "schedules", "names"),
    [
        ({}, {}, ["information_bound"]),
        ({"consistency": 1.0}, {}, ["information_bound", "consistency"]),
        ({}, {"consistency": [[0, 0], [50, 1]]}, ["information_bound", "consistency"]),
        ({"consistency": 1.0}, {"consistency": [[0, 0.0]]}, ["information_bound"]),
        ({}, {"information_bound": [[0, 0.0]]}, []),
        ({}, {"kl_z": [[0, 2.0]]}, ["information_bound"]),
    ],
)
def test_terms_that_ever_have_a_weight(
    weights: dict[str, float], schedules: dict[str, list], names: list[str]
) -> None:
    """What a schedule says takes the place of the weight."""
    chosen = settings(weights=weights, schedules=schedules)
    found = Schedule(*with_parts(chosen)).ever_weighted()
    assert [term.name for term in found] == names


def test_a_users_term_ever_has_its_own_weight() -> None:
    chosen = users_part("terms", weights={}, information_weight=0.0)
    assert [term.name for term in Schedule(*with_parts(chosen)).ever_weighted()] == ["amounts"]
    off = replace(chosen, weights={"amounts": 0.0})
    assert Schedule(*with_parts(off)).ever_weighted() == []


# What a recorded step holds constant.


def changes(parts: Parts, role: str, optimizer: torch.optim.Optimizer) -> list[Callable[[], None]]:
    """Everything that a schedule could set, one change after another."""

    def weigh(name: str) -> Callable[[], None]:
        return lambda: parts.bound.weights.update({name: parts.bound.weights[name] + 0.25})

    def speed() -> None:
        optimizer.param_groups[0]["lr"] *= 0.5

    def declared(part: Any) -> Callable[[], None]:
        return lambda: setattr(part, "amount", part.amount + 1)

    return [*map(weigh, parts.bound.weights), speed, *map(declared, of_role(parts, role))]


@pytest.mark.parametrize("role", ROLES)
def test_a_constant_is_all_that_a_schedule_could_set(role: str) -> None:
    """Every weight, the rate, and what any part declares, scheduled or not."""
    chosen = users_part(role)
    parts = make_parts(chosen)
    optimizer = optimizer_of(parts)
    schedule = Schedule(chosen, parts)
    found = [schedule.constants(optimizer)]
    assert schedule.constants(optimizer) == found[0]
    for change in changes(parts, role, optimizer):
        change()
        found.append(schedule.constants(optimizer))
    assert len(set(found)) == len(found) == 1 + len(changes(parts, role, optimizer))


@pytest.mark.parametrize("role", ROLES)
def test_a_step_is_recorded_anew_when_any_of_them_changes(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU by a stand-in, whose replay does what was to be done when it was recorded."""
    made: list[Terms] = []

    def capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        made.append({})
        terms = made[-1]
        return lambda: terms.update(work()), terms

    monkeypatch.setattr(step, "capture", capture)
    monkeypatch.setattr(step, "on_the_side", lambda take, index: take(index))
    chosen = users_part(role)
    parts = make_parts(chosen)
    schedule: list[Callable[[], Hashable]] = []
    take = make_step(chosen, parts, 1e-3, lambda: schedule[0]())
    whole = Schedule(chosen, parts)
    schedule.append(lambda: whole.constants(take.optimizer))
    assert take.recorder is not None
    take.recorder.take = lambda index: {}
    index = torch.arange(4)

    def steps() -> int:
        for _ in range(WARM_UP + 2):
            take(index)
        return len(made)

    assert steps() == 1
    assert steps() == 1
    for number, change in enumerate(changes(parts, role, take.optimizer), 2):
        change()
        assert steps() == number
