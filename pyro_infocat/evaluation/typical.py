"""What is typical of each category of a table's rows: a figure of categories by columns.

Shapes: N rows of the table, R categories shown, C columns shown.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyro_infocat.catalogue import Column
from pyro_infocat.evaluation.part import CHUNK, Tested

MOST_COLUMNS = 16
"""Columns that the figure shows; more would be too small to read."""

FARTHEST = 2.0
"""Standard deviations that have the darkest colour; of shares a difference of 1 has it."""

MOST_ROWS = 50_000
"""Rows of the training split that are looked at: all, or as many by chance."""

LONGEST = 14
"""Characters of a column's name or of a value."""


def typical(tested: Tested, shown: Sequence[int], labels: Sequence[str], title: str) -> Figure:
    """The rows of each category against all rows, of the training and the test split.

    A real column is compared by its mean and a count by the mean of log(1 + count), in standard
    deviations; a binary column by the share of its second value, and one of categories by the
    share of the value that stands out most. Where there are more columns, those are shown that
    differ most between categories.

    :param shown: the categories, a row of the figure each.
    :param labels: of these rows.
    """
    train = tested.data.train.some(MOST_ROWS)
    found = [tested.guide.category(x).logits.argmax(-1) for x in train.grey().split(CHUNK)]
    category = np.concatenate([part.cpu().numpy() for part in [*found, tested.category]])
    x = np.concatenate([s.grey().double().cpu().numpy() for s in (train, tested.data.test)])
    columns = tested.data.facts.columns
    first = np.cumsum([0, *(column.width for column in columns)])
    cells = [
        [_cell(x[:, first[n] : first[n + 1]], category == c, column)
         for n, column in enumerate(columns)]
        for c in shown
    ]  # fmt: skip
    far = np.array([[difference for difference, _ in row] for row in cells])
    telling = np.argsort(-np.abs(far).mean(0), kind="stable")[:MOST_COLUMNS]
    kept = sorted(int(n) for n in telling)
    figure = Figure(figsize=(0.78 * len(kept) + 0.6, 0.34 * len(shown) + 0.3))
    axes = figure.add_axes((0, 0, 1, 1))
    image = axes.imshow(far[:, kept], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for row, line in enumerate(cells):
        for place, n in enumerate(kept):
            difference, text = line[n]
            colour = "white" if abs(difference) > 0.6 else "black"
            axes.text(place, row, text, ha="center", va="center", color=colour, size=7)
    names = [_short(columns[n].name) + _of(columns[n]) for n in kept]
    axes.set_xticks(range(len(kept)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.15 / (len(kept) + 1), aspect=max(6, 2 * len(shown)))
    bar.set_ticks([-1, 0, 1], labels=["below", "as all rows", "above"])
    bar.outline.set_visible(False)
    some = f"\n(the {len(kept)} of {len(columns)} columns that differ most)"
    axes.set_title(title + (some if len(kept) < len(columns) else ""))
    axes.set_xlabel(
        f"mean, or share of rows; darkest: {FARTHEST:g} standard deviations, or all against none"
    )
    return figure


def _cell(part: NDArray[np.float64], here: NDArray[np.bool_], column: Column) -> tuple[float, str]:
    """How far a category's rows are from all, in [-1, 1], and what to write.

    :param part: the column's features of all rows (N, its width).
    :param here: which rows (N,) are of the category.
    """
    there = ~np.isnan(part[:, 0])
    mine, every = part[there & here], part[there]
    if not len(mine):
        return 0.0, ""
    if column.values:
        own, all_of = mine.mean(0), every.mean(0)
        place = int((own - all_of).argmax())
        said = f"{own[place]:.0%}"
        if column.kind == "category":
            said = f"{_short(column.values[place])}\n{said}"
        return float(own[place] - all_of[place]), said
    if column.kind == "count":
        own, all_of = np.log1p(mine).mean(), np.log1p(every).mean()
        spread, value = np.log1p(every).std(), mine.mean()
    else:
        own, all_of, spread = mine.mean(), every.mean(), every.std()
        value = own * column.scale + column.mean
    far = (own - all_of) / spread / FARTHEST if spread else 0.0
    said = f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"
    return float(np.clip(far, -1, 1)), said


def _of(column: Column) -> str:
    """Whose share a binary column's figures are."""
    return f" = {_short(column.values[1])}" if column.kind == "binary" else ""


def _short(name: str) -> str:
    text = " ".join(name.split()).replace("$", r"\$")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
