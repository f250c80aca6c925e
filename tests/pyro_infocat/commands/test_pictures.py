"""The commands on folders of pictures and on images in colour, from the first to the last."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pyro_infocat as pic
from pyro_infocat import categorise, sample
from pyro_infocat.run import main
from tests.brief import be_brief
from tests.photos import picture, write_pictures
from tests.runs import metrics

pytestmark = pytest.mark.usefixtures("alone")

SMALL = [
    *("--epochs", "1", "--batch_size", "20", "--nll_samples", "2", "--precision", "float32"),
    *("--encoder.width", "2", "--encoder.hidden", "4", "--decoder.width", "2"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos`` of two classes and of several sizes, and a run on them, ``out``."""
    folder = tmp_path_factory.mktemp("finished")
    write_pictures(folder / "photos" / "cat", 15)
    write_pictures(folder / "photos" / "dog", 15, start=15, height=9, width=30)
    with pytest.MonkeyPatch.context() as patch:
        be_brief(patch)
        patch.chdir(folder)
        assert main(["--data", "photos", "--data_size", "8", *SMALL, "--out", "out"]) == 0
    return folder


def test_a_run_on_a_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = pic.load(finished / "out")
    assert run.facts.shape == (3, 8, 8)
    assert run.facts.classes == ("cat", "dog")
    assert run.facts.fitted
    assert run.settings.view.class_path == "pyro_infocat.views.Augmented"
    assert {"accuracy", "generation_accuracy", "nll"} <= metrics(finished / "out").keys()


@pytest.mark.usefixtures("brief")
def test_the_first_line_says_what_was_taken_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("photos"), 20, colour=False)
    small = ["--epochs", "1", "--nll_samples", "2", "--data_size", "4", "--device", "cpu"]
    assert main(["--data", "photos/", *small]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "data: 'photos/' is a folder of 20 grey images, 4 x 4, no labels; preset images"
    )
    assert Path("runs/photos/seed0/metrics.json").exists()
    assert main(["--data", "photos", "--config", "mnist-blind", *small, "--out", "other"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "data: 'photos' is a folder of 20 grey images, 4 x 4, no labels"


def test_the_folder_is_gone_on_with(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_brief(monkeypatch)
    monkeypatch.chdir(finished)
    assert main(["--out", "out", "--resume", "true", "--epochs", "2"]) == 0
    assert metrics("out")["epochs"] == 2


@pytest.mark.parametrize("size", ["3", "513"])
def test_sizes_out_of_bounds(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "digits", "--data_size", size]) == 2
    limit = "at least 4" if size == "3" else "at most 512"
    assert capsys.readouterr().err == f"error: --data_size {size}: must be {limit}\n"


def test_a_folder_without_images(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    assert main(["--data", "photos"]) == 2
    assert capsys.readouterr().err == (
        "error: --data: 'photos' has no images; give a folder of PNG or JPEG files\n"
    )


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_category_of_every_picture_of_a_folder_and_of_one(finished: Path) -> None:
    for data in ("photos", "photos/dog/015.png"):
        out = ["--nll_samples", "0", "--out", f"{Path(data).name}.csv"]
        assert categorise.main([str(finished / "out"), str(finished / data), *out]) == 0
    folder, one = rows(Path("photos.csv")), rows(Path("015.png.csv"))
    assert [row["name"] for row in folder] == [
        *(f"cat/{n:03d}.png" for n in range(15)),
        *(f"dog/{n:03d}.png" for n in range(15, 30)),
    ]
    (alone,), there = one, folder[15]
    assert (alone.pop("name"), there.pop("name")) == ("015.png", "dog/015.png")
    assert {key: float(value) for key, value in alone.items()} == pytest.approx(
        {key: float(value) for key, value in there.items()}, rel=1e-4, abs=1e-6
    )
    run = pic.load(finished / "out")
    cats = np.stack([picture(n) for n in range(15)])
    assert [int(row["category"]) for row in folder[:15]] == run.categorise(cats).tolist()


@pytest.mark.parametrize("ending", ["png", "jpg", "npy", "npy of one", "npz"])
def test_images_in_colour_are_reconstructed(ending: str, finished: Path) -> None:
    pixels = np.stack([picture(n) for n in (0, 1)])
    names = [f"{n}.{ending}" for n in (0, 1)]
    if ending == "npy":
        names = ["both.npy"]
        np.save("both.npy", pixels)
    elif ending == "npy of one":
        names = ["0.npy", "1.npy"]
        for name, one in zip(names, pixels, strict=True):
            np.save(name, one.transpose(2, 0, 1))
    elif ending == "npz":
        names = ["both.npz"]
        np.savez("both.npz", x=pixels.transpose(0, 3, 1, 2) / 255)
    else:
        for name, one in zip(names, pixels, strict=True):
            # Pictures are made to fit: the middle of a wide one is kept.
            Image.fromarray(np.pad(one, ((0, 0), (6, 6), (0, 0)))).save(name)
    run = str(finished / "out")
    assert sample.main([run, "--reconstruct", *names, "--out", "here"]) == 0
    with np.load("here/reconstructions.npz") as arrays:
        original, made = arrays["original"], arrays["x"]
    expected = pixels.transpose(0, 3, 1, 2).reshape(2, -1) / 255
    if ending == "jpg":
        # What JPEG leaves of noise has little to do with its colours, and much with its luminance.
        weights = np.array([0.299, 0.587, 0.114])
        kept, there = (
            np.einsum("c,bcp->bp", weights, x.reshape(2, 3, -1)) for x in (original, expected)
        )
        assert np.corrcoef(kept.ravel(), there.ravel())[0, 1] > 0.9
    else:
        assert np.abs(original - expected).max() < 1e-6
    with Image.open("here/reconstructions.png") as shown:
        drawn = np.asarray(shown)
    assert drawn.shape == (2 * 36 + 4, 2 * 36 + 4, 3)
    for row, images in enumerate((original, made)):
        for column, image in enumerate(images):
            tile = drawn[4 + 36 * row :, 4 + 36 * column :][:32:4, :32:4]
            levels = 255 * image.reshape(3, 8, 8).transpose(1, 2, 0)
            assert np.abs(tile - levels).max() <= 1


def test_arrays_of_grey_images_are_not_of_a_run_in_colour(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("grey.npy", picture(0, colour=False)[None])
    run = str(finished / "out")
    assert sample.main([run, "--reconstruct", "grey.npy", "--out", "here"]) == 2
    assert capsys.readouterr().err == (
        "error: 'grey.npy' has shape (1, 8, 8); the run needs (3, 8, 8) or (B, 3, 8, 8) or "
        "(B, 8, 8, 3)\n"
    )


@pytest.mark.parametrize("kind", [[], ["--interpolate", "0", "1"], ["--reconstruct", "test"]])
def test_samples_are_in_colour(
    kind: list[str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path.cwd() / "here"
    monkeypatch.chdir(finished)
    assert sample.main(["out", *kind, "--number", "3", "--out", str(here)]) == 0
    (shown,) = here.glob("*.png")
    with Image.open(shown) as image:
        pixels = np.asarray(image)
    assert (pixels[..., 0] != pixels[..., 2]).any()


@pytest.mark.usefixtures("brief")
def test_one_class_is_no_error() -> None:
    write_pictures(Path("photos/cat"), 20)
    assert main(["--data", "photos", "--data_size", "8", *SMALL, "--out", "out"]) == 0
    assert metrics("out")["purity"] == 1
