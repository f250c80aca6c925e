"""How long to train, and by how many examples at a time, where ``auto`` leaves it to the data."""

from dataclasses import replace
from typing import Any

from pyro_infocat.settings import AUTO, Settings

LEAST_BATCH, MOST_BATCH = 32, 256
"""Examples in a step."""

BATCHES = 20
"""Steps in an epoch of few examples: they get smaller batches."""

STEPS = 6_000
"""Steps of a run."""

LEAST_EPOCHS, MOST_EPOCHS = 20, 100
"""Every example is seen so often, and need not be seen more often."""


def batch_size(examples: int) -> int:
    """B for a training split of N examples: N / 20, from 32 to 256."""
    return min(max(examples // BATCHES, LEAST_BATCH), MOST_BATCH)


def epochs(examples: int, batch: int) -> int:
    """Passes over N examples in batches of B: as many as 6,000 steps take, from 20 to 100."""
    return min(max(round(STEPS * batch / examples), LEAST_EPOCHS), MOST_EPOCHS)


def sized(settings: Settings, examples: int) -> tuple[Settings, list[str]]:
    """The settings with numbers for ``auto``, and a line that says so.

    :param examples: N of the training split.
    """
    chosen: dict[str, Any] = {}
    # The type says int: a run sees no other once this was called.
    if str(settings.batch_size) == AUTO:
        chosen["batch_size"] = batch_size(examples)
    if str(settings.epochs) == AUTO:
        chosen["epochs"] = epochs(examples, chosen.get("batch_size", settings.batch_size))
    if not chosen:
        return settings, []
    said = " ".join(f"--{name} {value}" for name, value in chosen.items())
    return replace(settings, **chosen), [f"{said}: auto, for {examples:,} training examples"]
