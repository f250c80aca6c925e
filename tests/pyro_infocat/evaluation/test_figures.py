"""Figures are written whatever the number of categories, and depend on the model alone."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import guides
from guides import encoders
from guides.guide import Guide
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation.figures import MOST_ROWS, Rows, training
from pyro_infocat.evaluation.figures import draw as draw_all
from pyro_infocat.evaluation.part import History

NAMES = {
    "conditional_samples",
    "interpolation",
    "subspace_walk",
    "reconstructions",
    "style",
    "confusion",
    "latent",
    "training",
}
HISTORY = [{"epoch": 1.0, "elbo": -30.0, "kl_z": 2.0}, {"epoch": 2.0, "elbo": -25.0, "kl_z": 3.0}]


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


def untrained(data: DataSet, prior: priors.Prior, bayes: bool = False) -> tuple[CatVAE, Guide]:
    encoder = partial(encoders.MLP, data.facts.features, [8])
    decoder = decoders.MLP(prior.latent, data.facts.features, likelihoods.Gaussian(), [8])
    if bayes:
        return CatVAE(prior, decoder), guides.Bayes(encoder, prior, prior.latent)
    return CatVAE(prior, decoder), guides.Enumerated(encoder, prior.categories, prior.latent, 8)


def draw(model: CatVAE, guide: Guide, data: DataSet, history: History, out: Path) -> None:
    draw_all(Tested(model, guide, data, "grey", history), out)


def never(guide: Guide, category: int) -> None:
    """Make a category impossible."""
    classifier = guide.classifier
    assert isinstance(classifier, nn.Linear)
    with torch.no_grad():
        classifier.bias[category] = -1e9


@pytest.mark.parametrize(
    ("prior", "bayes"),
    [
        (partial(priors.Mixture, 3, 2), True),
        pytest.param(partial(priors.Gaussian, 4), False, marks=pytest.mark.slow),
        pytest.param(partial(priors.Orthogonal, 1, 1), True, marks=pytest.mark.slow),
        pytest.param(partial(priors.Orthogonal, 25, 1), False, marks=pytest.mark.slow),
    ],
    ids=["learned", "plain VAE", "one dimension", "more than are shown"],
)
def test_all_figures_are_images(
    data: DataSet, prior: Callable[[], priors.Prior], bayes: bool, tmp_path: Path
) -> None:
    model, guide = untrained(data, prior(), bayes)
    draw(model, guide, data, HISTORY, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{n}.png" for n in NAMES}
    for path in (tmp_path / "new").iterdir():
        with Image.open(path) as image:
            image.verify()
            assert image.format == "PNG"
            assert min(image.size) > 100


@pytest.mark.slow
def test_drawn_twice_the_bytes_are_the_same_and_randomness_is_untouched(
    data: DataSet, tmp_path: Path
) -> None:
    model, guide = untrained(data, priors.Orthogonal(2, 2))
    for folder in ("first", "second"):
        torch.manual_seed(len(folder))
        before = torch.get_rng_state()
        draw(model, guide, data, HISTORY, tmp_path / folder)
        assert torch.equal(torch.get_rng_state(), before)
    for name in NAMES:
        first, second = (tmp_path / folder / f"{name}.png" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_figures_are_of_evaluation_and_leave_no_trace(data: DataSet, tmp_path: Path) -> None:
    """Whatever mode the parts are in: batch normalisation shows what it remembers."""
    encoder = partial(encoders.MLP, data.facts.features, [8], norm=True)
    model, _ = untrained(data, priors.Orthogonal(2, 2))
    guide = guides.Enumerated(encoder, 2, model.prior.latent, 8)
    for mode in (True, False):
        model.train(mode), guide.train(mode)
        before = copy.deepcopy(guide.state_dict())
        draw(model, guide, data, HISTORY, tmp_path / str(mode))
        assert model.training == guide.training == mode
        for name, kept in before.items():
            assert torch.equal(guide.state_dict()[name], kept), name
    for name in NAMES:
        once, again = (tmp_path / str(mode) / f"{name}.png" for mode in (True, False))
        assert once.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_an_empty_category_is_drawn_last_and_called_unused(data: DataSet, tmp_path: Path) -> None:
    model, guide = untrained(data, priors.Orthogonal(3, 2))
    never(guide, 0)
    draw(model, guide, data, HISTORY, tmp_path)
    rows = Rows.of(Tested(model, guide, data, "grey", HISTORY).category, 3, data)
    assert rows.shown[-1] == 0
    assert rows.labels[-1] == "category 0: unused"


def test_rows_count_every_test_example_and_follow_the_majority_labels(data: DataSet) -> None:
    # Category c holds the digit 9 - c, and the digits 0 to 4 are moved together into category 9.
    category = torch.where(data.test.labels < 5, 9, 9 - data.test.labels)
    rows = Rows.of(category, 10, data)
    assert rows.counts.sum() == len(data.test)
    for label in range(5, 10):
        assert rows.counts[9 - label, label] == (data.test.labels == label).sum()
    majority = rows.counts[9].argmax()
    assert rows.labels[:2] == [f"category 9: {majority}", "category 4: 5"]
    assert rows.title("Text") == "Text"


@pytest.mark.slow
def test_no_image_is_taller_than_a_page_has_room_for(tmp_path: Path) -> None:
    tall = Split(torch.zeros(20, 120, dtype=torch.uint8), torch.zeros(20).long(), 256)
    data = DataSet(Facts("digits", (60, 2), 256, ()), tall, tall)
    model, guide = untrained(data, priors.Orthogonal(3, 2))
    draw(model, guide, data, HISTORY, tmp_path)
    with Image.open(tmp_path / "conditional_samples.png") as image:
        # Three rows of at most 336 dots, and what is written about them.
        assert image.height < 3 * 336 + 200


def test_only_the_fullest_categories_get_a_row(data: DataSet) -> None:
    category = torch.full_like(data.test.labels, 299)
    category[:50] = 123
    rows = Rows.of(category, 300, data)
    assert len(rows.shown) == MOST_ROWS
    assert {123, 299} == set(rows.shown[:2])
    assert f"{MOST_ROWS} fullest of 300" in rows.title("Text")


@pytest.mark.parametrize("length", [0, 1, 2])
def test_training_shows_the_terms_that_there_are(length: int) -> None:
    axes = training(HISTORY[:length]).axes
    titles = [panel.get_title().split("\n")[0] for panel in axes]
    assert titles == (["elbo", "kl_z"] if length else [])


def test_a_term_that_began_late_is_drawn_from_its_epoch_on() -> None:
    (panel,) = training([{"epoch": 1.0}, {"epoch": 2.0, "kl_c": 0.5}]).axes
    assert np.asarray(panel.lines[0].get_xdata()).tolist() == [2.0]
