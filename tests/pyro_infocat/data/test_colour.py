"""Arrays of images in colour: every layout, in files, in Python and of a finished run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_infocat as pic
from pyro_infocat.data import load
from pyro_infocat.data.archive import as_rows, checked
from pyro_infocat.data.images import examples, of_archive
from pyro_infocat.errors import UserError
from pyro_infocat.kinds import IMAGES, kind_of, preset_for, shape_of
from tests.tried import tried

pytestmark = pytest.mark.usefixtures("alone")

Write = Callable[..., str]

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (7, 3, 5, 4), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (7, 5, 4), dtype=np.uint8)

LAYOUTS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "N H W": (GREY, GREY),
    "N 1 H W": (GREY[:, None], GREY),
    "N H W 1": (GREY[..., None], GREY),
    "N 3 H W": (COLOUR, COLOUR),
    "N H W 3": (np.moveaxis(COLOUR, 1, -1), COLOUR),
    "in [0, 1]": (np.moveaxis(COLOUR, 1, -1) / 255, COLOUR),
    "N 3 H 3": (COLOUR[..., :3], COLOUR[..., :3]),
    "N 3 H 1": (COLOUR[..., :1], COLOUR[..., :1]),
    "N 1 H 3": (GREY[:, None, :, :3], GREY[:, :, :3]),
}
"""As they are given, and as they are held."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", ["npz", "npy", "Python"])
def test_layouts(layout: str, ending: str, write: Write) -> None:
    given, held = LAYOUTS[layout]
    if ending == "Python":
        data = of_archive(checked({"x_train": given, "x_test": given[:2]}, "mine"), "mine")
    elif ending == "npz":
        data = load(write(x_train=given, x_test=given[:2]), Path())
    else:
        np.save("mine.npy", given)
        data = load("mine.npy", Path())
    assert data.facts.shape == held.shape[1:]
    assert data.facts.colour == (held.ndim == 4)
    assert data.checked() is data
    there = {one.tobytes() for one in held}
    for split in (data.train, data.test):
        pixels = split.pixels.reshape(-1, *data.facts.shape)
        assert {one.numpy().tobytes() for one in pixels} <= there
    if ending != "npy":
        assert torch.equal(data.train.pixels, torch.from_numpy(held.copy()).flatten(1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_the_preset_is_chosen_by_the_header(layout: str, ending: str, write: Write) -> None:
    given, held = LAYOUTS[layout]
    path = write(x_train=given, y_train=np.zeros(7)) if ending == "npz" else "mine.npy"
    if ending == "npy":
        np.save(path, given)
    assert shape_of(path) == given.shape
    assert kind_of(path) is IMAGES
    assert preset_for(path) == ("colour" if held.ndim == 4 else "images")


def test_a_header_says_the_shape_of_what_would_not_fit_into_memory() -> None:
    """A petabyte of images, of which the file has none."""
    with open("mine.npy", "wb") as file:
        shape = (10**10, 3, 300, 300)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
    assert shape_of("mine.npy") == shape
    np.save("old.npy", COLOUR)
    Path("new.npy").write_bytes(b"")
    with open("new.npy", "wb") as file:
        np.lib.format.write_array(file, COLOUR, version=(3, 0))
    assert shape_of("old.npy") == shape_of("new.npy") == COLOUR.shape


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"images", None])
def test_a_file_without_a_header_has_no_shape(content: bytes | None, write: Write) -> None:
    if content is None:
        Path("mine.npz").write_bytes(Path(write(y_train=[0])).read_bytes())
    for path in ("mine.npz", "mine.npy"):
        if content is not None:
            Path(path).write_bytes(content)
        assert shape_of(path) == ()
    # Its reader says what is wrong.
    assert preset_for("mine.npz") == "images"


def test_what_a_file_is_taken_for(write: Write) -> None:
    path = write(x_train=COLOUR, y_train=[0, 1, 0, 1, 0, 1, 2])
    assert load(path, Path()).said == f"'{path}' holds 7 images in colour, 5 x 4, 3 classes"
    path = write(x_train=GREY)
    assert load(path, Path()).said == f"'{path}' holds 7 grey images, 5 x 4, no labels"


WRONG = {
    "x_train holds images of 5 x 4 in colour and x_test of 5 x 4; they must be the same": {
        "x_train": COLOUR,
        "x_test": GREY,
    },
    "x_train has shape (7, 4, 5, 4); give (N, height, width), or in colour (N, 3, height, width) "
    "or (N, height, width, 3)": {"x_train": COLOUR[:, [0, 1, 2, 0]]},
    "x_train has shape (7, 2, 5, 4); give": {"x_train": COLOUR[:, :2]},
    "x_train has shape (7, 3, 5, 4, 1); give": {"x_train": COLOUR[..., None]},
    "x_train has shape (7, 3, 0, 4); give": {"x_train": COLOUR[:, :, :0]},
    "x_train holds values from 0 to 2; give grey levels": {"x_train": COLOUR / 127.5},
    "x_train holds bytes up to 3, next to black": {"x_train": COLOUR // 64},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_an_array_in_colour_may_not_be(said: str, write: Write) -> None:
    with pytest.raises(UserError) as refusal:
        load(write(**WRONG[said]), Path())
    assert said in str(refusal.value)


@pytest.mark.parametrize("layout", ["N 3 H W", "N H W 3", "rows"])
def test_examples_of_a_run_in_colour(layout: str) -> None:
    held = {
        "N 3 H W": COLOUR,
        "N H W 3": np.moveaxis(COLOUR, 1, -1),
        "rows": COLOUR.reshape(7, 60),
    }[layout]
    facts = of_archive(checked({"x_train": COLOUR}, "mine"), "mine").facts
    found = examples({"x_train": held}, facts, "mine")
    assert torch.equal(found.split.grey(), torch.from_numpy(COLOUR.reshape(7, 60) / 255).float())


@pytest.mark.parametrize("given", [GREY, GREY[:, None], COLOUR[..., :3], COLOUR[:, :, :4]])
def test_examples_of_another_kind(given: np.ndarray) -> None:
    facts = of_archive(checked({"x_train": COLOUR}, "mine"), "mine").facts
    with pytest.raises(UserError) as refusal:
        examples({"x_train": given}, facts, "mine")
    assert str(refusal.value) == (
        f"--data: mine: x_train has shape {given.shape}; the run's images are 5 x 4 in colour, so "
        "give (N, 3, 5, 4) or (N, 5, 4, 3)"
    )


def test_what_may_be_read_both_ways_has_its_channels_first_in_a_run_too() -> None:
    cubes = COLOUR[:, :, :3, :3]
    rows = as_rows(cubes, (3, 3, 3))
    assert rows is not None
    assert np.array_equal(rows, cubes.reshape(7, 27))


def test_one_image_is_no_batch() -> None:
    assert as_rows(COLOUR[0], (3, 5, 4)) is None
    assert as_rows(np.array(1.0), (3, 5, 4)) is None
    assert as_rows(GREY[0], (5, 4)) is None


@pytest.mark.parametrize("shape", [(60,), (1, 5, 12), (4, 5, 3), (1, 3, 5, 4)])
def test_facts_of_images_have_the_shape_of_one(shape: tuple[int, ...]) -> None:
    data = of_archive(checked({"x_train": COLOUR}, "mine"), "mine")
    odd = replace(data, facts=replace(data.facts, shape=shape))
    with pytest.raises(UserError) as refusal:
        odd.checked("reader", "mine.Reader")
    assert str(refusal.value) == (
        f"--reader mine.Reader: the data's facts have shape {shape}; images have (height, width), "
        "or (3, height, width) in colour"
    )


# Whole runs.


@pytest.fixture
def run(brief: None) -> pic.Run:
    """One of an epoch on noise, with small networks."""
    return pic.fit(
        np.moveaxis(COLOUR, 1, -1).repeat(6, 0),
        epochs=1,
        batch_size=20,
        nll_samples=2,
        precision="float32",
        **{"encoder.width": 2, "encoder.hidden": 4, "decoder.width": 2},
    )


def test_fit_takes_the_preset_of_colour(run: pic.Run) -> None:
    assert run.facts.shape == (3, 5, 4)
    assert run.settings.encoder.class_path == "guides.encoders.Convolutional"
    again = pic.load(run.folder)
    for given in (COLOUR, np.moveaxis(COLOUR, 1, -1), COLOUR / 255, COLOUR.reshape(7, 60)):
        np.testing.assert_allclose(
            again.probabilities(given), run.probabilities(COLOUR), rtol=1e-4, atol=1e-6
        )
    with pytest.raises(UserError) as refusal:
        run.categorise(GREY)
    assert str(refusal.value) == (
        "the images have shape (7, 5, 4); the run needs (B, 3, 5, 4) or (B, 5, 4, 3)"
    )


@pytest.mark.parametrize("likelihood", ["Bernoulli", "AutoregressiveBernoulli"])
def test_likelihoods_of_binary_pixels_refuse_colour(likelihood: str) -> None:
    path = f"models.likelihoods.{likelihood}"
    found = tried(lambda: pic.check_parts(COLOUR, likelihood=path, observe="auto"))
    assert isinstance(found, UserError)
    said = {
        "Bernoulli": f"likelihood: {path} holds 0 and 1 only, and the images are in colour; give "
        "models.likelihoods.Gaussian or DiscretisedLogistic, or observe binary to draw each "
        "channel as 0 or 1",
        "AutoregressiveBernoulli": f"likelihood {path}: takes grey images of 0 and 1, and these "
        "are in colour; models.likelihoods.Gaussian or DiscretisedLogistic would fit",
    }[likelihood]
    assert str(found) == said
    if likelihood == "Bernoulli":
        assert pic.check_parts(COLOUR, likelihood=path, observe="binary")


PARTS = [
    *(("encoder", f"guides.encoders.{name}") for name in ("MLP", "Upright", "Recurrent")),
    *(("decoder", f"models.decoders.{name}") for name in ("MLP", "Posed", "Recurrent")),
    ("likelihood", "models.likelihoods.DiscretisedLogistic"),
    ("likelihood", "models.likelihoods.ContinuousBernoulli"),
    *(("view", f"pyro_infocat.views.{name}") for name in ("Affine", "AdversarialAffine", "Same")),
]


@pytest.mark.parametrize(("role", "path"), PARTS)
def test_parts_take_colour(role: str, path: str) -> None:
    assert pic.check_parts(COLOUR, precision="float32", **{role: path})
