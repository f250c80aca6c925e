"""How many examples a run needs, and that trying the parts leaves no trace in them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_infocat.build import Builder, Parts
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.checks import try_parts
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.errors import UserError
from pyro_infocat.settings import Settings
from tests.brief import SMALL
from tests.runs import parse

pytestmark = pytest.mark.usefixtures("alone")

NORMED = ["--encoder.norm", "true"]
PLAIN = ["--encoder.norm", "false"]


@pytest.fixture(scope="module")
def split() -> Split:
    return digits().train


def settings(*flags: str) -> Settings:
    return parse([*SMALL, *flags])[0]


def made(chosen: Settings) -> Parts:
    torch.manual_seed(0)
    return Builder(chosen, DATA_SETS["digits"]).parts(torch.device("cpu"))


def attempt(chosen: Settings, split: Split, number: int) -> None:
    """Try the parts of these settings on the first examples."""
    try_parts(chosen, made(chosen), split.part(torch.arange(number)), "grey")


@pytest.mark.parametrize("world", [1, 2])
def test_two_examples_are_left_for_each_process(
    world: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them are held out."""
    monkeypatch.setenv("WORLD_SIZE", str(world))
    chosen = replace(settings(), patience=1, validation=0.5)
    attempt(chosen, split, 4 * world)
    said = rf"leaves {2 * world - 1} examples .* at least {2 * world} "
    with pytest.raises(UserError, match=said):
        attempt(chosen, split, 4 * world - 1)
    attempt(replace(chosen, patience=0), split, 2 * world)
    with pytest.raises(UserError, match=said):
        attempt(replace(chosen, patience=0), split, 2 * world - 1)


@pytest.mark.parametrize(("flags", "each"), [(NORMED, 2), (PLAIN, 1)], ids=["normed", "plain"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_batch_goes_round_the_processes(
    world: int, flags: list[str], each: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice where there is batch normalisation."""
    monkeypatch.setenv("WORLD_SIZE", str(world))
    least = each * world
    attempt(settings(*flags, "--batch_size", str(least)), split, 8)
    if least > 1:
        with pytest.raises(UserError, match=f"must be at least {least}; .* in each process"):
            attempt(settings(*flags, "--batch_size", str(least - 1)), split, 8)


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluating"])
def test_trying_the_parts_leaves_no_trace(mode: bool, split: Split) -> None:
    chosen = settings(*NORMED, "--weights", "{consistency: 1}")
    parts = made(chosen)
    programs = (parts.model, parts.guide)

    def state() -> list[Tensor]:
        return [value.clone() for part in programs for value in part.state_dict().values()]

    for part in programs:
        part.train(mode)
    before, random = state(), torch.get_rng_state()
    try_parts(chosen, parts, split, "grey")
    assert all(map(torch.equal, before, state()))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training is mode for part in programs for module in part.modules())
    assert all(parameter.grad is None for part in programs for parameter in part.parameters())
    assert torch.is_grad_enabled()
