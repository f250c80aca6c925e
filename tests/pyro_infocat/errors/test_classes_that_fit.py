"""Parts of a user's own that are out of the ordinary and fit: nothing is said against them.

The cases of test_classes.py fail for what they say they fail for.
"""

from pathlib import Path

import pytest

import pyro_infocat
from pyro_infocat.errors import UserError
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import METRICS
from tests.brief import SMALL
from tests.pyro_infocat.errors.refusals import OUT, PARTS

pytestmark = pytest.mark.usefixtures("brief")

NO_INFORMATION = ["--information_weight", "0", "--schedules", "{information_bound: [[0, 0]]}"]

WITHOUT: dict[str, list[str]] = {
    "unusual_guides.WithoutMean": ["--kl", "sampled"],
    "unusual_likelihoods.WithoutMean": [],
    "unusual_likelihoods.WithoutGradient": ["--information_weight", "0"],
    "unusual_priors.WithoutGradient": [*NO_INFORMATION, "--kl", "sampled"],
}
"""Distributions that lack something, and the flags under which a run does without it."""


@pytest.mark.slow
@pytest.mark.parametrize(("path", "flags"), WITHOUT.items(), ids=WITHOUT)
def test_distributions_that_lack_what_a_run_can_do_without(
    path: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    role = path.partition(".")[0].removeprefix("unusual_").removesuffix("s")
    command = [*SMALL, "--epochs", "1", f"--{role}", PARTS + path, *flags, "--out", OUT]
    assert main(command) == 0, capsys.readouterr().err
    assert (Path(OUT) / METRICS).exists()
    flags = ["--reconstruct", "test", "--device", "cpu", "--trust", "tests.users_parts"]
    assert sample([OUT, *flags]) == 0, capsys.readouterr().err


def test_classes_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        *("--prior", PARTS + "unusual_priors.Four", "--decoder", PARTS + "unusual_decoders.Linear"),
        *("--epochs", "1", "--nll_samples", "2", "--out", OUT),
    ]
    assert main(flags) == 0, capsys.readouterr().err


def test_opening_a_run_of_them_takes_trust(capsys: pytest.CaptureFixture[str]) -> None:
    module = PARTS + "unusual_priors"
    flags = [*SMALL, "--prior", f"{module}.Four", "--epochs", "1", "--out", OUT]
    assert main(flags) == 0, capsys.readouterr().err
    said = (
        f"prior: '{module}.Four' is code outside this project and was not imported; if you trust "
        f"its author, say so: --trust {module} or trust=['{module}']"
    )
    with pytest.raises(UserError) as caught:
        pyro_infocat.load(OUT)
    assert said in str(caught.value)
    capsys.readouterr()
    assert sample([OUT, "--number", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert sample([OUT, "--number", "1", "--trust", "models"]) == 2
    capsys.readouterr()
    assert sample([OUT, "--number", "1", "--trust", module]) == 0, capsys.readouterr().err
    assert pyro_infocat.load(OUT, trust=[module]).model.prior.latent == 4
    # Whoever trains has chosen the class: going on takes no trust.
    assert main([*flags, "--resume", "true"]) == 0, capsys.readouterr().err


def test_what_is_held_fixed_is_no_cause_for_alarm(capsys: pytest.CaptureFixture[str]) -> None:
    guide = ["--guide", PARTS + "unusual_guides.HeldFixed"]
    assert main([*SMALL[:-2], *guide, "--epochs", "1", "--out", OUT]) == 0
    assert capsys.readouterr().err == ""


def test_a_guide_without_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    guide = ["--guide", PARTS + "unusual_guides.WithoutParameters"]
    flags = [*guide, "--view", "pyro_infocat.views.Same", "--weights", "{}"]
    small = [*SMALL[:6], "--decoder.hidden", "[16]"]
    assert main([*small, *flags, "--epochs", "1", "--out", OUT]) == 0, capsys.readouterr().err
