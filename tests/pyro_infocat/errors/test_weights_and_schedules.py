"""Weights and schedules of terms that are not there, or of values that they cannot have."""

import pytest

from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")

ADVERSARIAL, AFFINE = (f"pyro_infocat.views.{kind}" for kind in ("VirtualAdversarial", "Affine"))

FLAGS = {
    "weight in words": (
        ["--weights", "{kl_z: x}"],
        ["--weights.kl_z: expected a number, not 'x'"],
    ),
    "unknown term": (["--weights", "{kl: 1}"], ["--weights", "'kl'", "reconstruction, kl_z"]),
    "negative weight": (["--weights", "{kl_z: -1}"], ["--weights", "kl_z", "not -1"]),
    "weight nan": (["--weights", "{kl_z: .nan}"], ["--weights.kl_z nan", "finite"]),
    "schedule of no term": (
        ["--schedules", "{kl: [[0, 1]]}"],
        ["--schedules", "'kl'", "reconstruction, kl_z"],
    ),
    "schedule of a number": (
        ["--schedules", "{kl_z: 3}"],
        ["--schedules.kl_z: expected a list of [epoch, value] pairs, not '3'"],
    ),
    "schedule of no learning": (
        ["--schedules", "{learning_rate: [[0, 0.001], [5, 0]]}"],
        ["--schedules", "learning_rate is [[0.0, 0.001], [5.0, 0.0]]", "above 0"],
    ),
    "schedule without points": (["--schedules", "{kl_z: []}"], ["--schedules", "kl_z", "[[0, 0]"]),
    "schedule of triples": (
        ["--schedules", "{kl_z: [[0, 1, 2]]}"],
        ["--schedules", "[[0.0, 1.0, 2.0]]", "[epoch, weight] pairs"],
    ),
    "schedule back in time": (
        ["--schedules", "{kl_z: [[5, 1], [0, 1]]}"],
        ["--schedules", "kl_z", "[[5.0, 1.0], [0.0, 1.0]]", "must rise"],
    ),
    "negative schedule": (["--schedules", "{kl_z: [[0, -1]]}"], ["--schedules", "not -1"]),
    "schedule nan": (["--schedules", "{kl_z: [[0, .nan]]}"], ["--schedules.kl_z", "nan", "finite"]),
    "temperature of no guide": (
        ["--schedules", "{temperature: [[0, 1]]}"],
        ["--schedules: nothing is called 'temperature'", "guides.relaxed.Gumbel has temperature"],
    ),
    "temperature": (
        ["--guide", "guides.Gumbel", "--schedules", "{temperature: [[0, 1], [9, 0]]}"],
        ["--schedules", "temperature", "[9.0, 0.0]", "above 0"],
    ),
    "schedule of nothing": (
        ["--schedules", "{move: [[0, 1]]}"],
        ["--schedules", "nothing is called 'move'", "consistency", "learning_rate", "moves"],
    ),
    "moves of no view": (
        ["--view", ADVERSARIAL, "--schedules", "{moves: [[0, 1]]}"],
        ["--schedules: nothing is called 'moves'", "pyro_infocat.views.Affine has moves"],
    ),
    "moves": (
        ["--view", AFFINE, "--schedules", "{moves: [[0, 1], [9, -1]]}"],
        ["--schedules", "moves", "[9.0, -1.0]", "at least 0"],
    ),
}


@pytest.mark.parametrize(("flags", "said"), FLAGS.values(), ids=FLAGS)
def test_a_wrong_flag(flags: list[str], said: list[str], refuse: Refuse) -> None:
    error = refuse(*flags)
    for part in said:
        assert part in error


@pytest.mark.parametrize(
    ("flags", "epoch"),
    [
        (["--information_weight", "0", "--weights.kl_c", "0"], 1),
        (["--schedules.information_bound", "[[0, 1], [2, 0]]"], 3),
    ],
)
def test_an_epoch_in_which_no_term_counts(flags: list[str], epoch: int, refuse: Refuse) -> None:
    nothing = "{reconstruction: 0, kl_z: 0, consistency: 0}"
    flags = ["--schedules", "{}", "--weights", nothing, "--weights.kl_c", "0", *flags]
    said = f"--weights: no term of the objective has a weight in epoch {epoch}; give one"
    assert said in refuse(*flags)
