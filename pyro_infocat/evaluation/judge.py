"""An independent classifier, which judges what a model generates.

Shapes: B batch, H features of the last hidden layer, L labels, N examples, X features.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_infocat.data import DataSet
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.storage import checkpoint

RECIPE = 1
"""The version of all below that decides what a judge learns: a kept one of another is not read."""

WIDTHS = (256, 128)
"""Of its hidden layers; H is the last."""

BATCH, RATE, RISING = 256, 5e-3, 0.3
"""Examples of a step; the largest learning rate, and at which share of the steps it is reached."""

PASSES, EXAMPLES = 3, 30_000
"""Of the training split that it sees at least, and examples that it sees at least."""

MOST_LEARNED = 60_000 * 28 * 28
"""Numbers that it learns from, at most: all of MNIST."""

SEED = 0
"""Its own, whatever the run's: one data set has one judge."""


class Judge(nn.Module):
    """Two hidden layers with batch normalisation, and a logit of each label.

    :param features: X.
    :param classes: L.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        first, last = WIDTHS
        self.hidden = nn.Sequential(
            *(nn.Linear(features, first), nn.BatchNorm1d(first), nn.ReLU()),
            *(nn.Linear(first, last), nn.BatchNorm1d(last), nn.ReLU()),
        )
        self.last = nn.Linear(last, classes)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer (B, H) for examples x (B, X).

        What is missing of a row of a table is 0, the mean of a real column.
        """
        x = x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        return self.hidden(x.to(self.last.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, L) of examples x (B, X)."""
        return self.last(self.features(x))


def taught(
    examples: Callable[[Tensor], Tensor], labels: Tensor, features: int, classes: int
) -> Judge:
    """A judge that has learned labels (N,), on their device and in evaluation mode.

    The run's random numbers stay as they are, and change nothing here.

    :param examples: gives those of indices (B,): (B, X).
    :param features: X.
    :param classes: L.
    """
    device, number = labels.device, len(labels)
    steps = -(-max(EXAMPLES, PASSES * number) // BATCH)
    with evaluating(device, seed=SEED), torch.enable_grad():
        judge = Judge(features, classes).to(device)
        fused = device.type in ("cpu", "cuda")
        optimizer = torch.optim.Adam(judge.parameters(), fused=fused)
        passes = -(-steps * BATCH // number)
        # Drawn on the CPU, so that every device has the same order.
        order = torch.cat([torch.randperm(number) for _ in range(passes)]).to(device)
        for step, index in enumerate(order[: steps * BATCH].split(BATCH), start=1):
            share = step / steps
            slope = min(share / RISING, (1 - share) / (1 - RISING))
            optimizer.param_groups[0]["lr"] = RATE * slope
            loss = functional.cross_entropy(judge(examples(index)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return judge.eval().requires_grad_(False)


def judge_of(data: DataSet) -> Judge:
    """The judge of a data set, which learned the labels of its training split.

    Of a data set with a name it is kept and taken from where it was kept. A file that is damaged
    is made anew, and where none can be written nothing is kept.
    """
    place = place_of(data)
    judge = None if place is None else _read(place, data)
    if judge is None:
        features = data.facts.features
        train = data.train.some(max(1, MOST_LEARNED // features))
        judge = taught(train.grey, train.labels, features, len(data.facts.classes))
        if place is not None:
            _keep(place, judge)
    return judge


def place_of(data: DataSet) -> Path | None:
    """Where the judge of a data set is kept; None where it is not.

    Another file for other images or labels of the training split, and for another recipe.
    """
    if data.kept is None:
        return None
    shape = "x".join(map(str, data.facts.shape))
    images, labels = data.fingerprint["train"][1], data.label_checksum
    return data.kept / f"judge{RECIPE}-{data.facts.preset}-{shape}-{images:08x}-{labels:08x}.pt"


def _read(place: Path, data: DataSet) -> Judge | None:
    """The judge that a file holds, on the data's device; None where there is none or it is damaged.

    No pickle is executed.
    """
    judge = Judge(data.facts.features, len(data.facts.classes))
    try:
        content = io.BytesIO(place.read_bytes())
        with warnings.catch_warnings():
            # Of other files of torch's, which are refused.
            warnings.simplefilter("ignore")
            held = torch.load(content, map_location="cpu", weights_only=True)
        # PyTorch writes checksums and does not look at them.
        if zipfile.ZipFile(content).testzip() or not all(
            one.isfinite().all() for one in held.values()
        ):
            return None
        judge.load_state_dict(held)
    # A damaged file may raise anything.
    except Exception:
        return None
    return judge.to(data.test.device).eval().requires_grad_(False)


def _keep(place: Path, judge: Judge) -> None:
    """Write it whole, or not at all where that cannot be."""
    # Of this process alone: several runs may end at once.
    new = place.with_name(f"{place.name}.{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            checkpoint.write(new, judge.state_dict())
            new.replace(place)
        finally:
            new.unlink(missing_ok=True)
