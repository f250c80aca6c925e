"""The numbers behind each figure, of a decoder that shows z itself. Nothing is written.

Shapes: R rows and C columns of a figure, D latent dimensions = X features.
"""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides.guide import Guide, Posterior
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Plot, Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.dataset import Split
from pyro_infocat.evaluation import figures
from pyro_infocat.evaluation.figures import Rows

K, D = 3, 6
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 2]


class Shows(decoders.Decoder):
    """The image is z."""

    def __init__(self) -> None:
        super().__init__(likelihoods.Gaussian())

    def raw(self, z: Tensor) -> Tensor:
        raise AssertionError

    def forward(self, z: Tensor) -> dist.Distribution:
        return dist.Normal(z, 0.1).to_event(1)


class ByLabel(Guide):
    """Puts an example into the category that its first pixel says."""

    def posterior(self, x: Tensor) -> Posterior:
        c = (x[:, 0] * (K - 1)).round().long()
        logits = 50 * torch.nn.functional.one_hot(c, K).to(x.dtype)
        return Posterior(dist.Categorical(logits=logits), lambda c: dist.Normal(x, 0.1).to_event(1))


@pytest.fixture
def data() -> DataSet:
    """Of label l, images whose first pixel is l and whose others are random."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(LABELS)
    pixels = torch.randint(3, (len(labels), D), dtype=torch.uint8, generator=generator)
    pixels[:, 0] = labels
    split = Split(pixels, labels, 3)
    return DataSet(Facts("mine", (2, 3), 3, ("one", "two", "three")), split, split)


@pytest.fixture
def tested(data: DataSet) -> Tested:
    prior = priors.Orthogonal(K, D // K, 3.0)
    return Tested(CatVAE(prior, Shows()), ByLabel(K), data, "grey", [])


@pytest.fixture
def rows(tested: Tested) -> Rows:
    return Rows.of(tested.category, K, tested.data)


def test_a_walk_goes_from_each_centre_to_that_of_the_row_below(
    tested: Tested, rows: Rows, shown: list[Tensor]
) -> None:
    figure = figures.interpolation(tested.model, rows, (2, 3))
    modes = tested.model.prior.all_components().mean
    (images,) = shown
    assert rows.shown == [0, 1, 2]
    for row in range(K):
        for step, share in enumerate(torch.linspace(0, 1, 11)):
            wanted = (1 - share) * modes[row] + share * modes[(row + 1) % K]
            torch.testing.assert_close(images[row, step], wanted)
    (axes,) = figure.axes
    (end,) = axes.child_axes
    said = ["category 0: one", "category 1: two", "category 2: three"]
    assert [label.get_text() for label in axes.get_yticklabels()] == said
    assert [label.get_text() for label in end.get_yticklabels()] == [said[1], said[2], said[0]]


def test_the_walk_out_of_the_origin_is_twice_as_long_as_the_mode(
    tested: Tested, rows: Rows, shown: list[Tensor]
) -> None:
    figures.subspace_walk(tested.model, rows, (2, 3))
    modes = tested.model.prior.all_components().mean
    (images,) = shown
    torch.testing.assert_close(images[:, 0], torch.zeros(K, D))
    torch.testing.assert_close(images[:, 5], modes)
    torch.testing.assert_close(images[:, 10], 2 * modes)


def test_samples_are_drawn_about_their_categorys_mode(
    tested: Tested, rows: Rows, shown: list[Tensor]
) -> None:
    figures.conditional_samples(tested.model, rows, (2, 3))
    (images,) = shown
    assert images.shape == (K, figures.SAMPLES, D)
    nearest = torch.cdist(images.flatten(0, 1), tested.model.prior.all_components().mean).argmin(-1)
    # Modes lie 3 from the origin, 4.2 apart: of 30 draws one of a standard normal errs at times.
    assert (nearest.view(K, -1) == torch.arange(K).unsqueeze(-1)).float().mean() > 0.8


@pytest.mark.parametrize("labelled", [True, False])
def test_a_reconstruction_stands_below_its_own_image(
    labelled: bool, data: DataSet, shown: list[Tensor]
) -> None:
    if not labelled:
        data = replace(data, facts=replace(data.facts, classes=()))
    z = torch.rand(len(LABELS), D)
    model = CatVAE(priors.Orthogonal(K, D // K), Shows())
    figures.reconstructions(model, data, z)
    (images,) = shown
    grey = data.test.grey()
    if labelled:
        # The first three of a label; of label 1 there are two.
        assert images.shape == (2 * 3, 3, D)
        for column, index in enumerate(([0, 1, 2], [4, 5], [6, 7, 8])):
            torch.testing.assert_close(images[0::2, column][: len(index)], grey[index])
            torch.testing.assert_close(images[1::2, column][: len(index)], z[index])
        assert not images[4:, 1].any()
    else:
        torch.testing.assert_close(images[0, : len(LABELS)], grey)
        torch.testing.assert_close(images[1, : len(LABELS)], z)


def test_purity_is_the_share_of_each_categorys_majority(data: DataSet) -> None:
    # Of categories 0, 1 and 2: 4 + 2, 0 and 3 examples, of which 4, 0 and 3 have one label.
    category = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 2])
    figure = figures.confusion(Rows.of(category, K, data))
    (axes,) = figure.axes
    assert "purity 77.8%" in axes.get_title(loc="left") + axes.get_title()
    written = {(text.get_position(), text.get_text()) for text in axes.texts}
    # At (label, row): the row of category 0, then that of 2; 1 is empty.
    assert written == {((0, 0), "4"), ((1, 0), "2"), ((2, 1), "3")}


def test_the_latent_plane_is_that_of_the_two_main_axes(tested: Tested, rows: Rows) -> None:
    spread = torch.tensor([0.1, 0.2, 5.0, 0.3, 2.0, 0.1])
    z = torch.randn(len(LABELS), D, generator=torch.Generator().manual_seed(1)) * spread
    figure = figures.latent(tested.model, rows, torch.tensor(LABELS), z)
    axes = figure.axes[0]
    centred = (z - z.mean(0)).double().numpy()
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    power = singular**2 / (singular**2).sum()
    assert axes.get_xlabel() == f"first principal axis ({power[0]:.0%} of the variance)"
    assert axes.get_ylabel() == f"second ({power[1]:.0%})"
    dots = np.concatenate([np.asarray(one.get_offsets()) for one in axes.collections])
    wanted = centred[np.argsort(LABELS, kind="stable")] @ directions[:2].T
    # An axis has no direction of its own.
    np.testing.assert_allclose(np.abs(dots), np.abs(wanted), atol=1e-5)


# All of them.


class OfLabels(Plot):
    name, needs_labels = "mine", True

    def __call__(self, tested: Tested) -> NoReturn:
        raise AssertionError("it was asked for")


class Whichever(Plot):
    name = "whichever"

    def __call__(self, tested: Tested) -> Figure:
        return Figure()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that would have been written."""
    made: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: made.append(self))
    return made


def test_the_same_model_has_the_same_figures_whatever_the_seed(
    tested: Tested, shown: list[Tensor], saved: list[Figure], tmp_path: Path
) -> None:
    for seed in (0, 5):
        torch.manual_seed(seed)
        figures.draw(replace(tested, seed=seed), tmp_path)
    half = len(shown) // 2
    assert half == 6
    for one, other in zip(shown[:half], shown[half:], strict=True):
        assert torch.equal(one, other)


def test_a_figure_that_needs_labels_is_left_out_without(
    tested: Tested, saved: list[Figure], tmp_path: Path
) -> None:
    facts, zeros = replace(tested.data.facts, classes=()), torch.zeros(len(LABELS)).long()
    split = replace(tested.data.test, labels=zeros, labelled=False)
    data = DataSet(facts, split, split)
    figures.draw(replace(tested, data=data), tmp_path, [OfLabels(), Whichever()])
    # Eight of every run's, and one that needs no labels.
    assert len(saved) == 9
