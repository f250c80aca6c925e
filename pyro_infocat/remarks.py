"""What a run says of its settings before it trains: where a flag does less than it seems to."""

import math
from collections.abc import Iterator, Sequence

from guides.guide import Guide
from guides.relaxed import Relaxed
from pyro_infocat.schedules import interpolate
from pyro_infocat.settings import Settings
from pyro_infocat.terms import SIGNS


def remarks(settings: Settings, guide: Guide, written_out: bool) -> Iterator[str]:
    """A line each.

    :param written_out: whether the bound is, or goes through Pyro.
    """
    name = f"--guide {settings.guide.class_path}"
    if not written_out:
        yield (
            f"{name}: a Pyro program of its own, so the bound goes through Pyro, more slowly"
            + ("; --decoded does not apply" if settings.decoded else "")
        )
    if isinstance(guide, Relaxed):
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
    if settings.anneal != "constant" and "learning_rate" in settings.schedules:
        yield f"--anneal {settings.anneal}: does not apply, since --schedules has a learning_rate"
    begins = {
        term: epoch
        for term, points in settings.schedules.items()
        if term in SIGNS and (epoch := _first_weighed(points)) is not None
    }
    asleep = [term for term, epoch in begins.items() if epoch >= settings.epochs]
    if asleep:
        yield (
            f"--epochs {settings.epochs}: {', '.join(asleep)} will have no weight; the schedules "
            f"give none before epoch {min(begins[term] for term in asleep) + 1}"
        )


def _first_weighed(points: Sequence[Sequence[float]]) -> int | None:
    """The first epoch, from 0, in which a schedule is above zero."""
    epochs = range(math.ceil(points[-1][0]) + 1)
    return next((epoch for epoch in epochs if interpolate(points, epoch) > 0), None)
