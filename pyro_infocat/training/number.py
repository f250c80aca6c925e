"""The number of categories from the data: ``--prior.categories auto``.

Before the run each K from 2 on is tried, by a criterion of :mod:`pyro_infocat.training.criteria`.

Shapes: K categories.
"""

import json
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyro_infocat.build import Builder, observation
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.figures import STYLE
from pyro_infocat.runtime import processes
from pyro_infocat.settings import (
    AFTERWARDS,
    AUTO,
    CONFIG,
    DECLARED,
    MACHINE,
    TRIED,
    Settings,
    default,
)
from pyro_infocat.storage.files import read_json
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.criteria import (
    MOST_STARTS,
    STARTS,
    Agreement,
    Clusters,
    Criterion,
    Tried,
    largest_weight,
    with_categories,
)

FIGURE = "categories.png"
"""What each K was worth, among the run's figures."""

NEAR = {2: 0.1, 4: 0.05}
"""A K whose agreement is nearer to the best than this, after so many starts, gets two more."""

PATIENCE = 6
"""No K is tried that is larger than the best one by more than this, or by more than half of it."""

ERRORS = 2.0
"""A smaller K is preferred to a better one that is better by no more standard errors than this."""


def chosen(tried: Sequence[Tried]) -> Tried:
    """The best K, or the smallest that is worse by no more than chance explains."""
    best = max(tried, key=lambda one: one.value)
    for one in tried:
        if best.value - one.value <= _chance(best, one):
            return one
    return best


def _chance(best: Tried, other: Tried) -> float:
    """So many standard errors of the mean difference of two values; 0 where they are of all."""
    if best.each is None or other.each is None or best is other:
        return 0.0
    apart = best.each - other.each
    return ERRORS * apart.std().item() / math.sqrt(len(apart))


def enough(tried: Sequence[Tried], most: float) -> bool:
    """Whether no larger K needs to be tried."""
    if not tried:
        return False
    best, last = max(tried, key=lambda one: one.value).categories, tried[-1].categories
    return last >= most or last - best >= max(PATIENCE, best // 2)


def in_doubt(tried: Sequence[Tried]) -> Tried | None:
    """The best K that more starts may still make or unmake the best of all."""
    top = max(one.value for one in tried)
    near = [one for one in tried if one.starts < MOST_STARTS and top - one.value < NEAR[one.starts]]
    return max(near, key=lambda one: one.value, default=None)


def left_to_the_data(settings: Settings) -> bool:
    """Whether the number of categories is left to the data."""
    return settings.prior.init_args.get("categories") == AUTO


def for_a_try(settings: Settings) -> Settings:
    """The settings with a number in the place of ``auto``: any will do to try the parts."""
    return with_categories(settings, 2) if left_to_the_data(settings) else settings


def find_number(
    settings: Settings,
    data: DataSet,
    device: torch.device,
    folder: RunFolder,
    instances: Mapping[str, Any] | None = None,
) -> tuple[Settings, list[str]]:
    """The settings with the number of categories that the data speak for, and a line that says so.

    What was tried is kept in the folder; a search that was stopped goes on from there.

    :param settings: with numbers for all else that may be ``auto``.
    :raises UserError: where there is nothing to tell a number from.
    """
    if (folder.path / CONFIG).exists():
        # A run that began here has its number. Whether it may go on is not for this to say.
        return with_categories(settings, folder.settings()[0].prior.init_args["categories"]), []
    most = _most(settings, len(data.train))
    criterion = _criterion(settings)(settings, data, device, instances or {})
    _try_parts(criterion)
    with folder.locked():
        tried = search(criterion, folder.path / TRIED, most)
        best = chosen(tried)
        _draw(tried, best, criterion.name, folder.path / "figures" / FIGURE)
    near = [one for one in tried if abs(one.categories - best.categories) == 1]
    beside = " and ".join(f"{one.value:.3f} with {one.categories}" for one in near)
    line = (
        f"--prior.categories {best.categories}: auto, {criterion.name} {best.value:.3f}, {beside} "
        f"({sum(one.seconds for one in tried):.0f} s)"
    )
    return with_categories(settings, best.categories), [line]


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


def _criterion(settings: Settings) -> type[Criterion]:
    """What tells numbers of categories apart under these settings."""
    if processes.world() > 1:
        raise UserError(
            "is found by one process; run without torchrun, or give a number",
            "prior.categories",
            AUTO,
        )
    if largest_weight(settings, "nearness"):
        return Clusters
    seen = settings.view.class_path != default(DECLARED["view"]).class_path
    if (
        seen
        and largest_weight(settings, "consistency")
        and largest_weight(settings, "marginal_entropy")
    ):
        return Agreement
    raise UserError(
        "needs terms on real examples: weights of consistency and marginal_entropy with a view, as "
        "the presets images, colour, digits and mnist have them, or of nearness, as table has; "
        "take one of these, or give a number",
        "prior.categories",
        AUTO,
    )


def _try_parts(criterion: Criterion) -> None:
    """Refuse what does not fit before the search, which may take minutes."""
    settings = for_a_try(criterion.settings)
    builder = Builder(settings, criterion.data.facts, instances=criterion.instances)
    parts = builder.parts(criterion.device)
    observed = observation(settings, parts.model.decoder.likelihood)
    try_parts(settings, parts, criterion.data.train, observed)


def search(criterion: Criterion, path: Path, most: int, said: bool = True) -> list[Tried]:
    """Every K that was tried, in order; each is written down at once.

    :param path: of the table.
    :param most: the largest K to try.
    :param said: whether to print a line for each.
    """
    head = {"of": _checksum(criterion), "criterion": criterion.name}
    rows = _written(path, head) if criterion.slow else []
    tried = {row["categories"]: Tried(**row) for row in rows}
    if tried and said:
        print(f"goes on after K = {rows[-1]['categories']}, see {path}", flush=True)
    while True:
        all_tried = list(tried.values())
        done = enough(all_tried, min(most, criterion.most))
        # Once there were enough, what is in doubt comes before what is larger.
        again = done or any(one.starts > STARTS for one in all_tried)
        doubtful = in_doubt(all_tried) if criterion.slow and again else None
        if doubtful is not None:
            number, starts = doubtful.categories, doubtful.starts + STARTS
        elif not done:
            number, starts = len(tried) + 2, STARTS
        else:
            return all_tried
        began = time.perf_counter()
        one = criterion(number, starts)
        before = tried[number].seconds if number in tried else 0.0
        one = replace(one, seconds=round(before + time.perf_counter() - began, 2))
        if said:
            by = f" ({one.starts} starts)" if one.starts else ""
            print(f"K = {number}: {criterion.name} {one.value:.3f}{by}", flush=True)
        tried[number] = one
        rows.append({n: getattr(one, n) for n in ("categories", "value", "seconds", "starts")})
        text = "".join(json.dumps(row) + "\n" for row in [head, *rows])
        replace_file(path, text.encode())


def _written(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an earlier search of the same settings and data has tried."""
    if not path.exists():
        return []
    first, *rows = read_json(path, "delete it to search anew", lines=True)
    return rows if first == head else []


def _checksum(criterion: Criterion) -> str:
    """Of all that the search depends on."""
    apart = MACHINE | AFTERWARDS | {"most_categories"}
    held = {n: one for n, one in criterion.settings.as_dict().items() if n not in apart}
    text = json.dumps([held, criterion.data.fingerprint], sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}"


def _draw(tried: Sequence[Tried], best: Tried, name: str, path: Path) -> None:
    """The criterion over K."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot(xlabel="categories", ylabel=name)
        axes.plot([one.categories for one in tried], [one.value for one in tried], ".-")
        axes.axvline(best.categories, color="0.7", zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
