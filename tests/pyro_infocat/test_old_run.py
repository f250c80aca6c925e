"""A run of before 0.2.0, and any config with a key more or less, loads, is sampled and resumed."""

import copy as copying
import shutil
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import pyro_infocat
from pyro_infocat.data.readers import digits
from pyro_infocat.resolve import Resolver, read_config
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import (
    CHECKPOINT,
    CONFIG,
    DECLARED,
    MADE_BY,
    ROLES,
    Part,
    Settings,
    default,
    from_dict,
)
from pyro_infocat.storage.configuration import write_yaml
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.version import made_by
from tests.brief import ROOT
from tests.runs import history, metrics, timeless

pytestmark = pytest.mark.usefixtures("alone")

OLD = ROOT / "tests" / "old_run" / "run"
"""Two epochs by the code of tests/old_run/make.py."""

Stderr = Callable[[], list[str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The old run in a folder that may be changed."""
    return shutil.copytree(OLD, tmp_path / "run")


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Stderr:
    """The lines on stderr since the last call."""
    return lambda: capsys.readouterr().err.splitlines()


def change(folder: Path, **values: object) -> None:
    """Give a run's config other values; None takes a key out."""
    config = yaml.safe_load((folder / CONFIG).read_text()) | values
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / CONFIG).write_text(yaml.safe_dump(kept))


def resume(folder: Path, *flags: str) -> int:
    """One epoch more."""
    config = ["--config", str(folder / CONFIG), "--out", str(folder), "--resume", "true"]
    return main([*config, "--epochs", "3", *flags])


# As it is.


def layers(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """A linear layer, batch normalisation by what it remembers, and a ReLU."""
    x = x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"]
    x = (x - state[f"{name}.1.running_mean"]) / (state[f"{name}.1.running_var"] + 1e-5).sqrt()
    return (x * state[f"{name}.1.weight"] + state[f"{name}.1.bias"]).relu()


def test_what_is_loaded_is_what_the_checkpoint_holds(stderr: Stderr) -> None:
    run = pyro_infocat.load(OLD)
    checkpoint = torch.load(OLD / CHECKPOINT, weights_only=True)
    for name, part in (("model", run.model), ("guide", run.guide)):
        now = part.state_dict()
        assert now.keys() == checkpoint[name].keys()
        for key, value in now.items():
            assert torch.equal(value, checkpoint[name][key]), key
    x, state = digits().test.grey(), checkpoint["guide"]
    hidden = layers(x, state, "encoder.network")
    q = (hidden @ state["classifier.weight"].T + state["classifier.bias"]).softmax(-1)
    bytes_of_17_levels = digits().test.pixels.numpy().reshape(-1, 8, 8)
    np.testing.assert_allclose(run.probabilities(bytes_of_17_levels), q.numpy(), atol=1e-6)
    assert run.settings.epochs == 2
    assert run.facts == digits().facts
    assert run.metrics == metrics(OLD)
    assert run.history == history(OLD)
    assert stderr() == []


def test_it_is_sampled_from(copy: Path, stderr: Stderr) -> None:
    place = copy / "samples"
    for flags in ([], ["--reconstruct", "test"], ["--interpolate", "0", "1"]):
        assert sample([str(copy), *flags, "--device", "cpu"]) == 0
    assert stderr() == []
    assert {path.stem for path in place.iterdir()} == {
        *("samples", "reconstructions", "interpolation"),
    }
    with np.load(place / "samples.npz") as found:
        assert found["x"].shape == (100, 64)
        c, z, x = (torch.from_numpy(found[name]) for name in ("c", "z", "x"))
    state = torch.load(OLD / CHECKPOINT, weights_only=True)["model"]
    noise = z - state["prior.modes"][c]
    # Of 2,000 standard normal numbers the deviation is within 5 / sqrt(4000) of 1, but for one
    # seed in 1,700,000.
    assert noise.std() == pytest.approx(1, abs=5 / 4000**0.5)
    hidden = (z @ state["decoder.network.0.weight"].T + state["decoder.network.0.bias"]).relu()
    raw = hidden @ state["decoder.network.2.weight"].T + state["decoder.network.2.bias"]
    torch.testing.assert_close(x, raw.sigmoid(), rtol=0, atol=1e-5)


def assert_resumed(folder: Path) -> None:
    """Whether a run has the old one's epochs and one more, and is now of this version."""
    rows = history(folder)
    assert rows[:2] == history(OLD)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[2].keys() == rows[1].keys()
    assert rows[2]["elbo"] > rows[1]["elbo"]
    checkpoint = torch.load(folder / CHECKPOINT, weights_only=True)
    assert (checkpoint["epoch"], checkpoint[MADE_BY]) == (3, made_by())
    assert checkpoint["data"] == digits().fingerprint
    before = torch.load(OLD / CHECKPOINT, weights_only=True)["optimizer"]["state"]
    steps = [int(states["step"]) for states in (before[0], checkpoint["optimizer"]["state"][0])]
    # 1,297 examples in batches of 400.
    assert steps == [8, 12]
    config = yaml.safe_load((folder / CONFIG).read_text())
    assert config[MADE_BY] == made_by()
    assert config.keys() == {*DECLARED, MADE_BY}
    assert metrics(folder)["epochs"] == 3
    assert metrics(folder)[MADE_BY] == made_by()


@pytest.mark.usefixtures("brief")
def test_it_resumes_to_one_more_epoch(copy: Path, stderr: Stderr) -> None:
    assert resume(copy) == 0
    assert stderr() == []
    assert_resumed(copy)


@pytest.mark.usefixtures("brief")
@pytest.mark.skipif(
    metrics(OLD)["versions"]["torch"] != torch.__version__, reason="made by another torch"
)
def test_its_settings_train_as_they_did() -> None:
    """Other processors round otherwise."""
    assert main(["--config", str(OLD / CONFIG), "--out", "again"]) == 0
    for now, then in zip(history("again"), history(OLD), strict=True):
        assert timeless(now) == pytest.approx(timeless(then), rel=1e-4)


# A key more or less.


@pytest.mark.usefixtures("brief")
def test_an_unknown_key_is_named_and_a_missing_one_is_what_it_was(
    copy: Path, stderr: Stderr
) -> None:
    change(copy, colour="red", kl=None)
    line = f"{copy / CONFIG}: 'colour' is no setting of this version and was passed over"
    run = pyro_infocat.load(copy)
    assert run.settings.kl == "analytic"
    assert stderr() == [line]
    assert sample([str(copy)]) == 0
    assert stderr() == [line]
    assert resume(copy) == 0
    assert stderr() == [line]
    assert_resumed(copy)


@pytest.mark.usefixtures("brief")
def test_an_argument_that_a_class_no_longer_takes_is_named(copy: Path, stderr: Stderr) -> None:
    config = yaml.safe_load((copy / CONFIG).read_text())
    for role, name in (("prior", "height"), ("view", "angle")):
        config[role]["init_args"][name] = 3
    (copy / CONFIG).write_text(yaml.safe_dump(config))
    of_prior, of_view = (
        f"{copy / CONFIG}: {role}.{name}: {path} takes no '{name}' any more; it was passed over"
        for role, name, path in (
            ("prior", "height", "models.priors.Orthogonal"),
            ("view", "angle", "pyro_infocat.views.AdversarialAffine"),
        )
    )
    pyro_infocat.load(copy)
    # A view is not loaded.
    assert stderr() == [of_prior]
    assert resume(copy) == 0
    assert sorted(stderr()) == sorted([of_prior, of_view])
    assert_resumed(copy)
    pyro_infocat.load(copy)
    assert stderr() == []


@pytest.mark.usefixtures("brief")
def test_an_argument_that_a_class_takes_now_has_its_default(copy: Path, stderr: Stderr) -> None:
    config = yaml.safe_load((copy / CONFIG).read_text())
    del config["prior"]["init_args"]["learn_weights"]
    del config["view"]["init_args"]["tone"]
    (copy / CONFIG).write_text(yaml.safe_dump(config))
    assert not pyro_infocat.load(copy).model.prior.logits.requires_grad
    assert resume(copy) == 0
    assert stderr() == []
    assert_resumed(copy)


def test_a_preset_with_an_unknown_key_is_refused(copy: Path, stderr: Stderr) -> None:
    """It is no run, and the key may be a slip of the pen."""
    change(copy, epoch=3)
    preset = shutil.copy(copy / CONFIG, "preset.yaml")
    assert main(["--config", preset, "--out", "new"]) == 2
    assert stderr() == ["error: preset.yaml: no such key 'epoch'; did you mean epochs? See --help"]


GONE: dict[str, object] = {
    "view": {"class_path": "gone.Mine", "init_args": {"angle": 3}},
    "terms": [{"class_path": "gone.Mine"}],
    "metrics": [{"class_path": "gone.Mine"}, {"class_path": "gone.Other"}],
    "figures": [{"class_path": "gone.Mine"}],
    "reader": {"class_path": "gone.Mine"},
}


@pytest.mark.parametrize("role", GONE)
def test_what_samples_do_not_need_may_have_gone(role: str, copy: Path, stderr: Stderr) -> None:
    change(copy, **{role: GONE[role]})
    assert sample([str(copy), "--number", "2"]) == 0
    assert sample([str(copy), "--interpolate", "0", "1"]) == 0
    assert pyro_infocat.load(copy).categorise(np.zeros((2, 8, 8))).shape == (2,)
    assert stderr() == []
    # Training does.
    assert resume(copy) == 2
    (line,) = stderr()
    assert line.startswith(f"error: {copy / CONFIG}: {role}")
    assert "gone" in line


# Every setting.

TYPES = get_type_hints(Settings) | {"known_labels": int}
"""A number stands for what may be a word too."""


def another(name: str) -> Any:
    """A value for a setting that is not its default."""
    usual, kind = default(DECLARED[name]), TYPES[name]
    if name in ROLES:
        return (Part("a.B", {"c": 1}),) if usual == () else Part("a.B", {"c": 1})
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != usual)
    if kind is bool:
        return not usual
    if name == "data_columns":
        return ["age", "height:real"]
    if get_origin(kind) is dict:
        return {"kl_z": 2.0} if get_args(kind)[1] is float else {"kl_z": [[0.0, 0.0], [3.0, 1.0]]}
    return {int: usual + 1, float: usual / 2}[kind] if kind in (int, float) else f"other {usual}"


EVERY = {name: another(name) for name in DECLARED}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[[str | None], Path]]:
    """A folder whose config has every setting at another value than its default, but for one."""

    def write(missing: str | None) -> Path:
        values = Settings(**EVERY).as_dict()
        values.pop(missing or "", None)
        place = tmp_path / "every"
        place.mkdir()
        (place / CONFIG).write_text(write_yaml(values))
        # By its checkpoint a run is known from a preset.
        (place / CHECKPOINT).touch()
        return place

    return write


def test_each_has_another_value_and_they_are_read_back(
    folder: Callable[[str | None], Path],
) -> None:
    assert all(EVERY[name] != default(declared) for name, declared in DECLARED.items())
    assert RunFolder(folder(None)).settings() == (Settings(**EVERY), [])


@pytest.mark.parametrize("named", [False, True], ids=["default", "before"])
@pytest.mark.parametrize("name", DECLARED)
def test_a_missing_setting_is_what_was_in_force(
    name: str,
    named: bool,
    folder: Callable[[str | None], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its default, or what its declaration names for runs of before it was there."""
    expected = default(DECLARED[name])
    if named:
        # A third value, so that neither the default nor the config's own is taken for it.
        expected = _third(name)
        declared = copying.copy(DECLARED[name])
        declared.metadata = {**declared.metadata, "before": expected}
        monkeypatch.setitem(DECLARED, name, declared)
    place = folder(name)
    content = yaml.safe_load((place / CONFIG).read_text())
    wanted = (Settings(**EVERY | {name: expected}), [])
    assert from_dict(content) == wanted
    if name != "prior":
        # Without one a file is no run's.
        assert RunFolder(place).settings() == wanted
    if name in ROLES or name == "data":
        return
    # As --config reads it, whose classes and data are looked for where they are.
    given, unknown = read_config(place / CONFIG)
    given = [one for one in given if one.key != ("data",)]
    assert unknown == []
    assert Resolver(given).plain()[name] == expected


def _third(name: str) -> Any:
    """A value that is neither the default nor ``another``."""
    taken, usual, kind = EVERY[name], default(DECLARED[name]), TYPES[name]
    if name in ROLES:
        return (Part("d.E"),) if usual == () else Part("d.E")
    if get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if choice not in (usual, taken)]
        return choices[0] if choices else taken
    if get_origin(kind) is dict:
        return {"kl_c": 3.0} if get_args(kind)[1] is float else {"kl_c": [[0.0, 1.0]]}
    if kind is bool:
        return taken
    if name == "data_columns":
        return ["-age"]
    return {int: taken + 1, float: taken / 2}[kind] if kind in (int, float) else f"third {usual}"


def test_no_declaration_names_a_value_in_vain() -> None:
    """A value of before that is the default says nothing."""
    for declared in DECLARED.values():
        assert declared.metadata.get("before", MISSING) != default(declared)
