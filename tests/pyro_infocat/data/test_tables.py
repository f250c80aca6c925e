"""Tables: what columns are taken for, what stands in x, and what is refused in which words."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_infocat.catalogue import Column, Facts
from pyro_infocat.data import DataSet
from pyro_infocat.data.table import Table, data_set, decoded, encoded, examples, in_memory
from pyro_infocat.errors import UserError
from pyro_infocat.kinds import TABLE, kind_of
from tests.tables import frame


def read(
    text: str, path: Path, label: str | None = None, columns: list[str] | None = None
) -> DataSet:
    """The data set of the text of a .csv."""
    path = path / "mine.csv"
    path.write_text(text)
    return Table(str(path), label, columns).read().checked()


def of(table: pd.DataFrame, label: str | None = None, columns: list[str] | None = None) -> DataSet:
    """The data set of a DataFrame."""
    rows = in_memory(table, None, {"x_train": np.asarray(table)})
    return data_set(rows, "the data", label, columns).checked()


def kinds(data: DataSet) -> dict[str, str]:
    return {column.name: column.kind for column in data.facts.columns}


def column(data: DataSet, name: str) -> Column:
    return next(one for one in data.facts.columns if one.name == name)


# What columns are taken for.


VALUES: dict[str, tuple[list[Any], str]] = {
    "fractions": ([0.5, 1, 2, 3, 4, 9], "real"),
    "below zero": ([-1, 0, 2, 3, 4, 9], "real"),
    "far from zero": ([20, 21, 22, 23, 30, 25], "real"),
    "whole numbers from zero": ([0, 1, 2, 3, 4, 9], "count"),
    "from below a quarter of the mean": ([2, 10, 10, 10, 10, 10], "count"),
    "from a quarter of the mean": ([1, 4, 4, 4, 4, 7], "real"),
    "whole numbers with a gap": ([0, 1, None, 3, 4, 9], "count"),
    "whole numbers beyond 64 bits": ([10**30, 2 * 10**30, 1, 2, 3, 4], "real"),
    "counts beyond float32": ([0, 1, 2, 3, 4, 2**24 + 1], "real"),
    "zero and one": ([0, 1, 1, 0, 0, 1], "binary"),
    "true and false": ([True, False, True, True, False, False], "binary"),
    "two words": (["no", "yes", "no", "no", None, "yes"], "binary"),
    "three words": (["no", "yes", "no", "perhaps", None, "yes"], "category"),
}


@pytest.mark.parametrize(("values", "kind"), VALUES.values(), ids=VALUES)
def test_a_column_is_taken_for_what_its_values_say(
    values: list[Any], kind: str, tmp_path: Path
) -> None:
    table = pd.DataFrame({"it": values, "other": np.arange(6) / 7})
    assert kinds(of(table))["it"] == kind
    table.to_csv(tmp_path / "mine.csv", index=False)
    assert kinds(Table(str(tmp_path / "mine.csv")).read())["it"] == kind


def test_pandas_own_categories_are_categories_also_of_numbers() -> None:
    table = pd.DataFrame({"it": pd.Categorical([10, 9, 10, 2, 9, 2])})
    assert column(of(table), "it").values == ("2", "9", "10")


def test_nullable_columns_are_as_others() -> None:
    table = pd.DataFrame({"n": [0, 1, None, 5, 9, 3], "b": [True, None, False, True, True, False]})
    plain = of(table)
    nullable = of(table.astype({"n": "Int64", "b": "boolean"}))
    assert nullable.facts == plain.facts
    assert torch.equal(nullable.train.pixels.nan_to_num(-9), plain.train.pixels.nan_to_num(-9))


def test_a_kind_that_is_given_is_taken() -> None:
    table = pd.DataFrame({"n": [0, 1, 2, 3, 4, 9], "b": [1, 2, 1, 1, 2, 1], "u:real": range(6)})
    data = of(table, columns=["n:category", "b:binary"])
    assert kinds(data) == {"n": "category", "b": "binary"}
    assert column(data, "b").values == ("1", "2")
    # The name of a column may end like a kind.
    assert kinds(of(table, columns=["u:real", "n:real"])) == {"u:real": "count", "n": "real"}


def test_words_with_commas_are_categories_where_they_are_said_to_be(tmp_path: Path) -> None:
    text = 'v,w\n"1,5",1\n"2,5",2\n"3,5",3\n"1,5",5\n'
    data = read(text, tmp_path, None, ["v:category", "w"])
    assert column(data, "v").values == ("1,5", "2,5", "3,5")
    among_words = read(text.replace("3,5", "none"), tmp_path)
    assert column(among_words, "v").values == ("1,5", "2,5", "none")


def test_columns_are_left_out_by_a_minus() -> None:
    table = pd.DataFrame({"n": range(6), "-m": range(6), "b": [1, 2, 1, 1, 2, 1]})
    assert list(kinds(of(table, columns=["-n"]))) == ["-m", "b"]
    assert list(kinds(of(table, columns=["-m"]))) == ["-m"]


def test_columns_that_do_not_vary_are_left_out_and_named(tmp_path: Path) -> None:
    table = frame().assign(same=7, empty=np.nan, word="x")
    data = of(table, "kind")
    assert list(kinds(data)) == ["length", "animal", "visits", "tame"]
    assert data.said == (
        "the data is a table of 40 rows: 1 real column, 1 column of counts, 1 binary column, 1 "
        "column of categories; labels 'kind' of 2 classes, for evaluation alone; left out, since "
        "they do not vary: 'same', 'empty', 'word'"
    )


def test_a_column_that_numbers_the_rows_is_told() -> None:
    order = np.random.default_rng(0).permutation(40)
    told = "'id' only numbers the rows: leave it out by --data_columns '[-id]'"
    assert told in of(frame().assign(id=order + 1000), "kind").said
    assert "only numbers" not in of(frame().assign(id=np.where(order, order, 1)), "kind").said
    assert "only numbers" not in of(frame().assign(id=2 * order), "kind").said
    assert "only numbers" not in of(frame(10).assign(id=np.arange(10)), "kind").said


def test_missing_values_are_told(tmp_path: Path) -> None:
    said = read("a,b\n1,x\n,y\n3,\n4,x\n", tmp_path).said
    assert said.endswith("1 real column, 1 binary column; 2 rows with missing values")


# What stands in x.


def test_x_holds_each_column_as_its_kind_says() -> None:
    table = frame(missing=0.1)
    data = of(table, "kind")
    x = encoded(table, data.facts.columns, "the data")
    assert x.dtype == np.float32
    length, visits = column(data, "length"), column(data, "visits")
    np.testing.assert_allclose(
        x[:, 0], (table["length"] - length.mean) / length.scale, rtol=1e-5, atol=1e-6
    )
    for n, word in enumerate(("cat", "dog", "owl")):
        wanted = (table["animal"] == word).where(table["animal"].notna()).to_numpy(float)
        np.testing.assert_array_equal(x[:, 1 + n], wanted)
    np.testing.assert_array_equal(x[:, 4], table["visits"])
    wanted = (table["tame"] == "yes").where(table["tame"].notna()).to_numpy(float)
    np.testing.assert_array_equal(x[:, 5], wanted)
    assert visits.scale > 0


def test_the_splits_are_a_fixed_fifth_and_the_rest_and_the_scale_is_the_training_splits() -> None:
    table = frame()
    data = of(table, "kind")
    order = np.random.default_rng(0).permutation(40)
    x = encoded(table, data.facts.columns, "the data")
    np.testing.assert_array_equal(data.test.pixels.numpy(), x[order[:8]])
    np.testing.assert_array_equal(data.train.pixels.numpy(), x[order[8:]])
    kept = table["length"].to_numpy()[order[8:]]
    assert column(data, "length").mean == pytest.approx(kept.mean())
    assert column(data, "length").scale == pytest.approx(kept.std())
    logs = np.log1p(table["visits"].to_numpy()[order[8:]])
    assert column(data, "visits").mean == pytest.approx(logs.mean())
    assert column(data, "visits").scale == pytest.approx(logs.std())
    labels = (table["kind"] == "b").to_numpy().astype(int)
    np.testing.assert_array_equal(data.test.labels.numpy(), labels[order[:8]])
    assert data.facts.classes == ("a", "b")


def test_rows_come_back_from_x_as_they_were() -> None:
    table = frame(missing=0.2).drop(columns="kind")
    columns = of(table).facts.columns
    back = decoded(encoded(table, columns, "the data"), columns)
    assert list(back.columns) == list(table.columns)
    for name in ("length", "visits"):
        np.testing.assert_allclose(back[name], table[name], rtol=1e-5, atol=1e-5)
    for name in ("animal", "tame"):
        assert back[name].isna().tolist() == table[name].isna().tolist()
        there = table[name].notna()
        assert back[name][there].tolist() == table[name][there].tolist()


def test_the_fingerprint_is_of_the_values() -> None:
    assert of(frame()).fingerprint == of(frame()).fingerprint
    other = frame()
    other.loc[3, "visits"] += 1
    assert of(other).fingerprint != of(frame()).fingerprint


# Where tables come from.


def test_a_csv_a_tsv_and_a_parquet_are_one_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = frame(missing=0.1)
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    table.to_csv(tmp_path / "numbered.csv")
    table.to_parquet(tmp_path / "a.parquet")
    direct = of(table, "kind")
    for name in ("a.csv", "a.tsv", "semicolons.csv", "numbered.csv", "a.parquet"):
        data = Table(str(tmp_path / name), "kind").read()
        assert data.facts == direct.facts, name
        assert data.fingerprint == direct.fingerprint, name


def test_two_axes_are_a_table_of_real_columns(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 2, (20, 3))
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x_train=x, x_test=x[:4], y_train=x[:, 0], y_test=x[:4, 0])
    np.save(tmp_path / "images.npy", np.zeros((5, 4, 4), np.uint8))
    assert kind_of(str(tmp_path / "a.npy")) == TABLE == kind_of(str(tmp_path / "a.npz"))
    assert kind_of(str(tmp_path / "images.npy")) != TABLE
    data = Table(str(tmp_path / "a.npy")).read()
    assert kinds(data) == {"x0": "real", "x1": "real", "x2": "real"}
    split = Table(str(tmp_path / "a.npz")).read()
    assert (len(split.train), len(split.test)) == (20, 4)
    assert split.test.labels.tolist() == x[:4, 0].tolist()
    named = Table(str(tmp_path / "a.npz"), None, ["x2", "x0:count"]).read()
    assert kinds(named) == {"x2": "real", "x0": "count"}


def test_labels_have_the_names_that_came_with_them(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(12, 2))
    path = tmp_path / "a.npz"
    np.savez(path, x_train=x, y_train=np.arange(12) % 2, classes=np.array(["x", "y", "z"]))
    data = Table(str(path)).read()
    assert data.facts.classes == ("x", "y", "z")
    np.savez(path, x_train=x, y_train=np.array(["b", "a"] * 6))
    data = Table(str(path)).read()
    assert data.facts.classes == ("a", "b")
    np.savez(path, x_train=x, y_train=np.arange(12) % 3, classes=np.array(["x", "y"]))
    with pytest.raises(UserError, match="classes has 2 names for labels 0 to 2; number them"):
        Table(str(path)).read()


def test_labels_that_are_numbers_are_in_their_order() -> None:
    table = pd.DataFrame({"x": np.arange(12) / 7, "y": [10, 9, 2] * 4})
    assert of(table, "y").facts.classes == ("2", "9", "10")


# New rows for a finished run.


def facts() -> Facts:
    return of(frame(), "kind").facts


def test_new_rows_are_found_by_name_and_keep_their_order() -> None:
    known, table = facts(), frame(5, seed=1)
    found = examples(table, known, "it")
    mixed = table[["kind", "tame", "length", "visits", "animal"]].assign(more=1)
    assert torch.equal(examples(mixed, known, "it").split.pixels, found.split.pixels)
    assert found.names == ["0", "1", "2", "3", "4"]
    named = table.set_axis(["r", "s", "t", "u", "v"], axis=0)
    assert examples(named, known, "it").names == ["r", "s", "t", "u", "v"]


def test_an_array_has_the_tables_columns_in_order_or_all_of_them_by_number() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 4)) * [1, 0, 3, 5] + 2
    known = of(pd.DataFrame(x, columns=list("abcd"))).facts
    by_name = examples(pd.DataFrame(x, columns=list("abcd")), known, "it").split.pixels
    assert torch.equal(examples(x[:, [0, 2, 3]], known, "it").split.pixels, by_name)
    with pytest.raises(UserError, match="it has 4 columns without names, and the run's table 3"):
        examples(x, known, "it")
    numbered = data_set(in_memory(x, None, {"x_train": x}), "it").facts
    assert [one.name for one in numbered.columns] == ["x0", "x2", "x3"]
    assert torch.equal(examples(x, numbered, "it").split.pixels, by_name)


def test_new_rows_hold_the_words_of_training_whatever_rows_are_beside_them(tmp_path: Path) -> None:
    """By the values of a file alone, pandas takes words for words, numbers or truth."""
    text = "code,flag,share,rank,open\n01,TRUE,0.50,1,TRUE\n02,no,half,2,FALSE\nA1,,none,3,TRUE\n"
    columns = ["code:category", "flag", "share:category", "rank:category", "open"]
    data = read(text + "02,no,0.50,1,FALSE\n", tmp_path, None, columns)
    assert column(data, "code").values == ("01", "02", "A1")
    assert column(data, "rank").values == ("1", "2", "3")
    assert column(data, "open").values == ("False", "True")
    whole = Table(str(tmp_path / "mine.csv")).again(data.facts).split.pixels
    # x: code 0-2, flag 3, share 4-6, rank 7-9, open 10.
    assert whole[0].tolist() == [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert whole[1].tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0]
    head, *lines = text.splitlines()
    for row, line in enumerate(lines):
        (tmp_path / "one.csv").write_text(f"{head}\n{line}\n")
        found = Table(str(tmp_path / "one.csv")).again(data.facts).split.pixels
        torch.testing.assert_close(found[0], whole[row], equal_nan=True)
    # Where one value is missing pandas writes whole numbers as fractions.
    (tmp_path / "one.csv").write_text(f"{head}\n01,no,half,2.0,true\n")
    found = Table(str(tmp_path / "one.csv")).again(data.facts).split.pixels
    assert found[0, 7:].tolist() == [0.0, 1.0, 0.0, 1.0]


REFUSED_AGAIN: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no such column": (
        lambda table: table.drop(columns="visits"),
        "it has no column 'visits'; there are length, animal, tame, kind",
    ),
    "unseen": (
        lambda table: table.assign(animal=["cat", "emu", None, "cat", "dog"]),
        "it: column 'animal' holds 'emu' in row 1; the run knows cat, dog, owl",
    ),
    "a word": (
        lambda table: table.assign(length=[1.0, 2.0, "long", 1.0, 2.0]),
        "it: column 'length' holds 'long' in row 2, which is no number; leave the value empty",
    ),
    "a fraction of a count": (
        lambda table: table.assign(visits=[0, 1, 2, 0.5, 1]),
        "it: column 'visits' holds 0.5 in row 3; give a whole number from 0 to 16,777,216",
    ),
    "infinite": (
        lambda table: table.assign(length=[1, np.inf, 2, 3, 4]),
        "it: column 'length' holds inf in row 1; give a finite number",
    ),
    "too far": (
        lambda table: table.assign(length=[1, 1e300, 2, 3, 4]),
        "it: column 'length' holds 1e+300 in row 1; give a finite number near the run's",
    ),
}


@pytest.mark.parametrize(("change", "text"), REFUSED_AGAIN.values(), ids=REFUSED_AGAIN)
def test_new_rows_that_do_not_fit_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], text: str
) -> None:
    with pytest.raises(UserError, match=re.escape(text)):
        examples(change(frame(5, seed=1)), facts(), "it")


def test_a_table_is_nothing_to_a_run_on_images() -> None:
    of_images = Facts("digits", (8, 8), 17, ())
    with pytest.raises(UserError, match="it is a table, and the run was trained on other data"):
        examples(frame(5), of_images, "it")


# What is refused.

MANY = "a,b\n" + "".join(f"{n},word{n}\n" for n in range(60))
HUGE = "1" + "0" * 400

REFUSED: dict[str, tuple[str, str | None, list[str] | None, str]] = {
    "many words": (MANY, None, None, "column 'b' holds 60 different words, and a category has 50 "
                   "at most; leave it out (--data_columns '[-b]'), or group them"),
    "many categories": (MANY, None, ["a:category"], "column 'a' of 'mine.csv' holds 60 different "
                        "values, and category columns have 50 at most; give -a, to leave it out"),
    "three of two": ("a\n1\n2\n3\n", None, ["a:binary"], "holds 3 different values, and binary "
                     "columns have 2 at most; give a:category"),
    "no label": ("a,b\n1,2\n3,4\n5,6\n", "c", None, "--data_label c: 'mine.csv' has no such "
                 "column; there are a, b"),
    "labels with fractions": ("a,b\n1,2\n3,4.5\n5,6\n", "b", None, "column 'b' holds numbers with "
                              "fractions, such as 2; labels are words or whole numbers"),
    "infinite": ("a,b\n1,2\n3,inf\n5,6\n", None, None, "column 'b' holds inf in row 1; give a "
                 "finite number, or leave the value empty"),
    "nothing varies": ("a,b\n1,x\n1,x\n1,x\n", None, None, "has no column whose values vary"),
    "names twice": ("a,b,a\n1,2,3\n", None, None, "has 2 columns 'a'; give each a name of its own"),
    "empty": ("", None, None, "'mine.csv' is empty; give a line of column names, and rows"),
    "no rows": ("a,b\n", None, None, "'mine.csv' has 0 rows; at least 3 are needed"),
    "no names": ("1.5,2\n3,4\n5,6\n", None, None, "begins with '1.5, 2'; its first line must name"),
    "ragged": ("a,b\n1,2\n3\n5,6\n", None, None, "has 1 values in line 3, and its first line names "
               "2 columns; give every line as many"),
    "too long": ("a,b\n1,2\n3,4\n5,6,7\n", None, None, "has 3 values in line 4"),
    "no such column": ("a,b\n1,2\n3,4\n5,6\n", None, ["a", "c:real"], "--data_columns: 'mine.csv' "
                       "has no column 'c'; there are a, b, each of which may be followed by :real"),
    "twice": ("a,b\n1,2\n3,4\n5,6\n", None, ["a", "a:real"], "--data_columns: names column 'a' "
              "twice"),
    "in and out": ("a,b\n1,2\n3,4\n5,6\n", None, ["a", "-b"], "names columns to use and others to "
                   "leave out (-b); give those of one sort"),
    "beyond every float": (f"a,b\n1,2\n3,{HUGE}\n5,6\n", None, None, "in row 1, beyond every "
                          "float; leave the value empty, or give a number"),
    "no count": ("a\n0\n1.5\n3\n", None, ["a:count"], "holds 1.5 in row 1, which is no whole "
                 "number from 0 to 16,777,216; give a:real"),
    "a count beyond float32": (f"a\n0\n1\n{2**24 + 1}\n", None, ["a:count"], "holds 1.67772e+07 "
                               "in row 2, which is no whole number"),
    "too large": ("a\n1e308\n-1e308\n1e308\n1\n2\n3\n", None, None, "too large to compute with"),
    "dates": ("a,d\n1,2020-01-02\n2,2020-02-03\n3,2021-01-01\n", None, None, "column 'd' holds "
              "dates, such as 2020-01-02; leave it out (--data_columns '[-d]'), or give numbers"),
    "fractions with a comma": ("v;w\n1,5;a\n2;b\n3,25;a\n-1.024,5;b\n", None, None, "column 'v' "
                               "holds numbers with a comma, such as -1.024,5; write fractions"),
    "thousands with a comma": ('v,w\n"1,500",a\n900,b\n"3,000,000",a\n', None, None, "column 'v' "
                               "holds numbers with a comma, such as 1,500; write fractions with a"),
    "a word among numbers": ("a,b\n1,2\n2,?\n3,4\n4,5\n", None, None, "column 'b' holds '?' in row "
                             "1, among numbers; leave a missing value empty"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "label", "columns", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(
    text: str,
    label: str | None,
    columns: list[str] | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        Table("mine.csv", label, columns).read()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["junk.csv", "junk.tsv", "junk.parquet"])
@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n\0\0", b"a\0b,c\n1,2"]
)
def test_a_file_that_is_no_table_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read|must name the columns"):
        Table(str(tmp_path / name)).read()


OBJECTS: dict[str, tuple[list[Any], str]] = {
    "lists": ([[1], [2], [3], [4]], "column 'it' holds a list in row 0; give numbers or words"),
    "dates": (list(pd.date_range("2020-01-01", periods=4)), "column 'it' holds dates; leave it"),
    "times": ([pd.Timedelta(n, "h") for n in range(4)], "column 'it' holds dates; leave it out"),
    "complex": ([1j, 2, 3, 4], "column 'it' holds complex numbers; leave it out"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "said"), OBJECTS.values(), ids=OBJECTS)
def test_columns_of_a_frame_that_are_no_numbers_or_words_are_refused(
    values: list[Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        of(pd.DataFrame({"it": values, "other": np.arange(4) / 7}))


def test_names_that_are_the_same_as_words_are_refused() -> None:
    with pytest.raises(UserError, match="the data has 2 columns '1'"):
        of(pd.DataFrame(np.eye(4)[:, :2], columns=[1, "1"]))


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x_train=np.eye(4), x_test=np.eye(3))
    with pytest.raises(UserError, match="holds arrays of 4 x 4 and 3 x 3; give tables"):
        Table(str(path)).read()
    np.savez(path, x_train=np.eye(4), x_test=np.eye(4)[:0])
    with pytest.raises(UserError, match=r"x_test has no rows; give some, or leave it out"):
        Table(str(path)).read()
    np.savez(path, x_train=np.eye(4), y_train=np.arange(3))
    with pytest.raises(UserError, match=r"labels of shape \(3,\) for 4 rows; give one for each"):
        Table(str(path)).read()
    np.savez(path, x_train=np.eye(4), y_train=np.arange(4))
    with pytest.raises(UserError, match="comes with labels; give these or a column, not both"):
        Table(str(path), "x0").read()


def test_a_parquet_without_pyarrow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="without pyarrow; pip install pyarrow, or give a"):
        Table(str(tmp_path / "a.parquet")).read()
