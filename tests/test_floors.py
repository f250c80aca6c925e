"""Which module may import which.

models/ and guides/ know neither each other nor pyro_infocat. Within pyro_infocat, modules stand on
eight floors. What stands on one imports from its own floor and from lower ones, never from a higher
one, and no imports form a circle. From the bottom:

1. what is declared and where things lie: settings, data sets by name, errors, places, the version;
   and the tools that know no model: parts by dotted path, settings from what was given, a run's
   files, devices, processes and random numbers;
2. data, views, and what is done to any network;
3. the objective;
4. model, guide, view and objective built from settings; the metrics and figures of them;
5. training, trying the parts before it, and what a run leaves to be read after it;
6. runs as Python code: fit, load, sampling;
7. command lines;
8. the commands.

docs/architecture.md draws the same, with models/ and guides/ beside floor 2.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    {
        *("errors", "places", "version", "settings", "catalogue", "kinds", "pictures"),
        *("parts", "resolve", "storage", "runtime"),
    },
    {"data", "views", "networks"},
    {"objective"},
    {"build", "evaluation"},
    {"training", "checks", "instances", "report"},
    {
        "api",
        "keywords",
        "in_python",
        "estimator",
        "experiment",
        "loading",
        "sampling",
        "assignment",
        "exporting",
    },
    {"cli"},
    {"run", "sample", "categorise", "export", "benchmark", "seeds", "tune", "__main__"},
)
"""The packages and modules of pyro_infocat, from the bottom."""


def modules(package: str) -> dict[str, Path]:
    """The file of each module by its dotted name; a package's is its __init__.py."""
    files = (ROOT / package).rglob("*.py")
    paths = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): file for file, p in paths.items()}


def imported(file: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere, also within a function."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            for alias in node.names:
                # Of a module, or of a name in one.
                yield f"{node.module}.{alias.name}"


def floor(module: str) -> int:
    """The floor of ``pyro_infocat.NAME`` and all below it."""
    name = module.split(".")[1]
    found = [number for number, names in enumerate(FLOORS) if name in names]
    assert len(found) == 1, f"{name} stands on {len(found)} floors"
    return found[0]


def graph() -> dict[str, set[str]]:
    """Each module of pyro_infocat with the others that it imports.

    To import a module is to import the packages that it lies in; its own count for nothing.
    ``pyro_infocat/__init__.py`` stays out: it hands on names of the upper floors when they are
    asked for, and every module imports it.
    """
    files = modules("pyro_infocat")
    del files["pyro_infocat"]
    edges = {}
    for name, file in files.items():
        others = {part for path in imported(file) for part in with_packages(path)}
        edges[name] = (others & files.keys()) - set(with_packages(name))
    return edges


def with_packages(path: str) -> list[str]:
    """``a.b.c``, ``a.b`` and ``a``."""
    names = path.split(".")
    return [".".join(names[:number]) for number in range(len(names), 0, -1)]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last the first; empty where there are none.

    Whatever imports nothing that is left is taken away, until only circles are left.
    """
    left = {name: set(others) for name, others in edges.items()}
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    return sorted(left)


def test_the_floors_hold_all_that_there_is() -> None:
    there = {name.split(".")[1] for name in graph()}
    assert there == set().union(*FLOORS)


def test_no_import_goes_up() -> None:
    edges = graph()
    assert edges["pyro_infocat.experiment"] >= {"pyro_infocat.build", "pyro_infocat.training.loop"}
    for name, others in edges.items():
        upward = [other for other in others if floor(other) > floor(name)]
        assert not upward, f"{name} imports {upward} of a higher floor"


def test_no_imports_form_a_circle() -> None:
    assert circle(graph()) == []


def test_a_circle_is_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circle(edges) == ["a", "b", "c"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("package", "others"),
    [("models", {"guides", "pyro_infocat"}), ("guides", {"models", "pyro_infocat"})],
)
def test_models_and_guides_know_nothing_of_each_other(package: str, others: set[str]) -> None:
    files = modules(package)
    assert f"{package}.recorded" in files
    for name, file in files.items():
        found = {path.split(".")[0] for path in imported(file)}
        assert not found & others, f"{name} imports {found & others}"
