"""A finished run, back in memory."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.build import Builder, observation
from pyro_infocat.catalogue import DATA_SETS, Facts, no_data_set
from pyro_infocat.data import Observation, observe
from pyro_infocat.data.archive import in_unit_interval
from pyro_infocat.errors import UserError, reason
from pyro_infocat.parts import UntrustedError
from pyro_infocat.resolve import unknown_key
from pyro_infocat.runtime.device import pick
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import CHECKPOINT, CONFIG, Settings
from pyro_infocat.storage.checkpoint import check_kinds
from pyro_infocat.storage.folder import RunFolder


@dataclass(frozen=True, repr=False)
class Run:
    """A trained model and guide, in evaluation mode.

    :ivar model: the generative program, with sites ``c``, ``z`` and ``x``.
    :ivar guide: q(c, z | x).
    :ivar settings: what the run was told.
    :ivar facts: shape, grey levels and class names of its data.
    :ivar observation: whether the model's x is binarised pixels or grey levels.
    :ivar folder: where it lies.
    """

    model: CatVAE
    guide: Guide
    settings: Settings
    facts: Facts
    observation: Observation
    folder: Path

    def __repr__(self) -> str:
        guide, prior = type(self.guide).__name__, type(self.model.prior).__name__
        return f"<Run '{self.folder}': {self.settings.data}, prior {prior}, guide {guide}>"

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty where the run was stopped before it."""
        return RunFolder(self.folder).metrics()

    @property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch of every named term in nats per example."""
        return RunFolder(self.folder).history()

    def probabilities(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """q(c | x) of images (B, height, width) or (B, X), as bytes or in [0, 1]: (B, K).

        :raises UserError: for images of another shape, or other numbers.
        """
        array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images
        array = np.asarray(array)
        shape = self.facts.shape
        if array.shape[1:] not in (shape, (1, *shape), (self.facts.features,)):
            raise UserError(
                f"the images have shape {array.shape}; the run needs (B, {shape[0]}, {shape[1]})"
            )
        device = self.model.prior.logits.device
        grey = in_unit_interval(array, "the array of images", self.facts.levels - 1)
        if not len(grey):
            # PyTorch's distributions refuse a batch of none.
            return np.empty((0, self.guide.categories), np.float32)
        x = torch.from_numpy(grey).reshape(len(grey), -1).to(self.model.prior.logits)
        with evaluating(device, self.model, self.guide):
            found = [self.guide.category(observe(part, self.observation)).probs
                     for part in x.split(1000)]  # fmt: skip
        return torch.cat(found).cpu().numpy()

    def categorise(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """The likeliest category of images, as :meth:`probabilities` takes them: (B,)."""
        return self.probabilities(images).argmax(-1)


def load(folder: str | Path, device: str = "cpu", trust: str | Sequence[str] = ()) -> Run:
    """The run in a folder, of this version or an earlier one. Executes no pickle.

    Imports the classes that its config names: those of this project, and those of modules that are
    trusted. A key of its config that this version does not know is named in one line on stderr.

    :param folder: the ``--out`` of a run.
    :param device: where to; what it names must be there too.
    :param trust: modules outside this project whose code may be run.
    :raises UserError: where the folder holds no run, its config names a class that is not there or
        not trusted, or its checkpoint does not fit its config.
    """
    place = RunFolder(Path(folder))
    config = place.path / CONFIG
    settings, unknown = place.settings()
    checkpoint = place.checkpoint()
    notes: list[str] = []
    trusted = [trust] if isinstance(trust, str) else list(trust)
    try:
        there = pick(device)
    except UserError as error:
        raise UserError(error.told(lambda setting: setting)) from error
    try:
        facts = _facts(checkpoint, settings)
        builder = Builder(settings, facts, trust=trusted, notes=notes)
        with torch.random.fork_rng(devices=[]):
            model, guide = builder.programs(there)
        observed = observation(settings, model.decoder.likelihood)
    except UntrustedError as error:
        raise UserError(f"'{config}': {error.told(lambda setting: setting)}") from error
    except UserError as error:
        raise UserError(
            f"'{config}' cannot be built ({error.told(lambda setting: setting)}); run where the "
            "classes that it names can be imported, or write there where they are now"
        ) from error
    for field, program in (("model", model), ("guide", guide)):
        check_kinds(place.path / CHECKPOINT, field, checkpoint[field], program)
    try:
        model.load_state_dict(checkpoint["model"])
        guide.load_state_dict(checkpoint["guide"])
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"'{folder}': its checkpoint does not fit its config.yaml ({reason(error)[:200]}); "
            "one of the two was replaced"
        ) from error
    said = [unknown_key(config, key) for key in unknown]
    for line in [*said, *(f"{config}: {note}" for note in notes)]:
        print(line, file=sys.stderr)
    model.eval(), guide.eval()
    return Run(model, guide, settings, facts, observed, place.path)


def _facts(checkpoint: Mapping[str, Any], settings: Settings) -> Facts:
    """What the data of a run were like."""
    if "facts" in checkpoint:
        return Facts.of(checkpoint["facts"])
    # Checkpoints of before say nothing of the data, which were a set with a name.
    if settings.data not in DATA_SETS:
        raise no_data_set(settings.data)
    return DATA_SETS[settings.data]
