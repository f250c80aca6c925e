"""Tables: ``--data FILE.csv``, ``.tsv``, ``.parquet``, arrays (N, X), or a DataFrame in Python.

A missing value is NaN, in the table and in x.

Shapes: N rows, X features.
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyro_infocat.catalogue import KINDS, Column, Facts
from pyro_infocat.data.archive import by, mapped, read_arrays
from pyro_infocat.data.dataset import DataSet, Split, held_out
from pyro_infocat.data.disk import FROM_DISK, OnDisk, blocks_of
from pyro_infocat.data.large_table import BYTES, ArrayTable, LargeTable, ParquetTable
from pyro_infocat.data.reader import Examples, Reader
from pyro_infocat.errors import UserError, reason
from pyro_infocat.kinds import TABLE
from pyro_infocat.runtime.memory import to_disk

MOST_VALUES = 50
"""Values that a column of categories may have."""

COUNTED_FROM = 0.25
"""Whole numbers are counts where the smallest is below this share of their mean."""

LEAST_NUMBERED = 20
"""Rows from which whole numbers that never repeat and leave none out are taken for row numbers."""

LARGEST_COUNT = 2**24
"""Up to it float32 holds every whole number."""

DATE = re.compile(r"\d{4}-\d\d?-\d\d?([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4}( .*)?")

COMMA = re.compile(r"[+-]?\d[\d.]*(,\d+)+(\.\d*)?")
"""A number as some languages write fractions, or with its thousands apart."""

IN_WORDS = {
    "real": ("real column", "real columns"),
    "count": ("column of counts", "columns of counts"),
    "binary": ("binary column", "binary columns"),
    "category": ("column of categories", "columns of categories"),
}


class Rows(NamedTuple):
    """A table as it was read.

    :param frame: the rows of the training split and then those of the test split.
    :param test: how many of the last rows are the test split; 0 where none was given.
    :param usual: the kind of columns of which nothing is said; None looks at their values.
    :param labels: of the rows (N,), where they came beside the table; -1 or "" where it is not
        known.
    :param classes: a name for each label, where they came beside the table.
    """

    frame: Any
    test: int = 0
    usual: str | None = None
    labels: np.ndarray | None = None
    classes: np.ndarray | None = None


class Table(Reader):
    """A table in a file.

    :param data: a .csv, .tsv or .parquet whose first line names the columns, an .npy (N, X), or an
        .npz with ``x_train`` (N, X) and, where there are any, ``x_test``, ``y_train``, ``y_test``
        and ``names`` of the columns.
    :param data_label: the column that evaluation compares with; empty where it is not known.
    :param data_columns: the columns to use, each ``name`` or ``name:kind``; or ``-name`` for all
        but these.
    :param data_on: where the rows of a .parquet or an .npy lie; others are read into memory.
    """

    def __init__(
        self,
        data: str,
        data_label: str | None = None,
        data_columns: list[str] | None = None,
        data_on: str = "auto",
    ) -> None:
        self.path, self.label, self.columns = Path(data), data_label, data_columns
        self.data_on = data_on

    def read(self) -> DataSet:
        what, large = f"'{self.path}'", large_rows(self.path, self.data_on)
        if large is None:
            return data_set(read_rows(self.path), what, self.label, self.columns)
        with _readable(self.path):
            return data_set(large, what, self.label, self.columns)

    def again(self, facts: Facts) -> Examples:
        as_written = {column.name for column in facts.columns if column.values}
        return examples(read_rows(self.path, as_written).frame, facts, f"'{self.path}'")


def read_rows(path: Path, as_written: Collection[str] = ()) -> Rows:
    """The table in a file.

    :param as_written: columns of a text file that are read as words. pandas reads 01 as a word or
        as 1, as the rows beside it are, and new rows need not be like those of training.
    :raises UserError: where there is none.
    """
    ending = path.suffix.lower()
    if ending in (".npy", ".npz"):
        return of_arrays(read_arrays(path), f"'{path}'")
    if ending == ".parquet":
        return Rows(_read_parquet(path))
    with _readable(path):
        separator = _checked_lines(path, "\t" if ending == ".tsv" else ",")
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=separator, skipinitialspace=True))
        # What writes a table with the numbers of its rows leaves their name empty.
        frame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            index_col=False if names[0].strip() else 0,
            dtype={name: str for name in names if name.strip() in as_written},
            low_memory=False,
            skipinitialspace=True,
        )
    return Rows(frame.rename(columns=str.strip))


def large_rows(path: Path, data_on: str) -> Rows | None:
    """The table in a file that is to be read from disk; None of one that memory has room for.

    :param data_on: see :class:`Table`.
    :raises UserError: as :func:`read_rows`.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        _need_pyarrow(path)
        with _readable(path):
            table = ParquetTable(path)
        large = to_disk(data_on, BYTES * len(table) * len(table.columns))
        return Rows(table) if large else None
    if ending == ".npy":
        array = mapped(path)
        # What is no number is refused as ever.
        if array.dtype.kind in "buif" and to_disk(data_on, BYTES * array.size):
            return Rows(ArrayTable(path), usual="real")
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what readers of files raise into one line."""
    try:
        yield
    except UserError:
        raise
    # The readers of tables raise what they like.
    except Exception as error:
        raise UserError(
            f"cannot read '{path}' as a table ({reason(error)}); give UTF-8 text with a line of "
            "column names and a line for each row, or a .parquet",
            "data",
        ) from error


def _read_parquet(path: Path) -> Any:
    _need_pyarrow(path)
    with _readable(path):
        return pd.read_parquet(path)


def _need_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"cannot read '{path}' without pyarrow; pip install pyarrow, or give a .csv", "data"
        ) from error


def _checked_lines(path: Path, separator: str) -> str:
    """What separates the values of a text file, every line of which has as many.

    pandas fills short lines up, shifts long ones and renames columns of one name.

    :raises UserError: for a file without lines, or one that does not fit the first.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        if not first.strip():
            raise UserError(f"'{path}' is empty; give a line of column names, and rows", "data")
        if separator not in first and ";" in first:
            separator = ";"
        file.seek(0)
        lines = csv.reader(file, delimiter=separator, skipinitialspace=True)
        names = [name.strip() for name in next(lines)]
        if "\0" in first or all(map(_is_number, names)):
            raise UserError(
                f"'{path}' begins with {', '.join(names)[:60]!r}; its first line must name the "
                "columns",
                "data",
            )
        for line in lines:
            if line and len(line) != len(names):
                raise UserError(
                    f"'{path}' has {len(line)} values in line {lines.line_num}, and its first "
                    f"line names {len(names)} columns; give every line as many",
                    "data",
                )
    _check_names(names, f"'{path}'")
    return separator


def _check_names(names: Sequence[str], what: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(
            f"{what} has {names.count(min(twice))} columns '{min(twice)}'; give each a name of "
            "its own",
            "data",
        )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    # Python takes 1_000 for a thousand.
    return "_" not in word


def in_memory(data: Any, x_test: Any, arrays: Mapping[str, np.ndarray]) -> Rows:
    """The table that was given in Python.

    :param data: a DataFrame or an array (N, X), as ``x_test``, which may be None.
    :param arrays: the same and the labels as arrays, by name.
    :raises UserError: where they do not belong together.
    """
    if not isinstance(data, pd.DataFrame):
        return of_arrays(arrays, "the data")
    frames = [data] if x_test is None else [data, x_test]
    if not all(isinstance(frame, pd.DataFrame) for frame in frames) or any(
        list(frame.columns) != list(data.columns) for frame in frames
    ):
        raise UserError("x_test must be a DataFrame with the columns of the data", "data")
    return of_arrays(arrays, "the data")._replace(frame=pd.concat(frames), usual=None)


def of_arrays(arrays: Mapping[str, np.ndarray], what: str) -> Rows:
    """The table of arrays by name: ``x_train`` (N, X) and others, as :class:`Table` says.

    :param what: where they are from, for the error.
    :raises UserError: where they do not belong together.
    """
    parts = [arrays[name] for name in ("x_train", "x_test") if name in arrays]
    if "x_train" not in arrays:
        raise UserError(f"{what} has no x_train; give a table (N, X) under it", "data")
    for part in parts:
        if part.ndim != 2 or part.shape[1] != parts[0].shape[1]:
            raise UserError(
                f"{what} holds arrays of {' and '.join(by(one.shape) for one in parts)}; give "
                "tables (N, X) of the same X",
                "data",
            )
    if len(parts) > 1 and not len(parts[1]):
        raise UserError(f"{what}: x_test has no rows; give some, or leave it out", "data")
    labels = [arrays[name] for name in ("y_train", "y_test") if name in arrays]
    if labels and [one.shape for one in labels] != [(len(part),) for part in parts]:
        raise UserError(
            f"{what} has labels of shape {' and '.join(str(one.shape) for one in labels)} for "
            f"{' and '.join(str(len(part)) for part in parts)} rows; give one for each row",
            "data",
        )
    table = np.concatenate(parts)
    if table.dtype.kind not in "buifcOSUmM":
        raise UserError(f"{what} holds {table.dtype}; give numbers or words", "data")
    names = arrays.get("names", np.array([f"x{number}" for number in range(table.shape[1])]))
    if names.shape != (table.shape[1],) or names.dtype.kind not in "iuSU":
        raise UserError(
            f"{what}: names has shape {names.shape} and holds {names.dtype}; give a word for each "
            f"of the {table.shape[1]} columns",
            "data",
        )
    frame = pd.DataFrame(table, columns=names.astype(str))
    usual = None if table.dtype.kind == "O" else "real"
    both = np.concatenate(labels) if labels else None
    test = len(parts[1]) if len(parts) > 1 else 0
    return Rows(frame, test, usual, both, arrays.get("classes"))


def data_set(
    rows: Rows,
    what: str,
    label: str | None = None,
    chosen: Sequence[str] | None = None,
    whole: bool = False,
) -> DataSet:
    """The data set of a table. Without a test split, a fixed fifth of the rows becomes one.

    :param what: where it is from, for the error.
    :param label: see :class:`Table`, as for ``chosen``.
    :param whole: hold no row out: train and test on the same.
    :raises UserError: where a column cannot be used.
    """
    frame = _with_names(rows.frame, what)
    codes, classes = _labels(rows, frame, label, what)
    kinds = _chosen(frame.columns.drop(label) if label is not None else frame.columns, chosen, what)
    number = len(frame)
    least = 2 if whole else 3
    if number < least:
        raise UserError(f"{what} has {number} rows; at least {least} are needed", "data")
    if rows.test:
        train, test = np.arange(number)[: -rows.test], np.arange(number)[-rows.test :]
    elif whole:
        train = test = np.arange(number)
    else:
        train, test = held_out(number)
    found = {
        name: _column(frame[name], name, kind or rows.usual, train, what)
        for name, kind in kinds.items()
    }
    columns = tuple(column for column in found.values() if column is not None)
    constant = [name for name, column in found.items() if column is None]
    if not columns:
        raise UserError(
            f"{what} has no column whose values vary; there is nothing to learn", "data"
        )
    x: Tensor | OnDisk
    if isinstance(frame, LargeTable):
        x = OnDisk.written(encoded(part, columns, what) for part in frame.frames())
    else:
        x = torch.from_numpy(encoded(frame, columns, what))
    facts = Facts(TABLE.preset, (x.shape[1],), 0, classes, columns)
    every = Split(x, torch.from_numpy(codes), 0, bool(classes))
    splits = [every.part(torch.from_numpy(part)) for part in (train, test)]
    labels = int((codes >= 0).sum())
    said = _said(what, number, columns, constant, label, classes, labels, x)
    for column in columns:
        if not column.values and _numbers_rows(_numbers(frame[column.name], column.name, what)):
            said += (
                f"; '{column.name}' only numbers the rows: leave it out by "
                f"--data_columns '[-{column.name}]'"
            )
    said += FROM_DISK if isinstance(x, OnDisk) else ""
    return DataSet(facts, splits[0], splits[1].loaded(), said)


def _numbers_rows(numbers: np.ndarray) -> bool:
    """Whether they are whole numbers in a row, each once, in any order."""
    ordered = np.sort(numbers)
    return len(ordered) >= LEAST_NUMBERED and bool((np.diff(ordered) == 1).all())


def _said(
    what: str,
    number: int,
    columns: Sequence[Column],
    constant: Sequence[str],
    label: str | None,
    classes: Sequence[str],
    labels: int,
    x: Tensor | OnDisk,
) -> str:
    """What was taken for what, in one line.

    :param labels: how many of the rows have one.
    """
    counts = {kind: sum(column.kind == kind for column in columns) for kind in KINDS}
    listed = [f"{n} {IN_WORDS[kind][n > 1]}" for kind, n in counts.items() if n]
    said = f"{what} is a table of {number} rows: {', '.join(listed)}"
    if classes:
        of = "" if label is None else f" '{label}'"
        known = "" if labels == number else f" for {labels} of the rows"
        said += f"; labels{of} of {len(classes)} classes{known}, for evaluation alone"
    missing = sum(int(block.isnan().any(1).sum()) for block in blocks_of(x))
    if missing:
        said += f"; {missing} row{'s' * (missing > 1)} with missing values"
    if constant:
        said += f"; left out, since they do not vary: {', '.join(map(repr, constant))}"
    return said


def _with_names(frame: Any, what: str) -> Any:
    """The frame with words for names, each once, and rows by number."""
    names = [str(name) for name in frame.columns]
    _check_names(names, what)
    if isinstance(frame, LargeTable):
        return frame
    return frame.set_axis(names, axis=1).reset_index(drop=True)


def _labels(
    rows: Rows, frame: Any, label: str | None, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of each row's label (N,), -1 where it is not known, and the labels' names.

    Zeros without labels, and no names.
    """
    if label is None and rows.labels is None:
        return np.zeros(len(frame), np.int64), ()
    if label is not None and rows.labels is not None:
        raise UserError(
            f"{what} comes with labels; give these or a column, not both", "data_label", label
        )
    if label is not None and label not in frame.columns:
        raise UserError(f"{what} has no such column; {_there(frame)}", "data_label", label)
    series = pd.Series(rows.labels) if label is None else frame[label]
    where = "its labels" if label is None else f"column '{label}'"
    unknown = {None, ""} if label is not None else {None, "", "-1"}
    words = [None if word in unknown else word for word in _words(series, f"{what}: {where}")]
    names = _sorted({word for word in words if word is not None})
    if not names:
        return np.zeros(len(frame), np.int64), ()
    if _numeric(series) and not all(re.fullmatch(r"-?\d+", name) for name in names):
        raise UserError(
            f"{what}: {where} holds numbers with fractions, such as {names[0]}; labels are words "
            "or whole numbers",
            "data" if label is None else "data_label",
        )
    place = {name: number for number, name in enumerate(names)}
    codes = np.array([-1 if word is None else place[word] for word in words], np.int64)
    if rows.classes is not None:
        shown = [str(name) for name in rows.classes.reshape(-1)]
        if not all(name.isdecimal() and int(name) < len(shown) for name in names):
            raise UserError(
                f"{what}: classes has {len(shown)} names for labels {names[0]} to {names[-1]}; "
                "number them from 0",
                "data",
            )
        codes = np.array([-1 if code < 0 else int(names[code]) for code in codes], np.int64)
        names = shown
    return codes, tuple(names)


def _there(frame: Any) -> str:
    names = ", ".join(map(str, frame.columns))
    return f"there are {names if len(names) < 300 else names[:300] + ' ...'}"


def _chosen(names: Sequence[str], chosen: Sequence[str] | None, what: str) -> dict[str, str | None]:
    """The kind of each column to use, None where none was said.

    :raises UserError: for a name that is not there or given twice.
    """
    names = list(names)
    left_out: set[str] = set()
    kinds: dict[str, str | None] = {}
    for one in chosen or ():
        name, _, kind = one.rpartition(":")
        # A column's own name may hold a colon, or begin with a minus.
        if one in names or kind not in KINDS:
            name, kind = one, ""
        if name not in names and name[:1] == "-" and not kind:
            name = name[1:]
            left_out.add(name)
        if name.rpartition(":")[0] in names:
            name, _, kind = name.rpartition(":")
            raise UserError(
                f"'{kind}', of column '{name}', is no kind; choose from {', '.join(KINDS)}",
                "data_columns",
            )
        if name not in names:
            has = ", ".join(names)
            raise UserError(
                f"{what} has no column '{name}'; there are {has[:300]}, each of which may be "
                f"followed by :{', :'.join(KINDS)}",
                "data_columns",
            )
        if name in kinds:
            raise UserError(f"names column '{name}' twice", "data_columns")
        kinds[name] = kind or None
    if left_out and len(left_out) < len(kinds):
        raise UserError(
            f"names columns to use and others to leave out (-{min(left_out)}); give those of one "
            "sort",
            "data_columns",
        )
    if left_out or chosen is None:
        return {name: None for name in names if name not in left_out}
    return kinds


def _numeric(series: Any) -> bool:
    kind = pd.api.types
    # Whole numbers beyond 64 bits are Python's own.
    of_python = kind.infer_dtype(series, skipna=True) in ("integer", "floating")
    return (kind.is_numeric_dtype(series) or of_python) and not (
        isinstance(series.dtype, pd.CategoricalDtype)
        or kind.is_bool_dtype(series)
        or kind.is_complex_dtype(series)
    )


def _word(value: Any, what: str, row: int) -> str:
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return str(int(value))
    # A column of whole numbers becomes one of floats where one is missing.
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else f"{float(value):g}"
    raise UserError(
        f"{what} holds a {type(value).__name__} in row {row}; give numbers or words", "data"
    )


def _as_read(word: str) -> str:
    """A word as :func:`_word` has what pandas would read in it: ``1.0`` as 1, ``TRUE`` as True."""
    if word in ("true", "TRUE", "false", "FALSE"):
        return word.capitalize()
    return _word(float(word), "", 0) if _is_number(word) else word


def _words(series: Any, what: str) -> list[str | None]:
    """Each value as a word, None where it is missing."""
    missing = series.isna().to_numpy()
    return [
        None if gone else _word(value, what, row)
        for row, (value, gone) in enumerate(zip(series.tolist(), missing, strict=True))
    ]


def _sorted(words: set[str]) -> list[str]:
    """Numbers by their size, words by their letters."""
    if all(map(_is_number, words)):
        return sorted(words, key=float)
    return sorted(words)


def _numbers(series: Any, name: str, what: str) -> np.ndarray:
    """The numbers of a column in float64 (N,), finite or NaN.

    :raises UserError: for anything else.
    """
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_complex_dtype(series):
        numbers = series.to_numpy(np.float64, na_value=np.nan)
    else:
        missing = series.isna().to_numpy()
        numbers = np.full(len(series), np.nan)
        for row, value in enumerate(series.tolist()):
            if missing[row]:
                continue
            try:
                numbers[row] = float(value)
            except (TypeError, ValueError, OverflowError) as error:
                large = isinstance(error, OverflowError)
                raise UserError(
                    f"{what}: column '{name}' holds {str(value)[:40]!r} in row {row}, "
                    + ("beyond every float" if large else "which is no number")
                    + "; leave the value empty, or give a number",
                    "data",
                ) from error
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise UserError(
            f"{what}: column '{name}' holds {numbers[row]} in row {row}; give a finite number, or "
            "leave the value empty",
            "data",
        )
    return numbers


def _kind(series: Any, name: str, what: str) -> str:
    """The kind of a column by its values.

    :raises UserError: where it is of none.
    """
    types = pd.api.types
    remedy = f"leave it out (--data_columns '[-{name}]')"
    if (
        types.is_datetime64_any_dtype(series)
        or types.is_timedelta64_dtype(series)
        or isinstance(series.dtype, pd.PeriodDtype)
    ):
        raise UserError(
            f"{what}: column '{name}' holds dates; {remedy}, or give numbers such as days", "data"
        )
    if types.is_complex_dtype(series):
        raise UserError(f"{what}: column '{name}' holds complex numbers; {remedy}", "data")
    if not _numeric(series):
        words = _words(series, f"{what}: column '{name}'")
        distinct = {word for word in words if word is not None}
        of_words = not isinstance(series.dtype, pd.CategoricalDtype)
        if of_words and distinct and all(map(DATE.fullmatch, distinct)):
            raise UserError(
                f"{what}: column '{name}' holds dates, such as {min(distinct)}; {remedy}, or give "
                "numbers such as days",
                "data",
            )
        commas = sorted(filter(COMMA.fullmatch, distinct))
        if of_words and commas and all(_is_number(word) or word in commas for word in distinct):
            raise UserError(
                f"{what}: column '{name}' holds numbers with a comma, such as {commas[0]}; write "
                f"fractions with a point and thousands without a comma, or give {name}:category",
                "data",
            )
        numbers = sum(map(_is_number, distinct))
        if of_words and len(distinct) / 2 < numbers < len(distinct):
            row = next(n for n, word in enumerate(words) if word and not _is_number(word))
            raise UserError(
                f"{what}: column '{name}' holds {words[row]!r} in row {row}, among numbers; leave "
                "a missing value empty",
                "data",
            )
        if len(distinct) > MOST_VALUES:
            raise UserError(
                f"{what}: column '{name}' holds {len(distinct)} different words, and a category "
                f"has {MOST_VALUES} at most; {remedy}, or group them",
                "data",
            )
        return "binary" if len(distinct) == 2 else "category"
    there = _numbers(series, name, what)
    there = there[~np.isnan(there)]
    if np.isin(there, (0, 1)).all():
        return "binary"
    counted = (
        (there == there.round()).all()
        and 0 <= there.min() < COUNTED_FROM * there.mean()
        and there.max() <= LARGEST_COUNT
    )
    return "count" if counted else "real"


def _column(
    series: Any, name: str, kind: str | None, train: np.ndarray, what: str
) -> Column | None:
    """What a column holds; None where its values do not vary.

    :param kind: None where its values say so.
    :param train: the rows (N,) that mean and standard deviation are of.
    :raises UserError: where it cannot be used.
    """
    if not series.notna().any():
        return None
    kind = kind or _kind(series, name, what)
    if kind in ("binary", "category"):
        return _of_values(series, name, kind, what)
    numbers = _numbers(series, name, what)
    if kind == "count":
        wrong = _no_counts(numbers)
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"column '{name}' of {what} holds {numbers[row]:g} in row {row}, which is no whole "
                f"number from 0 to {LARGEST_COUNT:,}; give {name}:real",
                "data_columns",
            )
        numbers = np.log1p(numbers)
    there = numbers[train]
    there = there[~np.isnan(there)]
    if not len(there):
        return None
    with np.errstate(over="ignore"):
        mean, scale = float(there.mean()), float(there.std())
    if not np.isfinite(scale):
        row = int(np.nanargmax(np.abs(numbers)))
        raise UserError(
            f"{what}: column '{name}' holds {numbers[row]:g} in row {row}, too large to compute "
            "with; give it in another unit",
            "data",
        )
    # Of numbers that are all the same, rounding leaves a spread too.
    return Column(name, kind, (), mean, scale) if scale > 1e-13 * abs(mean) else None


def _no_counts(numbers: np.ndarray) -> np.ndarray:
    """Which numbers (N,) are no counts; what is missing is none of these."""
    wrong = (numbers < 0) | (numbers > LARGEST_COUNT) | (numbers != numbers.round())
    return wrong & ~np.isnan(numbers)


def _of_values(series: Any, name: str, kind: str, what: str) -> Column | None:
    """A binary column or one of categories."""
    words = _words(series, f"{what}: column '{name}'")
    values = _sorted({word for word in words if word is not None})
    most = 2 if kind == "binary" else MOST_VALUES
    if len(values) > most:
        other = f"{name}:category" if len(values) <= MOST_VALUES else f"-{name}, to leave it out"
        raise UserError(
            f"column '{name}' of {what} holds {len(values)} different values, and {kind} columns "
            f"have {most} at most; give {other}",
            "data_columns",
        )
    return Column(name, kind, tuple(values)) if len(values) > 1 else None


def encoded(frame: Any, columns: Sequence[Column], what: str) -> np.ndarray:
    """x (N, X) in float32 of a table with these columns and perhaps others.

    :param what: where it is from, for the error.
    :raises UserError: where a column is not there, or holds what it did not hold in training.
    """
    parts: list[np.ndarray] = []
    for column in columns:
        if column.name not in frame.columns:
            raise UserError(f"{what} has no column '{column.name}'; {_there(frame)}", "data")
        series = frame[column.name]
        if column.values:
            parts.append(_one_hot(series, column, what))
            continue
        numbers = _numbers(series, column.name, what)
        if column.kind == "real":
            with np.errstate(over="ignore"):
                numbers = (numbers - column.mean) / column.scale
                wrong = np.isinf(numbers.astype(np.float32))
            told = f"a finite number near the run's, whose mean is {column.mean:g}"
        else:
            wrong = _no_counts(numbers)
            told = f"a whole number from 0 to {LARGEST_COUNT:,}"
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{what}: column '{column.name}' holds {series.iloc[row]} in row "
                f"{series.index[row]}; give "
                f"{told}, or leave the value empty",
                "data",
            )
        parts.append(numbers[:, None])
    return np.concatenate(parts, 1).astype(np.float32)


def _one_hot(series: Any, column: Column, what: str) -> np.ndarray:
    """Of a binary column (N, 1), or one of categories (N, its width)."""
    words = _words(series, f"{what}: column '{column.name}'")
    code = {value: number for number, value in enumerate(column.values)}
    words = [word if word is None or word in code else _as_read(word) for word in words]
    for row, word in enumerate(words):
        if word is not None and word not in code:
            some = ", ".join(column.values[:10]) + (" ..." if len(column.values) > 10 else "")
            raise UserError(
                f"{what}: column '{column.name}' holds {word!r} in row {row}; the run knows {some}",
                "data",
            )
    numbers = np.array([np.nan if word is None else code[word] for word in words])[:, None]
    if column.kind == "binary":
        return numbers
    block = (numbers == np.arange(column.width)).astype(np.float64)
    return np.where(np.isnan(numbers), np.nan, block)


def decoded(x: np.ndarray, columns: Sequence[Column]) -> Any:
    """A DataFrame in the table's own units of x (N, X), or of a mean of it.

    A binary column or one of categories has its likeliest value.
    """
    made: dict[str, Any] = {}
    first = 0
    for column in columns:
        part = np.asarray(x, np.float64)[:, first : first + column.width]
        first += column.width
        missing = np.isnan(part[:, 0])
        if column.values:
            single = column.kind == "binary"
            likeliest = part[:, 0] >= 0.5 if single else np.nan_to_num(part).argmax(1)
            values = np.array(column.values, object)[likeliest.astype(int)]
            values[missing] = None
            made[column.name] = values
        else:
            real = column.kind == "real"
            made[column.name] = part[:, 0] * column.scale + column.mean if real else part[:, 0]
    return pd.DataFrame(made)


def examples(table: Any, facts: Facts, what: str) -> Examples:
    """The rows of a table for a run of these facts, in their order.

    :param table: a DataFrame, whose columns are found by name, or an array (N, X) or of the run's
        shape in the table's own units, whose columns may also stand in the run's order.
    :param what: where it is from, for the error.
    :raises UserError: where it does not fit the run's.
    """
    if not facts.columns:
        raise UserError(f"{what} is a table, and the run was trained on other data", "data")
    if not isinstance(table, pd.DataFrame):
        array = np.asarray(table)
        if array.shape[1:] == facts.shape:
            array = array.reshape(len(array), facts.features)
        table = of_arrays({"x_train": array}, what).frame
    index = table.index
    names = [str(n) for n in (range(len(index)) if isinstance(index, pd.RangeIndex) else index)]
    frame = _with_names(table, what)
    wanted = [column.name for column in facts.columns]
    numbered = [f"x{n}" for n in range(len(frame.columns))]
    if list(frame.columns) == numbered and not set(wanted) <= set(numbered):
        if len(numbered) != len(wanted):
            raise UserError(
                f"{what} has {len(numbered)} columns without names, and the run's table "
                f"{len(wanted)}; give those of {', '.join(wanted)[:300]}",
                "data",
            )
        frame = frame.set_axis(wanted, axis=1)
    x = torch.from_numpy(encoded(frame, facts.columns, what))
    return Examples(Split.of_real_numbers(x), names)
