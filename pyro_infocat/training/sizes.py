"""How long to train, and by how many examples at a time, where ``auto`` leaves it to the data."""

import math
from dataclasses import replace
from typing import Any

from pyro_infocat.settings import AUTO, Settings

LEAST_BATCH, MOST_BATCH = 32, 256
"""Examples in a step, about."""

BATCHES = 10
"""Steps in an epoch of few examples: they get smaller batches."""

LEAST_EPOCHS = 10
"""How often every example is seen, where there are many."""


def batch_size(examples: int) -> int:
    """B for a training split of N examples: about N / 10, from 32 to 256.

    All batches are alike but for an example or two: a guard that counts the categories of a batch
    means nothing on a small one that is left over.
    """
    most = min(max(examples // BATCHES, LEAST_BATCH), MOST_BATCH)
    return math.ceil(examples / math.ceil(examples / most))


def epochs(examples: int, batch: int, steps: int) -> int:
    """Passes over N examples in batches of B that make so many steps, and at least 10."""
    return max(LEAST_EPOCHS, math.ceil(steps / math.ceil(examples / batch)))


def sized(settings: Settings, examples: int) -> tuple[Settings, list[str]]:
    """The settings with numbers for ``auto``, and a line that says so.

    :param examples: N of the training split.
    """
    chosen: dict[str, Any] = {}
    # The type says int: a run sees no other once this was called.
    if str(settings.batch_size) == AUTO:
        chosen["batch_size"] = batch_size(examples)
    if str(settings.epochs) == AUTO:
        batch = chosen.get("batch_size", settings.batch_size)
        chosen["epochs"] = epochs(examples, batch, settings.steps)
    if str(settings.start_epochs) == AUTO:
        chosen["start_epochs"] = math.ceil(chosen.get("epochs", settings.epochs) / 3)
    if not chosen:
        return settings, []
    settings = replace(settings, **chosen)
    said = " ".join(f"--{name} {value}" for name, value in chosen.items())
    steps = settings.epochs * math.ceil(examples / settings.batch_size)
    return settings, [f"{said}: auto, for {examples:,} training examples ({steps:,} steps)"]
