"""``report.html``: whole, well-formed and of this run alone."""

import base64
import errno
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pyro_infocat.catalogue import IN_MEMORY, Column, Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation import Tested
from pyro_infocat.report import page
from pyro_infocat.report import rows as listed
from pyro_infocat.settings import Part
from tests.pyro_infocat.report.pieces import SETTINGS, examined, result, sure

VOID = {"meta", "link", "img", "br"}


class Parsed(HTMLParser):
    """Elements, headings and text; an element that is not closed in its turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


def made(of: Tested, **settings: Any) -> tuple[Parsed, str]:
    text = page.html(of, result(of), replace(SETTINGS, **settings), Path("run"))
    return Parsed(text), text


@pytest.fixture
def ordinary() -> Tested:
    labels = [n % 3 for n in range(30)]
    return examined(sure([n % 4 for n in range(30)], 4), labels, ["one", "two", "three"])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_is_one_file_that_asks_nothing_of_any_network(ordinary: Tested) -> None:
    found, text = made(ordinary)
    addresses = [one[key] for _, one in found.found for key in ("src", "href") if key in one]
    assert len(addresses) > 40
    assert all(str(one).startswith(("data:", "#")) for one in addresses)
    assert not re.search(r"https?:|@import|url\(|<script|<iframe|<object", text)
    (policy,) = [one for one in found.of("meta") if "http-equiv" in one]
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_headings_go_down_one_step_at_a_time_and_links_lead_to_them(ordinary: Tested) -> None:
    found, _ = made(ordinary)
    levels = [int(tag[1]) for tag, _ in found.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [one["id"] for _, one in found.found if "id" in one]
    assert len(ids) == len(set(ids))
    links = [str(one["href"])[1:] for one in found.of("a")]
    named = [str(one["aria-labelledby"]) for _, one in found.found if "aria-labelledby" in one]
    assert {*links, *named} <= set(ids)
    assert "main" in links


def test_every_picture_is_whole_and_is_told_in_words(ordinary: Tested) -> None:
    found, _ = made(ordinary)
    assert len(found.of("img")) == 4 + 4 * 3 * 5
    for one in found.of("img"):
        content = base64.b64decode(str(one["src"]).removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.size == (4, 4)
        assert one["alt"]


def test_a_thumbnail_is_the_example_in_ink_on_white(ordinary: Tested) -> None:
    found, _ = made(ordinary)
    shown = next(one for one in found.of("img") if "typical" in str(one["alt"]))
    told = re.search(r"test example (\d+); label (\w+);", str(shown["alt"]))
    assert told is not None
    index = int(told[1])
    assert told[2] == ["one", "two", "three"][index % 3]
    content = base64.b64decode(str(shown["src"]).partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert list(image.tobytes()) == (255 - ordinary.data.test.pixels[index]).tolist()


def test_the_headline_and_the_tiles_tell_the_metrics(ordinary: Tested) -> None:
    text = made(ordinary)[0].text
    accuracy = result(ordinary)["accuracy"]
    for said in (
        "4 of 4 categories are in use on 30 test examples.",
        f"{accuracy:.1%} of them are where their label is.",
        "The bound on log p(x) is \N{MINUS SIGN}23.46 nats per example.",
        "Training took 12 s for 4 epochs (of 100).",
        "commit 0123456789ab with changes that are not committed",
    ):
        assert said in text
    unlabelled = made(examined(sure([0, 1], 2)))[0].text
    assert "of label" not in unlabelled
    assert "accuracy" not in unlabelled


def test_a_metric_of_ones_own_has_its_own_name(ordinary: Tested) -> None:
    found, _ = made(ordinary)
    names = [text for tag, text in found.texts if tag == "th"]
    assert "own" in names
    assert "bound (ELBO)" in names
    assert "seed" not in names


EVIL = "<script>alert('x')</script>&\"quoted\""


def test_names_are_no_html(ordinary: Tested) -> None:
    classes = [EVIL, "two", "<b>three"]
    evil = examined(sure([0, 1, 2] * 5, 3), [0, 1, 2] * 5, classes)
    Path("run/figures").mkdir(parents=True)
    Image.new("L", (3, 3)).save("run/figures/<i>own.png")
    found, text = made(evil, data=f"{EVIL}.npz")
    assert "<script" not in text
    assert "<b>three" not in text
    assert "<i>" not in text
    assert f"{EVIL} :" not in found.text
    assert EVIL in found.text
    assert any(EVIL in str(one["alt"]) for one in found.of("img"))
    assert [one for one in found.of("img") if one["alt"] == "<i>own"]


def test_figures_are_embedded_ours_first_and_large_ones_named() -> None:
    folder = Path("run/figures")
    folder.mkdir(parents=True)
    for name in ("aaa", "training", "confusion"):
        Image.new("L", (30, 20)).save(folder / f"{name}.png")
    (folder / "zzz.png").write_bytes(os.urandom(page.ROOM_FOR_FIGURES))
    found, _ = made(examined(sure([0, 1], 2)))
    captions = [text for tag, text in found.texts if "figures/" in text]
    assert captions == ["figures/confusion.png", "figures/training.png", "figures/aaa.png"]
    assert "Too large for this page, and in the folder figures: zzz." in found.text


def test_settings_that_differ_from_the_preset_come_first(ordinary: Tested) -> None:
    from pyro_infocat.cli import run_flags

    request = run_flags.read(["--prior.scale", "4.5", "--epochs", "7"])
    settings, _, _ = run_flags.parse(request)
    text = page.html(ordinary, result(ordinary), settings, Path("run"))
    words = [text for tag, text in Parsed(text).texts if tag == "code"]
    assert words[:7] == ["digits", "prior.scale", "4.5", "4.0", "epochs", "7", "130"]
    plain, _, _ = run_flags.parse(run_flags.read([]))
    told = Parsed(page.html(ordinary, result(ordinary), plain, Path("run"))).text
    assert "The preset digits , as it stands." in told


def commands(**settings: Any) -> list[str]:
    of = examined(sure([0, 1], 2))
    text = page.html(of, result(of), replace(SETTINGS, **settings), Path("my runs/a"))
    return [text for tag, text in Parsed(text).texts if tag == "code" and text[:6] == "python"]


def test_how_to_go_on() -> None:
    assert commands() == [
        "python -m pyro_infocat.sample 'my runs/a'",
        "python -m pyro_infocat.categorise 'my runs/a' digits",
        "python -m pyro_infocat.export 'my runs/a'",
        "python -m pyro_infocat.run --out 'my runs/a' --resume true --epochs 8",
        "python -m pyro_infocat.run --config 'my runs/a/config.yaml' --seed 1 "
        "--out 'my runs/a-seed1'",
    ]
    # No command line has arrays given in Python, and a cosine is spread over the epochs.
    assert [one.split()[2] for one in commands(data=IN_MEMORY)] == [
        "pyro_infocat.sample",
        "pyro_infocat.categorise",
        "pyro_infocat.export",
    ]
    assert not any("--resume" in one for one in commands(anneal="cosine"))
    assert any(
        "--resume" in one
        for one in commands(anneal="cosine", schedules={"learning_rate": [[0, 1e-3]]})
    )
    mine = commands(prior=Part("mine.Prior"), metrics=(Part("b.c.Metric"),))
    assert mine[0] == "python -m pyro_infocat.sample 'my runs/a' --trust b.c mine"


@pytest.mark.slow
def test_a_hundred_categories_of_noise_stay_below_three_megabytes() -> None:
    """Noise in colour is what compresses worst; figures have a room of their own."""
    q = sure([n % 100 for n in range(500)], 100)
    of = examined(q, shape=(3, 40, 40))
    found, text = made(of)
    left_out = re.search(r"The (\d+) emptiest categories without pictures", found.text)
    assert left_out is not None
    assert len(found.of("article")) == 100
    assert int(left_out[1]) == sum("src" not in str(one) for one in _cards(text))
    assert len(text) + page.ROOM_FOR_FIGURES < 3_000_000
    # One more category's thumbnails may go over the room.
    assert len(text) > page.ROOM_FOR_THUMBNAILS


def _cards(text: str) -> list[str]:
    return re.findall(r"<article.*?</article>", text, re.DOTALL)


def test_large_images_are_made_smaller() -> None:
    of = examined(sure([0, 1], 2), shape=(96, 60))
    found, _ = made(of)
    content = base64.b64decode(str(found.of("img")[0]["src"]).partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (30, 48)


def rows(columns: tuple[Column, ...], x: torch.Tensor) -> Tested:
    of = examined(sure([0, 1], 2))
    split = Split.of_real_numbers(x)
    facts = Facts("table", (x.shape[1],), 0, (), columns)
    shown = replace(of, data=DataSet(facts, split, split))
    shown.__dict__.update({name: of.__dict__[name] for name in ("logits", "z", "log_p")}, x=x)
    return shown


def cells(found: Parsed) -> list[str]:
    return [text for tag, text in found.texts if tag == "td"]


def test_rows_of_a_table_are_told_in_its_own_units() -> None:
    columns = (
        Column("weight", "real", mean=70.0, scale=12.0),
        Column("visits", "count"),
        Column("<b>town", "category", ("Rome", "Turin")),
    )
    x = torch.tensor([[0.5, 1200, 0, 1], [float("nan")] * 4])
    found, _ = made(rows(columns, x))
    assert not [one for one in found.of("img") if "category" in str(one["alt"])]
    head = [text for tag, text in found.texts if tag == "th"][:4]
    assert head == ["example", "weight", "visits", "<b>town"]
    first = [cells(found)[place : place + 3] for place in (0, 4)]
    assert ["76", "1,200", "Turin"] in first
    assert cells(found).count("\N{EM DASH}") == 3 * 3


def test_other_data_are_shown_by_feature() -> None:
    x = torch.arange(30.0).reshape(2, 15)
    found, _ = made(rows((), x))
    assert "3 further columns not shown." in found.text
    assert [text for tag, text in found.texts if tag == "th"][1:3] == ["x0", "x1"]
    assert "16" in cells(found)
    assert "28" not in cells(found)


def test_what_cannot_be_told_ends_no_run(
    ordinary: Tested, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Any]:
        raise ValueError("a component\nwithout density")

    monkeypatch.setattr(page.Chosen, "all", broken)
    page.write(ordinary, result(ordinary), SETTINGS, Path())
    said = capsys.readouterr()
    assert said.err == "report.html was not written (ValueError: a component without density)\n"
    assert not Path(page.REPORT).exists()


def test_a_disk_that_is_full_is_told_as_ever(
    ordinary: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        page.write(ordinary, result(ordinary), SETTINGS, Path())
    assert not list(Path().iterdir())


def test_a_folder_that_has_gone_is_told_as_ever(
    ordinary: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(folder: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))

    monkeypatch.setattr(page, "_figures", gone)
    with pytest.raises(FileNotFoundError, match="figures"):
        page.write(ordinary, result(ordinary), SETTINGS, Path())


def test_writing_leaves_the_random_numbers_alone(ordinary: Tested) -> None:
    before = torch.get_rng_state()
    page.write(ordinary, result(ordinary), SETTINGS, Path())
    first = Path(page.REPORT).read_bytes()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    page.write(ordinary, result(ordinary), SETTINGS, Path())
    assert Path(page.REPORT).read_bytes() == first


def test_a_category_without_rows_of_a_table_has_none() -> None:
    columns = (Column("height", "real"), Column("colour", "category", ("red", "green")))
    facts = Facts("table", (3,), 0, (), columns)
    split = Split.of_real_numbers(torch.tensor([[0.5, 1.0, 0.0]]))
    assert listed.rows(page._grey(split, []), facts) == []
    assert listed.rows(page._grey(split, [0]), facts) == [["0.5", "red"]]
