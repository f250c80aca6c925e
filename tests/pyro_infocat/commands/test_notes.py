"""What a run says before it trains of flags that have no effect."""

import pytest
import torch

from pyro_infocat.build import Builder
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.run import main
from pyro_infocat.training.notes import notes
from tests.brief import SMALL
from tests.runs import parse

pytestmark = pytest.mark.usefixtures("alone")

IDLE = {
    "guide": (
        [*("--guide", "guides.SoftCode", "--decoded", "2", "--particles", "3")],
        "--guide guides.SoftCode: decodes one mixture of codes an example; --decoded 2 and "
        "--particles 3 do not apply",
    ),
    "one flag": (
        ["--guide", "guides.Gumbel", "--decoded", "0", "--kl", "sampled"],
        "--guide guides.Gumbel: decodes one mixture of codes an example; --kl sampled does not "
        "apply",
    ),
    "two terms": (
        [
            *("--schedules", "{kl_z: [[2, 0], [3, 1]], kl_c: [[1, 0], [7, 3], [9, 0]]}"),
            *("--schedules.kl_c", "[[3, 0], [7, 3]]"),
        ],
        "--epochs 2: kl_z, kl_c will have no weight; the schedules give none before epoch 4",
    ),
    "rate": (
        [*("--anneal", "cosine", "--schedules", "{learning_rate: [[0, 0.001], [1, 0.0005]]}")],
        "--anneal cosine: does not apply, since --schedules has a learning_rate",
    ),
    # A straight line is above zero as soon as it rises.
    "line": (
        ["--schedules", "{kl_c: [[2, 0], [9, 1]]}"],
        "--epochs 2: kl_c will have no weight; the schedules give none before epoch 4",
    ),
    "size": (
        ["--data_size", "64"],
        "--data_size 64: does not apply, since the data are no folder of pictures",
    ),
    "labels": (
        ["--terms", "tests.users_parts.labelled_term.Supervised"],
        "--terms: supervised looks at the labels of the training split",
    ),
}


def said(*flags: str) -> list[str]:
    """The notes on a run of two epochs."""
    settings, _, _ = parse([*SMALL, "--epochs", "2", *flags])
    parts = Builder(settings, DATA_SETS["digits"]).parts(torch.device("cpu"))
    return list(notes(settings, parts, DATA_SETS["digits"]))


@pytest.mark.parametrize(("flags", "note"), IDLE.values(), ids=IDLE)
def test_flags_that_do_less_than_they_seem_to(flags: list[str], note: str) -> None:
    assert said(*flags) == [note]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--schedules", "{kl_z: [[0, 0], [1, 1]]}"],
        ["--schedules", "{kl_z: [[0, 0]]}"],
        ["--guide", "guides.SoftCode", "--decoded", "0"],
    ],
    ids=["nothing", "begins in time", "never meant to", "nothing idle"],
)
def test_nothing_is_said_where_every_flag_has_an_effect(flags: list[str]) -> None:
    assert said(*flags) == []


@pytest.mark.usefixtures("brief")
def test_a_run_begins_with_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    flags, note = IDLE["one flag"]
    assert main([*SMALL, "--epochs", "2", *flags, "--out", "out"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == note
