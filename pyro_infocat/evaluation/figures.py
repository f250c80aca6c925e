"""Figures of a trained model, as PNG files.

Shapes: B batch, K categories, D latent dimensions, X features, N test examples, L labels,
R rows and C columns of a figure.
"""

import functools
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from models import CatVAE
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.evaluation.part import History, Plot, Tested
from pyro_infocat.evaluation.style import FARTHEST, block_walk, exchanged
from pyro_infocat.evaluation.typical import typical
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.storage.files import replace

SEED = 0
MOST_ROWS = 20
"""Categories or labels that a figure shows; more would be too small to read."""

LONGEST_NAME = 24
"""Characters of a label's name that a figure shows."""

SAMPLES, STEPS, PER_LABEL, MOST_POINTS = 10, 11, 3, 2000
ACROSS = 5
"""Squares of a figure side by side."""

NOT_TERMS = ("epoch", "seconds", "objective")
"""What a row of the history holds beside terms."""

LABEL = 0.055
"""Room for a mode's number, as a share of the plot."""

DPI, CELL, TALLEST, LOWEST, GUTTER = 150, 84, 336, 30, 4
"""Dots per inch; of an image across, about, and at most and at least down; between two images."""

LETTER = 10
"""Dots that a letter takes; names wider than their columns stand aslant."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


OWN = (
    *("conditional_samples", "interpolation", "subspace_walk", "reconstructions"),
    *("style", "blocks", "latent", "training"),
)
"""The names of the figures that runs have, with labels or without."""


def check_names(plots: Sequence[Plot], facts: Facts) -> None:
    """Refuse figures whose names are no words, or others', before any training.

    :param facts: of the data.
    :raises UserError: naming the first.
    """
    taken = {*OWN, *(["confusion"] if facts.classes else [])}
    taken |= {"typical"} if facts.columns else set()
    for plot in plots:
        if plot.name in taken:
            raise UserError(f"there is a figure '{plot.name}' already", "figures", _kind(plot))
        if not plot.name.isidentifier():
            raise UserError(f"its name must be a word, not {plot.name!r}", "figures", _kind(plot))
        taken.add(plot.name)


def _kind(plot: Plot) -> str:
    return f"{type(plot).__module__}.{type(plot).__qualname__}"


def draw(tested: Tested, out: Path, extra: Sequence[Plot] = ()) -> None:
    """Write every figure into the folder ``out``: the same bytes for the same model.

    Data without labels have no confusion, and other figures of theirs name no label. What is no
    image has no pictures.

    :param extra: further figures.
    :raises UserError: where one of them fails, or its name is taken.
    """
    check_names(extra, tested.data.facts)
    out.mkdir(parents=True, exist_ok=True)
    model, data, shape = tested.model, tested.data, tested.data.facts.shape
    device = data.test.device
    with evaluating(device, model, tested.guide, seed=SEED), matplotlib.rc_context(STYLE):
        rows = Rows.of(tested.category, tested.guide.categories, data)
        figures: dict[str, Callable[[], Figure]] = {}
        if data.facts.images:
            figures |= {
                "conditional_samples": lambda: conditional_samples(model, rows, shape),
                "interpolation": lambda: interpolation(model, rows, shape),
                "subspace_walk": lambda: subspace_walk(model, rows, shape),
                "reconstructions": lambda: reconstructions(model, data, tested.z),
                "style": lambda: style(tested, rows),
            }
            walk = block_walk(model, _shown(model, rows))
            if walk is not None:
                figures["blocks"] = lambda: blocks(walk, rows, shape)
        if data.facts.columns:
            title = rows.title("Typical of each category's rows")
            figures["typical"] = lambda: typical(tested, rows.shown, rows.labels, title)
        figures |= {
            "latent": lambda: latent(model, rows, tested.labels, tested.z),
            "training": lambda: training(tested.history),
        }
        if data.facts.classes:
            figures["confusion"] = lambda: confusion(rows)
        of: dict[str, str] = {}
        for plot in extra:
            if data.facts.classes or not plot.needs_labels:
                figures[plot.name], of[plot.name] = functools.partial(plot, tested), _kind(plot)
        for name, make in figures.items():
            with attributed("figures", of[name]) if name in of else nullcontext():
                figure = make()
                if not isinstance(figure, Figure):
                    raise TypeError(f"it must return a Figure, not {type(figure).__name__}")
            with warnings.catch_warnings():
                # Of letters that the font does not have: a frame stands for each.
                warnings.simplefilter("ignore", UserWarning)
                content = io.BytesIO()
                figure.savefig(content, dpi=DPI, bbox_inches="tight", pad_inches=0.1)
            replace(out / f"{name}.png", content.getvalue())


@dataclass(frozen=True)
class Rows:
    """The categories that figures show, a row each, and what they turned out to hold.

    :ivar counts: (K, L), how many test examples of each label fell into each category; without
        classes all have one label.
    :ivar names: of the L labels, as figures write them; none without classes.
    :ivar shown: the fullest categories, in the order of their majority labels, empty ones last.
    :ivar columns: the labels that most test examples have, in the order of their numbers.
    :ivar given: names of the categories that known labels give one.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]
    shown: list[int]
    columns: list[int]
    given: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, category: Tensor, categories: int, data: DataSet) -> "Rows":
        """From the category (N,) of each test example."""
        labels = len(data.facts.classes) or 1
        cells = (category * labels + data.test.labels).cpu().numpy()
        counts = np.bincount(cells, minlength=categories * labels).reshape(categories, labels)
        fullest = np.argsort(-counts.sum(1), kind="stable")[:MOST_ROWS]
        shown = sorted(fullest, key=lambda c: (not counts[c].any(), counts[c].argmax(), c))
        columns = sorted(np.argsort(-counts.sum(0), kind="stable")[:MOST_ROWS])
        names = tuple(map(_plain, data.facts.classes))
        given = {c: _plain(name) for c, name in data.names.items()}
        return cls(counts, names, [int(c) for c in shown], [int(label) for label in columns], given)

    @property
    def labels(self) -> list[str]:
        """The number of each category shown, and its name, majority label or share of all."""
        return [f"category {c}: {self._said(c)}" for c in self.shown]

    def title(self, text: str, with_labels: bool = False) -> str:
        """``text``, and how many categories it leaves out.

        :param with_labels: say it of labels too.
        """
        categories, labels = self.counts.shape
        said = []
        if len(self.shown) < categories:
            said.append(f"the {len(self.shown)} fullest of {categories} categories")
        if with_labels and len(self.columns) < labels:
            said.append(f"the {len(self.columns)} largest of {labels} labels")
        return f"{text}\n({'; '.join(said)})" if said else text

    def _said(self, c: int) -> str:
        if c in self.given:
            return self.given[c]
        if not self.counts[c].any():
            return "unused"
        if not self.names:
            return f"{self.counts[c].sum() / self.counts.sum():.0%}"
        return self.names[self.counts[c].argmax()]


def conditional_samples(model: CatVAE, rows: Rows, shape: Sequence[int]) -> Figure:
    """A row of samples for each category: the mean of p(x | z) for draws of z ~ p(z | c)."""
    c = _shown(model, rows).unsqueeze(-1).expand(-1, SAMPLES)
    images = mean_of(model.decoder(model.prior.component(c).sample()))
    figure, axes = _mosaic(images, shape, rows.labels)
    axes.set_title(rows.title(r"Samples of each category: mean of $p(x|z)$, $z \sim p(z|c)$"))
    return figure


def interpolation(model: CatVAE, rows: Rows, shape: Sequence[int]) -> Figure:
    """A row from each category's centre in a straight line to that of the row below."""
    start = _centres(model, rows).unsqueeze(1)
    path, names = _steps(1, start)
    images = mean_of(model.decoder(start.lerp(start.roll(-1, 0), path)))
    figure, axes = _mosaic(images, shape, rows.labels, names)
    axes.set_title(rows.title("From each category's centre to the next"))
    axes.set_xlabel("share of the way")
    end = axes.secondary_yaxis("right")
    end.set_yticks(axes.get_yticks(), rows.labels[1:] + rows.labels[:1])
    end.tick_params(length=0)
    end.spines[:].set_visible(False)
    return figure


def subspace_walk(model: CatVAE, rows: Rows, shape: Sequence[int]) -> Figure:
    """A row from the origin through each category's mode and as far again beyond it."""
    modes = _centres(model, rows)
    distance, names = _steps(2, modes)
    unit = r"$|\mu_c|$, the distance of the mode"
    if not modes.any():
        # A plain VAE's only mode is the origin itself and points nowhere.
        modes = torch.eye(*modes.shape, device=modes.device, dtype=modes.dtype)
        unit = "standard deviations (the only mode is the origin; this is z's first axis)"
    images = mean_of(model.decoder(distance * modes.unsqueeze(1)))
    figure, axes = _mosaic(images, shape, rows.labels, names)
    axes.set_title(rows.title("From the origin out along each category's mean"))
    axes.set_xlabel(f"distance from the origin in units of {unit}")
    return figure


def style(tested: Tested, rows: Rows) -> Figure:
    """A row for each of some test examples: itself, and its style in every category."""
    index, images = exchanged(tested, _shown(tested.model, rows))
    side = [f"test example {n}" for n in index.tolist()]
    figure, axes = _mosaic(images, tested.data.facts.shape, side, ["itself", *rows.labels])
    axes.set_title(rows.title(r"The style $z - \mu_c$ of an example in every category"))
    return figure


def blocks(walk: Tensor, rows: Rows, shape: Sequence[int]) -> Figure:
    """A square for each category: what the two coordinates of its own block do.

    :param walk: (C, S, S, X).
    """
    across, steps = min(ACROSS, len(walk)), walk.shape[1]
    bands = math.ceil(len(walk) / across)
    # White is 0 of ink, and 1 of each colour. A row above each square is for its name.
    sheet = walk.new_full((bands * (steps + 1), across * (steps + 1) - 1, walk.shape[-1]),
                          float(len(shape) == 3))  # fmt: skip
    for number, square in enumerate(walk):
        top, left = number // across * (steps + 1) + 1, number % across * (steps + 1)
        sheet[top : top + steps, left : left + steps] = square
    figure, axes = _mosaic(sheet, shape, [""] * len(sheet), [""] * sheet.shape[1])
    down, right = axes.get_yticks(), axes.get_xticks()
    for number, label in enumerate(rows.labels):
        # The lower left corner of an empty cell.
        left = right[number % across * (steps + 1)] - right[0]
        bottom = down[number // across * (steps + 1)] + down[0]
        axes.text(left, bottom, label, ha="left", va="bottom")
    title = f"Along the two coordinates of each category's own block, {FARTHEST:g} standard"
    axes.set_title(rows.title(f"{title} deviations to either side"))
    return figure


def reconstructions(model: CatVAE, data: DataSet, z: Tensor) -> Figure:
    """Test images over their reconstructions, a column for each label, or the first images.

    :param z: (N, D), the posterior means; a reconstruction is the mean of p(x | z) at one.
    """
    names = tuple(map(_plain, data.facts.classes[:MOST_ROWS])) or ("",) * SAMPLES
    images = torch.zeros(PER_LABEL, 2, len(names), data.facts.features)
    for column in range(len(names)):
        index = (data.test.labels == column).nonzero()[:PER_LABEL, 0]
        if not data.facts.classes:
            index = torch.arange(len(z), device=z.device)[column::SAMPLES][:PER_LABEL]
        # Of a label that no test image has there is nothing to decode.
        if len(index):
            images[: len(index), 0, column] = data.test.grey(index).cpu()
            images[: len(index), 1, column] = mean_of(model.decoder(z[index])).cpu()
    sides = ["image", "reconstruction"] * PER_LABEL
    figure, axes = _mosaic(
        images.flatten(0, 1), data.facts.shape, sides, [_folded(n) for n in names]
    )
    ticks = axes.get_yticks()
    for below, above in zip(ticks[1::2], ticks[2::2], strict=False):
        axes.axhline((below + above) / 2, color="black", lw=0.8)
    left_out = len(data.facts.classes) > len(names)
    first = f"\n(the first {len(names)} of {len(data.facts.classes)} labels)" if left_out else ""
    axes.set_title(f"Test images and their reconstructions{first}")
    return figure


def confusion(rows: Rows) -> Figure:
    """How many test examples of each label fell into each category."""
    counts = rows.counts[rows.shown][:, rows.columns]
    share = counts / rows.counts[rows.shown].sum(1, keepdims=True).clip(1)
    figure = Figure(figsize=(0.58 * counts.shape[1], 0.32 * counts.shape[0]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, size=8)
    axes.set_yticks(range(len(rows.shown)), rows.labels)
    axes.set_xticks(range(len(rows.columns)), [_folded(rows.names[c]) for c in rows.columns])
    purity = rows.counts.max(1).sum() / rows.counts.sum()
    title = f"Test examples by category and label: purity {purity:.1%}"
    axes.set_title(rows.title(title, with_labels=True))
    axes.set_xlabel("label; colour is its share of the category")
    return figure


def latent(model: CatVAE, rows: Rows, labels: Tensor, z: Tensor) -> Figure:
    """Posterior means z (N, D) of the test split and the prior's modes, along z's two main axes.

    :param labels: (N,).
    """
    index = torch.linspace(0, len(z) - 1, min(len(z), MOST_POINTS)).long()
    # A latent space of one dimension gets a second, flat one.
    flat = max(0, 2 - z.shape[-1])
    points, modes = (
        np.pad(_numbers(t), ((0, 0), (0, flat)))
        for t in (z[index.to(z.device)], _centres(model, rows))
    )
    centre = points.mean(0)
    power, axis = np.linalg.eigh(np.cov(points - centre, rowvar=False, bias=True))
    plane = axis[:, :-3:-1]
    points, modes = (points - centre) @ plane, (modes - centre) @ plane

    figure = Figure(figsize=(6.5, 5))
    axes = figure.add_subplot()
    label = labels.cpu()[index].numpy()
    few = len(rows.columns) <= 10
    colours = matplotlib.colormaps["tab10" if few else "gist_rainbow"]
    rest = ~np.isin(label, rows.columns)
    if rest.any():
        axes.scatter(points[rest, 0], points[rest, 1], s=7, lw=0, alpha=0.3, color="gray")
    dots = []
    for number, column in enumerate(rows.columns):
        colour = colours(number if few else number / len(rows.columns))
        here = points[label == column]
        dots.append(axes.scatter(here[:, 0], here[:, 1], s=7, lw=0, alpha=0.7, color=colour))
    circle = {"boxstyle": "circle,pad=0.2", "fc": (1, 1, 1, 0.7), "ec": "black", "lw": 1}
    line = {"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, "lw": 0.8}
    for c, mode, place in zip(rows.shown, modes, _apart(modes, points), strict=True):
        axes.annotate(
            str(c), xy=mode, xytext=place, bbox=circle, arrowprops=line,
            ha="center", va="center", size=8, weight="bold",
        )  # fmt: skip
    # Annotations do not count when the axes choose their limits.
    axes.update_datalim(modes)
    axes.autoscale_view()
    if rows.names:
        axes.legend(
            dots,
            [rows.names[column] for column in rows.columns],
            title="label",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
            markerscale=2.5,
        )
    shares = power[:-3:-1] / max(power.sum(), np.finfo(float).tiny)
    axes.set_xlabel(f"first principal axis ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})")
    title = "Posterior means of test examples; numbers: modes of the categories"
    axes.set_title(rows.title(title, with_labels=True))
    return figure


def training(history: History) -> Figure:
    """A panel for each named term that the history holds, over epochs."""
    terms = dict.fromkeys(term for row in history for term in row if term not in NOT_TERMS)
    # The bound first, whatever order the terms were measured in.
    kept = sorted(terms, key=lambda term: term not in ("elbo", "validation_elbo"))
    columns = min(len(kept), 5) or 1
    lines = math.ceil(len(kept) / columns) or 1
    figure = Figure(figsize=(2.3 * max(columns, 2), 2.1 * lines), layout="constrained")
    figure.suptitle("Training: nats per example over epochs", x=0.005, ha="left", size=10)
    for number, term in enumerate(kept, start=1):
        at = [place for place, row in enumerate(history) if term in row]
        values = [history[place][term] for place in at]
        axes = figure.add_subplot(lines, columns, number)
        axes.plot(
            [history[place].get("epoch", place + 1) for place in at],
            values,
            marker="o" if len(values) == 1 else "",
            lw=1.3,
        )
        axes.set_title(f"{term}\n{values[-1]:.2f} at the end", size=9)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid(alpha=0.3)
    return figure


def _shown(model: CatVAE, rows: Rows) -> Tensor:
    """The categories shown (R,), on the model's device."""
    return torch.tensor(rows.shown, device=model.prior.logits.device)


def _centres(model: CatVAE, rows: Rows) -> Tensor:
    """The means of p(z | c) for the categories shown (R, D)."""
    return mean_of(model.prior.component(_shown(model, rows)))


def _steps(end: float, like: Tensor) -> tuple[Tensor, list[str]]:
    """Equal steps from 0 to ``end`` (C, 1), and how to write them."""
    steps = torch.linspace(0, end, STEPS, device=like.device, dtype=like.dtype)
    return steps.unsqueeze(-1), [f"{step:.1f}" for step in steps.tolist()]


def _mosaic(
    images: Tensor, shape: Sequence[int], rows: Sequence[str], columns: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """A figure of images (R, C, X), in ink on white or in their colours.

    :param shape: (height, width) or (3, height, width), X together.
    :param rows: R labels.
    :param columns: C labels, or none.
    """
    # Whole dots for each pixel and a figure as large as its dots: nothing is resampled.
    across = max(1, min(CELL // shape[-1], TALLEST // shape[-2]))
    # Low images are stretched until a label fits beside them.
    down = max(across, math.ceil(LOWEST / shape[-2]))
    cells = _numbers(images.unflatten(-1, shape)).clip(0, 1).repeat(down, -2).repeat(across, -1)
    in_colour = len(shape) == 3
    # White is 0 of ink, and 1 of each colour.
    gutter = [(0, 0)] * (cells.ndim - 2) + [(0, GUTTER)] * 2
    cells = np.pad(cells, gutter, constant_values=float(in_colour))
    cells = np.moveaxis(cells, 2, -1) if in_colour else cells
    height, width = cells.shape[2:4]
    picture = cells.swapaxes(1, 2).reshape(
        len(cells) * height, cells.shape[1] * width, *cells.shape[4:]
    )[:-GUTTER, :-GUTTER]
    figure = Figure(figsize=(picture.shape[1] / DPI, picture.shape[0] / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    inside = (height - GUTTER) / 2, (width - GUTTER) / 2
    axes.set_yticks(np.arange(len(cells)) * height + inside[0], rows)
    longest = max((len(line) for name in columns for line in name.split("\n")), default=0)
    aslant: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(
        np.arange(len(columns)) * width + inside[1],
        columns,
        **(aslant if longest * LETTER > width else {}),
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _apart(places: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """``places`` (R, 2) moved until labels there do not overlap in a plot of ``points`` (N, 2)."""
    unit = LABEL * np.ptp(np.concatenate([places, points]), 0).clip(1e-9)
    angle = 2 * np.pi * np.arange(len(places)) / len(places)
    # A nudge in a direction of its own parts places that coincide.
    moved = places / unit + 1e-3 * np.stack([np.cos(angle), np.sin(angle)], -1)
    for _ in range(200):
        gap = moved[:, None] - moved
        distance = np.linalg.norm(gap, axis=-1, keepdims=True).clip(1e-9)
        moved += 0.2 * (gap / distance * (1 - distance).clip(0)).sum(1)
    return moved * unit


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.cpu().double().numpy()


def _plain(name: str) -> str:
    """A label's name as text that matplotlib draws letter by letter, shortened."""
    text = " ".join(name.split())
    if len(text) > LONGEST_NAME:
        text = text[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
    # A legend leaves out what begins so.
    text = f" {text}" if text.startswith("_") else text
    # Between two of these signs a formula would be read.
    return text.replace("$", r"\$")


def _folded(name: str) -> str:
    """A label name on several short lines, to stand under a narrow column."""
    return name.replace(" ", "\n").replace("/", "/\n")
