"""What the command ``sample`` refuses, in one line and without writing anything."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_infocat import experiment, sample
from pyro_infocat.run import main as train
from pyro_infocat.settings import CHECKPOINT, CONFIG
from tests.brief import SMALL
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")

OUT = "out"
CPU = ["--device", "cpu"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch; never to be written to."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("runs") / "plain"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(experiment, "evaluate", stop)
        assert train([*SMALL, "--epochs", "1", "--out", str(folder)]) == 130
    return folder


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
    "no category": (["--categories"], ["--categories: a value is missing; see --help"]),
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
    "temperature nan": (["--temperature", ".nan"], ["--temperature nan: must be a finite number"]),
    "temperature inf": (["--temperature", ".inf"], ["--temperature inf: must be a finite number"]),
    "temperature beyond a float": (["--temperature", "1e999"], ["--temperature inf", "finite"]),
    "large temperature": (["--temperature", "1e38"], ["--temperature", "at most 1000000"]),
    "many": (["--number", "1000000000"], ["--number 1000000000: must be at most 100000"]),
    "temperature in words": (
        ["--temperature", "hot"],
        ["--temperature: expected a number, not 'hot'"],
    ),
    "seed in words": (["--seed", "x"], ["--seed: expected a whole number, not 'x'"]),
    "negative seed": (["--seed", "-1"], ["--seed -1: must be at least 0"]),
    "large seed": (["--seed", f"{2**70}"], [f"--seed {2**70}: must be at most 4294967295"]),
    "device": (["--device", "gpu"], ["--device", "'gpu'", "auto, cpu, cuda, cuda:N or mps"]),
    "device that is not there": (["--device", "cuda:77"], ["--device: 'cuda:77' is not on this"]),
    "unknown flag": (["--tempo", "1"], ["--tempo 1", "see --help"]),
    "shortened flag": (["--temp", "1"], ["--temp 1", "see --help"]),
    "no value": (["--out"], ["--out", "see --help"]),
    "two things at once": (
        ["--reconstruct", "test", "--interpolate", "0", "1"],
        ["--reconstruct: does not go with --interpolate; give one of them"],
    ),
    "categories of a walk": (
        ["--interpolate", "0", "1", "--categories", "3"],
        ["--categories: does not go with --interpolate; give one of them"],
    ),
    "end of a walk": (["--interpolate", "3", "10"], ["--interpolate 10", "categories 0 to 9"]),
    "start of a walk": (["--interpolate", "10", "3"], ["--interpolate 10", "categories 0 to 9"]),
    "negative end": (["--interpolate", "3", "-1"], ["--interpolate -1", "categories 0 to 9"]),
    "end in words": (
        ["--interpolate", "3", "four"],
        ["--interpolate: no such file 'four'", "an image file, or a category from 0 to 9"],
    ),
    "end in superscript": (["--interpolate", "3", "²"], ["--interpolate: no such file '²'"]),
    "three ends": (
        ["--interpolate", "1", "2", "3"],
        ["--interpolate: takes two, a category or a file each, not 3"],
    ),
    "one end": (["--interpolate", "1"], ["--interpolate: takes two", "not 1"]),
    "two folders": (["other"], ["such flag: other"]),
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


def words_in_an_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("read_me.txt", "an image")


def half(path: Path) -> None:
    Image.fromarray(IMAGES[0]).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def endless(path: Path) -> None:
    """All pixels are there, and the last chunk is not."""
    Image.fromarray(IMAGES[0]).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:-12])


def damaged(path: Path) -> None:
    """The header's checksum is another's."""
    Image.fromarray(IMAGES[0]).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    content[30] ^= 255
    path.write_bytes(content)


def huge(path: Path) -> None:
    """More pixels than a library reads without a warning, in few bytes."""
    Image.new("1", (30_000, 4_000)).save(path, format="PNG")


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
    "words in an archive": (
        "words.npz",
        words_in_an_archive,
        ["'read_me.txt' in it is no array", "give a PNG"],
    ),
    "several arrays": (
        "several.npz",
        lambda path: np.savez(path, x_test=np.zeros((2, 8, 8)), x_train=np.zeros((3, 8, 8))),
        ["it holds x_test, x_train", "pyro_infocat.categorise takes them all"],
    ),
    "half a PNG": ("half.png", half, ["runcated", "give a PNG"]),
    "a PNG without its end": ("endless.png", endless, ["runcated", "give a PNG"]),
    "a damaged PNG": ("damaged.png", damaged, ["give a PNG"]),
    "a huge PNG": ("huge.png", huge, ["120000000 pixels", "give a PNG"]),
    "a pipe": ("pipe.png", os.mkfifo, ["it is no file", "give a PNG"]),
    "a pipe of arrays": ("pipe.npy", os.mkfifo, ["it is no file", "give a PNG"]),
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
    assert refuse(name) == (
        f"'{name}' is not the folder of a run: it has no {CONFIG}; give the --out of a run"
    )


@pytest.mark.parametrize("content", ["3", "{epochs: 3}", "a: b: c", ""])
def test_a_config_that_is_no_runs(content: str, refuse: Refuse) -> None:
    Path("folder").mkdir()
    Path("folder", CONFIG).write_text(content)
    error = refuse("folder")
    assert error.startswith("'folder' is not the folder of a run: 'folder/config.yaml' cannot be")
    assert error.endswith("give the --out of a run")


def test_no_folder(refuse: Refuse) -> None:
    assert refuse() == "RUN is missing: the folder of a run; see --help"


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
    assert "--trust gone" in error
    error = refuse("run", *CPU, "--trust", "gone")
    assert f"'run/{CONFIG}'" in error
    assert "No module named 'gone'" in error
