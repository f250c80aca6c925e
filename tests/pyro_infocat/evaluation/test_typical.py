"""The figure of what is typical of a table's categories: its cells by hand, and what it shows."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_infocat.catalogue import Column, Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation.typical import MOST_COLUMNS, typical

REAL = Column("length", "real", (), 10.0, 2.0)
COUNT = Column("visits", "count", (), 1.0, 1.0)
BINARY = Column("tame", "binary", ("no", "yes"))
CATEGORY = Column("animal", "category", ("cat", "dog", "owl"))


def drawn(x: Tensor, category: Tensor, columns: tuple[Column, ...]) -> Any:
    """The figure's axes for rows of known categories, the last two of which are the test split."""
    facts = Facts("table", (x.shape[1],), 0, (), columns)
    splits = [Split.of_real_numbers(part) for part in (x[:-2], x[-2:])]
    data = DataSet(facts, *splits)
    logits = torch.eye(2)[category]
    guide = SimpleNamespace(category=lambda _: dist.Categorical(logits=logits[:-2]))
    tested: Any = SimpleNamespace(data=data, guide=guide, category=category[-2:])
    return typical(tested, [0, 1], ["category 0", "category 1"], "title").axes[0]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


X = torch.tensor(
    [
        # length, visits, tame, cat, dog, owl
        [-1.0, 0, 0, 1, 0, 0],
        [-1.0, 1, 0, 1, 0, 0],
        [1.0, 7, 1, 0, 1, 0],
        [torch.nan, 3, 1, 0, 0, 1],
        [1.0, 7, torch.nan, torch.nan, torch.nan, torch.nan],
        [0.0, 0, 1, 1, 0, 0],
    ]
)
CATEGORIES = torch.tensor([0, 0, 1, 1, 1, 0])


def test_cells_say_means_and_shares_and_how_far_they_are_from_all_rows() -> None:
    axes = drawn(X, CATEGORIES, (REAL, COUNT, BINARY, CATEGORY))
    assert texts(axes) == [
        *("8.67", "0.333", "33%", "cat\n100%"),
        *("12", "5.67", "100%", "dog\n50%"),
    ]
    lengths, logs = np.array([-1, -1, 1, 1, 0.0]), np.log1p([0, 1, 7, 3, 7, 0])
    far = [
        [-2 / 3 / lengths.std() / 2, (logs[[0, 1, 5]].mean() - logs.mean()) / logs.std() / 2],
        [1 / lengths.std() / 2, (logs[[2, 3, 4]].mean() - logs.mean()) / logs.std() / 2],
    ]
    shares = [[1 / 3 - 3 / 5, 1 - 3 / 5], [1 - 3 / 5, 1 / 2 - 1 / 5]]
    wanted = np.concatenate([far, shares], 1)
    np.testing.assert_allclose(axes.images[0].get_array(), wanted, atol=1e-6)
    assert [label.get_text() for label in axes.get_xticklabels()][2] == "tame = yes"


def test_the_columns_that_differ_most_are_shown_in_their_order() -> None:
    number = MOST_COLUMNS + 3
    columns = tuple(Column(f"c{n}", "real") for n in range(number))
    x = torch.ones(6, number) * (2 * CATEGORIES.unsqueeze(-1) - 1.0)
    x[0, [2, 5, 7]] = 9.0  # These no longer tell the categories apart as well.
    axes = drawn(x, CATEGORIES, columns)
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == [f"c{n}" for n in range(number) if n not in (2, 5, 7)]
    title = axes.get_title() + axes.get_title(loc="left")
    assert f"the {MOST_COLUMNS} of {number} columns that differ most" in title


def test_an_empty_category_has_empty_cells() -> None:
    axes = drawn(X, torch.zeros(6, dtype=torch.int64), (REAL, COUNT, BINARY, CATEGORY))
    assert texts(axes)[4:] == [""] * 4
    np.testing.assert_allclose(axes.images[0].get_array()[:, :2], 0, atol=1e-6)


@pytest.mark.parametrize("name", ["$x^2$", "a name that is far too long for a column"])
def test_names_are_drawn_letter_by_letter_and_shortened(name: str) -> None:
    axes = drawn(X[:, :1], CATEGORIES, (Column(name, "real"),))
    (label,) = axes.get_xticklabels()
    assert len(label.get_text()) <= 16
    axes.figure.canvas.draw()
