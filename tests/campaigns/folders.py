"""What a run's folder holds: whether each file is whole, and whether two runs are the same."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from pyro_infocat.settings import CHECKPOINT, HISTORY, METRICS
from tests.runs import timeless

TINY = [
    *("--batch_size", "400", "--nll_samples", "1", "--device", "cpu"),
    *("--encoder.hidden", "[20]", "--decoder.hidden", "[20]", "--guide.hidden", "20"),
]
"""Four steps an epoch with small networks."""


READ = (".yaml", ".json", ".pt", ".png", ".npz", ".jsonl", ".csv", ".pt2")
"""Files that are looked into."""


def torn(folder: Path) -> list[str]:
    """The files below a folder that are not whole. A name that ends in ``.new`` is none yet."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix in READ:
                _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)} ({type(error).__name__}: {error})")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".yaml":
        assert "prior" in yaml.safe_load(path.read_text()), "no settings"
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        assert all("epoch" in json.loads(line) for line in path.read_text().splitlines())
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".csv":
        lines = csv.reader(path.read_text().splitlines())
        assert len({len(line) for line in lines}) == 1, "lines of several lengths"
    elif path.suffix == ".pt2":
        with zipfile.ZipFile(path) as program:
            assert program.testzip() is None, "no program"
    else:
        with np.load(path) as arrays:
            assert arrays.files, "no arrays"
            [arrays[name] for name in arrays.files]


def different(one: Path, other: Path) -> str | None:
    """What two finished runs differ in but their times and their maker; None for nothing."""
    for read in (_history, _metrics):
        if read(one) != read(other):
            return f"{read.__name__.strip('_')}: {read(one)} and {read(other)}"
    first, second = (torch.load(path / CHECKPOINT, weights_only=True) for path in (one, other))
    for field in ("epoch", "model", "guide", "optimizer", "rng", "rng_of_others", "data"):
        if not _same(first[field], second[field]):
            return f"{field} of the checkpoint"
    figures = [{path.name for path in (run / "figures").iterdir()} for run in (one, other)]
    return None if figures[0] == figures[1] else f"figures: {figures}"


def _history(folder: Path) -> list[dict[str, float]]:
    return [timeless(json.loads(row)) for row in (folder / HISTORY).read_text().splitlines()]


def _metrics(folder: Path) -> dict[str, Any]:
    return timeless(json.loads((folder / METRICS).read_text()))


def _same(one: Any, other: Any) -> bool:
    """Whether two nested values are the same, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
