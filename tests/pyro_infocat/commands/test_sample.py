"""What the command ``sample`` makes of a finished run."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from PIL import Image

from pyro_infocat import experiment, sample
from pyro_infocat.data.readers import digits
from pyro_infocat.loading import Run, load
from pyro_infocat.run import main as train

pytestmark = pytest.mark.usefixtures("alone")

CPU = ["--device", "cpu"]
KINDS = {
    "plain": [],
    "binary": ["--likelihood", "models.likelihoods.Bernoulli"],
    "Bayes": ["--guide", "guides.Bayes", "--kl", "sampled"],
    "convolutional": [
        *("--encoder", "guides.encoders.Convolutional"),
        *("--decoder", "models.decoders.Convolutional"),
    ],
}
ENLARGED, PADDING = 4 * 8, 4
TILE = ENLARGED + PADDING

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a run of each kind, of one epoch; never to be written to."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("runs")
    flags = [*CPU, "--epochs", "1", "--batch_size", "400"]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        # Sampling needs no metrics, which take longer than the epoch.
        patch.setattr(experiment, "evaluate", stop)
        for name, part in KINDS.items():
            assert train([*flags, *part, "--out", str(folder / name)]) == 130
    pyro.clear_param_store()
    return folder


@pytest.fixture
def plain(runs: Path) -> Path:
    return runs / "plain"


def make(folder: Path, *flags: str) -> tuple[Arrays, np.ndarray]:
    """The numbers that the command writes, and its picture as levels (height, width)."""
    out = Path(tempfile.mkdtemp(dir="."))
    assert sample.main([str(folder), *CPU, "--out", str(out), *flags]) == 0
    (numbers,), (picture,) = out.glob("*.npz"), out.glob("*.png")
    assert numbers.stem == picture.stem
    with np.load(numbers, allow_pickle=False) as file, Image.open(picture) as image:
        return dict(file), np.array(image.convert("L"))


def assert_shows(picture: np.ndarray, x: np.ndarray, columns: int) -> None:
    """The picture holds the images x (B, X), enlarged, row by row between white padding."""
    rows = len(x) // columns
    assert picture.shape == (rows * TILE + PADDING, columns * TILE + PADDING)
    inner = picture[PADDING:, PADDING:].reshape(rows, TILE, columns, TILE).swapaxes(1, 2)
    tiles = inner.reshape(-1, TILE, TILE)
    assert (tiles[:, ENLARGED:] == 255).all()
    assert (tiles[:, :, ENLARGED:] == 255).all()
    levels = 255 * x.reshape(-1, 8, 8).repeat(4, 1).repeat(4, 2)
    assert np.abs(tiles[:, :ENLARGED, :ENLARGED] - levels).max() <= 0.51


def assert_kind(array: np.ndarray, shape: tuple[int, ...], dtype: type = np.float32) -> None:
    assert array.shape == shape
    assert array.dtype == dtype


def centres(run: Run) -> torch.Tensor:
    return run.model.prior.all_components().mean


def decode(run: Run, z: np.ndarray | torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return run.model.decoder(torch.as_tensor(z)).mean.numpy()


# Samples.


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_category(kind: str, runs: Path) -> None:
    found, picture = make(runs / kind)
    assert found.keys() == {"c", "z", "x"}
    assert_kind(found["c"], (100,), np.int64)
    assert_kind(found["z"], (100, 20))
    assert_kind(found["x"], (100, 64))
    assert found["c"].tolist() == [c for c in range(10) for _ in range(10)]
    assert found["x"].min() >= 0
    assert found["x"].max() <= 1
    np.testing.assert_allclose(found["x"], decode(load(runs / kind, "cpu"), found["z"]), atol=1e-6)
    assert_shows(picture, found["x"], 10)


def test_chosen_categories_in_the_order_given(plain: Path) -> None:
    found, picture = make(plain, "--categories", "7", "3", "7", "--number", "2")
    assert found["c"].tolist() == [7, 7, 3, 3, 7, 7]
    assert_shows(picture, found["x"], 2)


def test_without_temperature_every_sample_is_its_centre(plain: Path) -> None:
    found, _ = make(plain, "--temperature", "0", "--number", "3")
    run = load(plain, "cpu")
    mean = centres(run).repeat_interleave(3, 0)
    np.testing.assert_array_equal(found["z"], mean.numpy())
    np.testing.assert_allclose(found["x"], decode(run, mean), atol=1e-6)


def test_temperature_is_a_factor_on_the_spread(plain: Path) -> None:
    mean = centres(load(plain, "cpu")).repeat_interleave(200, 0).numpy()
    spread, images = {}, {}
    for temperature in (0.5, 1, 2):
        found, _ = make(plain, "--temperature", str(temperature), "--number", "200")
        spread[temperature] = found["z"] - mean
        images[temperature] = found["x"].reshape(10, 200, 64).std(1).mean()
    # The deviation of 40,000 standard normal numbers is within 0.02 for all but one of 70,000,000
    # seeds.
    assert spread[1].std() == pytest.approx(1, abs=0.02)
    for temperature in (0.5, 2):
        np.testing.assert_allclose(spread[temperature], temperature * spread[1], atol=1e-5)
    assert images[0.5] < images[1] < images[2]


def test_a_seed_repeats_and_another_differs(plain: Path) -> None:
    first, second, third = (make(plain, "--seed", seed)[0] for seed in ("5", "5", "6"))
    for name in ("c", "z", "x"):
        np.testing.assert_array_equal(first[name], second[name])
    assert (first["z"] != third["z"]).all()


# Reconstructions.


@pytest.mark.parametrize("kind", KINDS)
def test_reconstructions_of_the_test_split(kind: str, runs: Path) -> None:
    found, picture = make(runs / kind, "--reconstruct", "test")
    assert found.keys() == {"original", "c", "q", "z", "x"}
    assert_kind(found["original"], (10, 64))
    assert_kind(found["c"], (10,), np.int64)
    assert_kind(found["q"], (10, 10))
    assert_kind(found["z"], (10, 20))
    assert_kind(found["x"], (10, 64))
    np.testing.assert_array_equal(found["original"], digits().test.grey(slice(10)).numpy())
    np.testing.assert_allclose(found["q"].sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found["c"], found["q"].argmax(1))
    np.testing.assert_allclose(found["x"], decode(load(runs / kind, "cpu"), found["z"]), atol=1e-6)
    assert_shows(picture, np.concatenate([found["original"], found["x"]]), 10)


def test_reconstructions_are_the_guides(plain: Path) -> None:
    found, _ = make(plain, "--reconstruct", "test")
    guide = load(plain, "cpu").guide
    with torch.no_grad():
        category, latent = guide.posterior(torch.from_numpy(found["original"]))
        z = latent(category.logits.argmax(-1)).mean
    np.testing.assert_allclose(found["q"], category.probs.numpy(), atol=1e-6)
    np.testing.assert_allclose(found["z"], z.numpy(), atol=1e-6)


def test_a_likelihood_of_0_and_1_sees_binarised_pixels(runs: Path) -> None:
    """Its answer depends on the draw where a pixel is grey, and on nothing where none is."""
    np.save("grey.npy", np.full((8, 8), 0.5))
    np.save("sharp.npy", np.eye(8))
    for kind, name, fixed in (
        ("binary", "grey.npy", False),
        ("binary", "sharp.npy", True),
        ("plain", "grey.npy", True),
    ):
        one, other = (
            make(runs / kind, "--reconstruct", name, "--seed", seed)[0] for seed in ("0", "1")
        )
        assert (one["q"] == other["q"]).all() == fixed
        np.testing.assert_array_equal(one["original"], np.load(name).reshape(1, 64))


LEVELS = np.random.default_rng(1).integers(0, 17, (3, 8, 8), dtype=np.uint8)
"""Bytes in an array are the grey levels of the run's own data: the digits have 17."""

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
DTYPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bytes": lambda images: images,
    "float32": lambda images: images.astype(np.float32) / 16,
    "float64": lambda images: images / 16,
    "big-endian": lambda images: (images / 16).astype(">f4"),
}


@pytest.mark.parametrize("as_dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (3, 1, 8, 8)], ids=len)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_images_from_arrays(
    suffix: str,
    shape: tuple[int, ...],
    as_dtype: Callable[[np.ndarray], np.ndarray],
    plain: Path,
) -> None:
    images = LEVELS[: 1 if len(shape) == 2 else 3]
    array = as_dtype(images.reshape(shape))
    np.save("images.npy", array) if suffix == "npy" else np.savez("images.npz", array)
    found, picture = make(plain, "--reconstruct", f"images.{suffix}")
    np.testing.assert_allclose(found["original"], images.reshape(-1, 64) / 16, atol=1e-7)
    assert_shows(picture, np.concatenate([found["original"], found["x"]]), len(images))


def test_more_images_than_can_be_looked_at_are_not_drawn(
    plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("many.npy", np.broadcast_to(LEVELS[:1].reshape(1, 8, 8) / 16, (150, 8, 8)))
    found, picture = make(plain, "--reconstruct", "many.npy")
    assert_kind(found["x"], (150, 64))
    assert picture.shape == (2 * TILE + PADDING, 100 * TILE + PADDING)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith("reconstructions.png and .npz (the first 100 across and down drawn)")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_images_from_a_png(mode: str, plain: Path) -> None:
    Image.fromarray(IMAGES[0]).convert(mode).save("image.png")
    found, _ = make(plain, "--reconstruct", "image.png")
    assert np.abs(255 * found["original"] - IMAGES[0].reshape(1, 64)).max() <= 1


def test_several_files_in_the_order_given(plain: Path) -> None:
    Image.fromarray(IMAGES[0]).save("image.png")
    np.save("images.npy", IMAGES[1:] / 255)
    found, picture = make(plain, "--reconstruct", "images.npy", "test", "image.png")
    assert_kind(found["original"], (13, 64))
    for files, expected in ((slice(2), IMAGES[1:]), (slice(12, None), IMAGES[:1])):
        np.testing.assert_allclose(
            found["original"][files], expected.reshape(-1, 64) / 255, atol=1e-7
        )
    assert_shows(picture, np.concatenate([found["original"], found["x"]]), 13)


# Walks.


def assert_walk(found: Arrays, start: np.ndarray, stop: np.ndarray, run: Run) -> None:
    assert found.keys() == {"z", "x"}
    np.testing.assert_array_equal(found["z"][0], start)
    np.testing.assert_array_equal(found["z"][-1], stop)
    steps = np.diff(found["z"], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps.mean(0), steps.shape), atol=1e-5)
    np.testing.assert_allclose(found["x"][[0, -1]], decode(run, np.stack([start, stop])), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_between_two_centres(kind: str, runs: Path) -> None:
    found, picture = make(runs / kind, "--interpolate", "3", "7", "--number", "5")
    assert_kind(found["z"], (5, 20))
    assert_kind(found["x"], (5, 64))
    run = load(runs / kind, "cpu")
    assert_walk(found, *centres(run)[[3, 7]].numpy(), run)
    assert_shows(picture, found["x"], 5)


def test_walks_between_images_and_centres(plain: Path) -> None:
    Image.fromarray(IMAGES[0]).save("0.png")
    Image.fromarray(IMAGES[1]).save("1.png")
    run = load(plain, "cpu")
    ends = {name: make(plain, "--reconstruct", name)[0]["z"][0] for name in ("0.png", "1.png")}
    ends["4"] = centres(run)[4].numpy()
    for pair in (("0.png", "1.png"), ("0.png", "4"), ("4", "1.png")):
        found, _ = make(plain, "--interpolate", *pair)
        assert_kind(found["z"], (10, 20))
        start, stop = found["z"][[0, -1]]
        # An image among others and the same image alone differ by rounding.
        np.testing.assert_allclose(start, ends[pair[0]], atol=1e-5)
        np.testing.assert_allclose(stop, ends[pair[1]], atol=1e-5)
        assert_walk(found, start, stop, run)


# Where it goes.


def test_the_default_place_is_in_the_run(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(plain, tmp_path / "run")
    assert sample.main(["run", *CPU]) == 0
    assert {path.name for path in Path("run/samples").iterdir()} == {"samples.npz", "samples.png"}
    assert capsys.readouterr().out == "run/samples/samples.png and .npz\n"


def test_a_place_of_ones_own(plain: Path) -> None:
    before = sorted(plain.rglob("*"))
    place = Path("a folder/below")
    for flags in ([], ["--reconstruct", "test"], ["--interpolate", "0", "1"]):
        assert sample.main([str(plain), *CPU, *flags, "--out", str(place)]) == 0
    assert {path.name for path in place.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("samples", "reconstructions", "interpolation")
        for suffix in ("npz", "png")
    }
    assert sorted(plain.rglob("*")) == before


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sample.main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m pyro_infocat.sample RUN ")
    for one in fields(sample.Options):
        title = "  RUN" if one.name == "run" else f"  --{one.name} "
        assert printed.count(f"\n{title}") == 1, one.name
