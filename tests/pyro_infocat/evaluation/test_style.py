"""How category and style part, of programs of which it is known.

Shapes: K categories, D latent dimensions = X features, N examples.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.dataset import Split
from pyro_infocat.evaluation import figures
from pyro_infocat.evaluation.figures import Rows
from pyro_infocat.evaluation.style import (
    DRAWN,
    Style,
    block_walk,
    blocks,
    exchanged,
    kept,
    leak,
    own_block_variance,
)

K, D = 3, 6


class Shows(decoders.Decoder):
    """The image is a function of z: z itself when not given."""

    def __init__(self, of: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__(likelihoods.Gaussian())
        self.of, self.seen = of, []

    def raw(self, z: Tensor) -> Tensor:
        raise AssertionError

    def forward(self, z: Tensor) -> dist.Distribution:
        self.seen.append(z)
        return dist.Normal(self.of(z), 0.1).to_event(1)


class Reads(Guide):
    """z is x; the category is that of the nearest mode."""

    def __init__(self, prior: priors.Prior) -> None:
        super().__init__(prior.categories)
        self.of, self.asked = [prior], []

    def posterior(self, x: Tensor) -> Posterior:
        def latent(c: Tensor) -> dist.Distribution:
            self.asked.append(c)
            return dist.Normal(x, 0.1).to_event(1)

        return Posterior(dist.Categorical(logits=self.of[0].responsibilities(x)), latent)


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def examined(prior: priors.Prior, x: Tensor, decoder: decoders.Decoder | None = None) -> Tested:
    split = Split.of_real_numbers(x)
    data = DataSet(Facts("mine", (x.shape[1],), 0, ()), split, split)
    return Tested(CatVAE(prior, decoder or Shows()), Reads(prior), data, "grey", [])


# What a classifier reads off the style.


def test_a_style_that_knows_nothing_of_the_category_leaks_by_chance() -> None:
    """Standard error of a share of 4,000 is 0.8%: five of them are allowed."""
    category = torch.randint(4, (4000,))
    assert leak(torch.randn(4000, D), category, 4) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("apart", [1.0, 2.0, 6.0])
def test_two_shifted_normals_are_told_apart_as_theory_has_it(apart: float) -> None:
    category = torch.randint(2, (4000,))
    # Coordinates of other sizes, which depend on each other: the distance is that of Mahalanobis.
    e = torch.randn(4000, 3)
    e[:, 0] += apart * category
    e = e @ torch.tensor([[10.0, 0, 3], [0, 0.1, 0], [1, 0, 1]])
    expected = (1 + math.erf(apart / 2 / math.sqrt(2))) / 2
    assert leak(e, category, 2) == pytest.approx(expected, abs=0.03)


def test_labels_that_each_example_has_alone_cannot_be_read_off() -> None:
    """A classifier of its own training examples would know most of them."""
    e, category = torch.randn(100, 60), torch.randint(5, (100,))
    assert leak(e, category, 5) < 0.45
    # Nor is one that no other example has.
    assert leak(torch.randn(4, 2), torch.arange(4), 9) == 0


def test_styles_that_never_change_leave_the_largest_category() -> None:
    category = torch.tensor([0] * 30 + [1] * 70)
    assert leak(torch.zeros(100, D), category, 3) == pytest.approx(0.7)


def test_examples_in_the_order_of_their_categories_are_no_different() -> None:
    e = torch.randn(500, 2)
    category = torch.arange(500) % 5
    e[:, 0] += 100 * category
    assert leak(e, category, 5) == 1


# Blocks.


def test_the_share_of_the_own_block_by_counting() -> None:
    z, category = torch.randn(50, D) * torch.arange(1.0, D + 1), torch.randint(2, (50,))
    own = blocks(priors.Orthogonal(K, 2))
    assert own is not None
    assert own.tolist() == [[0, 1], [2, 3], [4, 5]]
    shares = []
    for c in range(2):
        variance = np.var(z[category == c].double().numpy(), axis=0)
        shares.append(variance[2 * c : 2 * c + 2].sum() / variance.sum())
    found = own_block_variance(z, category, own)
    assert found == pytest.approx(np.mean(shares))
    # Its modes say so too.
    prior = priors.Orthogonal(K, 2)
    for c in range(K):
        assert prior.modes[c].nonzero().flatten().tolist() == own[c].tolist()


def test_without_two_examples_of_a_category_there_is_no_variance() -> None:
    own = blocks(priors.Orthogonal(K, 2))
    assert own is not None
    assert own_block_variance(torch.randn(3, D), torch.arange(3), own) is None
    assert own_block_variance(torch.ones(4, D), torch.zeros(4).long(), own) is None
    # Two are enough: they differ by 2 in the block and by 1 beside it.
    two = torch.tensor([[2.0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    assert own_block_variance(two, torch.zeros(2).long(), own) == pytest.approx(4 / 5)


def test_other_priors_have_no_blocks() -> None:
    for prior in (priors.Mixture(K, D), priors.Simplex(K, D)):
        assert blocks(prior) is None
        assert block_walk(CatVAE(prior, Shows()), torch.arange(K)) is None
        found = Style()(examined(prior, torch.randn(30, D)))
        assert found.keys() == {"style_leak", "style_leak_chance", "style_kept"}
    assert block_walk(CatVAE(priors.Orthogonal(D, 1), Shows()), torch.arange(D)) is None


def test_one_category_has_no_style_beside_it() -> None:
    assert Style()(examined(priors.Gaussian(D), torch.randn(30, D))) == {}


# What is kept.


def test_a_style_that_is_drawn_and_read_as_it_is_is_kept() -> None:
    prior = priors.Orthogonal(K, 2)
    assert kept(CatVAE(prior, Shows()), Reads(prior)) == pytest.approx(1)


def test_the_share_of_coordinates_that_the_image_shows() -> None:
    """3 of 6 are shown as they are, 1 the other way round, and 2 not at all.

    What is read of the fourth is -e - 2 mu, where mu, 3 in one category of three, has a variance of
    2: a correlation of -1 / sqrt(1 + 8). By chance one is 3%, and the mean of two of them less.
    """
    prior = priors.Orthogonal(K, 2)
    sign = torch.tensor([1.0, 1, 1, -1, 0, 0])
    decoder = Shows(lambda z: z * sign)
    assert kept(CatVAE(prior, decoder), Reads(prior)) == pytest.approx((3 - 1 / 3) / 6, abs=0.05)
    nothing = Shows(lambda z: torch.zeros_like(z))
    # What is read, 0 less the mode of c', follows from c' alone.
    assert kept(CatVAE(prior, nothing), Reads(prior)) == pytest.approx(0, abs=0.05)


def test_it_is_moved_to_another_category_and_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, decoder = priors.Orthogonal(K, 2, 50.0), Shows()
    guide = Reads(prior)
    drawn: list[Tensor] = []
    component = prior.component

    def watched(c: Tensor) -> dist.Distribution:
        drawn.append(c)
        return component(c)

    monkeypatch.setattr(prior, "component", watched)
    kept(CatVAE(prior, decoder), guide, 64)
    (c,) = (one for one in drawn if len(one) == DRAWN)
    there = torch.cat(guide.asked)
    assert (c != there).all()
    assert set(zip(c.tolist(), there.tolist(), strict=True)) == {
        (a, b) for a in range(K) for b in range(K) if a != b
    }
    assert (prior.responsibilities(torch.cat(decoder.seen)).argmax(-1) == there).all()


def test_the_metric_is_of_these_parts() -> None:
    prior = priors.Orthogonal(K, 2, 20.0)
    c = torch.tensor([0] * 20 + [1] * 30 + [2] * 50)
    x = prior.component(c).sample()
    found = Style()(examined(prior, x))
    own = blocks(prior)
    assert own is not None
    assert found["style_leak"] == leak(x - prior.modes[c], c, K)
    assert found["style_leak_chance"] == 0.5
    assert found["own_block_variance"] == own_block_variance(x, c, own)
    assert found["style_kept"] == pytest.approx(1)


# Figures.


def test_each_row_is_an_example_and_its_style_in_every_category() -> None:
    prior = priors.Orthogonal(K, 2, 20.0)
    c = torch.arange(15) % K
    x = prior.component(c).sample()
    shown = torch.tensor([2, 0])
    index, images = exchanged(examined(prior, x), shown)
    assert index.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert images.shape == (8, 3, D)
    for row, example in enumerate(index.tolist()):
        torch.testing.assert_close(images[row, 0], x[example])
        e = x[example] - prior.modes[c[example]]
        for column, category in enumerate(shown.tolist(), 1):
            torch.testing.assert_close(images[row, column], prior.modes[category] + e)


def test_a_walk_moves_the_coordinates_of_the_own_block_alone() -> None:
    prior = priors.Orthogonal(K, 2, 3.0)
    shown = torch.tensor([2, 1])
    walk = block_walk(CatVAE(prior, Shows()), shown)
    assert walk is not None
    assert walk.shape == (2, 5, 5, D)
    for square, c in zip(walk, shown.tolist(), strict=True):
        for row in range(5):
            for column in range(5):
                wanted = prior.modes[c].clone()
                wanted[2 * c] += column - 2
                wanted[2 * c + 1] += 2 - row
                torch.testing.assert_close(square[row, column], wanted)


@pytest.mark.parametrize("shape", [(2, 3), (3, 1, 2)])
def test_squares_lie_in_bands_with_white_between(
    shape: tuple[int, ...], shown: list[Tensor]
) -> None:
    walk = torch.rand(7, 5, 5, D) / 2 + 0.25
    rows = Rows(np.ones((7, 1), np.int64), (), list(range(7)), [0])
    figure = figures.blocks(walk, rows, shape)
    (sheet,) = shown
    assert sheet.shape == (12, 29, D)
    covered = torch.zeros(12, 29, dtype=torch.bool)
    for number in range(7):
        top, left = 6 * (number // 5) + 1, 6 * (number % 5)
        here = slice(top, top + 5), slice(left, left + 5)
        assert torch.equal(sheet[here], walk[number])
        covered[here] = True
    # Of grey images 0 is white.
    assert (sheet[~covered] == (len(shape) == 3)).all()
    assert [text.get_text() for text in figure.axes[0].texts] == rows.labels
