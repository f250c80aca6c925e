"""A run on the digits by small networks, in pieces."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_infocat import DataSet
from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation.part import History
from pyro_infocat.settings import Settings
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import train
from pyro_infocat.training.step import Step
from tests.brief import SMALL
from tests.runs import parse

CPU = torch.device("cpu")


def settings(*flags: str, **changes: Any) -> Settings:
    """The digits' preset with small networks."""
    return replace(parse([*SMALL, *flags])[0], **changes)


def make_parts(chosen: Settings, seed: int = 0) -> Parts:
    torch.manual_seed(seed)
    return Builder(chosen, DATA_SETS[chosen.data]).parts(CPU)


def make_step(
    chosen: Settings,
    parts: Parts,
    rate: float = 1.0,
    constants: Callable[[], Hashable] | None = None,
) -> Step:
    """A step of plain gradient descent on the digits."""
    module: nn.Module = parts.bound(parts.model, parts.guide).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    observed = observation(chosen, parts.model.decoder.likelihood)
    return Step(digits().train, observed, parts, module, optimizer, constants)


def fit(
    chosen: Settings,
    data: DataSet | None = None,
    folder: str = "out",
    before: Callable[[Parts], object] = lambda parts: None,
) -> tuple[History, Parts]:
    """Train into a folder: the history and what was trained.

    :param before: changes the parts first.
    """
    parts = make_parts(chosen)
    before(parts)
    place = RunFolder(Path(folder))
    place.create(chosen)
    return train(chosen, data or digits(), parts, place, progress=False), parts


def timeless(history: History) -> History:
    """The history without what no two runs share."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
