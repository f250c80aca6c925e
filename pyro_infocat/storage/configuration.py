"""YAML files of settings, read as plain values.

Stricter than YAML: no dates, no anchors, no merge keys, no key twice, and numbers as JSON has them
or as ``1e-3`` or ``.inf``. So a file says one thing to every reader and cannot expand without end.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pyro_infocat.errors import UserError
from pyro_infocat.settings import CONFIG

LONGEST_NUMBER = 400
"""Characters of a number: more than any float has."""

MOST_CHARACTERS = 100_000
"""Characters of a file: a config has a thousand, and PyYAML takes a second for these."""

DEEPEST = 20
"""Levels of lists and names with values in one another."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules above."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise _wrong("anchors (&name) and aliases (*name) are not read", event)
        if self.depth > DEEPEST:
            raise _wrong(f"nested deeper than {DEEPEST} levels", event)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.tag.startswith("tag:yaml.org,2002:"):
                raise _wrong("a key must be a word", key)
            if key.value in seen:
                raise _wrong(f"the key '{key.value}' stands here twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:
        text = self.construct_scalar(node)
        if len(text) > LONGEST_NUMBER:
            raise _wrong(f"a number of {len(text)} characters", node)
        if re.fullmatch(r"[-+]?[0-9]+", text):
            return int(text)
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _wrong(what: str, place: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=place.start_mark)


TAG = "tag:yaml.org,2002"
FLOAT = r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"
_Loader.add_implicit_resolver(
    f"{TAG}:bool", re.compile("^(true|false|True|False|TRUE|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(f"{TAG}:null", re.compile("^(~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver(f"{TAG}:float", re.compile(f"^({FLOAT})$"), list("-+.0123456789"))
_Loader.add_constructor(f"{TAG}:float", _Loader.construct_number)


def read_yaml(text: str) -> Any:
    """The plain values of a YAML text.

    :raises yaml.YAMLError: where it is no YAML, or more than this module reads.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters; a config has a thousand")
    try:
        return yaml.load(text, _Loader)
    # PyYAML lets through what Python says of a tag's text, as of !!int without a number.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise yaml.YAMLError(f"it cannot be read ({type(error).__name__})") from error


def read_file(path: Path) -> Any:
    """The plain values of a YAML file.

    :raises OSError: where it cannot be opened.
    :raises yaml.YAMLError: as :func:`read_yaml`.
    """
    with path.open(encoding="utf-8") as file:
        try:
            return read_yaml(file.read(MOST_CHARACTERS + 1))
        except UnicodeDecodeError as error:
            raise yaml.YAMLError(f"it is not UTF-8 text ({error.reason})") from error


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which puts into quotes what only :class:`_Loader` takes for a number.

    To PyYAML alone the word ``1e3`` is none.
    """


_Dumper.add_implicit_resolver(f"{TAG}:float", re.compile(f"^({FLOAT})$"), list("-+.0123456789"))


def write_yaml(values: dict[str, Any]) -> str:
    """Plain values as YAML, in their order; :func:`read_yaml` gives them back."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def check_run(folder: Path) -> None:
    """Refuse a folder that is no run's.

    :raises UserError: where it has no settings.
    """
    if not (folder / CONFIG).exists():
        raise UserError(
            f"'{folder}' is not the folder of a run: it has no {CONFIG}; give the --out of a run"
        )
