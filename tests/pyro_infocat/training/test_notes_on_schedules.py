"""A run says which scheduled terms will never have a weight."""

import pytest

from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.training.notes import notes
from tests.pyro_infocat.training.pieces import make_parts, settings

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize(("epochs", "idle"), [(3, True), (4, True), (5, False)])
def test_a_schedule_that_begins_when_the_run_has_ended(epochs: int, idle: bool) -> None:
    """Above zero from the fifth epoch on."""
    chosen = settings(epochs=epochs, schedules={"consistency": [[3, 0], [4, 1]]})
    said = list(notes(chosen, make_parts(chosen), DATA_SETS["digits"]))
    line = (
        f"--epochs {epochs}: consistency will have no weight; the schedules give none before "
        "epoch 5"
    )
    assert said == ([line] if idle else [])
