"""What changes from epoch to epoch: weights of terms, the learning rate, attributes of parts.

What a recorded GPU step holds constant follows from it: see :meth:`Schedule.constants`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from pyro_infocat.build import Parts
from pyro_infocat.errors import PACKAGES, UserError
from pyro_infocat.objective import Term
from pyro_infocat.parts import named
from pyro_infocat.settings import ROLES, Settings

Points = Sequence[Sequence[float]]
"""[epoch, value] pairs, joined by straight lines and flat outside of them."""

RATE = "learning_rate"


class Schedule:
    """Sets everything that is scheduled.

    A name is a term's, ``learning_rate``, or an attribute that a part declares in ``schedulable``:
    ``temperature``, or ``guide.temperature`` where two parts have one.

    :raises UserError: for a name that is nothing's, or a value that its part refuses.
    """

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings, self.bound = settings, parts.bound
        self.weights = dict(parts.bound.weights)
        self.parts = parts.schedulable()
        self._check_declared()
        self.lines = settings.lines()
        self.targets: dict[str, tuple[list[Any], str]] = {}
        for name, points in self.lines.items():
            if name == RATE:
                _check_rate(points)
            elif name in self.bound.signs or name.startswith("kl_"):
                _check_weights(name, points)
            else:
                self.targets[name] = self._target(name)
                self._check_values(name, *self.targets[name])
        self._check_epochs()

    def at(self, epoch: int) -> dict[str, float]:
        """Everything scheduled at an epoch, from 0, by name; the learning rate always is."""
        return {RATE: rate(self.settings, epoch)} | {
            name: interpolate(line, epoch) for name, line in self.lines.items()
        }

    def weights_at(self, epoch: int) -> dict[str, float]:
        """The weight of every term at an epoch, from 0."""
        now = self.at(epoch)
        return self.weights | {n: v for n, v in now.items() if n != RATE and n not in self.targets}

    def ever_weighted(self) -> list[Term]:
        """The terms beside the ELBO's that have a weight in some epoch."""
        return [
            term
            for term in self.bound.declared
            if any(
                value > 0 for _, value in self.lines.get(term.name, [[0, self.weights[term.name]]])
            )
        ]

    def set(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Set it all for an epoch, from 0."""
        now = self.at(epoch)
        for group in optimizer.param_groups:
            group["lr"] = now[RATE]
        for name, (instances, attribute) in self.targets.items():
            for part in instances:
                setattr(part, attribute, now[name])
        self.bound.weights = self.weights_at(epoch)

    def constants(self, optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
        """What a recorded step cannot see change: all that a schedule could set, as it is now."""
        return (
            *self.bound.weights.values(),
            *(getattr(part, attribute) for _, attribute, part in self._declared()),
            *(group["lr"] for group in optimizer.param_groups),
        )

    def _declared(self) -> Iterator[tuple[str, str, Any]]:
        """Each attribute that a part declares: the part's role, the name and the part."""
        for role, instances in self.parts.items():
            for part in instances:
                for attribute in part.schedulable:
                    yield role, attribute, part

    def _target(self, name: str) -> tuple[list[Any], str]:
        """The part, all of its instances, and the attribute of a name."""
        role, _, attribute = name.rpartition(".")
        found = [one for one, own, _ in self._declared() if own == attribute and role in ("", one)]
        roles = list(dict.fromkeys(found))
        if len(roles) == 1:
            return self.parts[roles[0]], attribute
        if roles:
            both = " or ".join(f"{one}.{attribute}" for one in roles)
            raise UserError(f"'{name}' is of several parts; say {both}", "schedules")
        declared = dict.fromkeys(own for _, own, _ in self._declared())
        there = ", ".join([*self.bound.signs, RATE, *declared])
        raise UserError(
            f"nothing is called '{name}'; there are {there}{_elsewhere(role, attribute)}",
            "schedules",
        )

    def _check_declared(self) -> None:
        """Refuse a part that declares what is no number."""
        for role, attribute, part in self._declared():
            value = getattr(part, attribute, None)
            if not isinstance(value, float | int):
                raise UserError(
                    f"declares that '{attribute}' may be scheduled, which is {value!r}; it must be "
                    "an attribute that holds a number",
                    role if role in ROLES else "terms",
                    f"{type(part).__module__}.{type(part).__qualname__}",
                )

    def _check_values(self, name: str, instances: list[Any], attribute: str) -> None:
        """Refuse values that the part refuses: it is tried with each, and put back."""
        points = self.lines[name]
        values = [value for _, value in points]
        values += [interpolate(points, epoch) for epoch in range(self.settings.epochs)]
        part, before = instances[0], getattr(instances[0], attribute)
        try:
            for value in values:
                setattr(part, attribute, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{name} is {points}; {error}", "schedules") from error
        finally:
            with suppress(AttributeError):
                setattr(part, attribute, before)

    def _check_epochs(self) -> None:
        """Refuse an epoch in which no term has a weight; sites of the user's own have one."""
        model, guide = self.parts["model"][0], self.parts["guide"][0]
        if not self.bound.written_out(model, guide):
            return
        # From their last point on schedules are flat.
        points = [point for line in self.lines.values() for point in line]
        last = max((math.ceil(epoch) for epoch, _ in points), default=0)
        for epoch in range(min(self.settings.epochs, max(0, last) + 1)):
            if not any(self.weights_at(epoch).values()):
                raise UserError(
                    f"no term of the objective has a weight in epoch {epoch + 1}; give one to some "
                    "term, or let --schedules begin there",
                    "weights",
                )


def interpolate(points: Points, epoch: int) -> float:
    """A schedule's value at an epoch."""
    at, values = zip(*points, strict=True)
    return float(np.interp(float(epoch), at, values))


def rate(settings: Settings, epoch: int) -> float:
    """The learning rate of an epoch, where no schedule gives it."""
    if settings.anneal == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
    return settings.learning_rate


def first_above_zero(points: Points) -> int | None:
    """The first epoch, from 0, in which a schedule is above zero that is nowhere below."""
    # Strictly between two points all epochs are above zero, or none is.
    turns = {0} | {turn for at, _ in points for turn in (math.ceil(at), math.floor(at) + 1)}
    epochs = sorted(epoch for epoch in turns if epoch >= 0)
    return next((epoch for epoch in epochs if interpolate(points, epoch) > 0), None)


def _check_rate(points: Points) -> None:
    if min(value for _, value in points) <= 0:
        raise UserError(f"{RATE} is {points}; every value must be above 0", "schedules")


def _check_weights(name: str, points: Points) -> None:
    least = min(value for _, value in points)
    if least < 0:
        raise UserError(
            f"{name} is {points}; a weight must not be negative, not {least:g}", "schedules"
        )


def _elsewhere(role: str, attribute: str) -> str:
    """This project's class of a role, or of any, that declares an attribute."""
    wanted = [ROLES[role]] if role in ROLES else ROLES.values()
    pending: list[type] = [named(one.base) for one in wanted]
    while pending:
        kind = pending.pop(0)
        pending += kind.__subclasses__()
        ours = kind.__module__.partition(".")[0] in PACKAGES
        if ours and attribute in vars(kind).get("schedulable", ()):
            return f"; {kind.__module__}.{kind.__qualname__} has {attribute}"
    return ""


def weighed_from(schedules: Mapping[str, Points], terms: Mapping[str, int]) -> dict[str, int]:
    """The first epoch, from 0, in which each scheduled term has a weight, where it ever has."""
    begins = {name: first_above_zero(points) for name, points in schedules.items() if name in terms}
    return {name: epoch for name, epoch in begins.items() if epoch is not None}
