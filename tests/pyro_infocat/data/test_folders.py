"""Folders of pictures: what is read of them, as what, and what is refused."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, load
from pyro_infocat.data.folder import Folder
from pyro_infocat.errors import UserError
from pyro_infocat.kinds import FOLDER, kind_of, name_of, preset_for
from pyro_infocat.parts import named
from tests.photos import picture, write_pictures

pytestmark = pytest.mark.usefixtures("alone")


def images(data: DataSet, split: str = "train") -> torch.Tensor:
    """(N, *shape), as bytes."""
    pixels = (data.train if split == "train" else data.test).pixels
    return pixels.reshape(-1, *data.facts.shape)


def read(folder: str = "photos", size: int = 8) -> DataSet:
    return Folder(folder, size).read().checked()


def refused(folder: str = "photos", size: int = 8) -> str:
    with pytest.raises(UserError) as refusal:
        Folder(folder, size).read()
    said = str(refusal.value)
    assert "\n" not in said
    return said


# What is taken for what.


def test_a_flat_folder_has_no_labels_and_a_fifth_is_held_out() -> None:
    write_pictures(Path("photos"), 10)
    data = read()
    assert data.facts == Facts("colour", (3, 8, 8), 256, (), fitted=True)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert not data.train.labelled
    assert data.said == "'photos' is a folder of 10 images in colour, 8 x 8, no labels"
    held = torch.cat([images(data), images(data, "test")])
    there = {picture(n).transpose(2, 0, 1).tobytes() for n in range(10)}
    assert {one.numpy().tobytes() for one in held} == there


def test_folders_are_classes_at_any_depth() -> None:
    write_pictures(Path("photos/dog"), 5)
    write_pictures(Path("photos/cat/persian/young"), 5, start=5)
    data = read()
    assert data.facts.classes == ("cat", "dog")
    label_of = {picture(n).transpose(2, 0, 1).tobytes(): int(n < 5) for n in range(10)}
    for split, part in (("train", data.train), ("test", data.test)):
        assert part.labelled
        found = [label_of[one.numpy().tobytes()] for one in images(data, split)]
        assert found == part.labels.tolist()
    assert data.said == "'photos' is a folder of 10 images in colour, 8 x 8, 2 classes"


def test_train_and_test_are_the_splits() -> None:
    write_pictures(Path("photos/train/b"), 3)
    write_pictures(Path("photos/train/a"), 2, start=3)
    write_pictures(Path("photos/test/b"), 1, start=5)
    write_pictures(Path("photos/test/c"), 1, start=6)
    data = read()
    # A class that the other split does not have is one all the same.
    assert data.facts.classes == ("a", "b", "c")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [1, 2]
    for split, numbers in (("train", (3, 4, 0, 1, 2)), ("test", (5, 6))):
        expected = np.stack([picture(n).transpose(2, 0, 1) for n in numbers])
        assert torch.equal(images(data, split), torch.from_numpy(expected))


def test_splits_without_classes() -> None:
    write_pictures(Path("photos/train"), 3)
    write_pictures(Path("photos/test"), 2, start=3)
    data = read()
    assert (len(data.train), len(data.test), data.facts.classes) == (3, 2, ())


def test_train_may_be_a_class() -> None:
    write_pictures(Path("photos/train"), 3)
    write_pictures(Path("photos/bus"), 3)
    assert read().facts.classes == ("bus", "train")


def test_one_class_is_enough() -> None:
    write_pictures(Path("photos/cat"), 5)
    assert read().facts.classes == ("cat",)
    assert read().said.endswith(", 1 class")


def test_the_order_is_that_of_the_names() -> None:
    for name in ("b.png", "a.PNG", "c.JPEG", "B.jpg"):
        write_pictures(Path("photos"), 1)[0].rename(f"photos/{name}")
    facts = Facts("colour", (3, 8, 8), 256, (), fitted=True)
    assert Folder("photos").again(facts).names == ["B.jpg", "a.PNG", "b.png", "c.JPEG"]


def test_hidden_files_and_others_are_left_out_with_their_number() -> None:
    paths = write_pictures(Path("photos"), 5)
    paths[0].rename("photos/.hidden.png")
    Path("photos/.trash").mkdir()
    write_pictures(Path("photos/.trash"), 3)
    Path("photos/read_me.txt").touch()
    Path("photos/empty").mkdir()
    data = read()
    assert len(data.train) + len(data.test) == 4
    assert data.said.endswith("no labels; 3 other files left out")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA", "grey JPEG"])
def test_grey_images_are_grey_in_whatever_mode(mode: str) -> None:
    """A run on them is one on grey images, as of digits."""
    Path("photos").mkdir()
    for number in range(4):
        grey = Image.fromarray(picture(number, colour=False))
        if mode == "I;16":
            grey = Image.fromarray(257 * picture(number, colour=False).astype(np.uint16))
        elif mode == "grey JPEG":
            grey = grey.convert("RGB")
        else:
            grey = grey.convert(mode)
        grey.save(f"photos/{number}.{'jpg' if mode == 'grey JPEG' else 'png'}")
    data = read()
    assert data.facts == Facts("images", (8, 8), 256, (), fitted=True)
    assert preset_for("photos") == "images"
    if mode not in ("1", "grey JPEG"):
        there = sorted(picture(n, colour=False).tobytes() for n in range(4))
        held = torch.cat([images(data), images(data, "test")])
        assert sorted(one.numpy().tobytes() for one in held) == there


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P"])
def test_one_image_in_colour_is_enough(mode: str) -> None:
    write_pictures(Path("photos"), 3, colour=False)
    coloured = Image.fromarray(picture(0)).convert(mode)
    coloured.save("photos/last.tif" if mode == "CMYK" else "photos/last.png")
    assert read().facts.shape == (3, 8, 8)
    assert preset_for("photos") == "colour"


def test_a_colour_that_jpeg_made_is_none() -> None:
    """The channels of a grey JPEG differ by rounding."""
    for number in range(4):
        Path("photos").mkdir(exist_ok=True)
        nearly = picture(number, colour=False)[..., None] // 2 + np.array([0, 3, 5], np.uint8)
        Image.fromarray(nearly).save(f"photos/{number}.png")
    assert read().facts.shape == (8, 8)


# A picture.


def only(image: Image.Image, name: str = "one.png", size: int = 8, **options: object) -> np.ndarray:
    """What becomes of one picture among others of its kind: (height, width, ...)."""
    Path("photos").mkdir(exist_ok=True)
    image.save(Path("photos", name), **options)
    facts = Facts("colour", (3, size, size), 256, (), fitted=True)
    found = Folder(f"photos/{name}").again(facts)
    assert found.names == [name]
    return found.split.pixels.reshape(3, size, size).permute(1, 2, 0).numpy()


def test_a_picture_of_the_size_stays_as_it_is() -> None:
    assert np.array_equal(only(Image.fromarray(picture(0))), picture(0))


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8), (9, 8)])
def test_the_middle_of_the_longer_side_is_kept(height: int, width: int) -> None:
    pixels = picture(0, height, width)
    top, left = (height - 8) // 2, (width - 8) // 2
    found = only(Image.fromarray(pixels))
    if (height, width) == (9, 8):
        # Half a pixel is cut off on either side.
        expected = (pixels[:-1].astype(float) + pixels[1:]) / 2
        assert np.abs(found - expected).max() <= 1
    else:
        assert np.array_equal(found, pixels[top : top + 8, left : left + 8])


@pytest.mark.parametrize("name", ["one.png", "one.jpg"])
@pytest.mark.parametrize("factor", [2, 16])
def test_a_large_picture_is_made_smaller(name: str, factor: int) -> None:
    """What is of one colour stays so, whatever the filter; the edges between are left out."""
    side = 8 * factor
    pixels = np.zeros((side, 3 * side, 3), np.uint8)
    pixels[:, side : side + side // 2] = (200, 100, 50)
    pixels[:, side + side // 2 : 2 * side] = (20, 40, 60)
    found = only(Image.fromarray(pixels), name).astype(int)
    assert np.abs(found[1:-1, 1:3] - (200, 100, 50)).max() <= 4
    assert np.abs(found[1:-1, 5:7] - (20, 40, 60)).max() <= 4


def test_a_small_picture_is_made_larger() -> None:
    found = only(Image.new("RGB", (3, 2), (10, 20, 30)))
    assert (found == (10, 20, 30)).all()


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    6: lambda x: np.rot90(x, -1),
    8: lambda x: np.rot90(x),
}
"""What undoes the camera's orientation, as EXIF numbers it."""


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_camera_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = only(Image.fromarray(picture(0)), exif=exif)
    assert np.array_equal(found, TURNS[orientation](picture(0)))


def test_what_is_transparent_is_white() -> None:
    pixels = np.dstack([picture(0), np.zeros((8, 8), np.uint8)])
    pixels[:4, :, 3] = 255
    pixels[4, :, 3] = 51
    found = only(Image.fromarray(pixels))
    assert np.array_equal(found[:4], picture(0)[:4])
    assert np.abs(found[4] - (0.2 * picture(0)[4] + 0.8 * 255)).max() <= 1
    assert (found[5:] == 255).all()


def test_grey_levels_of_16_bits_become_bytes() -> None:
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    found = only(Image.fromarray(deep)).astype(float)
    assert np.abs(found - deep[..., None] / 257).max() <= 0.5 + 1e-9


# The examples of a run again.


def test_examples_have_the_paths_below_the_folder_as_names() -> None:
    write_pictures(Path("photos/train/b"), 2)
    write_pictures(Path("photos/test/a"), 1, start=2)
    facts = Facts("colour", (3, 8, 8), 256, ("a", "b"), fitted=True)
    found = Folder("photos").again(facts)
    assert found.names == ["test/a/002.png", "train/b/000.png", "train/b/001.png"]
    expected = np.stack([picture(n).transpose(2, 0, 1) for n in (2, 0, 1)])
    assert torch.equal(found.split.pixels, torch.from_numpy(expected).flatten(1))
    assert torch.allclose(found.split.grey(), found.split.pixels / 255)


def test_a_run_on_grey_images_takes_grey_levels_of_what_is_in_colour() -> None:
    write_pictures(Path("photos"), 2)
    found = Folder("photos").again(Facts("digits", (8, 8), 256, (), fitted=True))
    luminance = picture(0) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found.split.pixels[0].reshape(8, 8).numpy() - luminance).max() <= 1


def test_pictures_of_another_size_are_no_examples_of_what_was_not_resized() -> None:
    write_pictures(Path("photos"), 3, height=9)
    with pytest.raises(UserError) as refusal:
        Folder("photos").again(Facts("digits", (8, 8), 17, ()))
    assert str(refusal.value) == (
        "--data: 'photos': 3 of 3 images cannot be read: " + ", ".join(
            f"'{n:03d}.png' (it is 9 x 8, and the run's images are 8 x 8, which were not resized)"
            for n in range(3)
        ) + "; mend them or move them away"
    )  # fmt: skip


def test_a_run_on_other_data_takes_no_pictures() -> None:
    write_pictures(Path("photos"), 3)
    with pytest.raises(UserError, match="'photos' holds images, and the run was trained on other"):
        Folder("photos").again(Facts("table", (4,), 0, ()))


# What --data names.


def test_a_folder_and_a_picture_are_read_by_the_folders_reader() -> None:
    path = write_pictures(Path("photos"), 3)[0]
    for data in ("photos", "photos/", str(path)):
        assert kind_of(data) is FOLDER
    assert issubclass(named(FOLDER.reader), Folder)
    assert len(load("photos", Path()).train) == 2


def test_what_a_run_on_a_folder_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my.photos").mkdir()
    assert [name_of(one) for one in ("my.photos", "my.photos/", "mine.npz", "digits")] == [
        *("my.photos", "my.photos", "mine", "digits"),
    ]
    monkeypatch.chdir("my.photos")
    assert [name_of(one) for one in (".", "../my.photos", "")] == ["my.photos", "my.photos", ""]


# What is refused.


def test_no_images() -> None:
    Path("photos/a").mkdir(parents=True)
    assert refused() == ("--data: 'photos' has no images; give a folder of PNG or JPEG files")
    Path("photos/a/notes.txt").touch()
    assert refused() == (
        "--data: 'photos' has no images among its 1 files; give a folder of PNG or JPEG files"
    )


def test_files_that_cannot_be_read_are_named_and_counted() -> None:
    paths = write_pictures(Path("photos"), 20)
    for path in paths[:6:2]:
        path.write_bytes(path.read_bytes()[:90])
    said = refused()
    assert said.startswith("--data: 'photos': 3 of 20 images cannot be read: '000.png' (")
    assert "), '002.png' (" in said
    assert said.endswith("); mend them or move them away")
    for path in paths:
        path.write_text("no picture")
    said = refused()
    assert said.startswith("--data: 'photos': 20 of 20 images cannot be read: '000.png' (")
    assert said.endswith(") and 17 more; mend them or move them away")


def test_a_picture_that_would_fill_the_memory() -> None:
    write_pictures(Path("photos"), 3)
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 8_000, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT", b"IEND")
    ]
    Path("photos/huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    said = refused()
    assert said.startswith("--data: 'photos': 1 of 4 images cannot be read: 'huge.png' (")
    assert "240000000 pixels" in said


def test_a_large_picture_is_read_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of one that may be too large, and refuses one of twice that size."""
    write_pictures(Path("photos"), 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 8 - 1)
    assert len(read().train) == 2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 4 - 1)
    assert "3 of 3 images cannot be read" in refused()


def test_what_is_no_file() -> None:
    write_pictures(Path("photos"), 3)
    os.mkfifo("photos/pipe.png")
    os.symlink("nowhere.png", "photos/link.png")
    said = refused()
    assert said.startswith("--data: 'photos': 2 of 5 images cannot be read: 'link.png' (")
    assert "No such file" in said
    assert "'pipe.png' (it is no file)" in said


def test_a_link_that_leads_back() -> None:
    write_pictures(Path("photos/a"), 3)
    os.symlink("..", "photos/a/loop")
    assert refused() == (
        "--data: 'photos/a/loop' is a link to a folder that it lies in; remove the link"
    )


def test_a_link_to_another_folder_is_followed() -> None:
    write_pictures(Path("elsewhere"), 3)
    write_pictures(Path("photos/a"), 3)
    os.symlink("../elsewhere", "photos/b")
    assert read().facts.classes == ("a", "b")


def test_images_beside_classes() -> None:
    write_pictures(Path("photos/cat"), 3)
    write_pictures(Path("photos"), 2)
    assert refused() == (
        "--data: 'photos/' has 2 images beside the folders of cat, as '000.png'; put each into the "
        "folder of its class, or give images of which some have a label as an .npz"
    )


def test_classes_without_images() -> None:
    write_pictures(Path("photos/cat"), 3)
    for name in ("dog", "eel/young"):
        Path("photos", name).mkdir(parents=True)
    assert refused() == (
        "--data: 'photos/': no images in dog, eel; each folder is a class, so fill or remove it"
    )


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["train/cat"], "has train/; give"),
        (["test"], "has test/; give"),
        (["train/cat", "val/cat"], "has train/ and val/; give"),
        (["train/cat", "test/cat", "val/cat"], "has test/ and train/ and val/; give"),
    ],
)
def test_splits_that_are_none(there: list[str], said: str) -> None:
    for folder in there:
        write_pictures(Path("photos", folder), 3)
    assert refused() == (
        f"--data: 'photos' {said} train/ and test/ and nothing else, or the folders of the classes"
    )


def test_a_split_without_images() -> None:
    write_pictures(Path("photos/train/cat"), 3)
    Path("photos/test/cat").mkdir(parents=True)
    assert refused() == (
        "--data: 'photos': test/ has no images; give some, or the folders of the classes without "
        "train and test"
    )


def test_classes_in_one_split_alone() -> None:
    write_pictures(Path("photos/train/cat"), 3)
    write_pictures(Path("photos/test"), 3)
    assert refused() == (
        "--data: 'photos': train/ has folders of classes and test/ has none; give them to both or "
        "to neither"
    )


def test_too_few_images() -> None:
    write_pictures(Path("photos"), 2)
    assert refused() == ("--data: 'photos' has 1 examples to train on; at least 2 are needed")


def test_one_picture_is_no_data_set() -> None:
    path = write_pictures(Path("photos"), 1)[0]
    assert refused(str(path)) == ("--data: 'photos/000.png' is one picture; give a folder of them")


def test_a_picture_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"--data: no file 'cat\.jpg'; give a folder of your own"):
        kind_of("cat.jpg")


def test_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(Path("photos"), 3)

    def none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    assert refused() == (
        "--data_size 8: 3 images of 8 x 8 in colour do not fit into memory; give a smaller size"
    )


def test_a_name_that_is_no_text() -> None:
    """As older systems wrote them: the bytes of a name need not be UTF-8."""
    paths = write_pictures(Path("photos/a"), 4)
    os.rename(paths[0], b"photos/a/\xe4.png")
    os.rename("photos/a", b"photos/\xfc")
    facts = read().facts
    assert facts.classes == ("\N{REPLACEMENT CHARACTER}",)
    names = Folder("photos").again(facts).names
    assert names[-1] == "\N{REPLACEMENT CHARACTER}/\N{REPLACEMENT CHARACTER}.png"
