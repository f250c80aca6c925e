"""The number of categories from the data: ``--prior.categories auto``.

Where q(c|x) learns from real examples (images), fine categories are merged pair after pair, down to
one: as long as the two belong together that costs little. Where training begins near clusters
(tables), numbers of these are tried: see :mod:`pyro_infocat.training.criteria`.

Shapes: F fine categories, K categories.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet, Observation
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.figures import STYLE
from pyro_infocat.runtime import processes
from pyro_infocat.settings import AUTO, CONFIG, DECLARED, FINE, TRIED, Part, Settings, default
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training import fine
from pyro_infocat.training.loop import validation_split
from pyro_infocat.training.merging import merge

FIGURE = "categories.png"
"""What each K was worth, among the run's figures."""

APART = 0.55
"""Two categories are two as long as joining them loses such a share of what it would lose at most:
see :func:`apart`."""

FIRST = 30
"""Fine categories at first; twice as many where more than half of them are kept."""


class Answer(NamedTuple):
    """The number of categories that the data speak for.

    :param name: of the values.
    :param worth: what each K is worth, by K.
    :param enough: of this, for a K to be kept; None where the best one is taken.
    :param further: lines that say what else was found.
    """

    categories: int
    name: str
    worth: dict[int, float]
    enough: float | None = None
    further: tuple[str, ...] = ()


def left_to_the_data(settings: Settings) -> bool:
    """Whether the number of categories is left to the data."""
    return settings.prior.init_args.get("categories") == AUTO


def for_a_try(settings: Settings) -> Settings:
    """The settings with a number in the place of ``auto``: any will do to try the parts."""
    return with_categories(settings, 2) if left_to_the_data(settings) else settings


def with_categories(settings: Settings, categories: int) -> Settings:
    """The settings with a number of categories."""
    arguments = settings.prior.init_args | {"categories": categories}
    return replace(settings, prior=Part(settings.prior.class_path, arguments))


def find_number(
    settings: Settings,
    data: DataSet,
    device: torch.device,
    folder: RunFolder,
    instances: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> tuple[Settings, list[str]]:
    """The settings with the number of categories that the data speak for, and a line that says so.

    What each number is worth is kept in the folder.

    :param settings: with numbers for all else that may be ``auto``.
    :raises UserError: where there is nothing to tell a number from.
    """
    if (folder.path / CONFIG).exists():
        # A run that began here has its number. Whether it may go on is not for this to say.
        held = folder.settings()[0].prior.init_args.get("categories", 2)
        return with_categories(settings, held), []
    began = time.perf_counter()
    # Each class of which training sees labels has a category of its own.
    least = max(2, len(data.facts.classes)) if settings.known_labels else 2
    most = max(least, _most(settings, len(data.train)))
    of_clusters = _by_clusters(settings)
    # What does not fit is refused before the search, which may take minutes.
    tried = for_a_try(settings)
    builder = Builder(tried, data.facts, instances=instances or {})
    parts = builder.parts(device)
    observed = observation(tried, parts.model.decoder.likelihood)
    try_parts(tried, parts, data.train, observed)
    with folder.locked():
        if of_clusters:
            answer = of_tables(settings, data, most, least)
        else:
            with (
                pyro.get_param_store().scope(),
                pyro.validation_enabled(False),
                torch.enable_grad(),
            ):
                answer = of_images(
                    tried, data, builder, parts, observed, folder, most, least, progress
                )
        rows = [{"categories": k, "value": value} for k, value in answer.worth.items()]
        text = "".join(json.dumps(row) + "\n" for row in [{"criterion": answer.name}, *rows])
        replace_file(folder.path / TRIED, text.encode())
        _draw(answer, folder.path / "figures" / FIGURE)
    best = answer.categories
    near = [k for k in (best - 1, best + 1) if k in answer.worth]
    beside = " and ".join(f"{answer.worth[k]:.3f} with {k}" for k in near)
    line = (
        f"--prior.categories {best}: auto, {answer.name} {answer.worth[best]:.3f}, {beside} "
        f"({time.perf_counter() - began:.0f} s)"
    )
    if answer.enough is not None:
        line += f"; {answer.enough} is enough"
        if answer.worth[best] < answer.enough:
            line += ", so no number stands out and this one is a guess"
    return with_categories(settings, best), [line, *answer.further]


def _most(settings: Settings, examples: int) -> int:
    """The largest K to try."""
    most = settings.most_categories
    # The default is for any number of examples.
    if most > examples and (most != default(DECLARED["most_categories"]) or examples < 2):
        raise UserError(
            f"there are {examples} training examples; give as many at most, and at least 2",
            "most_categories",
            most,
        )
    return min(most, examples)


def _by_clusters(settings: Settings) -> bool:
    """Whether clusters tell numbers of categories apart under these settings, or else views.

    :raises UserError: where neither can.
    """
    if processes.world() > 1:
        raise UserError(
            "is found by one process; run without torchrun, or give a number",
            "prior.categories",
            AUTO,
        )
    if settings.largest_weight("nearness") and fine.wanting(settings, 2):
        return True
    if fine.unlearnable(settings) is None:
        return False
    raise UserError(
        "needs terms on real examples: weights of consistency and marginal_entropy with a view, as "
        "the presets images, colour, digits and mnist have them, or of nearness, as table has; "
        "take one of these, or give a number",
        "prior.categories",
        AUTO,
    )


def of_tables(settings: Settings, data: DataSet, most: int, least: int = 2) -> Answer:
    """The number of clusters that a table speaks for, from ``least`` to ``most``."""
    # scikit-learn is imported for those who look for clusters alone.
    from pyro_infocat.training.criteria import Clusters, chosen, search

    clusters = Clusters(data, settings.seed)
    tried = search(clusters, min(most, clusters.most), least)
    worth = {one.categories: one.value for one in tried}
    return Answer(chosen(tried).categories, clusters.name, worth)


def of_images(
    settings: Settings,
    data: DataSet,
    builder: Builder,
    parts: Parts,
    observed: Observation,
    folder: RunFolder,
    most: int,
    least: int = 2,
    progress: bool | None = None,
) -> Answer:
    """The number of categories that views of images leave apart, from ``least`` to ``most``.

    Where the run is to begin near merged categories it begins near these, which the folder keeps.
    """
    began = time.perf_counter()
    split = validation_split(data.train, settings)[0]
    wanted = FIRST
    while True:
        number = fine.number_of(wanted, least, len(split))
        starts = fine.starts(
            settings, split, builder, parts, observed, number, settings.finer_steps, progress
        )
        # What of a view asks no classifier: a step to the nearest boundary crosses any.
        worth = apart([start.joints[-1] for start in starts])
        best = kept({k: value for k, value in worth.items() if least <= k <= most})
        # There are no more where the examples are few.
        if 2 * best <= number or number < wanted:
            break
        wanted *= 2
    further = []
    if fine.wanting(settings, 2) is None:
        merged, line = fine.near(starts, best, split, observed)
        further.append(line)
        found = fine.Found(merged, time.perf_counter() - began)
        of_run = with_categories(settings, best)
        fine.write(folder.path / FINE, found, fine.origin(of_run, data, best))
    shown = max(best, number // 2) + 1
    shown_worth = {k: value for k, value in worth.items() if k <= shown}
    return Answer(best, "apart", shown_worth, APART, tuple(further))


def apart(joints: Sequence[Tensor]) -> dict[int, float]:
    """How far K categories are apart, by K: what joining the two next ones would lose.

    As a share of 2 log 2 / K nats, what joining two of K categories of one size loses of I(c; c')
    where no view takes one for the other. The mean over several p(c, c').

    :param joints: p(c, c') of fine categories (F, F) each.
    """
    number = len(joints[0])
    lost = torch.stack([merge(joint, 1).lost for joint in joints]).mean(0)
    # The first merging is of F categories.
    return {k: k * lost[number - k].item() / (2 * math.log(2)) for k in range(2, number + 1)}


def kept(worth: Mapping[int, float]) -> int:
    """The largest K whose categories are apart; where none is, the one that is so most."""
    enough = [k for k, value in worth.items() if value >= APART]
    return max(enough) if enough else max(worth, key=worth.__getitem__)


def _draw(answer: Answer, path: Path) -> None:
    """The criterion over K."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="categories", ylabel=answer.name)
        axes.plot(list(answer.worth), list(answer.worth.values()), ".-")
        axes.axvline(answer.categories, color="0.7", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
