"""What holds of every array given as data: it is read as it is, or refused in one line.

Shapes: N examples, X features.
"""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import pyro_infocat as pic
from pyro_infocat.data import DataSet, Split, own
from pyro_infocat.data.archive import checked, in_unit_interval
from pyro_infocat.errors import UserError
from tests.tried import tried

NAMES = ("x_train", "x_test", "y_train", "y_test", "classes")

KINDS = ["bool", *(f"i{n}" for n in (1, 2, 4, 8)), *(f"u{n}" for n in (1, 2, 4, 8))]
KINDS += ["f2", "f4", "f8", "c8", "U3", "S3", "M8[D]", "m8[s]", "O"]
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
ANYTHING = st.sampled_from(KINDS).flatmap(
    lambda kind: arrays.arrays(kind, SHAPES, elements=st.none() if kind == "O" else None)
)


def images(kind: str, elements: Any) -> st.SearchStrategy[np.ndarray]:
    """Arrays (N, height, width) or (N, 1, height, width)."""
    shape = st.tuples(st.integers(2, 12), st.integers(1, 3), st.integers(1, 3))
    channel = shape.map(lambda s: (s[0], 1, *s[1:]))
    return arrays.arrays(kind, shape | channel, elements=elements)


BYTES = images("u1", st.integers(0, 255)).filter(lambda x: not 0 < x.max() < 64)
GREY = st.sampled_from(["f2", "f4", "f8"]).flatmap(
    lambda kind: images(kind, st.floats(0, 1, width=8 * int(kind[1])))
)


def split_of(pixels: np.ndarray) -> Split:
    rows = torch.from_numpy(pixels).flatten(1)
    return Split(rows, torch.zeros(len(rows), dtype=torch.int64), 256)


@given(BYTES)
def test_bytes_are_kept_and_are_their_share_of_white(x: np.ndarray) -> None:
    found = checked({"x_train": x}, "it").images["train"]
    assert found.dtype == np.uint8
    assert np.array_equal(found.reshape(-1), x.reshape(-1))
    grey = split_of(found).grey()
    assert grey.shape == (len(x), x[0].size)
    assert np.array_equal(grey.numpy().reshape(-1), (x.reshape(-1) / np.float32(255)))


@given(BYTES)
def test_the_same_images_as_shares_of_white_are_the_same(x: np.ndarray) -> None:
    by_bytes = checked({"x_train": x}, "it").images["train"]
    for kind in ("f4", "f8"):
        by_shares = checked({"x_train": (x / 255).astype(kind)}, "it").images["train"]
        assert np.array_equal(by_bytes, by_shares), kind


@given(GREY)
def test_grey_levels_are_the_nearest_of_256(x: np.ndarray) -> None:
    found = checked({"x_train": x}, "it").images["train"]
    grey = split_of(found).grey().numpy().reshape(-1)
    assert ((grey >= 0) & (grey <= 1)).all()
    # Half a step, and what float32 rounds.
    assert np.abs(grey - x.reshape(-1).astype("f8")).max() <= 0.5 / 255 + 1e-6


@given(st.sampled_from(["bool", "i1", "i8", "u2", "u8"]).flatmap(lambda k: images(k, None)))
def test_whole_numbers_are_black_and_white_or_refused(x: np.ndarray) -> None:
    if x.min() < 0 or x.max() > 1:
        with pytest.raises(UserError, match=r"give grey levels in \[0, 1\], or bytes$"):
            checked({"x_train": x}, "it")
    else:
        found = checked({"x_train": x}, "it").images["train"]
        assert np.array_equal(found.reshape(-1), 255 * x.reshape(-1).astype("u1"))


@given(images("f4", st.sampled_from([0.0, 0.5, 1.0])), st.sampled_from([1.5, -0.5, "nan", "inf"]))
def test_one_value_beyond_black_and_white_is_refused(x: np.ndarray, value: float | str) -> None:
    x.reshape(-1)[-1] = float(value)
    with pytest.raises(UserError, match=r"^--data: it: x_train holds values from"):
        checked({"x_train": x}, "it")


@given(BYTES, st.sets(st.sampled_from(["x_test", "y_train", "y_test"])))
def test_labels_are_of_all_images_or_of_none(x: np.ndarray, names: set[str]) -> None:
    labels = np.zeros(len(x), np.int64)
    given_ = {"x_train": x} | {name: x if name == "x_test" else labels for name in names}
    found = tried(lambda: checked(given_, "it"))
    whole = {"x_test", "y_train", "y_test"}
    assert isinstance(found, UserError) == (names not in (set(), {"y_train"}, {"x_test"}, whole))


@given(ANYTHING, st.integers(1, 255))
def test_any_array_is_in_the_unit_interval_or_refused(x: np.ndarray, white: int) -> None:
    found = tried(lambda: in_unit_interval(x, "it", white))
    if isinstance(found, UserError):
        assert str(found).startswith("it holds ")
        return
    assert found.shape == x.shape
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    expected = x.astype("f8") / (white if x.dtype == np.uint8 else 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-30)


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING | BYTES | GREY, min_size=1))
def test_any_arrays_are_read_or_refused_by_one_line(given_: dict[str, np.ndarray]) -> None:
    found = tried(lambda: checked(given_, "it"))
    if isinstance(found, UserError):
        assert str(found).startswith("--data: it")
        assert "\n" not in str(found)
        return
    assert {f"x_{name}" for name in found.images} == set(given_) & {"x_train", "x_test"}
    for name, pixels in found.images.items():
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert len(pixels) == len(found.labels[name]) == len(given_[f"x_{name}"])
        assert found.labels[name].dtype == np.int64
        if f"y_{name}" in given_:
            assert np.array_equal(found.labels[name], given_[f"y_{name}"])
            assert found.labels[name].max() < len(found.classes)
        else:
            assert not found.labels[name].any()
            assert found.classes == ()


@given(
    BYTES,
    st.integers(-2, 12) | st.sampled_from([2**31, 2**63 - 1]),
    st.sampled_from(["i1", "i4", "i8", "u1", "u8", "f8"]),
)
def test_labels_are_whole_numbers_from_0_to_below_the_number_of_images(
    x: np.ndarray, top: int, kind: str
) -> None:
    """Or -1, which stands for none."""
    labels = np.zeros(len(x), kind)
    # What does not fit wraps around, as NumPy has it.
    labels[-1] = np.array(top).astype(kind)
    right = labels.dtype.kind != "f" and int(labels.max()) < len(x) and labels.min() >= -1
    given_ = {"x_train": x, "y_train": labels}
    if right:
        found = checked(given_, "it")
        # All of them unknown are none.
        expected = labels.tolist() if labels.max() >= 0 else [0] * len(x)
        assert found.labels["train"].tolist() == expected
        assert len(found.classes) == int(labels.max()) + 1
    else:
        with pytest.raises(UserError, match=r"^--data: it"):
            checked(given_, "it")


@pytest.mark.parametrize(
    "data",
    [
        [[[0.0, 1.0]], [[0.5]]],
        torch.zeros(4, 2, 2, dtype=torch.bfloat16),
        torch.zeros(4, 2, 2).to_sparse(),
        torch.zeros(4, 2, 2, dtype=torch.complex64).conj(),
    ],
    ids=["ragged", "bfloat16", "sparse", "conjugate"],
)
def test_what_numpy_has_no_array_for_is_refused(data: Any) -> None:
    with pytest.raises(UserError, match=r"^data: cannot be made an array .*; give arrays, or"):
        pic.check_parts(data)


def saved(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x_train=x)
    return file.getvalue()


def read(content: bytes) -> DataSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mine.npz")
        path.write_bytes(content)
        return own(path)


@given(BYTES)
def test_without_a_test_split_every_image_is_in_one_of_two(x: np.ndarray) -> None:
    """Each image as often as before; a fifth, and one at least, is for testing."""
    if len(x) == 2:
        with pytest.raises(UserError, match="at least 2 are needed"):
            read(saved(x))
        return
    data = read(saved(x)).checked()
    assert len(data.test) == max(1, round(0.2 * len(x)))
    parts = torch.cat([data.train.pixels, data.test.pixels]).tolist()
    assert sorted(parts) == sorted(x.reshape(len(x), -1).tolist())


SMALL = saved(np.arange(250, dtype="u1").reshape(10, 5, 5))


@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda end: SMALL[:40] + end))
def test_a_file_of_any_bytes_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^--data: .*mine\.npz"):
        read(content)


@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SMALL)),
)
def test_an_archive_with_changed_bytes_is_read_whole_or_refused(
    changes: list[tuple[int, int]], length: int
) -> None:
    content = bytearray(SMALL)
    for at, byte in changes:
        content[at] = byte
    for damaged in (bytes(content), SMALL[:length]):
        data = tried(lambda damaged=damaged: read(damaged))
        if isinstance(data, UserError):
            assert str(data).startswith("--data: ")
        else:
            # What a checksum covers is what was written.
            assert len(data.train) + len(data.test) == 10
            assert data.facts.shape == (5, 5)


@given(BYTES, st.integers(0, 2**31))
def test_the_fixed_draw_is_black_where_black_and_white_where_white(
    x: np.ndarray, seed: int
) -> None:
    split = split_of(checked({"x_train": x}, "it").images["train"])
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    drawn = split.fixed("binary")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, split.fixed("binary"))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert not drawn[split.pixels == 0].any()
    assert drawn[split.pixels == 255].all()
    assert torch.equal(split.fixed("grey"), split.grey())


@given(BYTES, st.data())
def test_a_part_of_a_split_is_of_these_examples(x: np.ndarray, data: st.DataObject) -> None:
    split = split_of(checked({"x_train": x}, "it").images["train"])
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x))))
    one, rest = split.part(mask), split.part((~mask).nonzero().squeeze(-1))
    assert len(one) + len(rest) == len(split)
    assert torch.equal(one.pixels, split.pixels[mask])
    assert torch.equal(rest.grey(), split.grey(~mask))
    assert sorted(split.shuffled().tolist()) == list(range(len(x)))
