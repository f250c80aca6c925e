"""``report.html``: what a run learned, as one page that asks nothing of any network.

Shapes: K categories, X features.
"""

import functools
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image
from torch import Tensor

from pyro_infocat.catalogue import IN_MEMORY
from pyro_infocat.data import Split
from pyro_infocat.errors import PACKAGES, reason
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.evaluation.part import Tested
from pyro_infocat.report import presets, rows, words
from pyro_infocat.report.chosen import Category, Chosen
from pyro_infocat.report.thumbnails import data_uri, pictures, png_uri
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import CONFIG, ROLES, SEVERAL, Settings
from pyro_infocat.storage.configuration import write_yaml
from pyro_infocat.storage.files import replace
from pyro_infocat.storage.folder import spread

REPORT = "report.html"

SEED = 0

MOST, FEWER, MANY = 5, 3, 30
"""Examples of each kind that a category shows; where there are so many categories."""

ROOM_FOR_THUMBNAILS, ROOM_FOR_FIGURES = 1_300_000, 1_500_000
"""Bytes of the page for them; what does not fit is named instead."""

KINDS = {
    "typical": "Most typical",
    "doubtful": "Most doubtful",
    "unlikely": "Most unlikely",
}


def write(tested: Tested, result: Mapping[str, Any], settings: Settings, out: Path) -> None:
    """Write the page into a run's folder.

    It is made of what was evaluated, and a run without it is whole: where it cannot be made, a line
    on stderr says why.

    :param result: what metrics.json holds.
    :raises OSError: where it cannot be written.
    """
    try:
        page = html(tested, result, settings, out)
    except OSError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {reason(error)}"
        print(f"{out / REPORT} was not written ({said})", file=sys.stderr)
        return
    replace(out / REPORT, page.encode())


def html(tested: Tested, result: Mapping[str, Any], settings: Settings, out: Path) -> str:
    """The page."""
    device = tested.x.device
    with evaluating(device, tested.model, tested.guide, seed=SEED):
        most = MOST if tested.guide.categories < MANY else FEWER
        chosen = Chosen(tested, most)
        decoded = settings.weights.get("reconstruction", 1.0) > 0
        sentences = list(chosen.sentences(decoded))
        categories = chosen.all()
        images = tested.data.facts.images
        shown = Pictured(tested, chosen) if images else Listed(tested, chosen)
        cards = [shown.card(category) for category in categories]
    figures, too_large = _figures(out / "figures")
    return _template().render(
        data=settings.data if settings.data != IN_MEMORY else "arrays given in Python",
        headline=_headline(settings, result, chosen),
        tiles=_tiles(result, chosen),
        doubts=result.get("doubts", []),
        sentences=sentences,
        cards=cards,
        kinds=KINDS,
        images=images,
        head=rows.head(tested.data.facts),
        left_out=rows.left_out(tested.data.facts),
        without_pictures=sum(card["pictures"] is None for card in cards),
        density=chosen.log_p is not None,
        samples=tested.nll_samples,
        figures=figures,
        too_large=too_large,
        metrics=words.metrics(result),
        beside=presets.nearest(settings, tested.data.facts.preset),
        shown=_shown,
        config=write_yaml(settings.as_dict()),
        commands=_commands(settings, out, result["epochs"]),
        versions=result.get("versions", {}),
        made_by=result.get("made_by", {}),
        run={key: result[key] for key in ("device", "precision", "seed") if key in result},
    )


class Pictured:
    """Categories of images."""

    def __init__(self, tested: Tested, chosen: Chosen) -> None:
        self.tested, self.chosen, self.left = tested, chosen, ROOM_FOR_THUMBNAILS
        model, device = tested.model, tested.x.device
        every = torch.arange(chosen.categories, device=device)
        self.shape = tested.data.facts.shape
        centres = mean_of(model.prior.component(every))
        self.centres = pictures(mean_of(model.decoder(centres)), self.shape)

    def card(self, category: Category) -> dict[str, Any]:
        """What the template shows of a category; no pictures where there is no more room."""
        card: dict[str, Any] = {"category": category, "pictures": None, "centre": None}
        if self.left <= 0:
            return card
        card["centre"] = self._uri(self.centres[category.number])
        card["pictures"] = {
            kind: self._examples(getattr(category, kind), kind, category) for kind in KINDS
        }
        return card

    def _examples(self, index: list[int], kind: str, category: Category) -> list[dict[str, str]]:
        if not index:
            return []
        grey = _grey(self.tested.data.test, index)
        return [
            {
                "source": self._uri(image),
                **_about(self.chosen, self.tested, place, kind, category),
            }
            for place, image in zip(index, pictures(grey, self.shape), strict=True)
        ]

    def _uri(self, image: Image.Image) -> str:
        address = data_uri(image)
        self.left -= len(address)
        return address


class Listed:
    """Categories of rows of values."""

    def __init__(self, tested: Tested, chosen: Chosen) -> None:
        self.tested, self.chosen = tested, chosen

    def card(self, category: Category) -> dict[str, Any]:
        """What the template shows of a category."""
        found = {}
        for kind in KINDS:
            index = getattr(category, kind)
            x = _grey(self.tested.data.test, index)
            found[kind] = [
                {"words": one, **_about(self.chosen, self.tested, place, kind, category)}
                for place, one in zip(index, rows.rows(x, self.tested.data.facts), strict=True)
            ]
        return {"category": category, "pictures": found, "centre": None}


def _grey(split: Split, index: list[int]) -> Tensor:
    return split.grey(torch.tensor(index, dtype=torch.int64, device=split.device))


def _about(
    chosen: Chosen, tested: Tested, index: int, kind: str, category: Category
) -> dict[str, str]:
    """A few words under an example, and a sentence in its place for who cannot see it."""
    classes = tested.data.facts.classes
    label = classes[int(tested.labels[index])] if classes else None
    likeliest = ", ".join(f"{q:.2f} for category {c}" for c, q in chosen.doubt(index))
    said = [f"test example {index}"]
    said += [f"label {label}"] if label is not None else []
    said.append(f"q(c|x) {likeliest}")
    if chosen.log_p is not None:
        said.append(f"log p(x) {words.number(chosen.log_p[index].item(), 1)} nats")
    caption = label or ""
    if kind == "doubtful":
        caption = f"or {chosen.doubt(index)[1][0]}"
    elif kind == "unlikely" and chosen.log_p is not None:
        caption = words.number(chosen.log_p[index].item(), 1)
    return {"caption": caption, "said": f"{KINDS[kind]} of category {category.number}: "
            f"{'; '.join(said)}"}  # fmt: skip


def _headline(settings: Settings, result: Mapping[str, Any], chosen: Chosen) -> str:
    """What the run is worth, in a sentence or two."""
    used, of = result["clusters_used"], chosen.categories
    text = (
        f"{used} of {of:,} {'category' if of == 1 else 'categories'} {'is' if used == 1 else 'are'}"
        f" in use on {words.counted(len(chosen.assigned), 'test example')}."
    )
    if "accuracy" in result:
        accuracy = words.percent(result["accuracy"])
        number = result.get("labelled_test_examples")
        them = "them" if number is None else f"the {words.counted(number, 'example')} with a label"
        text += (
            f" With each category standing for at most one label, {accuracy} of {them} are where "
            "their label is."
        )
    text += f" The bound on log p(x) is {words.number(result['elbo'])} nats per example."
    epochs = result["epochs"]
    early = f" (of {settings.epochs:,})" if epochs < settings.epochs else ""
    seconds = words.number(result["train_seconds"], 0)
    return f"{text} Training took {seconds} s for {words.counted(epochs, 'epoch')}{early}."


def _tiles(result: Mapping[str, Any], chosen: Chosen) -> list[tuple[str, str, str]]:
    """The figures on top of the page: name, value, unit."""
    found = []
    if "accuracy" in result:
        found.append(("Accuracy", words.percent(result["accuracy"]), ""))
    used = f"{result['clusters_used']} of {chosen.categories:,}"
    found.append(("Categories in use", used, ""))
    found.append(("Bound", words.number(result["elbo"]), words.NATS))
    if "nll" in result:
        found.append(("NLL", words.number(result["nll"]), words.NATS))
    seconds = words.number(result["train_seconds"], 0)
    found.append(("Training", seconds, f"s, {words.counted(result['epochs'], 'epoch')}"))
    return found


def _figures(folder: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The figures of the folder, ours in their order and then others; names of those too large."""
    order = {name: place for place, name in enumerate(words.FIGURES)}
    files = sorted(folder.glob("*.png"), key=lambda f: (order.get(f.stem, len(order)), f.stem))
    found, too_large, left = [], [], ROOM_FOR_FIGURES
    for file in files:
        address = png_uri(file.read_bytes())
        if len(address) > left:
            too_large.append(file.stem)
            continue
        left -= len(address)
        caption = words.FIGURES.get(file.stem, file.stem)
        found.append({"name": file.stem, "source": address, "caption": caption})
    return found, too_large


def _commands(settings: Settings, out: Path, epochs: int) -> list[tuple[str, str]]:
    """How to go on, and with which command."""
    foreign = _foreign(settings)
    trust = ["--trust", *foreign] if foreign else []
    python, folder = ["python", "-m"], str(out)
    in_memory = settings.data == IN_MEMORY
    data = "FILE" if in_memory else settings.data
    found = [
        ("Draw samples of every category", ["pyro_infocat.sample", folder, *trust]),
        (
            "Write the category of every example of a data set",
            ["pyro_infocat.categorise", folder, data, *trust],
        ),
        (
            "Take the guide along, as a program without this project's code",
            ["pyro_infocat.export", folder, *trust],
        ),
    ]
    resume = ["pyro_infocat.run", "--out", folder, "--resume", "true"]
    if not in_memory and not spread(settings):
        more = ["--epochs", str(2 * epochs)]
        found.append(("Train for as many epochs again", [*resume, *more, *trust]))
    if not in_memory:
        again = ["--config", str(out / CONFIG), "--seed", str(settings.seed + 1)]
        to = ["--out", f"{folder}-seed{settings.seed + 1}"]
        found.append(("Repeat it with another seed", ["pyro_infocat.run", *again, *to]))
    told = [(what, shlex.join([*python, *command])) for what, command in found]
    return [
        *told,
        ("Look at the curves of training", shlex.join(["tensorboard", "--logdir", folder])),
    ]


def _foreign(settings: Settings) -> list[str]:
    """The modules outside this project that the run's parts are of."""
    parts = [
        part
        for role in ROLES
        for part in (getattr(settings, role) if role in SEVERAL else [getattr(settings, role)])
        if part is not None
    ]
    modules = [part.class_path.rpartition(".")[0] for part in parts]
    return sorted({module for module in modules if module.partition(".")[0] not in PACKAGES})


def _shown(value: Any) -> str:
    """A setting's value, on one line."""
    if value is None:
        return words.DASH
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict) and set(value) == {"class_path", "init_args"}:
        return str(value["class_path"])
    return str(value)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": words.percent, "counted": words.counted}
    return environment.get_template("page.html.j2")
