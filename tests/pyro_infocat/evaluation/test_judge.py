"""The independent classifier: what it learns from, what it leaves alone, and where it is kept."""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_infocat.data import DataSet, Split, load
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import judge as module
from pyro_infocat.evaluation.judge import Judge, judge_of, place_of, taught
from tests.tiny import write_tiny_mnist


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


def weights(judge: Judge) -> list[Tensor]:
    return list(judge.state_dict().values())


def same(one: Judge, other: Judge) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def accuracy(judge: Judge, split: Split) -> float:
    return (judge(split.grey()).argmax(-1) == split.labels).float().mean().item()


def learned(split: Split, classes: int = 10) -> Judge:
    return taught(split.grey, split.labels, split.pixels.shape[1], classes)


# What it learns from.


def test_it_knows_digits_that_it_has_not_seen(data: DataSet) -> None:
    assert accuracy(judge_of(data), data.test) >= 0.97


def test_it_learns_from_the_training_split_alone(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXAMPLES", 1)
    found = judge_of(data)
    other = replace(data.test, pixels=data.test.pixels.flip(0), labels=data.test.labels.roll(1))
    assert same(judge_of(replace(data, test=other)), found)
    one_less = data.train.part(torch.arange(1, len(data.train)))
    assert not same(judge_of(replace(data, train=one_less)), found)
    other = replace(data.train, labels=data.train.labels.roll(1))
    assert not same(judge_of(replace(data, train=other)), found)


@pytest.mark.parametrize("number", [1, 10, 40])
def test_it_learns_from_few_examples(number: int, data: DataSet) -> None:
    few = data.train.part(torch.arange(number))
    assert accuracy(learned(few), few) > 0.9


@pytest.mark.parametrize(
    ("number", "least", "passes", "steps"),
    [
        (1000, 1, 3, 12),  # 3,000 examples are 11.7 batches
        (1000, 20_000, 3, 79),
        (100, 1, 1, 1),
    ],
)
def test_it_sees_so_many_examples_and_each_as_often_as_any_other(
    number: int, least: int, passes: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXAMPLES", least)
    monkeypatch.setattr(module, "PASSES", passes)
    batches: list[Tensor] = []
    x = torch.rand(number, 4)

    def shown(index: Tensor) -> Tensor:
        batches.append(index)
        return x[index]

    taught(shown, torch.arange(number) % 2, 4, 2)
    assert [len(batch) for batch in batches] == [256] * steps
    counts = torch.cat(batches).bincount(minlength=number)
    assert counts.max() - counts.min() <= 1


def test_of_a_large_split_it_sees_a_fixed_part(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXAMPLES", 1)
    monkeypatch.setattr(module, "MOST_LEARNED", 300 * 64 + 63)
    assert same(judge_of(data), learned(data.train.some(300)))


def test_what_is_missing_is_zero() -> None:
    torch.manual_seed(0)
    judge = Judge(3, 2).eval()
    x = torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 1.0, -torch.inf]])
    zero = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    assert torch.equal(judge(x), judge(zero))
    assert torch.equal(judge(x.double()), judge(zero))
    assert judge.features(x).shape == (2, 128)


# What it leaves alone.


def test_the_random_numbers_of_a_run_neither_matter_nor_move(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXAMPLES", 1)
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].tolist()
            with torch.no_grad():
                made.append(learned(data.train))
            assert torch.equal(torch.get_rng_state(), before)
            assert np.random.get_state()[1].tolist() == of_numpy
    assert same(*made)
    assert not made[0].training
    assert not any(parameter.requires_grad for parameter in made[0].parameters())


# Where it is kept.


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A few images in the format of MNIST, in a data root; a judge that learns little."""
    monkeypatch.setattr(module, "EXAMPLES", 1)
    write_tiny_mnist(tmp_path / "data")
    return load("mnist", tmp_path / "data")


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every judge that learns."""
    given: list[int] = []

    def counted(*arguments: Any) -> Judge:
        given.append(1)
        return taught(*arguments)

    monkeypatch.setattr(module, "taught", counted)
    return given


def kept(data: DataSet) -> Path:
    place = place_of(data)
    assert place is not None
    return place


def test_a_data_set_has_one_judge_for_all_runs(tiny: DataSet, lessons: list[int]) -> None:
    first = judge_of(tiny)
    assert [file.name for file in kept(tiny).parent.iterdir()] == [kept(tiny).name]
    again = judge_of(tiny.to(torch.device("cpu")))
    assert len(lessons) == 1
    assert same(first, again)
    assert torch.equal(first(tiny.test.grey()), again(tiny.test.grey()))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_other_images_labels_or_recipes_have_another(
    tiny: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tiny.train
    places = {
        kept(tiny),
        kept(replace(tiny, train=replace(train, labels=train.labels.roll(1)))),
        kept(replace(tiny, train=replace(train, pixels=train.pixels.roll(1)))),
        kept(replace(tiny, facts=replace(tiny.facts, preset="fashion"))),
        kept(replace(tiny, facts=replace(tiny.facts, shape=(14, 56)))),
    }
    monkeypatch.setattr(module, "RECIPE", module.RECIPE + 1)
    assert len(places | {kept(tiny)}) == 6
    # The test split has none of it.
    assert kept(replace(tiny, test=train)) == kept(tiny)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, changed, lambda _: b"", lambda _: b"no archive", lambda _: pickle.dumps({})]
)
def test_a_damaged_file_is_made_anew(
    damage: Callable[[bytes], bytes], tiny: DataSet, lessons: list[int]
) -> None:
    first, place = judge_of(tiny), kept(tiny)
    whole = place.read_bytes()
    place.write_bytes(damage(whole))
    assert same(judge_of(tiny), first)
    assert len(lessons) == 2
    assert zipfile.ZipFile(place).testzip() is None
    judge_of(tiny)
    assert len(lessons) == 2


@pytest.mark.parametrize(
    "held",
    [
        {"last.bias": torch.zeros(10)},
        [torch.zeros(10)],
        {name: one * torch.nan if one.is_floating_point() else one
         for name, one in Judge(784, 10).state_dict().items()},
        Judge(784, 9).state_dict(),
    ],
    ids=["too little", "a list", "not finite", "of other labels"],
)  # fmt: skip
def test_what_is_no_judge_of_the_data_is_not_believed(
    held: Any, tiny: DataSet, lessons: list[int]
) -> None:
    place = kept(tiny)
    place.parent.mkdir()
    torch.save(held, place)
    judge_of(tiny)
    assert len(lessons) == 1


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, ("opened", "w")


def test_no_pickle_is_executed(
    tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = kept(tiny)
    place.parent.mkdir()
    for write in (torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))):
        write({"last.bias": Evil()}, place)
        judge_of(tiny)
        assert not Path("opened").exists()


def test_a_root_that_cannot_be_written_is_no_error(tiny: DataSet, lessons: list[int]) -> None:
    # A file in the folder's place, which keeps the superuser out too.
    kept(tiny).parent.write_text("")
    assert same(judge_of(tiny), judge_of(tiny))
    assert len(lessons) == 2


def test_nothing_is_kept_of_the_digits_and_of_own_data(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "EXAMPLES", 1)
    assert place_of(data) is None
    judge_of(data)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
def test_it_learns_on_the_device_of_the_data(data: DataSet) -> None:
    there = data.to(torch.device("cuda"))
    before = torch.cuda.get_rng_state()
    judge = judge_of(there)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert judge.last.weight.is_cuda
    assert accuracy(judge, there.test) >= 0.97
