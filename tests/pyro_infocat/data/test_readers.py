"""Data sets are what they say, and binarised pixels are drawn as they should be."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from sklearn.datasets import load_digits
from torchvision.datasets import MNIST, FashionMNIST

from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data import DataSet, Split, load, observe
from pyro_infocat.data.readers import digits
from pyro_infocat.errors import UserError
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")


def ramp(number: int, levels: int = 5) -> Split:
    """``number`` images, each of one pixel of every grey level, told apart by the label."""
    pixels = torch.arange(levels, dtype=torch.uint8).expand(number, -1)
    return Split(pixels, torch.arange(number), levels)


def test_digits_are_split_once_and_for_all() -> None:
    data = digits()
    assert (len(data.train), len(data.test)) == (1297, 500)
    assert data.facts is DATA_SETS["digits"]
    assert data.facts.shape == (8, 8)
    assert data.facts.features == 64
    assert data.facts.classes == tuple("0123456789")
    for split in (data.train, data.test):
        assert split.pixels.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.pixels.shape == (len(split), 64)
        assert (int(split.pixels.min()), int(split.pixels.max())) == (0, 16)
        assert split.labels.unique().tolist() == list(range(10))
    torch.manual_seed(5)
    assert torch.equal(digits().test.pixels, data.test.pixels)


def test_the_splits_of_the_digits_share_no_scan() -> None:
    data = digits()
    scans = torch.cat([data.train.pixels, data.test.pixels])
    labels = torch.cat([data.train.labels, data.test.labels])
    source = load_digits()
    here = np.column_stack([scans.numpy(), labels.numpy()])
    there = np.column_stack([source.data, source.target]).astype(int)
    # The same rows as often: so no scan is lost, and none that is there once is in both splits.
    assert sorted(map(tuple, here.tolist())) == sorted(map(tuple, there.tolist()))


def test_grey_levels_reach_from_0_to_1() -> None:
    split = ramp(2)
    assert split.grey().tolist() == [[0, 0.25, 0.5, 0.75, 1]] * 2
    assert split.grey(torch.tensor([1])).shape == (1, 5)
    assert digits().train.grey().max() == 1


def test_an_epoch_holds_each_example_once_in_a_new_order() -> None:
    split = ramp(100)
    first, second = split.shuffled(), split.shuffled()
    for order in (first, second):
        assert sorted(order.tolist()) == list(range(100))
    # That two shuffles of 100 agree has a chance of 1 / 100!.
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.arange(100))
    assert torch.equal(split.grey(first), split.grey()[first])


def test_observe_draws_binary_pixels_by_their_grey_level() -> None:
    number = 20_000
    grey = ramp(number).grey()
    seen = observe(grey, "binary")
    assert seen.unique().tolist() == [0, 1]
    mean = seen.double().mean(0)
    assert mean[0] == 0
    assert mean[4] == 1
    # Three means of 20,000 draws, each five standard errors wide: a false alarm in 600,000 seeds.
    for level, share in ((0.25, mean[1]), (0.5, mean[2]), (0.75, mean[3])):
        assert abs(share - level) < 5 * math.sqrt(level * (1 - level) / number)
    # Drawn anew at each call: that 60,000 fair or nearly fair coins agree has no chance.
    assert not torch.equal(observe(grey, "binary"), seen)


def test_observe_leaves_grey_levels_alone_and_clips_only_chances() -> None:
    grey = torch.tensor([[-0.1, 0.3, 1.1]])
    assert observe(grey, "grey") is grey
    assert observe(grey, "binary")[0, [0, 2]].tolist() == [0, 1]


def test_the_fixed_draw_is_the_same_at_every_call_and_takes_nothing_from_the_seed() -> None:
    split = digits().test
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = split.fixed("binary")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(split.fixed("binary"), first)
    assert first.unique().tolist() == [0, 1]
    assert torch.equal(split.fixed("grey"), split.grey())
    # The sum of 32,000 draws, five standard errors wide: a false alarm in 1,700,000 draws.
    grey = split.grey().double()
    assert abs(first.sum() - grey.sum()) < 5 * (grey * (1 - grey)).sum().sqrt()


def test_pixels_stay_bytes_wherever_a_split_goes() -> None:
    split = digits().to(torch.device("cpu")).train
    assert split.part(torch.arange(3)).pixels.dtype == torch.uint8
    assert split.part(torch.tensor([4, 2])).labels.tolist() == split.labels[[4, 2]].tolist()
    assert split.grey().dtype == torch.float32


@pytest.mark.usefixtures("double")
def test_grey_levels_follow_the_default_precision() -> None:
    assert digits().train.grey().dtype == torch.float64


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 training and 10 test images as unpacked IDX files, and no network."""
    for kind in (MNIST, FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", ["http://127.0.0.1:9/"])
    write_tiny_mnist(tmp_path / "archives", 20, 10)
    return tmp_path / "archives"


FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_idx_files_load_without_a_network(name: str, folder: str, archives: Path) -> None:
    data = load(name, archives)
    assert isinstance(data, DataSet)
    assert (len(data.train), len(data.test)) == (20, 10)
    assert data.facts.shape == (28, 28)
    assert data.facts is DATA_SETS[name]
    assert data.train.levels == 256
    raw = (archives / folder / "raw/train-images-idx3-ubyte").read_bytes()[16:]
    assert data.train.pixels.dtype == torch.uint8
    assert bytes(data.train.pixels.flatten().tolist()) == raw
    assert data.train.labels.tolist() == [*range(10), *range(10)]
    assert 0 <= data.test.grey().min() < data.test.grey().max() <= 1


def test_names_of_classes_match_torchvision(archives: Path) -> None:
    """Ours are shorter: '0' for '0 - zero', 'T-shirt' for 'T-shirt/top'."""
    for name, kind in (("mnist", MNIST), ("fashion-mnist", FashionMNIST)):
        theirs = kind(archives).classes
        assert len(theirs) == len(DATA_SETS[name].classes) == 10
        for ours, long in zip(DATA_SETS[name].classes, theirs, strict=True):
            assert ours.lower() in long.lower()


def test_archives_that_are_complete_need_no_place_to_write(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for method in ("mkdir", "touch", "write_bytes"):
        monkeypatch.setattr(Path, method, refuse)
    assert len(load("mnist", archives).train) == 20


def test_one_process_unpacks_at_a_time(archives: Path) -> None:
    """Another that comes in the middle of it waits, and does not take half a file for damaged."""
    raw = archives / "MNIST/raw"
    whole = (raw / "t10k-images-idx3-ubyte").read_bytes()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(raw / ".lock"):
            (raw / "t10k-images-idx3-ubyte").write_bytes(whole[:99])
            other = pool.submit(load, "mnist", archives)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.3)
            (raw / "t10k-images-idx3-ubyte").write_bytes(whole)
        assert len(other.result(timeout=60).test) == 10


def test_an_unknown_data_set() -> None:
    with pytest.raises(UserError, match="no data set 'cifar'; choose from digits, mnist"):
        load("cifar", Path("data"))
