"""docs/settings.md is made from the declarations and the classes."""

import re
from pathlib import Path

import pytest
import yaml

from models.priors import Gaussian
from pyro_infocat.cli import reference
from pyro_infocat.cli.markdown import markdown_table, with_table
from pyro_infocat.errors import UserError
from pyro_infocat.parts import find
from pyro_infocat.places import PRESETS
from pyro_infocat.settings import DECLARED, ROLES, Part


def rows(table: str) -> dict[str, list[str]]:
    """The further cells of each row by its first one."""
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    cells = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    return {first.strip("`"): rest for first, *rest in cells}


def chapters() -> dict[str, str]:
    """The text about each role."""
    _, *found = re.split(r"^### ", reference.classes(), flags=re.MULTILINE)
    return {text.split("\n")[0]: text for text in found}


def listed(role: str) -> dict[str, list[str]]:
    return rows(chapters()[role])


def test_every_setting_with_what_it_takes_and_its_default() -> None:
    found = rows(reference.reference())
    assert list(found) == ["config", "out", "resume", "trust", "print_config", *DECLARED]
    for name, declared in DECLARED.items():
        takes, usual, help = found[name]
        assert help == re.sub("([|<])", r"\\\1", declared.metadata["help"])
        for limit, value in declared.metadata["limits"].items():
            assert f"{reference.LIMITS[limit]} {value:,}" in takes
        if isinstance(declared.default, bool):
            assert usual == f"`{str(declared.default).lower()}`"
        elif isinstance(declared.default, int | float | str):
            assert usual == f"`{declared.default}`"
        elif isinstance(declared.default, Part):
            assert usual == f"`{declared.default.class_path}`"
    epochs = [
        r"`N\|auto`, at least 1, at most 1,000,000",
        "`100`",
        "passes over the training split; auto: by the number of examples",
    ]
    assert found["epochs"] == epochs
    assert found["observe"][0] == r"`auto\|binary\|grey`"


def test_every_class_is_one_that_a_flag_can_name() -> None:
    assert list(chapters()) == list(ROLES)
    for role in ROLES:
        for path in listed(role):
            assert find(role, path, role).__module__ == path.rpartition(".")[0]


def test_what_the_presets_name_is_listed() -> None:
    for preset in PRESETS.glob("*.yaml"):
        for role, value in yaml.safe_load(preset.read_text()).items():
            if role in ROLES:
                path = value["class_path"] if isinstance(value, dict) else value
                arguments = value.get("init_args", {}) if isinstance(value, dict) else {}
                described = listed(role)[path]
                assert all(f"`{name}` (" in described[1] for name in arguments), path


def test_an_argument_stands_with_its_type_and_default() -> None:
    orthogonal = listed("prior")["models.priors.Orthogonal"][1]
    assert "`scale` (a number, `3.0`)" in orthogonal
    assert "`learn_weights` (true or false, `false`)" in orthogonal
    assert listed("prior")["models.priors.Gaussian"][1] == "`latent` (a whole number, `20`)"


def test_bases_and_users_classes_are_not_listed() -> None:
    mine = type("Mine", (Gaussian,), {"__module__": "my_file"})
    assert mine in Gaussian.__subclasses__()
    assert not {"models.priors.Prior", "models.priors.FixedModes"} & listed("prior").keys()
    assert not [path for path in listed("prior") if path.startswith("my_file")]
    assert "guides.encoders.Encoder" not in listed("encoder")
    # A base that is the default as well.
    assert list(listed("model")) == ["models.generative.CatVAE"]


def test_a_role_without_a_class_says_so() -> None:
    assert listed("figures") == {}
    assert "no class to name here" in chapters()["figures"]
    assert "Every run has these" in chapters()["terms"]


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "docs" / "settings.md"
    page.parent.mkdir()
    places = [f"<!-- {name}: begin -->old<!-- {name}: end -->" for name in ("classes", "settings")]
    page.write_text("\nbetween\n".join(places))
    monkeypatch.setattr(reference, "CHECKOUT", tmp_path)
    reference.main()
    assert page.read_text() == (
        f"<!-- classes: begin -->\n{reference.classes()}\n<!-- classes: end -->\nbetween\n"
        f"<!-- settings: begin -->\n{reference.reference()}\n<!-- settings: end -->"
    )


def test_an_installed_copy_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "CHECKOUT", None)
    reference.main()
    assert capsys.readouterr().out == f"{reference.reference()}\n\n{reference.classes()}\n"


def test_bars_and_tags_stay_within_their_cell() -> None:
    assert markdown_table(("a", "b"), [("q(c|x)", "<x>")]) == (
        "| a | b |\n| --- | --- |\n| q(c\\|x) | \\<x> |"
    )


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(UserError, match=r"a document with 0 places for a table; write one '<!-- x"):
        with_table("<!-- x: begin -->", "", "x")
