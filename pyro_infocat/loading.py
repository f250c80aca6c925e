"""A finished run, back in memory."""

from dataclasses import dataclass
from pathlib import Path

from guides.guide import Guide
from models import CatVAE
from pyro_infocat import build
from pyro_infocat.data import Observation
from pyro_infocat.device import pick
from pyro_infocat.errors import UserError, reason
from pyro_infocat.record import Record
from pyro_infocat.settings import CONFIG, DATA_SETS, Facts, Settings


@dataclass(frozen=True)
class Run:
    """A trained model and guide, in evaluation mode.

    :ivar model: the generative program, with sites ``c``, ``z`` and ``x``.
    :ivar guide: q(c, z | x).
    :ivar settings: what the run was told.
    :ivar facts: shape, grey levels and class names of its data.
    :ivar seen: whether the model's x is binarised pixels or grey levels.
    """

    model: CatVAE
    guide: Guide
    settings: Settings
    facts: Facts
    seen: Observation


def load(folder: str | Path, device: str = "cpu") -> Run:
    """The run in a folder. Executes no pickle; imports the classes that its config names.

    :param folder: the ``--out`` of a run.
    :param device: where to; what it is asked must be there too.
    :raises UserError: where the folder holds no run, a class that its config names has gone, or
        its checkpoint does not fit its config.
    """
    record = Record(Path(folder))
    settings = record.settings()
    checkpoint = record.checkpoint()
    place = pick(device)
    try:
        # Checkpoints of before say nothing of the data, which were a set with a name.
        facts = Facts(**checkpoint["facts"]) if "facts" in checkpoint else DATA_SETS[settings.data]
        model, guide, _ = build.build(settings, place, facts)
        seen = build.observation(settings, model.decoder.likelihood)
    # What the config names may have gone or changed since the run, and fail in any way.
    except Exception as error:
        raise UserError(
            f"'{record.folder / CONFIG}' cannot be built ({reason(error)}); run where the "
            "classes that it names can be imported, or write there where they are now"
        ) from error
    try:
        model.load_state_dict(checkpoint["model"])
        guide.load_state_dict(checkpoint["guide"])
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"'{folder}': its checkpoint does not fit its config.yaml ({reason(error)[:200]}); "
            "one of the two was replaced"
        ) from error
    model.eval(), guide.eval()
    return Run(model, guide, settings, facts, seen)
