"""What a model must know of data, and the data sets by name. Nothing here imports torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pyro_infocat.errors import UserError

KINDS = ("real", "count", "binary", "category")
"""What a column of a table may hold."""


@dataclass(frozen=True)
class Column:
    """A column of a table, and how its values stand in x.

    :ivar kind: ``real`` numbers are standardised; a ``count`` stands as it is; ``binary`` is 0 or
        1; a ``category`` has a feature of 0 or 1 for each of its values.
    :ivar values: of a category or a binary column, as the table writes them.
    :ivar mean: of a real column's numbers, or of log(1 + count).
    :ivar scale: their standard deviation.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many features of x it takes."""
        return len(self.values) if self.kind == "category" else 1


@dataclass(frozen=True)
class Facts:
    """What a model must know of a data set.

    :ivar preset: the preset in runs/ that it is trained with where no --config is given.
    :ivar shape: (height, width) of a grey image, (3, height, width) of one in colour; (X,) of a
        row of a table, or another shape of X features that its parts understand.
    :ivar levels: number of levels of a pixel; 0 of what is no image.
    :ivar classes: a name for each label; none for data without labels.
    :ivar columns: of a table.
    :ivar fitted: whether picture files are made to fit the shape: resized, and cropped.
    """

    preset: str
    shape: tuple[int, ...]
    levels: int
    classes: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    fitted: bool = False

    @classmethod
    def of(cls, held: Mapping[str, Any]) -> "Facts":
        """From plain values, as a checkpoint holds them.

        :raises TypeError: where they are no facts.
        """
        facts = cls(**held)
        plain: Any = facts.columns
        columns = tuple(Column(**one) for one in plain)
        facts = replace(facts, columns=columns)
        right = (
            isinstance(facts.preset, str)
            and isinstance(facts.shape, tuple)
            and len(facts.shape) > 0
            and all(type(size) is int and size > 0 for size in facts.shape)
            and type(facts.levels) is int
            and (facts.levels == 0 or facts.levels > 1)
            and _are_words(facts.classes)
            and type(facts.fitted) is bool
            and all(map(_is_column, columns))
            and (not columns or _are_of_a_table(columns, facts))
        )
        if not right:
            raise TypeError("no facts of data")
        return facts

    @property
    def features(self) -> int:
        """X, the numbers of an example."""
        return math.prod(self.shape)

    @property
    def images(self) -> bool:
        """Whether an example can be shown as a picture."""
        return self.levels > 0

    @property
    def colour(self) -> bool:
        """Whether an example is an image in colour."""
        return self.images and len(self.shape) == 3


def _are_words(held: Any) -> bool:
    return isinstance(held, tuple) and all(isinstance(word, str) for word in held)


def _are_of_a_table(columns: tuple[Column, ...], facts: Facts) -> bool:
    return (
        facts.features == sum(one.width for one in columns)
        and facts.levels == 0
        and len({one.name for one in columns}) == len(columns)
    )


def _as_many_as_its_kind(column: Column) -> bool:
    """Whether a column has values where its kind has them: two of a binary one."""
    number = len(column.values)
    return {"binary": number == 2, "category": number > 0}.get(column.kind, number == 0)


def _is_column(column: Column) -> bool:
    numbers = (column.mean, column.scale)
    return (
        isinstance(column.name, str)
        and column.kind in KINDS
        and _are_words(column.values)
        and len(set(column.values)) == len(column.values)
        and _as_many_as_its_kind(column)
        and all(type(one) is float and math.isfinite(one) for one in numbers)
        and column.scale > 0
    )


CLOTHES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
)

DATA_SETS = {
    "digits": Facts("digits", (8, 8), 17, tuple("0123456789")),
    "mnist": Facts("mnist", (28, 28), 256, tuple("0123456789")),
    "fashion-mnist": Facts("fashion", (28, 28), 256, CLOTHES),
}

IN_MEMORY = "array"
"""The setting ``data`` of a run whose data were given in Python."""


def no_data_set(name: str) -> UserError:
    """The error for a name that is no data set's."""
    if name == IN_MEMORY:
        text = "the run's data were arrays given in Python, which no command line has; give --data"
    else:
        text = (
            f"no data set '{name}'; choose from {', '.join(DATA_SETS)}, or give a folder "
            "or an .npz or .npy of your own images, or a table (.csv, .tsv, .parquet, .npy)"
        )
    return UserError(text, "data")
