"""Random restarts, of which the one with the largest objective is continued.

Which mode takes which examples is decided in the first epochs, and training does not undo it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_infocat.build import Builder
from pyro_infocat.data import DataSet
from pyro_infocat.runtime import processes
from pyro_infocat.settings import CHECKPOINT, MOST_SEED, STARTS, Settings
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import board_of, draw, train


def best_start(
    settings: Settings,
    data: DataSet,
    device: torch.device,
    builder: Builder,
    folder: RunFolder,
    progress: bool | None = None,
    check: Callable[[Mapping[str, Any], Path], None] = lambda checkpoint, place: None,
    clusters: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Train each start for ``start_epochs``, or the whole run; the checkpoint that goes on.

    It is that of the start with the largest objective in nats per example over its last epoch: no
    label is looked at but those that the objective sees. Starts lie in a folder of their own each,
    where a stopped one goes on. The time of all is counted as the run's.

    :param check: refuses the checkpoint of a stopped start, in its folder, that was trained on
        other examples.
    :param clusters: see :func:`train`.
    """
    objectives, seconds = [], 0.0
    until = min(settings.start_epochs, settings.epochs)
    places = [RunFolder(folder.path / STARTS / str(number)) for number in range(settings.starts)]
    for number, place in enumerate(places):
        # No two starts of two runs of as many share their random numbers.
        pyro.set_rng_seed((settings.seed * settings.starts + number) % (MOST_SEED + 1))
        parts = builder.parts(device)
        checkpoint = place.reopen(settings) if (place.path / CHECKPOINT).exists() else None
        if checkpoint is not None:
            check(checkpoint, place.path)
        if processes.rank() == 0:
            # What is said from here on is of this start.
            print(f"start {number} of 0 to {settings.starts - 1}", flush=True)
            if checkpoint is None:
                place.create(settings)
        history = train(settings, data, parts, place, checkpoint, until, progress, clusters)
        objectives.append(history[-1]["objective"])
        seconds += sum(row["seconds"] for row in history)
    # Every process reads what the first one has written.
    best = int(processes.shared(torch.tensor(objectives, device=device).argmax()))
    if processes.rank() == 0:
        reached = ", ".join(f"{objective:.2f}" for objective in objectives)
        print(f"start {best} goes on; the objectives are {reached} nats", flush=True)
    checkpoint = places[best].checkpoint()
    rows = checkpoint["history"]
    rows[-1]["seconds"] += seconds - sum(row["seconds"] for row in rows)
    with board_of(folder, 0) as board:
        if board is not None:
            folder.save(checkpoint, rows)
            for row in rows:
                draw(row, board)
    return checkpoint
