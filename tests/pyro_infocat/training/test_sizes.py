"""Batch size and epochs by the number of examples, and schedules by shares of the run."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from pyro_infocat import UserError, check_parts
from pyro_infocat.run import main
from pyro_infocat.settings import CONFIG, MAY_BE_AUTO, Settings, from_dict
from pyro_infocat.storage.folder import RunFolder, differences, spread
from pyro_infocat.training import sizes
from pyro_infocat.training.feed import batches
from pyro_infocat.training.sizes import batch_size, epochs, sized
from tests.brief import SMALL, be_brief
from tests.runs import history, parse, same_run

pytestmark = pytest.mark.usefixtures("alone")

NUMBERS = [2, 30, 100, 150, 1_000, 1_797, 7_291, 60_000, 1_000_000]


@pytest.mark.parametrize("examples", NUMBERS)
@pytest.mark.parametrize("steps", [1, 500, 9000])
def test_a_run_has_as_many_steps_as_were_asked_for(examples: int, steps: int) -> None:
    batch = batch_size(examples)
    assert min(examples, sizes.LEAST_BATCH // 2) <= batch <= sizes.MOST_BATCH
    number, of_an_epoch = epochs(examples, batch, steps), math.ceil(examples / batch)
    # One epoch fewer would be too few, of steps or of epochs.
    assert number >= sizes.LEAST_EPOCHS
    assert number * of_an_epoch >= steps
    assert number == sizes.LEAST_EPOCHS or (number - 1) * of_an_epoch < steps


def test_the_rule_of_the_documents() -> None:
    assert [batch_size(n) for n in (100, 500, 1297, 60_000)] == [25, 50, 118, 256]
    assert [epochs(n, batch_size(n), 500) for n in (120, 1437, 40_000, 10**6)] == [125, 46, 10, 10]


@pytest.mark.parametrize("examples", [*NUMBERS, 1297, 7919])
def test_no_batch_is_left_over(examples: int) -> None:
    sizes_of = [len(part) for part in batches(torch.arange(examples), batch_size(examples))]
    assert min(sizes_of) > 0.9 * max(sizes_of) or max(sizes_of) - min(sizes_of) < len(sizes_of)


def test_more_examples_have_no_more_epochs() -> None:
    numbers = [epochs(examples, batch_size(examples), 500) for examples in NUMBERS]
    assert numbers == sorted(numbers, reverse=True)


def test_what_was_given_stays() -> None:
    settings = Settings()
    assert sized(settings, 1000) == (settings, [])
    given = parse(["--batch_size", "7", "--epochs", "auto"])[0]
    found, (line,) = sized(given, 1000)
    assert (found.batch_size, found.epochs) == (7, epochs(1000, 7, 5000))
    assert line == f"--epochs {found.epochs}: auto, for 1,000 training examples (5,005 steps)"


SCHEDULED = replace(
    Settings(), epochs=41, schedules={"kl_z": [["0%", 0.0], ["50%", 1.0]], "kl_c": [[3, 2.0]]}
)


def test_shares_of_the_run_are_epochs_up_to_the_last() -> None:
    assert SCHEDULED.lines() == {"kl_z": [[0.0, 0.0], [20.0, 1.0]], "kl_c": [[3, 2.0]]}
    whole = replace(SCHEDULED, schedules={"kl_z": [["12.5%", 0], ["100%", 1]]})
    assert whole.lines() == {"kl_z": [[5.0, 0.0], [40.0, 1.0]]}
    assert replace(whole, epochs=1).lines() == {"kl_z": [[0.0, 0.0], [0.0, 1.0]]}


def test_what_is_spread_over_the_epochs() -> None:
    assert not spread(SCHEDULED)
    assert spread(replace(Settings(), anneal="cosine"))
    steady = replace(Settings(), anneal="cosine", schedules={"learning_rate": [[0, 1e-3]]})
    assert not spread(steady)


@pytest.mark.parametrize(
    "points",
    [
        "[[0%, 0], [10, 1]]",
        "[[0%, 0], [101%, 1]]",
        "[[-1%, 0]]",
        "[[half, 0]]",
        "[['%', 0]]",
        "[[1e1%, 0]]",
    ],
)
def test_other_places_are_refused(points: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", f"{{kl_z: {points}}}", "--out", "out"]) == 2
    assert "or shares of the run from 0% to 100%, as in [[0%, 0], [50%, 1]]" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("[[50%, 0], [10%, 1]]", "its epochs must rise"),
        ("[[5%, 0], [5.0%, 1]]", "its epochs must rise"),
        ("[[5%, 10%]]", "give [epoch, weight] pairs"),
    ],
)
def test_shares_rise_and_weights_are_numbers(
    points: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--schedules", f"{{kl_z: {points}}}", "--out", "out"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "0: must be at least 1"),
        ("many", "expected a whole number or 'auto', not 'many'"),
        ("1.5", "expected a whole number or 'auto', not '1.5'"),
    ],
)
def test_other_words_are_refused(
    name: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--{name}", value, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert f"--{name}" in error
    assert said in error


def test_auto_in_one_of_two_settings_is_no_difference() -> None:
    number = replace(Settings(), epochs=7, batch_size=9, precision="bfloat16")
    auto = from_dict(number.as_dict() | dict.fromkeys(MAY_BE_AUTO, "auto"))[0]
    assert list(differences(number, auto)) == list(differences(auto, number)) == []
    assert [key for key, *_ in differences(number, replace(auto, seed=1))] == ["seed"]
    # Elsewhere the word is a value as any other.
    assert list(differences(replace(number, device="cpu"), number)) == [("device", "cpu", "auto")]


@pytest.mark.usefixtures("brief")
def test_steps_without_auto_epochs_are_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    said = "--steps: does not apply, since epochs is 1, not auto"
    assert main([*SMALL, "--epochs", "1", "--steps", "3", "--out", "a"]) == 0
    assert capsys.readouterr().err.splitlines().count(said) == 1
    # A preset's own, which a flag for the epochs overrules, are nobody's mistake.
    rows = np.random.default_rng(0).random((30, 2))
    pd.DataFrame(rows, columns=["a", "b"]).to_csv("t.csv", index=False)
    table = ["--data", "t.csv", "--prior.categories", "2", "--epochs", "1", "--nll_samples", "2"]
    assert main([*table, "--out", "b"]) == 0
    assert "--steps" not in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_a_run_keeps_the_numbers_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "LEAST_EPOCHS", 2)
    auto = [*SMALL, "--epochs", "auto", "--steps", "1", "--batch_size", "auto"]
    shares = ["--schedules", "{kl_z: [[0%, 0], [100%, 1]]}"]
    assert main([*auto, *shares, "--out", "auto"]) == 0
    assert "--batch_size 118 --epochs 2: auto, for 1,297 training examples" in (
        capsys.readouterr().out
    )
    told = yaml.safe_load(Path("auto", CONFIG).read_text())
    assert (told["epochs"], told["batch_size"]) == (2, 118)
    numbers = [*SMALL, "--epochs", "2", "--batch_size", "118", "--steps", "1"]
    assert main([*numbers, "--schedules", "{kl_z: [[0, 0], [1, 1]]}", "--out", "told"]) == 0
    assert same_run("auto", "told")
    assert [row["kl_z"] != 0 for row in history("auto")] == [True, True]

    # Another rule, or another machine's, does not change a run that goes on.
    monkeypatch.setattr(sizes, "LEAST_EPOCHS", 3)
    assert main([*auto, *shares, "--out", "auto", "--resume", "true"]) == 0
    assert RunFolder(Path("auto")).settings()[0].epochs == 2
    # With more epochs the schedules stay where they were.
    more = ["--epochs", "4", "--resume", "true", "--out"]
    capsys.readouterr()
    assert main([*auto, *shares, *more, "auto"]) == 0
    assert "--schedules stay where they were, as if the run had" in capsys.readouterr().out
    assert main([*numbers, "--schedules", "{kl_z: [[0, 0], [1, 1]]}", *more, "told"]) == 0
    assert same_run("auto", "told")
    assert main(["--out", "auto", "--resume", "true", "--epochs", "5"]) == 0
    assert [row["kl_z"] for row in history("auto")][4] == pytest.approx(
        history("auto")[3]["kl_z"], rel=0.5
    )


def test_a_config_that_was_made_auto_is_no_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    be_brief(monkeypatch)
    assert main([*SMALL, "--epochs", "1", "--out", "auto"]) == 0
    config = Path("auto", CONFIG)
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: auto\n", 1))
    assert main(["--out", "auto", "--resume", "true"]) == 2
    said = "says so too, and a run's own has what it began with"
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_parts_are_tried_by_the_sizes_that_a_run_would_have() -> None:
    rows = np.random.default_rng(0).random((30, 3))
    made = check_parts(rows, epochs="auto", batch_size="auto", **{"prior.categories": 3})
    assert made.model.prior.categories == 3


def test_a_part_of_no_class_is_no_word_for_a_number() -> None:
    with pytest.raises(UserError, match="epochs"):
        parse(["--epochs", "[auto]"])


def test_a_run_of_one_epoch_goes_on_where_all_points_of_its_schedules_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be_brief(monkeypatch)
    flags = [*SMALL, "--schedules", "{kl_z: [[0%, 0], [50%, 1], [100%, 2]]}", "--out", "out"]
    assert main([*flags, "--epochs", "1"]) == 0
    assert main(["--out", "out", "--resume", "true", "--epochs", "2"]) == 0
    # The folder's own settings can be read again.
    assert main(["--out", "out", "--resume", "true", "--epochs", "3"]) == 0
    assert RunFolder(Path("out")).settings()[0].schedules == {"kl_z": [[0.0, 2.0]]}
