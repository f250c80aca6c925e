"""What changes from epoch to epoch: weights, the learning rate, a temperature."""

import math
from collections.abc import Sequence

import numpy as np

from pyro_infocat.settings import Settings


def scheduled(settings: Settings, epoch: int) -> dict[str, float]:
    """Everything that is scheduled at an epoch, from 0, by name; the learning rate always is."""
    now = {name: interpolate(points, epoch) for name, points in settings.schedules.items()}
    return {"learning_rate": rate(settings, epoch)} | now


def interpolate(points: Sequence[Sequence[float]], epoch: int) -> float:
    """A schedule of [epoch, value] pairs at an epoch: straight lines, flat outside."""
    at, values = zip(*points, strict=True)
    return float(np.interp(epoch, at, values))


def rate(settings: Settings, epoch: int) -> float:
    """The learning rate of an epoch, where no schedule gives it."""
    if settings.anneal == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
    return settings.learning_rate
