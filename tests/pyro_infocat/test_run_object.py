"""What a finished run says of images: q(c|x) and categories."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_infocat as pic
from pyro_infocat import experiment
from pyro_infocat.data.readers import digits
from tests.brief import QUICK

pytestmark = pytest.mark.usefixtures("alone")

KINDS = {"grey": "models.likelihoods.Gaussian", "binary": "models.likelihoods.Bernoulli"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pic.Run]:
    """A run of each kind, of one epoch."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "evaluate", stop)
        for name, likelihood in KINDS.items():
            with pytest.raises(KeyboardInterrupt):
                pic.fit("digits", likelihood=likelihood, out=folder / name, **QUICK)
    return {name: pic.load(folder / name) for name in KINDS}


@pytest.fixture
def grey(runs: dict[str, pic.Run]) -> pic.Run:
    return runs["grey"]


X = digits().test.pixels.numpy()[:7].reshape(-1, 8, 8)
"""Bytes up to 16, the white of the run's own data."""


def test_probabilities_are_the_guides(grey: pic.Run) -> None:
    found = grey.probabilities(X)
    assert found.shape == (7, 10)
    assert found.dtype == np.float32
    with torch.no_grad():
        q = grey.guide.category(torch.from_numpy(X / 16).float().flatten(1)).probs
    np.testing.assert_allclose(found, q.numpy(), atol=1e-6)
    np.testing.assert_array_equal(grey.categorise(X), found.argmax(1))
    # Told apart from a row of equal numbers.
    assert found.std() > 0.01


FORMS: dict[str, Callable[[np.ndarray], object]] = {
    "levels": lambda x: x / 16,
    "float32": lambda x: (x / 16).astype(np.float32),
    "channel": lambda x: x[:, None],
    "rows": lambda x: x.reshape(-1, 64),
    "tensor": lambda x: torch.from_numpy(x),
    "tensor with gradients": lambda x: torch.tensor(x / 16, requires_grad=True),
    "lists": lambda x: (x / 16).tolist(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_images_of_any_form(form: Callable[[np.ndarray], object], grey: pic.Run) -> None:
    np.testing.assert_allclose(grey.probabilities(form(X)), grey.probabilities(X), atol=1e-6)


def test_many_images_go_in_parts(grey: pic.Run) -> None:
    many = np.concatenate([digits().train.pixels.numpy()[:1200].reshape(-1, 8, 8), X])
    found = grey.probabilities(many)
    assert found.shape == (1207, 10)
    np.testing.assert_allclose(found[-7:], grey.probabilities(X), atol=1e-6)
    assert grey.probabilities(X[:0]).shape == (0, 10)
    assert grey.categorise(X[:0]).shape == (0,)


def test_binarised_pixels_are_drawn_alike_each_time(runs: dict[str, pic.Run]) -> None:
    run = runs["binary"]
    half = np.full((1, 8, 8), 0.5)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(run.probabilities(half), run.probabilities(half))
    assert torch.equal(torch.get_rng_state(), before)
    # Otherwise than its grey levels would give.
    with torch.no_grad():
        unlike = run.guide.category(torch.full((1, 64), 0.5)).probs.numpy()
    assert np.abs(run.probabilities(half) - unlike).max() > 1e-4


def test_the_mode_of_the_networks_is_left_as_it_is(grey: pic.Run) -> None:
    """A run that is trained further, by Pyro's own tools, is in training mode."""
    expected = grey.probabilities(X)
    remembered = {name: value.clone() for name, value in grey.guide.state_dict().items()}
    grey.guide.train()
    np.testing.assert_array_equal(grey.probabilities(X), expected)
    assert grey.guide.training
    for name, value in grey.guide.state_dict().items():
        assert torch.equal(value, remembered[name]), name
    grey.guide.eval()


WRONG: dict[str, tuple[object, str]] = {
    "size": (np.zeros((2, 7, 8)), "the images have shape (2, 7, 8); the run needs (B, 8, 8)"),
    "one image": (X[0], "the images have shape (8, 8); the run needs (B, 8, 8)"),
    "colours": (np.zeros((2, 3, 8, 8)), "the images have shape (2, 3, 8, 8)"),
    "row": (np.zeros(64), "the images have shape (64,)"),
    "bright": (
        np.full((1, 8, 8), 1.5),
        "the array of images holds values from 1.5 to 1.5; give grey",
    ),
    "bright bytes": (
        np.full((1, 8, 8), 17, np.uint8),
        "the array of images holds values from 17 to 17; give grey levels in [0, 1], or bytes up "
        "to 16",
    ),
    "nan": (np.full((1, 8, 8), np.nan), "the array of images holds values from nan to nan"),
    "words": (np.full((1, 8, 8), "a"), "the array of images holds <U1; give real numbers"),
}


@pytest.mark.parametrize(("images", "said"), WRONG.values(), ids=WRONG)
def test_images_that_are_none(images: object, said: str, grey: pic.Run) -> None:
    with pytest.raises(pic.UserError) as refusal:
        grey.categorise(images)
    assert str(refusal.value).startswith(said)


def test_metrics_and_history_are_read_from_the_folder(grey: pic.Run) -> None:
    assert grey.metrics == {}
    (row,) = grey.history
    assert row["epoch"] == 1
    assert {"elbo", "reconstruction", "kl_z", "kl_c", "objective"} < row.keys()
    assert isinstance(grey.folder, Path)


def test_a_path_is_no_array(runs: dict[str, pic.Run]) -> None:
    with pytest.raises(pic.UserError, match=r"'new.csv' is a path; give an array or a DataFrame"):
        runs["grey"].categorise("new.csv")
