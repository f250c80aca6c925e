"""Training that comes to what is no number: it stops, and what was saved stays finite."""

import re
from pathlib import Path

import pytest
import torch

from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, PARTS, Refuse, again, checkpoint_in

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("gamma", ["0", "1"])
def test_a_loss_that_is_no_number(gamma: str, refuse: Refuse) -> None:
    flags = ["--learning_rate", "1e20", "--information_weight", gamma]
    error = refuse(*SMALL, *flags, fresh=False)
    assert "training stopped at step 2 of epoch 1: reconstruction is" in error
    assert "A smaller --learning_rate" in error
    checkpoint = checkpoint_in(Path(OUT))
    assert checkpoint["epoch"] == 0
    assert all(value.isfinite().all() for value in checkpoint["model"].values())


def test_a_draw_from_what_is_no_number(refuse: Refuse) -> None:
    """PyTorch refuses to draw before the objective has a term to show for it."""
    decoder = PARTS + "unusual_decoders.NotANumberInTheThirdStep"
    flags = ["--decoder", decoder, "--likelihood", "models.likelihoods.Bernoulli"]
    error = refuse(*SMALL, *flags, fresh=False)
    assert "training stopped at step 3 of epoch 1: reconstruction is nan" in error
    assert checkpoint_in(Path(OUT))["epoch"] == 0


def test_a_step_beyond_the_largest_float(refuse: Refuse) -> None:
    error = refuse(*SMALL, "--learning_rate", "1e38", fresh=False)
    assert re.match(r"training stopped at step 2 of epoch 1: \w+ is (nan|-?inf)", error)
    assert checkpoint_in(Path(OUT))["epoch"] == 0


def test_a_step_that_ruins_the_parameters_is_not_saved(
    trained: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.Adam.step
    steps = []

    def ruin(self: torch.optim.Adam) -> None:
        step(self)
        steps.append(1)
        if len(steps) == 4:  # The last of the epoch.
            self.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.Adam, "step", ruin)
    error = refuse(*again(3), fresh=False)
    assert "training stopped at step 4 of epoch 2: the parameter" in error
    assert "not finite" in error
    assert checkpoint_in(trained)["epoch"] == 1
