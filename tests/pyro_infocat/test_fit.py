"""Training from Python: what is trained on, by which settings, and where it goes."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import yaml
from torch.distributions import Distribution

import pyro_infocat as pic
from pyro_infocat.data.readers import digits
from pyro_infocat.places import PRESETS
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, METRICS
from tests.brief import QUICK, SMALL
from tests.runs import history, metrics, same_run

pytestmark = pytest.mark.usefixtures("brief")


def images(number: int = 60, *shape: int) -> np.ndarray:
    """Grey levels in [0, 1] (number, *shape), 6 x 5 when not given."""
    return np.random.default_rng(0).random((number, *(shape or (6, 5))))


def fit(*data: object, **settings: Any) -> pic.Run:
    return pic.fit(*data, **QUICK | settings)


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# What it returns.


def test_a_run_is_what_load_returns_of_its_folder() -> None:
    run = fit("digits", out="mine")
    again = pic.load("mine")
    assert type(run) is type(again) is pic.Run
    assert same_state(run.model, again.model)
    assert same_state(run.guide, again.guide)
    assert (run.settings, run.facts, run.observation) == (
        *(again.settings, again.facts, again.observation),
    )
    assert run.folder == again.folder == Path("mine")
    assert run.metrics == again.metrics == metrics("mine")
    assert run.history == again.history == history("mine")
    assert not any(part.training for part in (*run.model.modules(), *run.guide.modules()))
    x = digits().test.pixels.numpy().reshape(-1, 8, 8)
    np.testing.assert_array_equal(run.probabilities(x), again.probabilities(x))


def test_the_numbers_are_those_of_the_command_line() -> None:
    fit("digits", out="python", seed=3)
    assert main([*SMALL, "--epochs", "1", "--seed", "3", "--out", "command"]) == 0
    assert same_run("python", "command")
    assert Path("python", CONFIG).read_bytes() == Path("command", CONFIG).read_bytes()
    one, other = (
        torch.load(f"{folder}/{CHECKPOINT}", weights_only=True) for folder in ("python", "command")
    )
    for part in ("model", "guide"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])


# Data.


def test_images_are_trained_on() -> None:
    x = images()
    run = fit(x)
    assert run.facts.shape == (6, 5)
    assert run.facts.classes == ()
    assert run.settings.data == "array"
    assert "accuracy" not in run.metrics
    assert {"clusters_used", "elbo", "nll"} < run.metrics.keys()
    assert run.categorise(x).shape == (60,)


SAME: dict[str, Callable[[np.ndarray], object]] = {
    "channel": lambda x: x[:, None],
    "float32": lambda x: x.astype(np.float32),
    "tensor": lambda x: torch.from_numpy(x),
    "bytes": lambda x: np.rint(255 * x).astype(np.uint8),
    "lists": lambda x: x.tolist(),
}


@pytest.mark.parametrize("form", SAME.values(), ids=SAME)
def test_images_of_any_form_are_the_same_run(form: Callable[[np.ndarray], object]) -> None:
    x = images()
    fit(x, out="one")
    fit(form(x), out="other")
    assert same_run("one", "other")


def test_rows_are_images_of_one_row() -> None:
    run = fit(images(60, 1, 9))
    assert run.facts.shape == (1, 9)
    assert run.categorise(images(4, 9)).shape == (4,)


def test_labels_are_for_evaluation_alone() -> None:
    x, y = images(), np.arange(60) % 3
    fit(x, out="without")
    run = fit(x, y, out="with")
    assert run.facts.classes == ("0", "1", "2")
    assert {"accuracy", "nmi", "generation_accuracy"} < run.metrics.keys()
    terms = [
        {name: value for name, value in row.items() if name != "seconds"}
        for folder in ("without", "with")
        for row in history(folder)
    ]
    assert terms[0] == terms[1]
    assert fit(x, torch.from_numpy(y), out="tensor").metrics["nmi"] == run.metrics["nmi"]
    assert fit(x, list(y), out="list").metrics["nmi"] == run.metrics["nmi"]


def test_a_test_split_of_ones_own() -> None:
    """The whole of it is measured, and the rest is trained on."""
    x, y = images(), np.arange(60) % 3
    run = fit(x[:40], y[:40], x_test=x[40:], y_test=y[40:])
    data = torch.load(run.folder / CHECKPOINT, weights_only=True)["data"]
    assert {name: number for name, (number, _) in data.items()} == {"train": 40, "test": 20}
    found = run.categorise(x[40:])
    hits = np.zeros((10, 3), int)
    np.add.at(hits, (found, y[40:]), 1)
    assert run.metrics["purity"] == pytest.approx(hits.max(1).sum() / 20)


@pytest.mark.slow
def test_a_data_set() -> None:
    whole = digits()
    some = replace(whole, train=whole.train.part(torch.arange(300)))
    run = fit(some, out="some")
    assert run.facts == whole.facts
    assert run.settings.data == "array"
    assert torch.load(f"some/{CHECKPOINT}", weights_only=True)["data"] == some.fingerprint
    fit(whole, out="whole")
    fit("digits", out="named")
    assert same_run("whole", "named")


@pytest.mark.parametrize("kind", [str, Path])
def test_an_archive(kind: Callable[[str], str | Path]) -> None:
    np.savez("mine.npz", x_train=images())
    run = fit(kind("mine.npz"))
    assert run.settings.data == "mine.npz"
    assert run.folder == Path("runs/mine/seed0")
    fit(images(), out="array")
    assert same_run(run.folder, "array")


# Presets and settings.


def test_a_preset_by_name_brings_its_own_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --config; data that are given take its place."""
    parts = pic.check_parts("digits", preset="mnist-paper", starts=1)
    assert parts.model.decoder.likelihood.binary
    monkeypatch.setattr("pyro_infocat.api.read_data", lambda settings: interrupt(settings))
    for data, wanted in ((None, "mnist"), ("fashion-mnist", "fashion-mnist")):
        with pytest.raises(KeyboardInterrupt) as stop:
            pic.check_parts(data, preset="mnist-paper")
        assert stop.value.args[0].data == wanted


def interrupt(settings: object) -> None:
    raise KeyboardInterrupt(settings)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_preset_by_its_file(kind: Callable[[str], str | Path]) -> None:
    preset = yaml.safe_load((PRESETS / "digits.yaml").read_text())
    preset["prior"]["init_args"]["categories"] = 4
    Path("mine.yaml").write_text(yaml.safe_dump(preset))
    run = fit(preset=kind("mine.yaml"))
    assert run.model.prior.categories == 4
    assert run.settings.data == "digits"
    assert run.folder == Path("runs/mine/seed0")


@pytest.mark.slow
def test_the_config_of_a_run_is_a_preset() -> None:
    first = fit("digits", out="first", seed=2)
    # Another number of threads or another process would give the same.
    torch.manual_seed(9)
    second = pic.fit(preset=first.folder / CONFIG, out="second")
    assert second.settings == first.settings
    assert same_run("first", "second")


def test_settings_go_over_the_preset() -> None:
    run = fit(
        **{"data": "digits", "learning_rate": 0.01, "prior.scale": 2.5},
        weights={"consistency": 2.0},
        schedules={"kl_z": [[0, 0], [1, 1]]},
        data_root=Path("data"),
    )
    assert run.settings.learning_rate == 0.01
    assert run.settings.prior.init_args["scale"] == 2.5
    assert run.settings.prior.init_args["delta"] == 2
    assert run.settings.weights == {"consistency": 2.0}
    assert run.settings.schedules == {"kl_z": [[0, 0], [1, 1]]}
    assert run.settings.data_root == "data"
    assert run.model.prior.modes.max() == 2.5


def test_one_weight_is_set_beside_the_presets() -> None:
    run = fit("digits", **{"weights.consistency": 2.0})
    preset = yaml.safe_load((PRESETS / "digits.yaml").read_text())
    assert run.settings.weights == preset["weights"] | {"consistency": 2.0}


# The folder, and going on.


@pytest.mark.slow
def test_each_run_gets_a_folder_of_its_own() -> None:
    first, second, third = (fit("digits", epochs=1) for _ in range(3))
    assert [run.folder for run in (first, second, third)] == [
        Path("runs/digits/seed0"),
        Path("runs/digits/seed0-2"),
        Path("runs/digits/seed0-3"),
    ]
    assert same_run(first.folder, third.folder)
    assert fit("digits", seed=1).folder == Path("runs/digits/seed1")
    assert fit(images()).folder == Path("runs/array/seed0")
    assert fit(images(), preset="digits").folder == Path("runs/digits/seed0-4")
    assert fit("digits", out=Path("a", "b")).folder == Path("a", "b")


def test_a_folder_that_is_given_is_not_written_over() -> None:
    fit("digits", out="mine")
    before = {path: path.read_bytes() for path in Path("mine").iterdir()}
    with pytest.raises(pic.UserError, match=r"^out: 'mine' holds another run"):
        fit("digits", out="mine")
    assert {path: path.read_bytes() for path in Path("mine").iterdir()} == before


@pytest.mark.parametrize("data", ["images", pytest.param("digits", marks=pytest.mark.slow)])
def test_a_run_goes_on(data: str) -> None:
    given = images() if data == "images" else data
    # The schedules of the images' own preset stand at shares of the run.
    fit(given, out="part", preset="digits")
    run = fit(given, out="part", preset="digits", epochs=3, resume=True)
    assert len(run.history) == 3
    assert same_state(run.model, pic.load("part").model)
    fit(given, out="whole", preset="digits", epochs=3)
    assert same_run("part", "whole")


def test_other_images_are_not_gone_on_with() -> None:
    fit(images(), out="mine")
    with pytest.raises(pic.UserError, match=r"^resume: 'mine' was trained on other images"):
        fit(1 - images(), out="mine", epochs=2, resume=True)
    assert len(history("mine")) == 1


def test_without_a_run_there_is_nothing_to_go_on_with() -> None:
    with pytest.raises(pic.UserError, match=r"^resume: no checkpoint in 'runs/digits/seed0'"):
        fit("digits", resume=True)


@pytest.mark.slow
def test_the_command_line_goes_on_with_a_run_of_named_data_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, given in (("named", "digits"), ("array", images())):
        fit(given, out=name)
    flags = ["--resume", "true", "--epochs", "2"]
    assert main(["--config", f"named/{CONFIG}", "--out", "named", *flags]) == 0
    capsys.readouterr()
    assert main(["--config", f"array/{CONFIG}", "--out", "array", *flags]) == 2
    assert capsys.readouterr().err == (
        f"error: array/{CONFIG}: data: the run's data were arrays given in Python, which no "
        "command line has; give --data\n"
    )


# What it leaves alone.


def test_global_state_is_as_before() -> None:
    """Of every generator, of Pyro's parameters and of its validation."""
    pyro.param("mine", torch.tensor(3.0))
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)

    def state() -> tuple[object, ...]:
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            {name: value.item() for name, value in pyro.get_param_store().items()},
            Distribution._validate_args,
            pyro.infer.util.is_validation_enabled(),
            pyro.poutine.util.is_validation_enabled(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = state()
    run = fit("digits")
    assert state() == before
    run.categorise(digits().test.pixels.numpy().reshape(-1, 8, 8))
    pic.check_parts("digits")
    pic.load(run.folder)
    assert state() == before
    with pytest.raises(pic.UserError):
        fit("digits", prior="models.priors.Orthogonal", **{"prior.scale": -1.0})
    assert state() == before


@pytest.mark.parametrize(
    "progress", [True, *(pytest.param(no, marks=pytest.mark.slow) for no in (False, None))]
)
def test_a_bar_is_shown_where_it_is_asked_for(
    progress: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """And else only in a terminal or a notebook, which a test is not."""
    fit("digits", progress=progress)
    bar = capsys.readouterr().err
    assert ("4/4" in bar and "elbo=" in bar) == bool(progress)
    assert bar == "" or progress


def test_a_run_that_was_stopped_has_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("digits", out="mine")
    Path("mine", METRICS).unlink()
    run = pic.load("mine")
    assert run.metrics == {}
    assert len(run.history) == 1
