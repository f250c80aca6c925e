"""What the command makes of a finished run, and what it refuses."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from PIL import Image

from pyro_infocat import evaluate, sample
from pyro_infocat.data import digits
from pyro_infocat.loading import Run, load
from pyro_infocat.run import main as train
from pyro_infocat.settings import CHECKPOINT, CONFIG, ROOT
from pyro_infocat.train import set_validation
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")

OUT = "out"
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
        patch.setattr(evaluate, "evaluate", stop)
        for name, part in KINDS.items():
            assert train([*flags, *part, "--out", str(folder / name)]) == 130
    set_validation(True)
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


# What is refused.

Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Give the command what it must refuse; returns the error without ``error:``."""

    def refuse(*arguments: str) -> str:
        code = sample.main(list(arguments))
        printed = capsys.readouterr()
        assert code == 2, printed
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert printed.err.endswith("\n")
        assert "Traceback" not in printed.err
        assert printed.out == ""
        return printed.err.removeprefix("error: ").strip()

    return refuse


FLAGS = {
    "category": (["--categories", "0", "10"], ["--categories 10", "0 to 9"]),
    "negative category": (["--categories", "-1"], ["--categories -1", "0 to 9"]),
    "category in words": (
        ["--categories", "three"],
        ["--categories: expected a whole number, not 'three'"],
    ),
    "half a category": (["--categories", "1.5"], ["--categories: expected a whole number"]),
    "no category": (["--categories"], ["--categories", "expected at least one"]),
    "number of files": (
        ["--reconstruct", "one.png", "--number", "5"],
        ["--number 5: all images of the files are reconstructed"],
    ),
    "root of no data": (
        ["--data_root", "elsewhere"],
        ["--data_root elsewhere: only --reconstruct test reads a data set"],
    ),
    "number": (["--number", "0"], ["--number 0", "at least 1"]),
    "negative number": (["--number", "-3"], ["--number -3", "at least 1"]),
    "number in words": (["--number", "x"], ["--number: expected a whole number, not 'x'"]),
    "walk of one step": (
        ["--interpolate", "0", "1", "--number", "1"],
        ["--number 1", "--interpolate", "at least 2"],
    ),
    "temperature": (["--temperature", "-0.5"], ["--temperature -0.5", "at least 0"]),
    "temperature of a reconstruction": (
        ["--temperature", "0.5", "--reconstruct", "test"],
        ["--temperature 0.5: only samples have one", "leave it out"],
    ),
    "temperature nan": (["--temperature", "nan"], ["--temperature nan", "finite"]),
    "temperature inf": (["--temperature", "inf"], ["--temperature inf", "finite"]),
    "temperature in words": (
        ["--temperature", "hot"],
        ["--temperature: expected a number, not 'hot'"],
    ),
    "seed in words": (["--seed", "x"], ["--seed: expected a whole number, not 'x'"]),
    "negative seed": (["--seed", "-1"], ["--seed -1", "0 to 4294967295"]),
    "large seed": (["--seed", f"{2**70}"], [f"--seed {2**70}", "0 to 4294967295"]),
    "device": (["--device", "gpu"], ["--device", "'gpu'", "auto, cpu, cuda, cuda:N or mps"]),
    "device that is not there": (["--device", "cuda:77"], ["--device: 'cuda:77' is not on this"]),
    "unknown flag": (["--tempo", "1"], ["--tempo 1", "see --help"]),
    "shortened flag": (["--temp", "1"], ["--temp 1", "see --help"]),
    "no value": (["--out"], ["--out", "see --help"]),
    "two things at once": (
        ["--reconstruct", "test", "--interpolate", "0", "1"],
        ["--interpolate", "not allowed with", "--reconstruct"],
    ),
    "categories of a walk": (
        ["--interpolate", "0", "1", "--categories", "3"],
        ["--categories", "not allowed with", "--interpolate"],
    ),
    "end of a walk": (["--interpolate", "3", "10"], ["--interpolate 10", "categories 0 to 9"]),
    "start of a walk": (["--interpolate", "10", "3"], ["--interpolate 10", "categories 0 to 9"]),
    "negative end": (["--interpolate", "3", "-1"], ["--interpolate -1", "categories 0 to 9"]),
    "end in words": (
        ["--interpolate", "3", "four"],
        ["--interpolate: no such file 'four'", "an image file, or a category from 0 to 9"],
    ),
    "end in superscript": (["--interpolate", "3", "²"], ["--interpolate: no such file '²'"]),
    "three ends": (["--interpolate", "1", "2", "3"], ["3", "see --help"]),
}


@pytest.mark.parametrize(("flags", "said"), FLAGS.values(), ids=FLAGS)
def test_a_wrong_flag(flags: list[str], said: list[str], plain: Path, refuse: Refuse) -> None:
    error = refuse(str(plain), "--out", OUT, *flags)
    for part in said:
        assert part in error
    assert not Path(OUT).exists()


class Malice:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path("executed"),)


def array(content: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.asarray(content))


def text(path: Path) -> None:
    path.write_text("an image")


def directory(path: Path) -> None:
    path.mkdir()


def deep(path: Path) -> None:
    Image.fromarray(IMAGES[0].astype(np.uint16) * 256).save(path)


def pickled(path: Path) -> None:
    np.save(path, np.array([Malice()]), allow_pickle=True)


def pickled_archive(path: Path) -> None:
    np.savez(path, np.array([Malice()]))


def tall(path: Path) -> None:
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(path)


BAD_IMAGES: dict[str, tuple[str, Callable[[Path], None] | None, list[str]]] = {
    "missing": ("none.png", None, ["o such file", "give a"]),
    "missing array": ("none.npy", None, ["o such file", "give a"]),
    "folder": ("folder", directory, ["give a PNG"]),
    "text": ("text.txt", text, ["give a PNG"]),
    "text as PNG": ("text.png", text, ["give a PNG"]),
    "text as array": ("text.npy", text, ["give a PNG"]),
    "text as archive": ("text.npz", text, ["give a PNG"]),
    "nothing": ("empty.npy", Path.touch, ["give a PNG"]),
    "nothing as PNG": ("empty.png", Path.touch, ["give a PNG"]),
    "objects": ("objects.npy", pickled, ["allow_pickle=False", "give a PNG"]),
    "archive of objects": ("objects.npz", pickled_archive, ["allow_pickle=False", "give a PNG"]),
    "empty archive": ("empty.npz", lambda path: np.savez(path), ["give a PNG"]),
    "another size": ("small.npy", array(np.zeros((2, 7, 8))), ["(2, 7, 8)", "(8, 8)"]),
    "PNG of another size": ("tall.png", tall, ["(9, 8)", "(8, 8)"]),
    "PNG of 16 bits": ("deep.png", deep, [f"to {int(IMAGES[0].max()) * 256}", "[0, 1]", "bytes"]),
    "row": ("row.npy", array(np.zeros(64)), ["(64,)", "(8, 8)"]),
    "number": ("number.npy", array(0.5), ["()", "(8, 8)"]),
    "colours": ("colours.npy", array(np.zeros((2, 3, 8, 8))), ["(2, 3, 8, 8)", "(8, 8)"]),
    "no images": ("none.npy", array(np.zeros((0, 8, 8))), ["(0, 8, 8)", "(8, 8)"]),
    "words": ("words.npy", array([["a"] * 8] * 8), ["<U1", "numbers"]),
    "complex": ("complex.npy", array(np.zeros((8, 8), complex)), ["complex128", "numbers"]),
    "too many axes": ("axes.npy", array(np.zeros((1, 1, 1, 8, 8))), ["(1, 1, 1, 8, 8)", "(8, 8)"]),
    "too bright": ("bright.npy", array(np.full((8, 8), 1.5)), ["from 1.5 to 1.5", "[0, 1]"]),
    "too bright a byte": (
        "byte.npy",
        array(np.full((8, 8), 17, np.uint8)),
        ["from 17 to 17", "[0, 1]", "bytes up to 16"],
    ),
    "levels": ("levels.npy", array(np.full((8, 8), 16)), ["from 16 to 16", "[0, 1]", "bytes"]),
    "too large for float32": ("large.npy", array(np.full((8, 8), 1e300)), ["1e+300", "[0, 1]"]),
    "negative": ("dark.npy", array(np.full((8, 8), -0.1)), ["from -0.1", "[0, 1]"]),
    "nan": ("nan.npy", array([[np.nan] + [0.5] * 7] * 8), ["nan", "[0, 1]"]),
    "inf": ("inf.npy", array([[np.inf] + [0.5] * 7] * 8), ["inf", "[0, 1]"]),
}


@pytest.mark.parametrize("flag", ["--reconstruct", "--interpolate"])
@pytest.mark.parametrize(("name", "write", "said"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_wrong_image(
    name: str,
    write: Callable[[Path], None] | None,
    said: list[str],
    flag: str,
    plain: Path,
    refuse: Refuse,
) -> None:
    if write:
        write(Path(name))
    start = ["3"] if flag == "--interpolate" else []
    error = refuse(str(plain), *CPU, "--out", OUT, flag, *start, name)
    for part in [f"'{name}'", *said]:
        assert part in error
    assert not Path(OUT).exists()
    assert not Path("executed").exists()


def test_the_objects_would_execute() -> None:
    pickled(Path("objects.npy"))
    np.load("objects.npy", allow_pickle=True)
    assert Path("executed").exists()


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_place_that_cannot_be_written(out: str, plain: Path, refuse: Refuse) -> None:
    Path("file").write_text("mine")
    error = refuse(str(plain), *CPU, "--out", out)
    assert f"--out: cannot write '{out}'" in error
    assert "choose a folder that can be written" in error
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("name", ["none", "folder", "file"])
def test_no_folder_of_a_run(name: str, refuse: Refuse) -> None:
    Path("folder").mkdir()
    Path("file").write_text("mine")
    error = refuse(name)
    assert error.startswith(f"'{name}' is not the folder of a run")
    assert "give the --out of a run" in error


def test_no_folder(refuse: Refuse) -> None:
    assert refuse() == "the following arguments are required: run; see --help"


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "text": text,
    "pickle": lambda path: torch.save({"epoch": 1, "model": Malice(), "guide": {}}, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_corrupt_checkpoint(
    damage: Callable[[Path], object], plain: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(plain, tmp_path / "run")
    damage(tmp_path / "run" / CHECKPOINT)
    error = refuse("run", *CPU)
    assert f"'run/{CHECKPOINT}' is corrupt" in error
    assert "train again" in error
    assert not Path("executed").exists()


def test_a_run_without_its_checkpoint(plain: Path, tmp_path: Path, refuse: Refuse) -> None:
    """As one that was stopped among its starts, which must not be deleted."""
    shutil.copytree(plain, tmp_path / "run")
    (tmp_path / "run" / CHECKPOINT).unlink()
    assert refuse("run", *CPU) == (
        f"cannot read 'run/{CHECKPOINT}' (No such file or directory); a run has it once training "
        "begins: go on by the command that began it, or let the file be read"
    )


def test_the_test_split_is_where_the_run_had_it(
    plain: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(plain, tmp_path / "run")
    write_tiny_mnist(tmp_path / "elsewhere")
    config = tmp_path / "run" / CONFIG
    text = config.read_text().replace("data: digits", "data: mnist")
    config.write_text(text.replace("data_root: data", "data_root: elsewhere"))
    error = refuse("run", *CPU, "--reconstruct", "test")
    assert "the images of 'mnist' are now of shape (28, 28)" in error


def test_a_config_whose_class_has_gone(plain: Path, tmp_path: Path, refuse: Refuse) -> None:
    shutil.copytree(plain, tmp_path / "run")
    config = tmp_path / "run" / CONFIG
    config.write_text(config.read_text().replace("models.priors.Orthogonal", "gone.Mine"))
    error = refuse("run", *CPU)
    assert f"'run/{CONFIG}'" in error
    assert "No module named 'gone'" in error


# As a command.


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyro_infocat.sample", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for flag in ("--number", "--categories", "--temperature", "--reconstruct", "--interpolate"):
        assert flag in done.stdout


def test_a_real_command_that_is_wrong() -> None:
    done = command("runs/none", "--number", "many")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: --number: expected a whole number, not 'many'; see --help\n"
