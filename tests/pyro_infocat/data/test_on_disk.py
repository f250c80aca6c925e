"""Examples that are read from disk are those that are read into memory.

Shapes: B batch, N examples, X features.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_infocat import DataSet, UserError
from pyro_infocat.data import Split, disk, large_table
from pyro_infocat.data.dataset import MOST_HELD_OUT, held_out
from pyro_infocat.data.disk import OnDisk, Scratch, blocks_of
from pyro_infocat.data.folder import Folder
from pyro_infocat.data.images import Images
from pyro_infocat.data.table import Table
from pyro_infocat.run import main
from pyro_infocat.runtime import memory
from pyro_infocat.training.feed import Feed
from tests.brief import ROOT, be_brief
from tests.photos import write_pictures
from tests.runs import same_run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred rows are several blocks."""
    monkeypatch.setattr(disk, "BLOCK_BYTES", 500)
    monkeypatch.setattr(large_table, "ROWS", 37)


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def mixed_frame(number: int = 300) -> pd.DataFrame:
    """A column of each kind, with missing values, and labels."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "weight": random.normal(70, 10, number),
            "visits": random.poisson(3, number),
            "smokes": random.choice(["yes", "no"], number),
            "town": pd.Categorical(random.choice(["Rome", "Oslo", "Lima"], number)),
            "flag": random.integers(0, 2, number),
            "same": 1.0,
            "kind": random.choice(["one", "two"], number),
        }
    )
    frame.loc[::7, "weight"] = np.nan
    frame.loc[3::11, "smokes"] = None
    frame["grade"] = pd.array([None if n % 5 == 0 else n % 30 for n in range(number)], "Int64")
    return frame.sample(frac=1.0, random_state=0)


def images(folder: Path, array: np.ndarray) -> Callable[[str], DataSet]:
    np.save(folder / "x.npy", array)
    return lambda data_on: Images(str(folder / "x.npy"), data_on).read()


def parquet(folder: Path) -> Callable[[str], DataSet]:
    mixed_frame().to_parquet(folder / "t.parquet")
    return lambda data_on: Table(str(folder / "t.parquet"), "kind", data_on=data_on).read()


def array(folder: Path) -> Callable[[str], DataSet]:
    np.save(folder / "t.npy", np.random.default_rng(0).normal(3, 2, (150, 7)))
    columns = ["-x3"]
    return lambda data_on: Table(str(folder / "t.npy"), None, columns, data_on).read()


def pictures(folder: Path, *parts: str) -> Callable[[str], DataSet]:
    for number, part in enumerate(parts):
        write_pictures(folder / "p" / part, 9, 10 * number)
    return lambda data_on: Folder(str(folder / "p"), 8, data_on).read()


KINDS: dict[str, Callable[[Path], Callable[[str], DataSet]]] = {
    "grey bytes": lambda folder: images(folder, random_bytes(90, 5, 4)),
    "one channel": lambda folder: images(folder, random_bytes(90, 1, 5, 4)),
    "channels first": lambda folder: images(folder, random_bytes(90, 3, 5, 4)),
    "channels last": lambda folder: images(folder, random_bytes(90, 5, 4, 3)),
    "grey levels": lambda folder: images(folder, random_bytes(90, 5, 4) / 255),
    "a flat folder": lambda folder: pictures(folder, ".", "."),
    "a folder of classes": lambda folder: pictures(folder, "cats", "dogs"),
    "a folder of splits": lambda folder: pictures(folder, "train/cats", "train/dogs", "test/dogs"),
    "a Parquet file": parquet,
    "an array": array,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_from_disk_is_what_is_read_into_memory(kind: str, tmp_path: Path) -> None:
    read = KINDS[kind](tmp_path)
    held, on_disk = read("memory"), read("disk").checked()
    assert isinstance(held.train.pixels, torch.Tensor)
    assert isinstance(on_disk.train.pixels, OnDisk)
    assert isinstance(on_disk.test.pixels, torch.Tensor)
    assert on_disk.facts == held.facts
    assert on_disk.fingerprint == held.fingerprint
    assert on_disk.label_checksum == held.label_checksum
    assert on_disk.said == held.said + disk.FROM_DISK
    assert on_disk.train.bytes == held.train.bytes
    index = torch.tensor([2, 0, 1])
    for splits in ((held.train, on_disk.train), (held.test, on_disk.test)):
        one, other = (split.part(index) for split in splits)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.grey().nan_to_num(9.0), other.grey().nan_to_num(9.0))
        assert torch.equal(
            splits[0].some(4).grey().nan_to_num(9.0), splits[1].some(4).grey().nan_to_num(9.0)
        )


def test_parts_of_parts_are_the_same_examples() -> None:
    rows = torch.arange(60, dtype=torch.float32).view(20, 3)
    on_disk = OnDisk.written(part.numpy() for part in rows.split(7))
    index, mask = torch.tensor([4, 19, 0, 7, 4]), torch.tensor([True, False, True, True, False])
    assert on_disk.shape == (20, 3)
    assert on_disk.dtype is torch.float32
    assert torch.equal(on_disk[:], rows)
    assert torch.equal(on_disk[index], rows[index])
    assert torch.equal(on_disk.chosen(index)[mask.nonzero()[:, 0]], rows[index][mask])
    assert torch.equal(on_disk.chosen(index).chosen(mask)[:], rows[index][mask])
    assert torch.equal(torch.cat(list(on_disk.chosen(index).blocks())), rows[index])
    assert next(blocks_of(rows)) is rows


def test_three_axes_become_rows() -> None:
    whole = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert OnDisk.written([whole]).flatten(1)[:].tolist() == whole.reshape(2, 12).tolist()


@pytest.mark.parametrize("size", [1, 3, 4, 20])
def test_a_feed_hands_out_each_batch_with_its_labels(size: int) -> None:
    rows = torch.arange(40, dtype=torch.float32).view(20, 2)
    labels = torch.arange(20)
    on_disk = Split(OnDisk.written([rows.numpy()]), labels, 0)
    feeds = [Feed(split, size) for split in (Split(rows, labels, 0), on_disk)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    handed = [
        [(feed.split.grey(index).clone(), feed.split.labels[index]) for index in feed(order)]
        for feed in feeds
    ]
    assert len(handed[0]) == len(handed[1])
    for one, other in zip(*handed, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert torch.equal(torch.cat([y for _, y in handed[1]]), order)


def test_a_feed_from_disk_holds_one_batch() -> None:
    on_disk = Split(OnDisk.written([np.zeros((1000, 2), np.float32)]), torch.zeros(1000), 0)
    assert len(Feed(on_disk, 8).split) < 12


def test_what_fails_while_reading_ahead_is_raised() -> None:
    class Torn(OnDisk):
        def __getitem__(self, index: Any) -> torch.Tensor:
            if 3 in index.tolist():
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    whole = OnDisk.written([np.zeros((4, 2), np.float32)])
    torn = Torn(whole.scratch, whole.held, (4, 2))
    feed = Feed(Split(torn, torch.zeros(4), 0), 1)
    with pytest.raises(OSError, match="the disk is gone"):
        list(feed(torch.arange(4)))


RUNS = {
    "images": ("x.npy", lambda folder: images(folder, random_bytes(60, 5, 4))),
    "pictures": ("p", lambda folder: pictures(folder, "cats", "dogs")),
    "table": ("t.parquet", parquet),
}

SHORT = "--epochs 2 --batch_size 8 --nll_samples 2 --device cpu --precision float32"


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_from_disk_is_the_run_from_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_brief(monkeypatch)
    name, made = RUNS[kind]
    made(tmp_path)
    flags = [*SHORT.split(), "--data", str(tmp_path / name)]
    flags += ["--patience", "5", "--data_size", "8"] if kind != "table" else ["--data_label=kind"]
    for data_on in ("memory", "disk"):
        out = str(tmp_path / data_on)
        assert main([*flags, "--data_on", data_on, "--out", out]) == 0
    assert "read from disk while training" in capsys.readouterr().out
    assert same_run(tmp_path / "memory", tmp_path / "disk")
    # A run of one goes on as the other.
    more = ["--resume", "--epochs", "3"]
    for data_on, other in (("memory", "disk"), ("disk", "memory")):
        out = str(tmp_path / data_on)
        assert main([*flags, *more, "--data_on", other, "--out", out]) == 0
    assert same_run(tmp_path / "memory", tmp_path / "disk")


def test_memory_decides_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "most", lambda: 100)
    assert [memory.to_disk("auto", needed) for needed in (50, 51)] == [False, True]
    assert memory.to_disk("disk", 1)
    assert not memory.to_disk("memory", 10**9)
    assert not memory.to_disk("device", 10**9)


def test_a_gpu_takes_what_half_of_its_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    gpu = torch.device("cuda")
    assert [memory.on_device("auto", needed, gpu) for needed in (50, 51)] == [True, False]
    assert memory.on_device("device", 10**9, gpu)
    assert not memory.on_device("memory", 1, gpu)
    assert memory.on_device("auto", 10**9, CPU)


def test_a_container_may_have_less_memory_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP", bound)
    machine = memory.most()
    bound.write_text("12345\n")
    assert memory.most() == 12345
    bound.write_text("max\n")
    assert memory.most() == machine


def test_large_files_are_read_from_disk_of_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [
        images(tmp_path, random_bytes(90, 5, 4)),
        pictures(tmp_path, "cats"),
        array(tmp_path),
        parquet(tmp_path),
    ]
    monkeypatch.setattr(memory, "most", lambda: 100)
    assert all(isinstance(one("auto").train.pixels, OnDisk) for one in read)
    monkeypatch.setattr(memory, "most", lambda: 10**9)
    assert not any(isinstance(one("auto").train.pixels, OnDisk) for one in read)


def test_of_many_examples_ten_thousand_are_held_out() -> None:
    for number, held in ((50_000, 10_000), (50_010, MOST_HELD_OUT), (40_000, 8_000), (3, 1)):
        train, test = held_out(number)
        assert len(test) == held
        assert sorted([*train, *test]) == list(range(number))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npy", np.zeros((9, 2, 2, 2)), "has shape (9, 2, 2, 2); give (N, height, width)"),
        ("x.npy", np.full((9, 2, 2), 3, np.uint8), "holds bytes up to 3, next to black"),
        ("x.npy", np.full((9, 2, 2), 3.5), "holds values from 3.5 to 3.5"),
        ("x.npy", np.full((9, 2, 2), "a"), "holds <U1; give real numbers"),
        ("t.npy", np.full((9, 2), np.inf), "column 'x0' holds inf in row 0"),
        ("t.npy", np.ones((9, 2)), "has no column whose values vary"),
        ("t.csv", "a,b\n1,2\n3,4\n5,6\n", "is of folders of pictures, .npy and .parquet files"),
    ],
)
def test_what_cannot_be_taken_is_said_as_ever(
    name: str, content: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.save(tmp_path / name, content)
    given = ["--data", str(tmp_path / name), "--prior.categories", "2"]
    assert main([*given, "--data_on", "disk", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_value_of_a_late_block_is_named_by_its_row(tmp_path: Path) -> None:
    frame = mixed_frame().reset_index(drop=True)
    frame.loc[250, "weight"] = np.inf
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="column 'weight' holds inf in row 250"):
        Table(str(tmp_path / "t.parquet"), data_on="disk").read()


def test_pictures_that_cannot_be_read_are_counted_over_all_blocks(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "p", 30)
    for path in (paths[1], paths[28]):
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2 of 30 images cannot be read: '001.png'.*'028.png'"):
        Folder(str(tmp_path / "p"), 8, "disk").read()


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    mixed_frame().to_parquet(tmp_path / "t.parquet")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:200] = bytes(196)
    (tmp_path / "t.parquet").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"cannot read '.*' as a table"):
        Table(str(tmp_path / "t.parquet"), data_on="disk").read()


def test_a_full_disk_is_one_line() -> None:
    class Full:
        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

    scratch = Scratch()
    scratch.file.close()
    scratch.file = Full()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"no room for the data .*No space left on device.*TMPDIR"):
        scratch.append(np.zeros(3))


def test_scratch_files_lie_where_tmpdir_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    scratch = Scratch()
    assert scratch.folder == str(tmp_path)
    # Without a name there is nothing to clear away.
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", random_bytes(20, 5, 4))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    given = ["--data", str(tmp_path / "x.npy"), "--data_on", "disk", "--out", str(tmp_path / "o")]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert "nowhere' takes no file (No such file or directory); set TMPDIR to a folder" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["M8[s]", "m8[s]", "V4", "c8"])
def test_an_array_of_no_real_numbers_is_refused_from_disk_too(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.zeros((9, 2), kind))
    said = []
    for data_on in ("memory", "disk"):
        with pytest.raises(UserError) as refusal:
            Table(str(tmp_path / "t.npy"), data_on=data_on).read()
        said.append(str(refusal.value))
    assert said[0] == said[1]


def test_a_column_inside_another_is_not_taken_for_it(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    inner = [{"x": n} for n in range(20)]
    flat = [0.5 * n for n in range(20)]
    whole = pyarrow.table({"a": inner, "a.x": flat})
    pyarrow.parquet.write_table(whole, tmp_path / "t.parquet")
    read = Table(str(tmp_path / "t.parquet"), None, ["-a"], "disk").read()
    assert [column.name for column in read.facts.columns] == ["a.x"]


MEASURE = r"""
import re, sys
from pathlib import Path
from pyro_infocat.data.{reader} import {kind}
from pyro_infocat.training.feed import Feed
def peak():
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
# The peak so far was that of the imports.
Path("/proc/self/clear_refs").write_text("5")
before = peak()
data = {kind}(sys.argv[1], data_on=sys.argv[2]).read().checked()
data.fingerprint
feed = Feed(data.train, 256)
for number, index in enumerate(feed(data.train.shuffled())):
    feed.split.grey(index)
    if number > 200:
        break
print(peak() - before)
"""


def mebibytes_to_read(reader: str, kind: str, path: Path, data_on: str) -> float:
    """Peak memory above what the program itself takes, in a process of its own."""
    program = MEASURE.replace("{reader}", reader).replace("{kind}", kind)
    done = subprocess.run(
        [sys.executable, "-c", program, path, data_on],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout) / 2**10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no count of memory here")
def test_memory_does_not_grow_with_the_rows_of_a_parquet_file(tmp_path: Path) -> None:
    sizes = []
    for number in (400_000, 1_200_000):
        columns = np.random.default_rng(0).random((number, 40), np.float32)
        names = [f"x{n}" for n in range(40)]
        path = tmp_path / f"{number}.parquet"
        pd.DataFrame(columns, columns=names).to_parquet(path, row_group_size=50_000)
        sizes.append(mebibytes_to_read("table", "Table", path, "disk"))
    more = 800_000 * 40 * 4 / 2**20
    # A column at a time takes some copies of it in double precision.
    assert sizes[1] - sizes[0] < 0.8 * more


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no count of memory here")
def test_memory_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    small, large = tmp_path / "small.npy", tmp_path / "large.npy"
    for path, number in ((small, 40_000), (large, 160_000)):
        np.save(path, np.random.default_rng(0).integers(0, 256, (number, 40, 40), dtype=np.uint8))
    sizes = [mebibytes_to_read("images", "Images", path, "disk") for path in (small, large)]
    more = 120_000 * 1600 / 2**20
    # Labels and orders of the examples take some bytes for each; the examples would take 183 MiB.
    assert sizes[1] - sizes[0] < 0.2 * more
    assert mebibytes_to_read("images", "Images", large, "memory") > more
