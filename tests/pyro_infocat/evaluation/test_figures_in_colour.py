"""Figures of images in colour show them as they are: RGB, on white."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import guides
from guides import encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation.figures import GUTTER, LOWEST, draw, reconstructions

PICTURES = ("conditional_samples", "interpolation", "subspace_walk", "reconstructions", "style")
SHAPE = (3, 30, 40)


class Red(decoders.Decoder):
    """Every z is a red image."""

    def raw(self, z: Tensor) -> Tensor:
        red = torch.full(SHAPE, -50.0)
        red[0] = 50.0
        return red.flatten().expand(*z.shape[:-1], -1).unsqueeze(-1)


@pytest.fixture
def data() -> DataSet:
    """20 images of one class, whose left half is green and whose right half is blue."""
    pixels = torch.zeros(20, *SHAPE, dtype=torch.uint8)
    pixels[:, 1, :, :20] = 255
    pixels[:, 2, :, 20:] = 255
    split = Split(pixels.flatten(1), torch.zeros(20, dtype=torch.int64), 256)
    return DataSet(Facts("colour", SHAPE, 256, ("only",)), split, split)


@pytest.fixture
def tested(data: DataSet) -> Tested:
    prior = priors.Orthogonal(3, 1)
    encoder = partial(encoders.MLP, data.facts.features, [4])
    guide = guides.Enumerated(encoder, 3, prior.latent, 4)
    history = [{"epoch": 1.0, "elbo": -30.0}]
    return Tested(CatVAE(prior, Red(likelihoods.Gaussian())), guide, data, "grey", history)


def test_images_stand_over_their_reconstructions_in_their_colours(
    data: DataSet, tested: Tested
) -> None:
    figure = reconstructions(tested.model, data, torch.zeros(20, 3))
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    # Twice as large, which is what fits into a cell; a column, and three pairs of rows.
    assert LOWEST <= 30
    row = np.zeros((60, 80, 3))
    row[:, :40, 1] = 1
    row[:, 40:, 2] = 1
    reconstruction = np.zeros((60, 80, 3))
    reconstruction[..., 0] = 1
    white = np.ones((GUTTER, 80, 3))
    expected = np.concatenate([row, white, reconstruction, white] * 3)[:-GUTTER]
    np.testing.assert_allclose(shown, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "rotation"), [("car", 0), ("T-shirt or top", 0), ("dragonfly", 45)]
)
def test_names_wider_than_their_columns_stand_aslant(
    name: str, rotation: int, data: DataSet, tested: Tested
) -> None:
    named = replace(data, facts=replace(data.facts, classes=(name,)))
    figure = reconstructions(tested.model, named, torch.zeros(20, 3))
    assert [label.get_rotation() for label in figure.axes[0].get_xticklabels()] == [rotation]


@pytest.mark.slow
def test_all_pictures_are_drawn_in_colour(tested: Tested, tmp_path: Path) -> None:
    draw(tested, tmp_path)
    for name in PICTURES:
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        red = (pixels == (255, 0, 0)).all(1).mean()
        assert red > 0.04, name
        assert (pixels == 255).all(1).mean() > 0.05, name
