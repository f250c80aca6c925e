"""The monitor says what becomes of the categories, and leaves no trace in the run."""

import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

import guides
from guides import encoders
from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.training.monitor import CHUNK, EXAMPLES, CollapseMonitor

APART = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


class OnePixel(decoders.Decoder):
    """Category c sets one of X pixels, for certain."""

    def __init__(self, lit: Sequence[int]) -> None:
        super().__init__(likelihoods.Bernoulli())
        self.lit = torch.tensor(lit)

    def raw(self, z: Tensor) -> Tensor:
        # The modes are so high that the draw never leaves its category's axis.
        one = nn.functional.one_hot(self.lit.to(z.device)[z.argmax(-1)], len(self.lit))
        return (1e4 * (2 * one - 1)).to(z.dtype).unsqueeze(-1)


class Table(Guide):
    """q(c|x) from a table: a row for each pixel, a column for each category."""

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


class Monitored:
    """A monitor of categories whose every share and mistake is given.

    :param lit: the pixel that each category sets.
    :param examples: how many show each pixel.
    """

    def __init__(
        self,
        table: Sequence[Sequence[float]] | Tensor = APART,
        lit: Sequence[int] | None = None,
        examples: Sequence[int] | None = None,
        epochs: int = 2,
        **prior: Any,
    ) -> None:
        self.guide = Table(table)
        categories = self.guide.categories
        self.model = CatVAE(
            priors.Orthogonal(categories, 1, 100.0, **prior),
            OnePixel(range(categories) if lit is None else lit),
        )
        counts = torch.tensor(examples or [50] * categories)
        pixels = torch.eye(categories, dtype=torch.uint8).repeat_interleave(counts, 0)
        split = Split(pixels, torch.full((len(pixels),), -1), 2)
        self.monitor = CollapseMonitor(self.model, self.guide, split, "binary", epochs)
        self.board, self.epoch = Board(), 0

    def look(self, table: Sequence[Sequence[float]] | None = None, decoding: bool = True) -> None:
        """At the end of the next epoch."""
        if table is not None:
            self.guide.table = torch.tensor(table, dtype=torch.float32)
        self.epoch += 1
        self.monitor.look(self.epoch, decoding, self.board)  # type: ignore[arg-type]

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
    """Category 3 keeps so much of its pixel; the others have the rest in equal parts."""
    return [*APART[:3], [(1 - own) / 3] * 3 + [own]]  # type: ignore[list-item]


def lent(own: float) -> list[list[float]]:
    """Category 3 keeps so much of its pixel; category 2 has the rest."""
    return [*APART[:3], [0, 0, 1 - own, own]]  # type: ignore[list-item]


def test_of_healthy_categories_nothing_is_said(said: Said) -> None:
    monitored = Monitored()
    for _ in range(3):
        monitored.look()
        assert said() == []
        assert monitored.last() == {
            "categories/used": 4,
            "categories/least_share": 0.25,
            "categories/merged": 0,
        }


def test_a_category_dies_once_and_comes_back(said: Said) -> None:
    monitored = Monitored()
    lines = []
    # A tenth of the prior's share is 2.5% of the examples, twice that brings it back.
    for own in (0.11, 0.08, 0.01, 0.12, 0.19, 0.4, 0.11):
        monitored.look(kept(own))
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
    assert list(monitored.board.scalars["categories/used"].values()) == [4, 3, 3, 3, 3, 4, 4]
    least = list(monitored.board.scalars["categories/least_share"].values())
    assert least == pytest.approx([0.0275, 0.02, 0.0025, 0.03, 0.0475, 0.1, 0.0275])


@pytest.mark.parametrize(
    ("first", "second", "numbers"), [(0.04, 0.08, "1.0% to 2.0%"), (0.08, 0.08, "2.0%")]
)
def test_several_share_a_line(said: Said, first: float, second: float, numbers: str) -> None:
    monitored = Monitored()
    away = [(1 - first) / 2, (1 - first) / 2, first, 0], [(1 - second) / 2] * 2 + [0, second]
    monitored.look([*APART[:2], *away])
    assert said() == [f"epoch 1: categories 2, 3 died ({numbers} of the examples)"]


def test_death_is_below_a_tenth_of_what_the_prior_gave_at_first(said: Said) -> None:
    examples = [6, 2, 46, 46]
    monitored = Monitored(examples=examples, weights=[0.7, 0.1, 0.1, 0.1], learn_weights=True)
    with torch.no_grad():
        monitored.model.prior.logits.copy_(torch.tensor([0.06, 0.02, 0.46, 0.46]).log())
    monitored.look()
    assert said() == ["epoch 1: category 0 died (6.0% of the examples)"]


def test_a_category_merges_and_parts(said: Said) -> None:
    monitored = Monitored()
    lines = []
    for own in (1.0, 0.6, 0.17, 0.6, 0.7, 0.8, 0.7):
        monitored.look(lent(own))
        lines.append(said())
    assert lines == [
        [],
        [],
        ["epoch 3: category 3 merged into 2 (what they generate overlaps by 83%)"],
        [],
        [],
        ["epoch 6: category 3 parted from 2"],
        [],
    ]
    assert list(monitored.board.scalars["categories/merged"].values()) == [0, 0, 1, 1, 1, 0, 0]
    assert set(monitored.board.scalars["categories/used"].values()) == {4}


def test_the_fuller_one_takes_the_other_in_and_keeps_it(said: Said) -> None:
    monitored = Monitored()
    monitored.look([*APART[:2], [0, 0, 0.17, 0.83], [0, 0, 0, 1]])
    assert said() == ["epoch 1: category 2 merged into 3 (what they generate overlaps by 83%)"]
    monitored.look([*APART[:2], [0, 0, 1, 0], [0, 0, 0.83, 0.17]])
    assert said() == []


def test_categories_between_which_images_are_divided_are_one(said: Said) -> None:
    """Nothing is taken for another by more than half, and both shares are whole."""
    monitored = Monitored()
    for share in (0.5, 0.45, 0.55, 0.3):
        monitored.look([*APART[:2], [0, 0, share, 1 - share], [0, 0, share, 1 - share]])
        assert monitored.last()["categories/merged"] == 1
    assert said() == ["epoch 1: category 3 merged into 2 (what they generate overlaps by 100%)"]


def test_what_a_category_generates_counts_not_the_examples(said: Said) -> None:
    monitored = Monitored(lit=[0, 1, 2, 2])
    monitored.look()
    assert said() == ["epoch 1: category 3 merged into 2 (what they generate overlaps by 100%)"]


def test_three_in_one_and_another_host(said: Said) -> None:
    monitored = Monitored()
    monitored.look()
    monitored.look([[1, 0, 0, 0], [0.8, 0.2, 0, 0], [0.6, 0, 0.4, 0], [0, 0, 0, 1]])
    overlap = "what they generate overlaps by 60% to 80%"
    assert said() == [f"epoch 2: categories 1, 2 merged into 0 ({overlap})"]
    monitored.look([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.1, 0.9], [0, 0, 0, 1]])
    assert said() == [
        "epoch 3: category 1 parted from 0",
        "epoch 3: category 2 merged into 3 (what they generate overlaps by 90%)",
    ]


def test_an_overlap_is_never_more_than_whole(said: Said) -> None:
    """Though by chance more images than not be taken for the wrong one of two."""
    monitored = Monitored([*APART[:2], [0, 0, 0.45, 0.55], [0, 0, 0.55, 0.45]])
    monitored.look()
    assert said() == ["epoch 1: category 3 merged into 2 (what they generate overlaps by 100%)"]


def test_two_that_nothing_is_taken_for_compare_with_others_only(said: Said) -> None:
    """Category 2's images are anything's, 3's are 0's; real ones are as they should be."""
    table = torch.eye(7)
    table[6] = torch.tensor([0.25, 0.25, 0, 0, 0.25, 0.25, 0])
    monitored = Monitored(table, lit=[0, 1, 6, 0, 4, 5, 6], examples=[40, 30, 90, 20, 30, 30, 1])
    monitored.look()
    assert said() == [
        "epoch 1: category 6 died (0.0% of the examples)",
        "epoch 1: category 3 merged into 0 (what they generate overlaps by 100%)",
    ]


def test_a_dead_category_is_no_longer_merged(said: Said) -> None:
    monitored = Monitored()
    monitored.look(lent(0.17))
    said()
    monitored.look(lent(0.04))
    assert said() == ["epoch 2: category 3 died (1.0% of the examples)"]
    assert monitored.last()["categories/merged"] == 0
    monitored.look(lent(0.3))
    assert said() == [
        "epoch 3: category 3 came back (7.5% of the examples)",
        "epoch 3: category 3 merged into 2 (what they generate overlaps by 70%)",
    ]
    # Nor does one part from a host that died.
    monitored.look([*APART[:2], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert said() == ["epoch 4: category 2 died (0.0% of the examples)"]


def test_mergers_are_not_judged_while_nothing_trains_the_decoder(said: Said) -> None:
    monitored = Monitored(lent(0.17))
    monitored.look(decoding=False)
    assert said() == []
    assert "categories/merged" not in monitored.last()
    monitored.look()
    assert said() == ["epoch 2: category 3 merged into 2 (what they generate overlaps by 83%)"]
    # Deaths are: q(c|x) learns from the views too.
    monitored.look(kept(0.0), decoding=False)
    assert said() == ["epoch 3: category 3 died (0.0% of the examples)"]


def test_an_untrained_run_is_one_category_until_most_are_apart(said: Said) -> None:
    one = [[0.25] * 4] * 4
    monitored = Monitored(one, epochs=100)
    monitored.look()
    assert said() == []
    assert monitored.last()["categories/merged"] == 3
    # Two of four are not most.
    monitored.look([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    assert said() == []
    monitored.look(lent(0.17))
    assert said() == ["epoch 3: category 3 merged into 2 (what they generate overlaps by 83%)"]
    monitored.look(one)
    merged = "categories 1, 2, 3 merged into 0 (what they generate overlaps by 100%)"
    assert said() == [f"epoch 4: {merged}"]


def test_categories_that_never_part_are_told_at_half_time(said: Said) -> None:
    monitored = Monitored([[0.25] * 4] * 4, epochs=4)
    lines = []
    for _ in range(4):
        monitored.look()
        lines.append(said())
    merged = "categories 1, 2, 3 merged into 0 (what they generate overlaps by 100%)"
    assert lines == [[], [], [f"epoch 3: {merged}"], []]


def test_a_plain_vae_has_one_category_in_use(said: Said) -> None:
    monitored = Monitored([[1.0]])
    monitored.look()
    assert said() == []
    assert monitored.last()["categories/used"] == 1


@pytest.mark.parametrize(
    ("categories", "draws"),
    [(10, 50), (120, 41), pytest.param(1300, 5, marks=pytest.mark.slow)],
)
def test_a_look_is_bounded(categories: int, draws: int) -> None:
    per = 2500 // categories + 1
    monitored = Monitored(torch.eye(categories), examples=[per] * categories)
    monitored.look()
    read = monitored.guide.read
    assert max(map(len, read)) <= CHUNK
    assert sum(map(len, read)) == EXAMPLES + draws * categories
    # Examples from the whole split, the draws of each category beside one another.
    shown = torch.cat(read)
    assert shown[:EXAMPLES].sum(0).count_nonzero() > 0.9 * categories
    drawn = shown[EXAMPLES:].argmax(-1)
    assert torch.equal(drawn, torch.arange(categories).repeat_interleave(draws))


@pytest.mark.usefixtures("alone")
def test_a_broken_category_does_not_stop_training(said: Said) -> None:
    monitored = Monitored()
    # As in a run.
    with pyro.validation_enabled(False):
        monitored.look([[math.nan] * 4] * 4)
    assert said() == []


def test_images_are_drawn_not_averaged() -> None:
    monitored = Monitored(torch.eye(60))
    monitored.model.decoder.raw = lambda z: torch.zeros(*z.shape[:-1], 60, 1)
    monitored.look()
    assert set(torch.cat(monitored.guide.read).unique().tolist()) == {0, 1}


# Beside the run.


def test_a_progress_bar_makes_room_for_a_line() -> None:
    both = io.StringIO()
    with redirect_stdout(both), redirect_stderr(both), tqdm(total=2):
        Monitored(kept(0.0)).look()
    before, _ = both.getvalue().split("epoch 1: category 3 died (0.0% of the examples)\n")
    assert "0/2" in before
    assert before.endswith("\r")


def test_a_line_is_in_a_log_at_once() -> None:
    log = io.TextIOWrapper(io.BytesIO())
    with redirect_stdout(log):
        Monitored(kept(0.0)).look()
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
    monitor = CollapseMonitor(model, guide, digits().train, "binary", 4)
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in (model, guide)]
    boards = []
    for seed in (1, 2):
        model.train(training[0]), guide.train(training[1])
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        boards.append(Board())
        monitor.look(1, True, boards[-1])  # type: ignore[arg-type]
        assert torch.equal(torch.get_rng_state(), state)
        for part, mode in zip((model, guide), training, strict=True):
            assert {module.training for module in part.modules()} == {mode}
        assert torch.is_grad_enabled()
    for part, values in zip((model, guide), before, strict=True):
        for name, value in part.state_dict().items():
            assert torch.equal(value, values[name]), name
    # The guide drops features by chance, by the same chance at every look.
    assert boards[0].scalars == boards[1].scalars


def test_making_a_monitor_draws_nothing_of_the_run() -> None:
    model, guide = parts()
    state = torch.get_rng_state()
    CollapseMonitor(model, guide, digits().train, "binary", 4)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
def test_a_look_leaves_the_random_numbers_of_a_gpu() -> None:
    model, guide = (part.to("cuda") for part in parts())
    monitor = CollapseMonitor(model, guide, digits().train.to(torch.device("cuda")), "binary", 4)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    monitor.look(1, True, Board())  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])
