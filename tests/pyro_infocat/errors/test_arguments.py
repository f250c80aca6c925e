"""Arguments of a user's own constructor: what a config can hold, and what it cannot."""

from pathlib import Path, PosixPath
from typing import Any

import pytest

import pyro_infocat
from pyro_infocat.cli import run_flags
from pyro_infocat.run import main
from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, PARTS, Refuse
from tests.users_parts.unusual_priors import Shade, Typed

pytestmark = pytest.mark.usefixtures("alone")

PRIORS = PARTS + "unusual_priors."


def arguments(*flags: str) -> dict[str, Any]:
    """The prior's arguments as config.yaml would hold them."""
    settings, _, _ = run_flags.parse(run_flags.read(flags))
    return settings.prior.init_args


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("TakesAList", "3", "expected a list such as [400, 400], not '3'"),
        ("TakesNames", "3", "expected names with values, not '3'"),
        ("TakesNames", "{a: 3}", "expected names with values, not '3'"),
        ("TakesAPrior", "models.priors.Orthogonal", "is a Prior, which config.yaml cannot hold"),
    ],
)
def test_an_argument_of_the_wrong_type(kind: str, value: str, said: str, refuse: Refuse) -> None:
    error = refuse("--prior", PRIORS + kind, "--prior.extra", value)
    assert error.startswith("--prior.extra")
    assert said in error
    assert ("let the constructor take" in error) == (kind == "TakesAPrior")
    assert "pairs" not in error
    assert "kl_z" not in error


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("sizes", "[5]", "expected a list such as [400, 400], not '[5]'"),
        ("sizes", "[5, x]", "expected a whole number, not 'x'"),
        ("mixed", "[x, one]", "expected a whole number, not 'x'"),
        ("mixed", "[1, 2]", "expected a word, not '2'"),
        ("many", "[1, 2, x]", "expected a whole number, not 'x'"),
        ("shade", "DARK", "expected one of 'light', 'dark', not 'DARK'"),
        ("file", "3", "expected Path, not '3'"),
    ],
)
def test_a_value_that_its_type_does_not_have(
    flag: str, value: str, said: str, refuse: Refuse
) -> None:
    prefix = f"prior: {{class_path: {PRIORS}Typed, init_args: {{{flag}: "
    Path("mine.yaml").write_text(f"{prefix}{value}}}}}")
    error = refuse("--config", "mine.yaml")
    assert error.startswith(f"mine.yaml: prior.{flag}")
    assert said in error


TYPED = [
    *("--prior.sizes", "[4, 2]", "--prior.shade", "dark"),
    *("--prior.file", "some/modes.npz", "--prior.files", "[a, b]"),
    *("--prior.mixed", "[2, two]", "--prior.many", "[1, 2, 3]"),
]


@pytest.mark.usefixtures("brief")
def test_arguments_arrive_as_their_types(capsys: pytest.CaptureFixture[str]) -> None:
    """In training, in a run that goes on, and in one that is loaded."""
    flags = [*SMALL, "--prior", PRIORS + "Typed", *TYPED, "--out", OUT]
    assert main([*flags, "--epochs", "1"]) == 0, capsys.readouterr().err
    assert main([*flags, "--epochs", "2", "--resume", "true"]) == 0, capsys.readouterr().err
    prior = pyro_infocat.load(OUT, trust=["tests"]).model.prior
    assert prior.categories == 4
    assert prior.sizes == (4, 2)
    assert type(prior.sizes) is tuple
    assert prior.shade is Shade.DARK
    assert prior.file == Path("some/modes.npz")
    assert prior.files == [Path("a"), Path("b")]
    assert (prior.mixed, prior.many) == ((2, "two"), (1, 2, 3))
    assert {type(one) for one in (prior.file, *prior.files)} == {PosixPath}


def test_a_config_holds_them_as_words() -> None:
    assert arguments("--prior", PRIORS + "Typed", *TYPED) == {
        "sizes": [4, 2],
        "shade": "dark",
        "file": "some/modes.npz",
        "files": ["a", "b"],
        "mixed": [2, "two"],
        "many": [1, 2, 3],
    }
    usual = {
        "sizes": [5, 2],
        "shade": "light",
        "file": "none",
        "files": None,
        "mixed": [1, "one"],
        "many": [],
    }
    assert arguments("--prior", PRIORS + "Typed") == usual


@pytest.mark.usefixtures("brief")
def test_an_instance_leaves_the_same_config() -> None:
    made = Typed((4, 2), Shade.DARK, Path("some/modes.npz"), [Path("a"), Path("b")])
    small = {"encoder.hidden": [16], "decoder.hidden": [16], "guide.hidden": 16}
    rest = {"batch_size": 400, "nll_samples": 2, "epochs": 1, "device": "cpu", "out": OUT}
    pyro_infocat.fit("digits", prior=made, **rest, **small)
    prior = pyro_infocat.load(OUT, trust=["tests"]).model.prior
    assert (prior.sizes, prior.shade) == ((4, 2), Shade.DARK)
    assert (prior.file, prior.files) == (Path("some/modes.npz"), [Path("a"), Path("b")])


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("null", None),
        ("word", "word"),
        ("2024-01-01", "2024-01-01"),
        ("[1, a]", [1, "a"]),
        ("{a: [0.5]}", {"a": [0.5]}),
    ],
)
def test_an_argument_without_a_type_is_taken_as_yaml_reads_it(value: str, read: object) -> None:
    given = arguments("--prior", PRIORS + "Untyped", "--prior.extra", value)["extra"]
    assert given == read
    assert type(given) is type(read)


def test_what_a_constructor_hands_on_is_an_argument_too(refuse: Refuse) -> None:
    """By ``**options``: with the base class's names, types and defaults."""
    prior = ["--prior", PRIORS + "HandsOn"]
    found = arguments(*prior, "--prior.extra", "2", "--prior.scale", "1.5")
    assert found["extra"] == 2
    assert found["scale"] == 1.5
    assert (found["delta"], found["learn_weights"]) == (2, False)
    error = refuse(*prior, "--prior.sale", "3")
    assert f"{PRIORS}HandsOn takes no 'sale'; it takes extra, categories, delta, scale" in error
    error = refuse(*prior, "--prior.scale", "wide")
    assert error == "--prior.scale: expected a number, not 'wide'"


@pytest.mark.usefixtures("brief")
def test_what_is_handed_on_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--prior", PRIORS + "HandsOn", "--prior.categories", "3", "--prior.extra", "2"]
    assert main([*SMALL, *flags, "--epochs", "1", "--out", OUT]) == 0, capsys.readouterr().err
    prior = pyro_infocat.load(OUT, trust=["tests"]).model.prior
    assert (prior.categories, prior.extra) == (3, 2)
