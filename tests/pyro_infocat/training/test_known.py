"""A few labels that training sees: which ones, and that it sees no others.

Shapes: B batch, K categories, M labelled examples of a step, N examples.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pyro_infocat import DataSet, UserError
from pyro_infocat.build import Builder, observation
from pyro_infocat.catalogue import DATA_SETS, Facts
from pyro_infocat.data import Split
from pyro_infocat.data.disk import OnDisk
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation.known import evaluated
from pyro_infocat.objective import Terms
from pyro_infocat.settings import Settings
from pyro_infocat.training import known
from pyro_infocat.training.known import (
    Labelled,
    aligned,
    counted,
    drawn_evenly,
    fading,
    see,
)
from pyro_infocat.training.loop import validation_split
from pyro_infocat.training.schedules import Schedule
from pyro_infocat.training.step import Step
from pyro_infocat.views import View
from tests.pyro_infocat.training.pieces import fit, make_parts, make_step, settings, timeless
from tests.pyro_infocat.training.test_fake_gpu import GPU, NoCopies, no_engine

pytestmark = pytest.mark.usefixtures("alone")

__all__ = ["no_engine"]


# Which ones.


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_as_many_of_each_class_as_there_are(given_: list[int], number: int, seed: int) -> None:
    """A class gets less than another by more than one only where it has no more."""
    labels = torch.tensor(given_)
    there = labels[labels >= 0]
    index = drawn_evenly(labels, number, seed)
    assert len(index) == min(number, len(there))
    assert index.tolist() == sorted(set(index.tolist()))
    drawn = labels[index]
    assert (drawn >= 0).all()
    counts = {k: (int((drawn == k).sum()), int((there == k).sum())) for k in set(there.tolist())}
    most = max((count for count, _ in counts.values()), default=0)
    assert all(count >= min(most - 1, held) for count, held in counts.values())


def test_the_seed_draws_them() -> None:
    labels = digits().train.labels
    first, again, other = (drawn_evenly(labels, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert labels[first].bincount().tolist() == [2] * 10


def test_what_training_sees() -> None:
    """The images are the same, and so is the test split."""
    data = digits()
    seen = see(data, settings(known_labels=20))
    here = seen.train.labels >= 0
    assert here.sum() == 20
    assert torch.equal(seen.train.labels[here], data.train.labels[here])
    assert seen.train.pixels is data.train.pixels
    assert seen.test is data.test
    assert seen.fingerprint == data.fingerprint
    assert seen.label_checksum != data.label_checksum
    assert seen.names == dict(enumerate("0123456789"))
    assert counted(seen) == (
        "training sees 20 labels of 1,297 examples, 2 of each of 10 classes; category k stands for "
        "class k"
    )
    assert torch.equal(see(data, settings(known_labels="all")).train.labels, data.train.labels)


def test_classes_without_a_label_have_no_name() -> None:
    data = digits()
    labels = data.train.labels.masked_fill(data.train.labels % 2 == 0, -1)
    few = replace(data, train=replace(data.train, labels=labels))
    assert see(few, settings(known_labels="all")).names == {k: str(k) for k in (1, 3, 5, 7, 9)}
    assert len(see(data, settings(known_labels=3)).names) == 3


def test_what_is_held_out_has_no_label_that_is_seen() -> None:
    chosen = settings("--patience", "3", "--validation", "0.5", known_labels="all")
    fitted, rest = validation_split(see(digits(), chosen).train, chosen)
    assert rest is not None
    assert (rest.labels == -1).all()
    assert (fitted.labels >= 0).all()


UNKNOWN: dict[str, tuple[Callable[[Split], Split], Any, str]] = {
    "unlabelled": (
        lambda split: replace(split, labelled=False),
        5,
        "the data have no known labels; leave it out",
    ),
    "too many": (
        lambda split: replace(
            split, labels=split.labels.clone().index_fill(0, torch.arange(7), -1)
        ),
        1291,
        "there are 1,290 known labels to train with (500 are of the test split); give no more, or "
        "all",
    ),
    "without a name": (
        lambda split: replace(split, labels=split.labels + 1),
        "all",
        "there are labels up to 10, and names of 10 classes; give each class a name",
    ),
}


@pytest.mark.parametrize(("change", "number", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_labels_that_are_not_there(
    change: Callable[[Split], Split], number: Any, said: str
) -> None:
    data = digits()
    with pytest.raises(UserError) as refusal:
        see(replace(data, train=change(data.train)), settings(known_labels=number))
    assert refusal.value.setting == "known_labels"
    assert refusal.value.message == f" {number}: {said}"


# How long.


def test_labels_fade_where_nothing_else_is_said() -> None:
    """From the weight that is given; a schedule of one's own stays."""
    assert fading(settings()) == settings()
    points = [["0%", 100.0], ["40%", 100.0], ["60%", 1.0]]
    kept = settings().schedules
    assert fading(settings(known_labels=5)).schedules == {**kept, "labels": points}
    light = fading(settings(known_labels=5, weights={"labels": 10.0})).schedules["labels"]
    assert [value for _, value in light] == pytest.approx([10, 10, 0.1])
    own = settings("--schedules", "{labels: [[0, 3]]}", known_labels=5)
    assert fading(own) == own
    twice = fading(fading(settings(known_labels=5)))
    assert twice == fading(settings(known_labels=5))
    schedule = Schedule(replace(twice, epochs=101), make_parts(twice))
    weights = [schedule.weights_at(epoch)["labels"] for epoch in (0, 40, 50, 60, 100)]
    assert weights == pytest.approx([100, 100, 50.5, 1, 1])


# A step.


def test_a_step_gets_the_labels_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the batch, and examples beside it with a view of each; no others."""

    class Darker(View):
        def __call__(self, grey: Tensor, classifier: Any) -> Tensor:
            return grey / 2

    monkeypatch.setattr(known, "MOST_DRAWN", 3)
    chosen = settings(known_labels=10, weights={"consistency": 1.0})
    parts = replace(make_parts(chosen), view=Darker())
    split = see(digits(), chosen).train
    take = make_step(chosen, parts)
    take.split, take.labelled = split, Labelled(split)
    got: dict[str, Any] = {}

    def evaluate(model: Any, guide: Any, x: Tensor, **others: Any) -> Terms:
        got.update(others, x=x)
        return right(model, guide, x, **others)

    right = parts.bound.evaluate
    parts.bound.evaluate = evaluate  # type: ignore[method-assign]
    places = (split.labels >= 0).nonzero()[:, 0]
    index = torch.cat([torch.arange(5), places[:3]])
    terms = take(index)
    seen = got["known"]
    assert torch.equal(seen.category, split.labels[index])
    assert torch.equal(got["view"], split.grey(index) / 2)
    assert torch.equal(seen.view, seen.x / 2)
    assert seen.x.shape == (3, 64)
    held = split.grey(places)
    for x, c in zip(seen.x, seen.c, strict=True):
        assert c in split.labels[places[(held == x).all(1)]]
    assert terms["labels"] > 0


def test_without_known_labels_a_step_draws_nothing() -> None:
    chosen = settings(weights={})
    take = make_step(chosen, make_parts(chosen))
    assert take.labelled is None
    assert "labels" not in take(torch.arange(9))


@pytest.mark.usefixtures("no_engine")
def test_a_step_with_labels_stays_on_the_gpu() -> None:
    """So a CUDA graph can hold it; --decoded with a category that is given, too."""
    chosen = settings("--decoded", "1", known_labels=10)
    with pyro.validation_enabled(False), FakeTensorMode():
        with GPU:
            parts = Builder(chosen, DATA_SETS["digits"]).parts(GPU)
            pixels = torch.zeros(300, 64, dtype=torch.uint8)
            split = Split(pixels, torch.zeros(300, dtype=torch.int64), 17)
            # Which labels are seen is asked before the first step.
            labelled = Labelled.__new__(Labelled)
            labelled.split, labelled.places = split, torch.arange(30)
        module = parts.bound(parts.model, parts.guide).train()
        observed = observation(chosen, parts.model.decoder.likelihood)
        optimizer = torch.optim.SGD(module.parameters())
        step = Step(split, observed, parts, module, optimizer, labelled=labelled)
        with NoCopies():
            terms = [step(torch.arange(64, device=GPU)) for _ in range(2)]
        assert terms[1]["labels"].device == GPU


# A run.


def trained(data: DataSet, *flags: str, folder: str = "out", **changes: Any) -> list[dict]:
    """The history of a run on what training sees of the data."""
    chosen = settings("--epochs", "2", *flags, **changes)
    return timeless(fit(chosen, see(data, chosen), folder)[0])


def test_training_looks_at_no_other_label() -> None:
    data = digits()
    seen = see(data, settings(known_labels=20)).train.labels >= 0
    shuffled = data.train.labels.roll(1).where(~seen, data.train.labels)
    other = replace(data, train=replace(data.train, labels=shuffled))
    history = trained(data, known_labels=20)
    # The same ones are told again: which are drawn follows from what they are.
    chosen = settings("--epochs", "2", known_labels="all")
    masked = replace(data, train=replace(data.train, labels=shuffled.masked_fill(~seen, -1)))
    assert timeless(fit(chosen, masked, "again")[0]) == history
    assert not torch.equal(other.train.labels, data.train.labels)
    wrong = replace(masked, train=replace(masked.train, labels=masked.train.labels.clone()))
    place = seen.nonzero()[0]
    wrong.train.labels[place] = (wrong.train.labels[place] + 1) % 10
    assert timeless(fit(chosen, wrong, "wrong")[0]) != history


def test_labels_of_examples_on_disk_are_those_of_examples_in_memory() -> None:
    data = digits()
    blocks = (block.numpy() for block in data.train.pixels.split(100))
    on_disk = replace(data, train=replace(data.train, pixels=OnDisk.written(blocks)))
    assert not on_disk.train.resident
    in_memory = trained(data, known_labels=20)
    assert trained(on_disk, folder="disk", known_labels=20) == in_memory


def test_of_many_labels_on_disk_some_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_HELD", 50)
    data = digits()
    blocks = (block.numpy() for block in data.train.pixels.split(100))
    labelled = Labelled(replace(data.train, pixels=OnDisk.written(blocks)))
    assert len(labelled.places) == 50
    assert [[len(one) for one in labelled.draw(batch)] for batch in (1, 9, 400)] == [
        [1, 1],
        [5, 5],
        [known.MOST_DRAWN] * 2,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--guide", "guides.Gumbel"], ["--decoded", "1"]])
def test_labels_are_learned(flags: list[str]) -> None:
    """Category k is class k: not by chance, of which the share is a tenth."""
    chosen = settings("--epochs", "25", *flags, known_labels=100, batch_size=100)
    data = digits()
    _, parts = fit(chosen, see(data, chosen))
    parts.guide.eval()
    found = parts.guide.category(data.test.grey()).logits.argmax(-1)
    assert (found == data.test.labels).double().mean() > 0.8


# Clusters.


def test_clusters_take_the_places_of_their_labels() -> None:
    """Cluster 2 holds most of class 0, 0 of class 1; 1 is left for category 2."""
    pixels = torch.tensor([0, 0, 1, 2, 2, 1], dtype=torch.uint8).unsqueeze(1)
    split = Split(pixels, torch.tensor([1, 1, 1, 0, 0, -1]), 3)
    weights = torch.tensor([0.5, 1.0, 2.0])

    def clusters(x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot((x[:, 0] * 2).long(), 3) * weights

    found = aligned(clusters, split, 3)(torch.tensor([[0.0], [0.5], [1.0]]))
    assert found.tolist() == [[0.0, 0.5, 0.0], [0.0, 0.0, 1.0], [2.0, 0.0, 0.0]]


# What is evaluated.

ALL, SOME, NONE = [0, 1, 0, 1], [0, -1, -1, 1], [-1, -1, -1, -1]


def small(train: list[int], test: list[int]) -> DataSet:
    pixels = torch.arange(4, dtype=torch.uint8).unsqueeze(1)
    facts = Facts("digits", (1, 1), 256, ("cat", "dog"))
    return DataSet(facts, *(Split(pixels, torch.tensor(labels), 256) for labels in (train, test)))


@pytest.mark.parametrize(
    ("train", "test", "classes", "of_labels"),
    [
        (ALL, ALL, True, None),
        (SOME, ALL, True, None),
        (ALL, SOME, False, (4, 2)),
        (SOME, SOME, False, (2, 2)),
        (SOME, NONE, False, None),
        (NONE, ALL, False, (0, 4)),
    ],
)
def test_examples_without_a_label_are_left_out_of_what_needs_one(
    train: list[int], test: list[int], classes: bool, of_labels: Any, capsys: Any
) -> None:
    shown, judged = evaluated(small(train, test))
    assert len(shown.test) == 4
    assert bool(shown.facts.classes) is classes
    assert int(shown.train.labels.min()) >= 0
    assert int(shown.test.labels.min()) >= 0
    number = of_labels[1] if of_labels else 0
    told = f"{number} of 4 test examples have a known label: what compares with labels is of these"
    assert capsys.readouterr().out.startswith(told) is (of_labels is not None)
    if of_labels is None:
        assert judged is None
    else:
        assert judged is not None
        assert (len(judged.train), len(judged.test)) == of_labels
        known = torch.tensor([label >= 0 for label in test])
        assert judged.test.labels.tolist() == [label for label in test if label >= 0]
        assert judged.test.pixels[:, 0].tolist() == known.nonzero()[:, 0].tolist()
        assert judged.facts.classes == ("cat", "dog")
    if (train, test) == (SOME, ALL):
        assert np.array_equal(shown.train.pixels[:, 0], [0, 3])


def test_settings_of_before_see_no_labels() -> None:
    assert Settings().known_labels == 0
