"""What holds of every value of a setting, and of every text in the place of one."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.cli.run_flags import Request, parse, read
from pyro_infocat.errors import UserError
from pyro_infocat.parts import NOTHING, find, is_union, own_parameters
from pyro_infocat.resolve import TYPES, Given, Resolver, read_config
from pyro_infocat.settings import DECLARED, ROLES, Settings, from_dict
from pyro_infocat.storage.configuration import MOST_CHARACTERS, read_yaml, write_yaml
from tests.tried import tried

CLASSES = {
    "prior": ["Orthogonal", "Simplex", "Mixture", "Gaussian", "Vamp"],
    "likelihood": ["Bernoulli", "Gaussian", "DiscretisedLogistic", "AutoregressiveBernoulli"],
    "decoder": ["MLP", "Convolutional", "Posed", "Recurrent"],
    "encoder": ["MLP", "Convolutional", "Recurrent"],
    "guide": ["Enumerated"],
    "view": ["Same", "Affine", "VirtualAdversarial", "AdversarialAffine"],
    "model": ["CatVAE"],
}
"""Of this project's classes, beside those in whose modules their base classes are."""

# What YAML takes for something else than a word more often than other text.
ODD_WORDS = ["null", "~", "true", "1e3", "08", "1_000", "0x1f", "1:30", "2001-01-01", ".inf", "no"]
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
"""What a word of the command line may hold."""
WORDS = (
    st.text(LETTERS, max_size=12)
    | st.sampled_from(ODD_WORDS)
    | st.from_regex(r"[-+.0-9eE_:]{1,6}", fullmatch=True)
)
NAMES = st.sampled_from(["reconstruction", "kl_z", "kl_c", "consistency", "kl_mine"])


@st.composite
def pairs(draw: st.DrawFn) -> list[list[float | str]]:
    places = sorted(draw(st.sets(st.integers(0, 50), min_size=1, max_size=4)))
    sign = draw(st.sampled_from(["", "%"]))
    return [[f"{at}%" if sign else at, draw(st.floats(0, 1e6))] for at in places]


def values(kind: Any, limits: Mapping[str, float] | None = None) -> st.SearchStrategy[Any]:
    """Values of a type, as a config holds them."""
    limits, inner = limits or {}, get_args(kind)
    if is_union(kind):
        return st.one_of(*(values(one, limits) for one in inner))
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(int(limits.get("least", -(10**20))), int(limits.get("most", 10**20)))
    if kind is float:
        return st.floats(
            limits.get("least", limits.get("above")),
            limits.get("most", limits.get("below")),
            exclude_min="above" in limits,
            exclude_max="below" in limits,
            allow_nan=False,
            allow_infinity=False,
        )
    if kind is NoneType:
        return st.none()
    if get_origin(kind) is Literal:
        return st.sampled_from(inner)
    if get_origin(kind) is dict:
        return st.dictionaries(
            NAMES, pairs() if inner[1] is not float else values(float), max_size=4
        )
    if isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Sequence):
        return st.lists(values(inner[0]), max_size=4)
    return WORDS


PLAIN: dict[str, st.SearchStrategy[Any]] = {
    name: values(TYPES[name], declared.metadata["limits"])
    for name, declared in DECLARED.items()
    if name not in ROLES
} | {"data": st.sampled_from([*DATA_SETS])}


@st.composite
def parts(draw: st.DrawFn, role: str) -> dict[str, Any]:
    """A class of this project's, and arguments of their types, right or not."""
    module = DECLARED[role].default.class_path.rpartition(".")[0]
    path = f"{module}.{draw(st.sampled_from(CLASSES[role]))}"
    wanted = own_parameters(role, find(role, path, role))
    chosen = {
        name: draw(values(one.annotation))
        for name, one in wanted.items()
        if one.default is NOTHING or draw(st.booleans())
    }
    return {"class_path": path, "init_args": chosen}


SETTINGS = st.fixed_dictionaries({}, optional=PLAIN | {role: parts(role) for role in CLASSES})


def resolved(values: Mapping[str, Any]) -> Settings:
    return Resolver(
        [Given((name,), one, replaces=False) for name, one in values.items()]
    ).settings()


def from_file(text: str) -> list[Given]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return read_config(path)[0]


@given(SETTINGS)
def test_a_config_written_and_read_again_is_the_same_settings(given_: dict[str, Any]) -> None:
    """By the way of a run that is loaded, and by that of --config."""
    settings = resolved(given_)
    written = write_yaml(settings.as_dict())
    assert from_dict(read_yaml(written)) == (settings, [])
    assert Resolver(from_file(written)).settings() == settings


@given(st.dictionaries(st.sampled_from(sorted(PLAIN)), st.integers(0, 7), min_size=1), st.data())
def test_a_flag_goes_before_a_config_and_the_later_config_before_the_earlier(
    places: dict[str, int], data: st.DataObject
) -> None:
    """Where none says anything the default is what is declared."""
    places.pop("schedules", None)  # Flags scale them.
    said = {
        name: [data.draw(PLAIN[name]) if place >> bit & 1 else None for bit in range(3)]
        for name, place in places.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        argv = []
        for bit, file in enumerate(("one.yaml", "two.yaml")):
            content = {name: held[bit] for name, held in said.items() if held[bit] is not None}
            Path(folder, file).write_text(write_yaml(content))
            argv += ["--config", str(Path(folder, file))]
        for name, held in said.items():
            if held[2] is not None:
                text = held[2] if isinstance(held[2], str) else json.dumps(held[2])
                argv.append(f"--{name}={text}")
        found = read(argv).resolver.plain()
    default = Resolver([]).plain()
    for name, held in said.items():
        last = [one for one in held if one is not None]
        assert found[name] == (last[-1] if last else default[name]), name
    for name in default.keys() - said.keys():
        assert found[name] == default[name], name


TEXT = (
    st.text(LETTERS, max_size=20)
    | st.text("{}[]:,-?!&*#|>'\"%@` \n\t019.eab~<", max_size=20)
    | WORDS
)


@given(st.sampled_from(sorted(PLAIN)), TEXT)
def test_any_text_as_a_value_is_taken_or_refused_by_its_flag(name: str, text: str) -> None:
    found = tried(lambda: read([f"--{name}={text}"]))
    if isinstance(found, UserError):
        assert str(found).startswith(f"--{name}")
        assert str(found).isprintable()
    else:
        assert name in found.resolver.plain()


@given(st.sampled_from(["prior.scale", "prior.weights", "weights.kl_z", "schedules.kl_z"]), TEXT)
def test_any_text_as_an_argument_is_taken_or_refused_by_its_flag(name: str, text: str) -> None:
    found = tried(lambda: parse(read(["--config", "digits", f"--{name}={text}"])))
    if isinstance(found, UserError):
        assert str(found).startswith(f"--{name.partition('.')[0]}")
    else:
        assert isinstance(found[0], Settings)


@given(st.sampled_from(sorted(ROLES)), TEXT)
def test_any_text_as_a_class_is_refused_by_its_flag(role: str, text: str) -> None:
    found = tried(lambda: parse(read([f"--{role}={text}"])))
    if isinstance(found, UserError):
        assert str(found).startswith(f"--{role}")
    else:
        # null is no reader, an empty list no term.
        assert not getattr(found[0], role)


FLAGS = st.sampled_from([f"--{name}" for name in (*DECLARED, "config", "out", "resume", "trust")])


@given(st.lists(FLAGS | TEXT | st.sampled_from(["--", "--x", "=", "--prior.", "-h "]), max_size=5))
def test_any_words_are_a_command_line_or_refused_in_one_line(argv: list[str]) -> None:
    found = tried(lambda: read(argv))
    assert isinstance(found, Request) or "\n" not in str(found)


PATHS = st.lists(st.text(LETTERS, min_size=1, max_size=5) | st.just("a" * 300), max_size=3)


@given(st.sampled_from(["config", "out"]), PATHS.map("/".join))
def test_any_text_as_a_path_is_taken_or_refused(name: str, text: str) -> None:
    found = tried(lambda: read([f"--{name}={text}"]))
    assert isinstance(found, Request) or str(found).isprintable()


TAGS = ["int", "float", "bool", "null", "str", "timestamp", "binary", "set", "omap", "seq", "map"]


@given(st.sampled_from(sorted(DECLARED)), st.sampled_from(TAGS), TEXT)
def test_any_text_under_a_tag_is_settings_or_refused(name: str, tag: str, text: str) -> None:
    found = tried(lambda: Resolver(from_file(f"{name}: !!{tag} {text}")).settings())
    assert isinstance(found, Settings | UserError)


@given(TEXT | st.lists(TEXT, max_size=4).map("\n".join))
def test_any_text_as_a_config_is_settings_or_refused(text: str) -> None:
    found = tried(lambda: Resolver(from_file(text)).settings())
    assert isinstance(found, Settings | UserError)


@given(
    st.dictionaries(st.sampled_from([*DECLARED]) | st.text(max_size=3), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=5,
    ), max_size=3)
)  # fmt: skip
def test_any_plain_values_as_a_config_are_settings_or_refused(content: dict[str, Any]) -> None:
    found = tried(lambda: Resolver(from_file(write_yaml(content))).settings())
    if isinstance(found, UserError):
        assert str(found).strip()
    else:
        assert set(content) <= set(DECLARED)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(ODD_WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(WORDS)
def test_a_word_comes_back_from_yaml_as_a_word(word: str) -> None:
    """Also one that looks like a number to one version of YAML and not to another."""
    for value in (word, [word], {word: word}):
        assert read_yaml(write_yaml({"value": value})) == {"value": value}


@given(JSON)
def test_plain_values_come_back_from_yaml(value: Any) -> None:
    found = read_yaml(write_yaml({"value": value}))["value"]
    assert found == value
    assert json.dumps(found) == json.dumps(value)


@given(JSON)
def test_json_is_yaml(value: Any) -> None:
    text = json.dumps(value).replace("-Infinity", "-.inf").replace("Infinity", ".inf")
    if '"' not in text:
        assert read_yaml(text) == value


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_a_number_is_the_same_however_it_is_written(real: float, whole: int) -> None:
    """Without a point in front of its exponent, too, as Python writes it."""
    for text in (repr(real), f"{real:g}", f"{real:.3e}", f"{real:+.4f}"):
        found = read_yaml(text)
        assert isinstance(found, int | float), text
        assert found == float(text)
    assert read_yaml(str(whole)) == read_yaml(f"{whole:+d}") == whole


@given(TEXT | st.binary(max_size=30).map(lambda content: content.decode("latin-1")))
def test_any_text_is_plain_values_or_no_yaml(text: str) -> None:
    try:
        found = read_yaml(text)
    except yaml.YAMLError:
        return
    json.dumps(found)


@pytest.mark.slow
@given(st.text("{}[]:,-?!&*#|>'\"%@` \n\t01.eab~<", min_size=1, max_size=6))
def test_no_long_text_takes_long(text: str) -> None:
    """As long as a config may be; a rule that looks back at everything would take hours."""
    long = (text * MOST_CHARACTERS)[:MOST_CHARACTERS]
    try:
        read_yaml(long)
    except yaml.YAMLError as error:
        assert str(error)  # noqa: PT017
