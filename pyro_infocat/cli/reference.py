"""``python -m pyro_infocat.cli.reference``: the tables of docs/settings.md, from declarations."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from pyro_infocat.cli.markdown import markdown_table, with_table
from pyro_infocat.cli.run_flags import OWN, flags
from pyro_infocat.errors import PACKAGES
from pyro_infocat.parts import NOTHING, in_words, named, own_parameters, plain
from pyro_infocat.places import CHECKOUT
from pyro_infocat.settings import DECLARED, ROLES, SEVERAL, Part, default

LIMITS = {"least": "at least", "most": "at most", "above": "above", "below": "below"}

WITH_CLASSES = (
    *("models", "guides"),
    *("pyro_infocat.data", "pyro_infocat.objective", "pyro_infocat.evaluation"),
)
"""The packages whose modules hold classes for the roles. The views' module is imported anyway."""


def main() -> None:
    """Write both tables into docs/settings.md; print them in an installed copy, which has none."""
    if CHECKOUT is None:
        print(f"{reference()}\n\n{classes()}")
        return
    page = CHECKOUT / "docs" / "settings.md"
    text = with_table(page.read_text(), reference(), "settings")
    page.write_text(with_table(text, classes(), "classes"))


def reference() -> str:
    """Every flag of a run as a table in Markdown."""
    rows = []
    for name, flag in flags().items():
        takes = f"`{flag.values}`" if flag.values else ""
        if name in DECLARED:
            takes = ", ".join([takes, *_limits(DECLARED[name].metadata["limits"])])
        usual = "" if flag.default in (None, (), {}) or name in OWN else _default(flag.default)
        rows.append((f"`{name}`", takes, usual, flag.help))
    return markdown_table(("setting", "takes", "default", "what it is"), rows)


def classes() -> str:
    """The classes of this project for each role, with their arguments, as Markdown."""
    return "\n\n".join(_chapter(role) for role in ROLES)


def _chapter(role: str) -> str:
    kinds = list(_of_role(role))
    given = ", ".join(f"`{name}`" for name in ROLES[role].given)
    says = [f"Subclasses of `{ROLES[role].base}`."]
    says += [f"The run supplies {given}, where the constructor names them."] if given else []
    if not kinds:
        says += ["This project has no class to name here; give your own."]
    elif role in SEVERAL:
        says += ["Every run has these; the setting adds your own."]
    chapter = [f"### {role}", " ".join(says)]
    if kinds:
        rows = [_row(role, kind) for kind in kinds]
        chapter += [markdown_table(("class", "what it is", "arguments"), rows)]
    return "\n\n".join(chapter)


def _of_role(role: str) -> Iterator[type]:
    """This project's classes of a role that a flag can name, by dotted path."""
    for package in WITH_CLASSES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    base, usual = named(ROLES[role].base), default(DECLARED[role])
    below = {_path(kind): kind for kind in _subclasses(base)}
    for path in sorted(below):
        if below[path] is base and not (isinstance(usual, Part) and usual.class_path == path):
            continue
        if path.split(".")[0] in PACKAGES and _can_be_given(role, below[path]):
            yield below[path]


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    """A class and all below it."""
    yield kind
    for one in kind.__subclasses__():
        yield from _subclasses(one)


def _can_be_given(role: str, kind: type) -> bool:
    """Whether a flag can name a class: it is not abstract, and needs no tensors."""
    needed = [one for one in own_parameters(role, kind).values() if one.default is NOTHING]
    return not inspect.isabstract(kind) and all(one.annotation is not Tensor for one in needed)


def _row(role: str, kind: type) -> Sequence[str]:
    arguments = []
    for name, one in own_parameters(role, kind).items():
        usual = "" if one.default is NOTHING else f", {_default(one.default)}"
        arguments.append(f"`{name}` ({in_words(one.annotation)}{usual})")
    summary = " ".join(re.split(r"\n\s*\n", inspect.getdoc(kind) or "")[0].split())
    # As Markdown instead of reStructuredText.
    summary = re.sub(r"(?::\w+:)?`+~?([^`]+)`+", r"`\1`", summary)
    return f"`{_path(kind)}`", summary, ", ".join(arguments) or "none"


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _limits(limits: Mapping[str, float]) -> list[str]:
    return [f"{LIMITS[name]} {value:,}" for name, value in limits.items()]


def _default(value: Any) -> str:
    """A default as a preset writes it."""
    return f"`{value if isinstance(value, str) else json.dumps(plain(value))}`"


if __name__ == "__main__":
    main()
