"""Examples that are no images, as rows of values.

Shapes: B examples, X features.
"""

from typing import Any

from torch import Tensor

from pyro_infocat.catalogue import Facts
from pyro_infocat.report.words import MINUS

MOST_COLUMNS = 12
"""Columns that the page shows."""

MISSING = "\N{EM DASH}"


def head(facts: Facts) -> list[str]:
    """The names of the columns shown."""
    if facts.columns:
        return [column.name for column in facts.columns[:MOST_COLUMNS]]
    return [f"x{feature}" for feature in range(min(facts.features, MOST_COLUMNS))]


def left_out(facts: Facts) -> int:
    """How many columns are not shown."""
    return max(0, (len(facts.columns) or facts.features) - MOST_COLUMNS)


def rows(x: Tensor, facts: Facts) -> list[list[str]]:
    """Examples (B, X), a word for each column shown, in a table's own units."""
    if not facts.columns:
        return [[_word(value, "real") for value in one[:MOST_COLUMNS]] for one in x.tolist()]
    # Imported here because it imports pandas, which images do not need.
    from pyro_infocat.data.table import decoded

    shown = facts.columns[:MOST_COLUMNS]
    frame = decoded(x.cpu().numpy(), shown)
    return [
        [_word(value, column.kind) for value, column in zip(one, shown, strict=True)]
        for one in frame.itertuples(index=False)
    ]


def _word(value: Any, kind: str) -> str:
    if value is None or value != value:
        return MISSING
    if isinstance(value, str):
        return value
    if kind == "count":
        return f"{value:,.0f}"
    digits = f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"
    return digits.replace("-", MINUS)
