"""Parts that no class can be, and arguments of the project's own that do not fit."""

from pathlib import Path

import pytest

from pyro_infocat.settings import DECLARED, ROLES, Part
from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")

ADVERSARIAL, BOTH = (
    f"pyro_infocat.views.{kind}" for kind in ("VirtualAdversarial", "AdversarialAffine")
)

FLAGS = {
    "unknown argument": (
        ["--prior.sale", "3"],
        ["--prior", "models.priors.Orthogonal takes no 'sale'", "categories, delta, scale"],
    ),
    "argument within an argument": (
        ["--prior.scale.x", "3"],
        ["--prior.scale: expected a number, not '{'x': 3}'"],
    ),
    "argument of no class": (["--reader.size", "3"], ["--reader.size", "names no class"]),
    "argument of several classes": (
        ["--terms.size", "3"],
        ["--terms: holds several classes", "[{class_path: my_file.MyClass, init_args: {...}}]"],
    ),
    "no class path": (
        ["--prior", "{}"],
        ["--prior: expected a class path, or {class_path: my_file.MyClass", "not '{}'"],
    ),
    "number as class path": (["--prior", "{class_path: 3}"], ["--prior: expected a class path"]),
    "list as class path": (["--prior", "[]"], ["--prior: '[]' is no class", "such as models"]),
    "arguments in a list": (
        ["--prior", "{class_path: models.priors.Orthogonal, init_args: [3]}"],
        ["--prior: expected a class path", "init_args: {...}"],
    ),
    "no part": (["--prior", ""], ["--prior: '' is no class", "such as models.priors.Orthogonal"]),
    "null": (["--prior", "null"], ["--prior null: is no class"]),
    "K": (["--prior.categories", "0"], ["--prior", "categories must be at least 1, not 0"]),
    "negative K": (["--prior.categories", "-2"], ["--prior", "categories must be at least 1"]),
    "delta": (["--prior.delta", "0"], ["--prior", "delta must be at least 1, not 0"]),
    "scale": (["--prior.scale", "x"], ["--prior.scale: expected a number, not 'x'"]),
    "scale nan": (["--prior.scale", ".nan"], ["--prior.scale nan", "finite"]),
    "p(c)": (["--prior.weights", "[1, 2]"], ["--prior", "10 positive numbers, not [1.0, 2.0]"]),
    "p(c) in words": (
        ["--prior.weights", "[a]"],
        ["--prior.weights: expected a list of numbers or null, not '['a']'"],
    ),
    "p(c) inf": (["--prior.weights", "[1, .inf]"], ["--prior.weights inf", "finite"]),
    "width": (["--decoder.hidden", "[-3]"], ["--decoder models.decoders.MLP", "-3"]),
    "widths": (
        ["--decoder.hidden", "3"],
        ["--decoder.hidden: expected a list such as [400, 400], not '3'"],
    ),
    "epsilon": (
        ["--view", ADVERSARIAL, "--view.epsilon", "-1"],
        [f"--view {ADVERSARIAL}", "epsilon must be at least 0 and finite, not -1"],
    ),
    "neighbour": (
        ["--view", BOTH, "--view.neighbour", "0"],
        [f"--view {BOTH}", "neighbour must be at least 1, not 0"],
    ),
    "probe": (
        ["--view", ADVERSARIAL, "--view.probe", "0"],
        [f"--view {ADVERSARIAL}", "probe must be above 0 and finite, not 0"],
    ),
    "help of another role": (
        ["--prior.help", "guides.Enumerated"],
        ["--prior: 'guides.Enumerated' is no Prior"],
    ),
    "help of nothing": (["--prior.help"], ["--prior.help: a value is missing"]),
    "help of no class": (["--prior.help", "nowhere.Thing"], ["--prior", "named 'nowhere'"]),
}


@pytest.mark.parametrize(("flags", "said"), FLAGS.values(), ids=FLAGS)
def test_a_wrong_flag(flags: list[str], said: list[str], refuse: Refuse) -> None:
    error = refuse(*flags)
    for part in said:
        assert part in error


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("path", "trouble"),
    [
        ("nowhere.Thing", "No module named 'nowhere'"),
        ("models.priors.Nothing", "'models.priors' has no 'Nothing'"),
        ("models.generative.marginalised", "has no 'marginalised'"),
        ("models.priors", "is no"),
        ("models.priors.torch", "is no"),
        ("thing", "is no class"),
        ("..", "is no class"),
        ("models/priors.py", "is no class"),
        ("3", "is no class"),
    ],
)
def test_a_class_that_is_none(role: str, path: str, trouble: str, refuse: Refuse) -> None:
    error = refuse(f"--{role}", path)
    assert error.startswith(f"--{role}: ")
    assert path in error
    assert trouble in error
    usual = DECLARED[role].default
    if isinstance(usual, Part):
        assert f"give a class such as {usual.class_path}, or your own" in error
    assert error.endswith("as my_file.MyClass")


@pytest.mark.parametrize("role", ROLES)
def test_a_class_of_another_role(role: str, refuse: Refuse) -> None:
    path = "models.priors.Orthogonal" if role != "prior" else "models.generative.CatVAE"
    base = ROLES[role].base.rpartition(".")[2]
    assert f"--{role}: '{path}' is no {base}; give" in refuse(f"--{role}", path)


CALLABLES = {
    "os.system": {"command": "touch executed"},
    "subprocess.Popen": {"args": ["touch", "executed"]},
    "shutil.copy": {"src": "here", "dst": "executed"},
    "builtins.open": {"file": "executed", "mode": "w"},
}


@pytest.mark.parametrize("role", ["prior", "likelihood", "terms", "reader"])
@pytest.mark.parametrize("path", CALLABLES)
def test_what_is_no_class_of_the_role_is_never_called(role: str, path: str, refuse: Refuse) -> None:
    Path("here").touch()
    part = f"{{class_path: {path}, init_args: {CALLABLES[path]}}}"
    base = ROLES[role].base.rpartition(".")[2]
    assert f"--{role}: '{path}' is no {base}; give" in refuse(f"--{role}", part)
    assert not Path("executed").exists()
    assert f"--{role}: '{path}' is no {base}" in refuse(f"--{role}.help", path)
