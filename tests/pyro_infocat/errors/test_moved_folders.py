"""A run's folder that is moved, deleted or replaced while the run writes to it: one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_infocat import experiment
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT
from pyro_infocat.training import monitor
from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, Refuse, again, checkpoint_in

pytestmark = pytest.mark.usefixtures("brief")


def moved() -> None:
    Path(OUT).rename("elsewhere")


def deleted() -> None:
    moved()  # At once, whatever TensorBoard is writing.
    shutil.rmtree("elsewhere")


def replaced() -> None:
    deleted()
    Path(OUT).write_text("mine")


@pytest.mark.parametrize("change", [moved, deleted, replaced])
@pytest.mark.parametrize("when", ["training", "evaluation"])
def test_a_folder_that_is_gone(
    change: Callable[[], None], when: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = experiment.evaluate

    def after_the_first_epoch(*_: object) -> None:
        if not changes:
            changes.append(change())

    def before_the_metrics(*given: object) -> object:
        change()
        return evaluate(*given)  # type: ignore[arg-type]

    changes: list[None] = []
    with monkeypatch.context() as patch:
        if when == "training":
            patch.setattr(monitor.CollapseMonitor, "look", after_the_first_epoch)
        else:
            patch.setattr(experiment, "evaluate", before_the_metrics)
        error = refuse(*SMALL, "--epochs", "2", fresh=False)
    assert error.startswith(f"--out: cannot write '{OUT}/")
    assert "; the run's folder was moved, deleted or replaced; put it back and go on" in error
    # Nothing is begun anew where it was.
    assert change is replaced or not Path(OUT).exists()
    if change is moved:
        Path("elsewhere").rename(OUT)
        assert checkpoint_in(Path(OUT))["epoch"] == (1 if when == "training" else 2)
        assert main([*again(2), "--out", OUT]) == 0
        assert Path(OUT, CHECKPOINT).exists()
