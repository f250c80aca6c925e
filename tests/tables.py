"""A small table with a column of every kind, and what it is in x."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyro_infocat.catalogue import DATA_SETS, Column, Facts
from pyro_infocat.settings import Settings

COLUMNS = (
    Column("length", "real", (), 3.0, 2.0),
    Column("animal", "category", ("cat", "dog", "owl")),
    Column("visits", "count", (), 1.2, 0.7),
    Column("tame", "binary", ("no", "yes")),
    Column("size", "category", ("large", "small")),
    Column("weight", "real", (), -1.0, 0.5),
)
"""X = 9: length, three for animal, visits, tame, two for size, weight."""

WHERE = {
    "length": slice(0, 1),
    "animal": slice(1, 4),
    "visits": slice(4, 5),
    "tame": slice(5, 6),
    "size": slice(6, 8),
    "weight": slice(8, 9),
}


def rows(*shape: int) -> Tensor:
    """Rows that a table of these columns may hold."""
    x = torch.zeros(*shape, 9)
    x[..., [0, 8]] = torch.randn(*shape, 2)
    x[..., 4] = torch.poisson(3 * torch.rand(shape))
    x[..., 5] = torch.bernoulli(torch.full(shape, 0.5))
    for block in ("animal", "size"):
        place = WHERE[block]
        width = place.stop - place.start
        x[..., place] = torch.eye(width)[torch.randint(width, shape)]
    return x


def facts_for(settings: Settings) -> Facts:
    """Of data for a preset: of these columns where it is one of tables, or of its own."""
    own = DATA_SETS[settings.data]
    if settings.likelihood.class_path == "models.tables.Mixed":
        return Facts("table", (9,), 0, own.classes, COLUMNS)
    return own


def frame(rows: int = 40, seed: int = 0, missing: float = 0.0) -> pd.DataFrame:
    """Two kinds of rows, ``kind`` "a" and "b", and a column for each kind of column."""
    random = np.random.default_rng(seed)
    kind = np.arange(rows) % 2
    table = pd.DataFrame(
        {
            "length": 4.0 * kind + random.normal(size=rows),
            "animal": np.where(random.random(rows) < 0.8, np.array(["cat", "dog"])[kind], "owl"),
            "visits": random.poisson(1 + 6 * kind).astype(float),
            "tame": np.where(random.random(rows) < 0.2 + 0.6 * kind, "yes", "no"),
        }
    )
    table = table.mask(random.random(table.shape) < missing)
    table["kind"] = np.array(["a", "b"])[kind]
    return table
