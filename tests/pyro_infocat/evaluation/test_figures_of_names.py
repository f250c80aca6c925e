"""Figures of classes with any names and any number, and further figures."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from PIL import Image

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Tested
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import Split
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.figures import (
    LONGEST_NAME,
    MOST_ROWS,
    Rows,
    confusion,
    draw,
    latent,
    reconstructions,
)
from tests.users_parts.pictures import OfLabels, Shares


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def of_classes(classes: tuple[str, ...], examples: int = 60) -> Tested:
    """An untrained model of two categories and images of 2 x 3 pixels; labels in turn."""
    pixels = torch.randint(256, (examples, 6), dtype=torch.uint8)
    labels = torch.arange(examples) % max(1, len(classes))
    split = Split(pixels, labels, 256, bool(classes))
    data = DataSet(Facts("digits", (2, 3), 256, classes), split, split)
    prior = priors.Orthogonal(2, 2)
    model = CatVAE(prior, decoders.MLP(prior.latent, 6, likelihoods.Gaussian(), [4]))
    guide = Enumerated(partial(encoders.MLP, 6, [4]), 2, prior.latent, 4)
    return Tested(model.eval(), guide.eval(), data, "grey", [{"epoch": 1.0, "elbo": -3.0}])


def figures(of: Tested) -> dict[str, Figure]:
    """Those that name classes."""
    with torch.no_grad():
        rows = Rows.of(of.category, 2, of.data)
        return {
            "confusion": confusion(rows),
            "latent": latent(of.model, rows, of.labels, of.z),
            "reconstructions": reconstructions(of.model, of.data, of.z),
        }


def columns(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.axes[0].get_xticklabels()]


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


# What each name is drawn as: a sign with a line before it stands for the sign.
NAMES = {
    "$x$": r"\$x\$",
    "$": r"\$",
    "$$": r"\$\$",
    r"$\frac{1}{": r"\$\frac{1}{",
    r"\$5 or \$6": r"\\$5 or \\$6",
    "\\": "\\",
    "a_1^{2": "a_1^{2",
    "_hidden": " _hidden",
    "100% {x}": "100% {x}",
    "two\nlines\t here": "two lines here",
    "": "",
    "猫\x00": "猫\x00",
    "x" * LONGEST_NAME: "x" * LONGEST_NAME,
    "y" * 5000: "y" * (LONGEST_NAME - 1) + "…",
    "$" * 5000: r"\$" * (LONGEST_NAME - 1) + "…",
}


def test_names_are_drawn_letter_by_letter() -> None:
    found, drawn = figures(of_classes(tuple(NAMES))), list(NAMES.values())
    assert columns(found["confusion"]) == columns(found["reconstructions"]) == drawn
    assert legend(found["latent"]) == drawn
    assert not any(map(is_math_text, drawn))


@pytest.mark.parametrize("name", NAMES.values())
def test_no_name_is_read_as_a_formula(name: str) -> None:
    """As matplotlib has it, which then draws a sign for the sign with a line before it."""
    assert not is_math_text(name)
    # So it would be otherwise.
    assert is_math_text("$x$")


@pytest.mark.slow
def test_pictures_of_names_have_a_pictures_size(tmp_path: Path) -> None:
    """Without a warning of a library's, which would be an error here."""
    draw(of_classes(tuple(NAMES)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 9
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 2500, path


def test_the_names_of_rows_are_shortened_too() -> None:
    of = of_classes(("z" * 100,))
    rows = Rows.of(torch.zeros(60, dtype=torch.int64), 2, of.data)
    assert rows.labels == [f"category 0: {'z' * (LONGEST_NAME - 1)}…", "category 1: unused"]


# Very many classes.

MANY = tuple(f"class {number}" for number in range(3000))


def test_the_largest_of_many_labels_are_named_and_that_is_said() -> None:
    """Labels 2,990 to 2,999 have three examples each, 0 to 9 two, and 990 others one."""
    of = of_classes(MANY, 1040)
    labels = torch.cat(
        [torch.arange(1000), torch.arange(10), torch.arange(2990, 3000).repeat_interleave(3)]
    )
    split = replace(of.data.test, labels=labels)
    of = replace(of, data=replace(of.data, test=split))
    found = figures(of)
    named = [MANY[number] for number in [*range(10), *range(2990, 3000)]]
    assert columns(found["confusion"]) == named
    assert legend(found["latent"]) == named
    for name in ("confusion", "latent"):
        said = found[name].axes[0].get_title(loc="center") or found[name].axes[0].get_title("left")
        assert said.endswith("(the 20 largest of 3000 labels)")
    assert columns(found["reconstructions"]) == list(MANY[:MOST_ROWS])
    (axes,) = found["reconstructions"].axes
    titles = axes.get_title("center") + axes.get_title("left")
    assert titles.endswith("(the first 20 of 3000 labels)")
    # All points are there: those of the labels without a name in one colour of their own.
    assert [len(dots.get_offsets()) for dots in found["latent"].axes[0].collections] == [
        990,
        *[2] * 10,
        *[3] * 10,
    ]


def test_shares_of_a_row_are_of_all_its_examples() -> None:
    """Also of those whose label has no column: 25 labels of two examples each, in one category."""
    of = of_classes(MANY[:25], 50)
    rows = Rows.of(torch.zeros(50, dtype=torch.int64), 2, of.data)
    assert rows.columns == list(range(20))
    (picture,) = confusion(rows).axes[0].get_images()
    shares = picture.get_array()
    assert shares.shape == (2, 20)
    assert shares[0].tolist() == [2 / 50] * 20
    assert shares[1].tolist() == [0] * 20


@pytest.mark.slow
def test_pictures_of_many_classes_have_a_pictures_size(tmp_path: Path) -> None:
    draw(of_classes(MANY, 3000), tmp_path)
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert max(image.size) < 2500, path


# Further figures.


@pytest.mark.parametrize(
    "classes",
    [("a", "b"), pytest.param((), marks=pytest.mark.slow)],
    ids=["labels", "no labels"],
)
def test_further_figures(classes: tuple[str, ...], tmp_path: Path) -> None:
    draw(of_classes(classes), tmp_path, [Shares(), OfLabels("red")])
    drawn = {path.stem for path in tmp_path.iterdir()}
    assert "shares" in drawn
    assert ("of_labels" in drawn) == ("confusion" in drawn) == bool(classes)
    with Image.open(tmp_path / "shares.png") as image:
        image.verify()


@pytest.mark.parametrize("name", ["shares", "latent", "confusion"])
def test_a_name_that_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfLabels, "name", name)
    with pytest.raises(UserError) as refusal:
        draw(of_classes(("a", "b")), tmp_path, [Shares(), OfLabels()])
    assert str(refusal.value) == (
        f"--figures tests.users_parts.pictures.OfLabels: there is a figure '{name}' already"
    )
    assert not list(tmp_path.iterdir())
