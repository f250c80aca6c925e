"""The collapse watch says what becomes of the categories, and leaves no trace in the run."""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from tqdm import tqdm

import guides
from guides import encoders
from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import build
from pyro_infocat.arguments import parse
from pyro_infocat.data import Split, digits
from pyro_infocat.record import Record
from pyro_infocat.settings import Settings
from pyro_infocat.train import set_validation, train, validation_split
from pyro_infocat.watch import CHUNK, EXAMPLES, Watch
from tests.brief import SMALL

APART = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


class Lamps(decoders.Decoder):
    """Category c lights one of X lamps, for certain."""

    def __init__(self, lit: Sequence[int]) -> None:
        super().__init__(likelihoods.Bernoulli())
        self.lit = torch.tensor(lit)

    def raw(self, z: Tensor) -> Tensor:
        # The modes are so high that the draw never leaves its category's axis.
        one = nn.functional.one_hot(self.lit.to(z.device)[z.argmax(-1)], len(self.lit))
        return (1e4 * (2 * one - 1)).to(z.dtype).unsqueeze(-1)


class Reader(Guide):
    """q(c|x) from a table: a row for each lamp, a column for each category."""

    def __init__(self, table: Sequence[Sequence[float]] | Tensor) -> None:
        super().__init__(len(table))
        self.table = torch.as_tensor(table, dtype=torch.get_default_dtype())
        self.read: list[Tensor] = []

    def posterior(self, x: Tensor) -> Posterior:
        assert not torch.is_grad_enabled()
        assert not self.training
        self.read.append(x)
        q = x @ self.table.to(x.device)
        return Posterior(dist.Categorical(logits=q.log()), lambda c: dist.Normal(0.0, 1.0))

    def critic(self, x: Tensor) -> dist.Categorical:
        raise AssertionError("a critic may be blunter than q(c|x)")


class Board:
    """What would go to TensorBoard, and at which epochs."""

    def __init__(self) -> None:
        self.scalars: dict[str, dict[int, float]] = defaultdict(dict)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name][step] = value


class World:
    """A watch over categories whose every share and mistake is given.

    :param lit: the lamp that each category lights.
    :param examples: how many show each lamp.
    """

    def __init__(
        self,
        table: Sequence[Sequence[float]] | Tensor = APART,
        lit: Sequence[int] | None = None,
        examples: Sequence[int] | None = None,
        epochs: int = 2,
        **prior: Any,
    ) -> None:
        self.guide = Reader(table)
        categories = self.guide.categories
        self.model = CatVAE(
            priors.Orthogonal(categories, 1, 100.0, **prior),
            Lamps(range(categories) if lit is None else lit),
        )
        counts = torch.tensor(examples or [50] * categories)
        pixels = torch.eye(categories, dtype=torch.uint8).repeat_interleave(counts, 0)
        split = Split(pixels, torch.full((len(pixels),), -1), 2)
        self.watch = Watch(self.model, self.guide, split, "binary", epochs)
        self.board, self.epoch = Board(), 0

    def look(self, table: Sequence[Sequence[float]] | None = None, decoding: bool = True) -> None:
        """At the end of the next epoch."""
        if table is not None:
            self.guide.table = torch.tensor(table, dtype=torch.float32)
        self.epoch += 1
        self.watch.look(self.epoch, decoding, self.board)  # type: ignore[arg-type]

    def last(self) -> dict[str, float]:
        """What went to TensorBoard this time."""
        scalars = self.board.scalars.items()
        return {name: by[self.epoch] for name, by in scalars if self.epoch in by}


Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines since the last call; nothing may go to stderr."""

    def lines() -> list[str]:
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out.splitlines()

    return lines


def kept(own: float) -> list[list[float]]:
    """Category 3 keeps so much of its lamp; the others have the rest in equal parts."""
    return [*APART[:3], [(1 - own) / 3] * 3 + [own]]  # type: ignore[list-item]


def lent(own: float) -> list[list[float]]:
    """Category 3 keeps so much of its lamp; category 2 has the rest."""
    return [*APART[:3], [0, 0, 1 - own, own]]  # type: ignore[list-item]


def test_of_healthy_categories_nothing_is_said(said: Said) -> None:
    world = World()
    for _ in range(3):
        world.look()
        assert said() == []
        assert world.last() == {
            "categories/used": 4,
            "categories/least_share": 0.25,
            "categories/merged": 0,
        }


def test_a_category_dies_once_and_comes_back(said: Said) -> None:
    world = World()
    lines = []
    # A tenth of the prior's share is 2.5% of the examples, twice that brings it back.
    for own in (0.11, 0.08, 0.01, 0.12, 0.19, 0.4, 0.11):
        world.look(kept(own))
        lines.append(said())
    assert lines == [
        [],
        ["epoch 2: category 3 died (2.0% of the examples)"],
        [],
        [],
        [],
        ["epoch 6: category 3 came back (10.0% of the examples)"],
        [],
    ]
    assert list(world.board.scalars["categories/used"].values()) == [4, 3, 3, 3, 3, 4, 4]
    least = list(world.board.scalars["categories/least_share"].values())
    assert least == pytest.approx([0.0275, 0.02, 0.0025, 0.03, 0.0475, 0.1, 0.0275])


@pytest.mark.parametrize(
    ("first", "second", "numbers"), [(0.04, 0.08, "1.0% to 2.0%"), (0.08, 0.08, "2.0%")]
)
def test_several_share_a_line(said: Said, first: float, second: float, numbers: str) -> None:
    world = World()
    away = [(1 - first) / 2, (1 - first) / 2, first, 0], [(1 - second) / 2] * 2 + [0, second]
    world.look([*APART[:2], *away])
    assert said() == [f"epoch 1: categories 2, 3 died ({numbers} of the examples)"]


def test_death_is_below_a_tenth_of_what_the_prior_gave_at_first(said: Said) -> None:
    examples = [6, 2, 46, 46]
    world = World(examples=examples, weights=[0.7, 0.1, 0.1, 0.1], learn_weights=True)
    with torch.no_grad():
        world.model.prior.logits.copy_(torch.tensor([0.06, 0.02, 0.46, 0.46]).log())
    world.look()
    assert said() == ["epoch 1: category 0 died (6.0% of the examples)"]


def test_a_category_merges_and_parts(said: Said) -> None:
    world = World()
    lines = []
    for own in (1.0, 0.6, 0.17, 0.6, 0.7, 0.8, 0.7):
        world.look(lent(own))
        lines.append(said())
    assert lines == [
        [],
        [],
        ["epoch 3: category 3 merged into 2 (their images overlap by 83%)"],
        [],
        [],
        ["epoch 6: category 3 parted from 2"],
        [],
    ]
    assert list(world.board.scalars["categories/merged"].values()) == [0, 0, 1, 1, 1, 0, 0]
    assert set(world.board.scalars["categories/used"].values()) == {4}


def test_the_fuller_one_takes_the_other_in_and_keeps_it(said: Said) -> None:
    world = World()
    world.look([*APART[:2], [0, 0, 0.17, 0.83], [0, 0, 0, 1]])
    assert said() == ["epoch 1: category 2 merged into 3 (their images overlap by 83%)"]
    world.look([*APART[:2], [0, 0, 1, 0], [0, 0, 0.83, 0.17]])
    assert said() == []


def test_categories_between_which_images_are_divided_are_one(said: Said) -> None:
    """Nothing is taken for another by more than half, and both shares are whole."""
    world = World()
    for share in (0.5, 0.45, 0.55, 0.3):
        world.look([*APART[:2], [0, 0, share, 1 - share], [0, 0, share, 1 - share]])
        assert world.last()["categories/merged"] == 1
    assert said() == ["epoch 1: category 3 merged into 2 (their images overlap by 100%)"]


def test_what_a_category_generates_counts_not_the_examples(said: Said) -> None:
    world = World(lit=[0, 1, 2, 2])
    world.look()
    assert said() == ["epoch 1: category 3 merged into 2 (their images overlap by 100%)"]


def test_three_in_one_and_another_host(said: Said) -> None:
    world = World()
    world.look()
    world.look([[1, 0, 0, 0], [0.8, 0.2, 0, 0], [0.6, 0, 0.4, 0], [0, 0, 0, 1]])
    assert said() == ["epoch 2: categories 1, 2 merged into 0 (their images overlap by 60% to 80%)"]
    world.look([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.1, 0.9], [0, 0, 0, 1]])
    assert said() == [
        "epoch 3: category 1 parted from 0",
        "epoch 3: category 2 merged into 3 (their images overlap by 90%)",
    ]


def test_an_overlap_is_never_more_than_whole(said: Said) -> None:
    """Though by chance more images than not be taken for the wrong one of two."""
    world = World([*APART[:2], [0, 0, 0.45, 0.55], [0, 0, 0.55, 0.45]])
    world.look()
    assert said() == ["epoch 1: category 3 merged into 2 (their images overlap by 100%)"]


def test_two_that_nothing_is_taken_for_compare_with_others_only(said: Said) -> None:
    """Category 2's images are anything's, 3's are 0's; real ones are as they should be."""
    table = torch.eye(7)
    table[6] = torch.tensor([0.25, 0.25, 0, 0, 0.25, 0.25, 0])
    world = World(table, lit=[0, 1, 6, 0, 4, 5, 6], examples=[40, 30, 90, 20, 30, 30, 1])
    world.look()
    assert said() == [
        "epoch 1: category 6 died (0.0% of the examples)",
        "epoch 1: category 3 merged into 0 (their images overlap by 100%)",
    ]


def test_a_dead_category_is_no_longer_merged(said: Said) -> None:
    world = World()
    world.look(lent(0.17))
    said()
    world.look(lent(0.04))
    assert said() == ["epoch 2: category 3 died (1.0% of the examples)"]
    assert world.last()["categories/merged"] == 0
    world.look(lent(0.3))
    assert said() == [
        "epoch 3: category 3 came back (7.5% of the examples)",
        "epoch 3: category 3 merged into 2 (their images overlap by 70%)",
    ]
    # Nor does one part from a host that died.
    world.look([*APART[:2], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert said() == ["epoch 4: category 2 died (0.0% of the examples)"]


def test_mergers_are_not_judged_while_nothing_trains_the_decoder(said: Said) -> None:
    world = World(lent(0.17))
    world.look(decoding=False)
    assert said() == []
    assert "categories/merged" not in world.last()
    world.look()
    assert said() == ["epoch 2: category 3 merged into 2 (their images overlap by 83%)"]
    # Deaths are: q(c|x) learns from the views too.
    world.look(kept(0.0), decoding=False)
    assert said() == ["epoch 3: category 3 died (0.0% of the examples)"]


def test_an_untrained_run_is_one_category_until_most_are_apart(said: Said) -> None:
    one = [[0.25] * 4] * 4
    world = World(one, epochs=100)
    world.look()
    assert said() == []
    assert world.last()["categories/merged"] == 3
    # Two of four are not most.
    world.look([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    assert said() == []
    world.look(lent(0.17))
    assert said() == ["epoch 3: category 3 merged into 2 (their images overlap by 83%)"]
    world.look(one)
    merged = "categories 1, 2, 3 merged into 0 (their images overlap by 100%)"
    assert said() == [f"epoch 4: {merged}"]


def test_categories_that_never_part_are_told_at_half_time(said: Said) -> None:
    world = World([[0.25] * 4] * 4, epochs=4)
    lines = []
    for _ in range(4):
        world.look()
        lines.append(said())
    merged = "categories 1, 2, 3 merged into 0 (their images overlap by 100%)"
    assert lines == [[], [], [f"epoch 3: {merged}"], []]


def test_a_plain_vae_has_one_category_in_use(said: Said) -> None:
    world = World([[1.0]])
    world.look()
    assert said() == []
    assert world.last()["categories/used"] == 1


@pytest.mark.parametrize(("categories", "draws"), [(10, 50), (120, 41), (1300, 5)])
def test_a_look_is_bounded(categories: int, draws: int) -> None:
    per = 2500 // categories + 1
    world = World(torch.eye(categories), examples=[per] * categories)
    world.look()
    read = world.guide.read
    assert max(map(len, read)) <= CHUNK
    assert sum(map(len, read)) == EXAMPLES + draws * categories
    # Examples from the whole split, the draws of each category beside one another.
    seen = torch.cat(read)
    assert seen[:EXAMPLES].sum(0).count_nonzero() > 0.9 * categories
    drawn = seen[EXAMPLES:].argmax(-1)
    assert torch.equal(drawn, torch.arange(categories).repeat_interleave(draws))


@pytest.mark.usefixtures("alone")
def test_a_broken_category_does_not_stop_training(said: Said) -> None:
    # As a run is.
    set_validation(False)
    world = World()
    world.look([[math.nan] * 4] * 4)
    assert said() == []


def test_images_are_drawn_not_averaged() -> None:
    world = World(torch.eye(60))
    world.model.decoder.raw = lambda z: torch.zeros(*z.shape[:-1], 60, 1)
    world.look()
    assert set(torch.cat(world.guide.read).unique().tolist()) == {0, 1}


# Beside the run.


def test_a_progress_bar_makes_room_for_a_line() -> None:
    both = io.StringIO()
    with redirect_stdout(both), redirect_stderr(both), tqdm(total=2):
        World(kept(0.0)).look()
    before, _ = both.getvalue().split("epoch 1: category 3 died (0.0% of the examples)\n")
    assert "0/2" in before
    assert before.endswith("\r")


def test_a_line_is_in_a_log_at_once() -> None:
    log = io.TextIOWrapper(io.BytesIO())
    with redirect_stdout(log):
        World(kept(0.0)).look()
    assert b"died" in log.buffer.getvalue()  # type: ignore[attr-defined]


def parts(norm: bool = True) -> tuple[CatVAE, Guide]:
    prior = priors.Orthogonal(3, 2, 3.0)
    model = CatVAE(prior, decoders.MLP(6, 64, likelihoods.Bernoulli(), [8]))
    encoder = partial(encoders.MLP, 64, [8], norm)
    return model, guides.SoftCode(encoder, 3, 6, 8, quirks=True)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("training", [(True, True), (False, True), (True, False)])
def test_a_look_leaves_everything_as_it_was(training: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    model, guide = parts()
    watch = Watch(model, guide, digits().train, "binary", 4)
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in (model, guide)]
    boards = []
    for seed in (1, 2):
        model.train(training[0]), guide.train(training[1])
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        boards.append(Board())
        watch.look(1, True, boards[-1])  # type: ignore[arg-type]
        assert torch.equal(torch.get_rng_state(), state)
        for part, mode in zip((model, guide), training, strict=True):
            assert {module.training for module in part.modules()} == {mode}
        assert torch.is_grad_enabled()
    for part, values in zip((model, guide), before, strict=True):
        for name, value in part.state_dict().items():
            assert torch.equal(value, values[name]), name
    # The guide drops features by chance, by the same chance at every look.
    assert boards[0].scalars == boards[1].scalars


def test_making_a_watch_draws_nothing_of_the_run() -> None:
    model, guide = parts()
    state = torch.get_rng_state()
    Watch(model, guide, digits().train, "binary", 4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_a_look_leaves_the_random_numbers_of_a_gpu() -> None:
    model, guide = (part.to("cuda") for part in parts())
    watch = Watch(model, guide, digits().train.to(torch.device("cuda")), "binary", 4)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    watch.look(1, True, Board())  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])


# In a run.


def settings(*flags: str, **changes: Any) -> Settings:
    return replace(parse([*SMALL, *flags])[0], **changes)


def kill(guide: Guide) -> None:
    """Category 3, for good: nothing reaches its weights any more."""
    assert isinstance(guide, guides.Enumerated)
    with torch.no_grad():
        guide.classifier.bias[3] = -1e9


def fit(
    chosen: Settings, folder: str = "out", before: Callable[[Guide], None] = lambda _: None
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The history without its times, and what was learned."""
    torch.manual_seed(0)
    model, guide, view = build.build(chosen, torch.device("cpu"))
    before(guide)
    record = Record(Path(folder))
    record.create(chosen)
    history = train(chosen, digits(), model, guide, view, record)
    return [row | {"seconds": 0} for row in history], model.state_dict() | guide.state_dict()


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard has of the categories: (epoch, value)."""
    events = EventAccumulator(folder)
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name.startswith("categories/")
    }


@pytest.mark.usefixtures("alone")
def test_a_run_says_that_a_category_died(said: Said) -> None:
    history, _ = fit(settings(epochs=3), before=kill)
    lines = said()
    assert lines[0] == "epoch 1: category 3 died (0.0% of the examples)"
    assert not any("died" in line or "came back" in line for line in lines[1:])
    found = scalars("out")
    assert set(found) == {"categories/used", "categories/least_share", "categories/merged"}
    assert found["categories/used"] == [(1, 9), (2, 9), (3, 9)]
    assert found["categories/least_share"] == [(1, 0), (2, 0), (3, 0)]
    # Not in the history, whose every entry is a named term.
    assert not any("categories" in name for name in history[0])


@pytest.mark.usefixtures("alone")
def test_a_run_judges_mergers_where_reconstruction_has_weight() -> None:
    fit(settings(epochs=4, schedules={"reconstruction": [[1, 0], [2, 1]]}))
    found = scalars("out")
    assert [epoch for epoch, _ in found["categories/merged"]] == [3, 4]
    assert [epoch for epoch, _ in found["categories/used"]] == [1, 2, 3, 4]


@pytest.mark.usefixtures("alone")
def test_a_resumed_run_says_again_what_is_dead(said: Said) -> None:
    chosen = settings(epochs=1)
    fit(chosen, before=kill)
    said()
    model, guide, view = build.build(chosen, torch.device("cpu"))
    record = Record(Path("out"))
    train(replace(chosen, epochs=2), digits(), model, guide, view, record, record.checkpoint())
    assert said()[0] == "epoch 2: category 3 died (0.0% of the examples)"


@pytest.mark.usefixtures("alone")
def test_only_the_first_process_says_so(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(epochs=1)
    monkeypatch.setenv("RANK", "1")
    fit(chosen, before=kill)
    assert said() == []


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--encoder.norm", "true", "--likelihood", "models.likelihoods.Bernoulli"],
        ["--patience", "9", "--decoded", "2"],
    ],
    ids=["default", "batch norm, binary", "validation, drawn"],
)
def test_a_run_is_the_same_to_the_bit_without_its_watch(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = fit(settings(*flags, epochs=3), "watched")
    monkeypatch.setattr("pyro_infocat.train.Watch", lambda *_: Unwatched())
    alone = fit(settings(*flags, epochs=3), "alone")
    assert scalars("watched")
    assert not scalars("alone")
    assert watched[0] == alone[0]
    for name, value in watched[1].items():
        assert torch.equal(value, alone[1][name]), name


@pytest.mark.usefixtures("alone")
def test_the_validation_share_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Split] = []

    def watch(model: CatVAE, guide: Guide, split: Split, *_: Any) -> "Unwatched":
        looked_at.append(split)
        return Unwatched()

    monkeypatch.setattr("pyro_infocat.train.Watch", watch)
    chosen = settings(epochs=1, patience=9)
    fit(chosen)
    fitted, _ = validation_split(digits().train, chosen)
    assert torch.equal(looked_at[0].pixels, fitted.pixels)


class Unwatched:
    def look(self, *_: Any) -> None:
        pass
