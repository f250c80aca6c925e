"""From presets and flags to settings: which has the last word, and what a flag scales."""

from pathlib import Path

import pytest
import torch
import yaml

from pyro_infocat.build import Builder, observation
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.checks import try_parts
from pyro_infocat.cli.run_flags import OWN
from pyro_infocat.data import Split
from pyro_infocat.places import PRESETS
from pyro_infocat.run import main
from pyro_infocat.settings import DECLARED
from pyro_infocat.training.sizes import sized
from tests.runs import parse
from tests.tables import facts_for, rows

pytestmark = pytest.mark.usefixtures("alone")

CPU = torch.device("cpu")

SCHEDULES: dict[str, list[list[float]]] = {
    "kl_z": [[0, 2], [4, 0.5]],
    "information_bound": [[3, 0], [4, 20]],
    "learning_rate": [[0, 0.004], [9, 0.001]],
    "kl_c": [[0, 0], [4, 0]],
}
SCALED = {
    "information_weight": (["--information_weight", "5"], {"information_bound": [[3, 0], [4, 5]]}),
    "none of it": (["--information_weight=0"], {"information_bound": [[3, 0], [4, 0]]}),
    "learning rate": (["--learning_rate", "0.008"], {"learning_rate": [[0, 0.008], [9, 0.002]]}),
    "weights": (["--weights", "{kl_z: 4}"], {"kl_z": [[0, 4], [4, 1]]}),
    "one weight": (["--weights.kl_z", "4"], {"kl_z": [[0, 4], [4, 1]]}),
    "nothing but zeros": (["--weights.kl_c", "3"], {"kl_c": [[0, 3], [4, 3]]}),
    "another weight": (["--weights.consistency", "4"], {}),
    "its own schedule": (
        ["--information_weight", "5", "--schedules.information_bound", "[[0, 7]]"],
        {"information_bound": [[0, 7]]},
    ),
}


@pytest.mark.parametrize(("flags", "changed"), SCALED.values(), ids=SCALED)
def test_a_flag_scales_what_the_preset_schedules(
    flags: list[str], changed: dict[str, list[list[float]]], tmp_path: Path
) -> None:
    preset = yaml.safe_load((PRESETS / "digits.yaml").read_text()) | {"schedules": SCHEDULES}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset))
    settings, _, _ = parse(["--config", str(tmp_path / "preset.yaml"), *flags])
    assert settings.schedules == SCHEDULES | changed


@pytest.mark.parametrize("how", ["before", "after", "with a sign"])
def test_a_flag_has_the_last_word_wherever_it_stands(how: str) -> None:
    config = ["--config", str(PRESETS / "mnist-paper.yaml")]
    flags = ["--epochs", "7", "--prior.scale", "5"]
    argv = {
        "before": [*config, *flags],
        "after": [*flags, *config],
        "with a sign": [*flags, "=".join(config)],
    }
    settings, _, _ = parse(argv[how])
    assert settings.epochs == 7
    assert settings.prior.init_args["scale"] == 5
    assert settings.data == "mnist"


def test_anneal_takes_the_place_of_a_scheduled_rate() -> None:
    settings, _, _ = parse(["--data", "mnist", "--anneal", "cosine"])
    assert "learning_rate" not in settings.schedules
    assert "kl_z" in settings.schedules


@pytest.mark.parametrize(
    ("flags", "out"),
    [
        ([], "runs/digits/seed0"),
        (["--seed", "3"], "runs/digits/seed3"),
        (["--data", "fashion-mnist"], "runs/fashion-mnist/seed0"),
        (["--config", str(PRESETS / "digits.yaml"), "--seed", "1"], "runs/digits/seed1"),
        (["--config", str(PRESETS / "mnist.yaml")], "runs/mnist/seed0"),
        (["--out", "elsewhere/run"], "elsewhere/run"),
    ],
)
def test_the_folder_that_a_run_gets(flags: list[str], out: str) -> None:
    assert parse(flags)[1] == Path(out)


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_preset_parses_and_its_parts_fit(preset: Path) -> None:
    settings, _, _ = parse(["--config", str(preset)])
    facts = facts_for(settings)
    parts = Builder(settings, facts).parts(CPU)
    observed = observation(settings, parts.model.decoder.likelihood)
    # A table may not have fewer rows than categories.
    pixels = torch.randint(facts.levels, (10, facts.features)) if facts.images else rows(10)
    split = Split(pixels, torch.zeros(10), facts.levels)
    settings, _ = sized(settings, len(split))
    try_parts(settings, parts, split, observed)


def test_flags_go_over_the_preset() -> None:
    settings, _, _ = parse(["--prior.scale", "2.5", "--epochs", "7"])
    assert settings.prior.init_args["scale"] == 2.5
    assert settings.prior.init_args["delta"] == 2
    assert settings.epochs == 7


def test_another_prior_brings_its_own_arguments() -> None:
    settings, _, _ = parse(["--prior", "models.priors.Simplex", "--prior.latent", "12"])
    assert settings.prior.class_path == "models.priors.Simplex"
    assert settings.prior.init_args["latent"] == 12
    assert "delta" not in settings.prior.init_args
    model, _ = Builder(settings, DATA_SETS["digits"]).programs(CPU)
    assert model.prior.latent == 12


def test_the_default_is_the_digits_preset() -> None:
    default, _, _ = parse([])
    preset, _, _ = parse(["--config", str(PRESETS / "digits.yaml")])
    assert default == preset


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    flags = {line.split()[0] for line in printed.splitlines() if line.startswith("  --")}
    assert flags == {f"--{name}" for name in [*DECLARED, *OWN]}


def test_what_print_config_prints_is_a_preset_of_these_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--prior.scale", "2.5", "--epochs", "7", "--weights.consistency", "4"]
    with pytest.raises(SystemExit) as end:
        main([*flags, "--print_config"])
    assert end.value.code == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert parse(["--config", "printed.yaml"])[0] == parse(flags)[0]
    assert not Path("runs").exists()


def test_the_arguments_of_a_class_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--prior.help", "models.priors.Simplex"])
    assert end.value.code == 0
    printed = capsys.readouterr().out.splitlines()
    assert "  --prior.categories: a whole number (default: 10)" in printed
    assert "  --prior.weights: a list of numbers or null (default: None)" in printed


@pytest.mark.parametrize("word", ["1e3", "08", "-.5e1", "null", "true", "2001-01-01"])
def test_a_folder_whose_name_looks_like_something_else_stays_a_word(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyYAML alone writes 1e3 and 08 without quotes, and the reader takes them for numbers."""
    with pytest.raises(SystemExit):
        main(["--data_root", word, "--print_config"])
    Path("printed.yaml").write_text(capsys.readouterr().out)
    assert parse(["--config", "printed.yaml"])[0].data_root == word
