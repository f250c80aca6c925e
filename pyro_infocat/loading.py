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
from pyro_infocat.data.archive import as_rows, in_unit_interval, layouts
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

    def probabilities(self, images: Any) -> np.ndarray:
        """q(c | x) of images (B, height, width) or (B, X), as bytes or in [0, 1]: (B, K).

        Images in colour are (B, 3, height, width) or (B, height, width, 3). A run on a table takes
        a DataFrame, or (B, X) in the table's own units.

        :raises UserError: for examples of another shape, or other numbers.
        """
        device = self.model.prior.logits.device
        x = self.examples(images).to(self.model.prior.logits)
        if not len(x):
            # PyTorch's distributions refuse a batch of none.
            return np.empty((0, self.guide.categories), np.float32)
        with evaluating(device, self.model, self.guide):
            found = [self.guide.category(observe(part, self.observation)).probs
                     for part in x.split(1000)]  # fmt: skip
        return torch.cat(found).cpu().numpy()

    def examples(self, images: Any) -> torch.Tensor:
        """Examples (B, X) as the run's data are held, of images or rows of a table."""
        if isinstance(images, str | Path):
            raise UserError(
                f"'{images}' is a path; give an array or a DataFrame, or call python -m "
                "pyro_infocat.categorise, which reads files"
            )
        if self.facts.columns:
            from pyro_infocat.data.table import examples

            held = images.detach().cpu() if isinstance(images, torch.Tensor) else images
            try:
                return examples(held, self.facts, "the table").split.held()
            except UserError as error:
                raise UserError(error.message.removeprefix(": ")) from error
        array = images.detach().cpu().numpy() if isinstance(images, torch.Tensor) else images
        array = np.asarray(array)
        rows = as_rows(array, self.facts.shape)
        if rows is None:
            wanted = layouts(self.facts.shape, "B")
            raise UserError(f"the images have shape {array.shape}; the run needs {wanted}")
        return torch.from_numpy(
            in_unit_interval(rows, "the array of images", self.facts.levels - 1)
        )

    def categorise(self, images: Any) -> np.ndarray:
        """The likeliest category of examples, as :meth:`probabilities` takes them: (B,)."""
        return self.probabilities(images).argmax(-1)

    def inverse(self, x: np.ndarray | torch.Tensor) -> Any:
        """A DataFrame in the table's own units of x (B, X), as the model has rows of a table.

        A binary column or one of categories has its likeliest value.

        :raises UserError: where the run's data were no table.
        """
        if not self.facts.columns:
            raise UserError("the run was trained on no table, so x has no columns")
        from pyro_infocat.data.table import decoded

        held = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        return decoded(held, self.facts.columns)


def is_frame(value: Any) -> bool:
    """Whether a value is a DataFrame. pandas need not be imported for one that is none."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


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
