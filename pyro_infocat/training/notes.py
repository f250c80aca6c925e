"""What a run says of its settings before it trains: what has no effect, or not the one meant."""

from collections.abc import Iterator

from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat.build import Parts
from pyro_infocat.catalogue import Facts
from pyro_infocat.evaluation.likelihood import knows_its_density
from pyro_infocat.settings import Settings
from pyro_infocat.training.fine import wanting
from pyro_infocat.training.schedules import RATE, weighed_from
from pyro_infocat.views import Affine


def notes(settings: Settings, parts: Parts, facts: Facts) -> Iterator[str]:
    """A line for each.

    :param facts: of the data.
    """
    name = f"--guide {settings.guide.class_path}"
    if not parts.bound.written_out(parts.model, parts.guide):
        program = name
        if type(parts.model).forward is not CatVAE.forward:
            program = f"--model {settings.model.class_path}"
        yield (
            f"{program}: a Pyro program of its own, so the bound goes through Pyro, more slowly"
            + ("; --decoded does not apply" if settings.decoded else "")
        )
    if not knows_its_density(parts.model):
        yield (
            f"--model {settings.model.class_path}: has no log_joint of its own, so the nll is not "
            "measured"
        )
    if facts.shape[0] == 1 and isinstance(parts.view, Affine):
        yield (
            f"--view {settings.view.class_path}: moves images, and the data are rows of "
            f"{facts.features} numbers; --config mnist-blind knows nothing of images"
        )
    size = settings.data_size
    if size != Settings.data_size and settings.reader is None and not facts.fitted:
        yield f"--data_size {size}: does not apply, since the data are no folder of pictures"
    of_columns = parts.model.decoder.likelihood.of_columns
    # A reader of the user's own knows what its columns are.
    if facts.columns and settings.reader is None and not of_columns:
        yield (
            f"--likelihood {settings.likelihood.class_path}: whether it fits the columns of a "
            "table is for you to know; models.tables.Mixed does"
        )
    missing = wanting(settings, parts.model.prior.categories)
    if settings.finer > 1 and missing:
        yield f"--finer {settings.finer}: does not apply, since {missing}"
    if isinstance(parts.guide, Relaxed):
        flags = {
            f"--decoded {settings.decoded}": settings.decoded > 0,
            f"--particles {settings.particles}": settings.particles > 1,
            f"--kl {settings.kl}": settings.kl == "sampled",
        }
        idle = [flag for flag, given in flags.items() if given]
        if idle:
            yield (
                f"{name}: decodes one mixture of codes an example; {' and '.join(idle)} "
                f"{'does' if len(idle) == 1 else 'do'} not apply"
            )
    if settings.anneal != "constant" and RATE in settings.schedules:
        yield f"--anneal {settings.anneal}: does not apply, since --schedules has a learning_rate"
    if any("labels" in term.needs for term in parts.bound.declared):
        named = [term.name for term in parts.bound.declared if "labels" in term.needs]
        yield f"--terms: {', '.join(named)} looks at the labels of the training split"
    begins = weighed_from(settings.lines(), parts.bound.signs)
    idle_terms = [term for term, epoch in begins.items() if epoch >= settings.epochs]
    if idle_terms:
        yield (
            f"--epochs {settings.epochs}: {', '.join(idle_terms)} will have no weight; the "
            f"schedules give none before epoch {min(begins[term] for term in idle_terms) + 1}"
        )
