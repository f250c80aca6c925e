"""Sizes whose tensors do not fit into memory: one line, before any of it is asked for."""

import math

import pytest
import torch

from pyro_infocat.errors import reason
from pyro_infocat.runtime import memory
from pyro_infocat.runtime.memory import Fitting
from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")

HUGE = {
    "layer": (["--decoder.hidden", "[1000000000]"], "--decoder models.decoders.MLP: training"),
    "two layers": (
        ["--encoder.hidden", "[3000000, 3000000]"],
        "--encoder guides.encoders.Convolutional: training",
    ),
    "guide": (["--guide.hidden", "2000000000"], "--guide guides.enumerated.Enumerated: training"),
    "categories": (["--prior.categories", "1000000000"], "--prior models.priors.Orthogonal: "),
}


@pytest.mark.parametrize(("flags", "said"), HUGE.values(), ids=HUGE)
def test_what_does_not_fit_into_memory(flags: list[str], said: str, refuse: Refuse) -> None:
    error = refuse(*flags, "--epochs", "1")
    assert error.startswith(said)
    assert "GiB of memory, and this machine has " in error


def test_a_machine_that_is_too_small_for_the_whole(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts together count, each four times: the encoder comes after the decoder."""
    monkeypatch.setattr(memory, "most", lambda: 4 * 1200 * 1200 * 4 * 1.5)
    flags = ["--decoder.hidden", "[1200, 1200]", "--encoder.hidden", "[1200, 1200]"]
    error = refuse(*flags)
    assert error.startswith("--encoder guides.encoders.Convolutional: training takes ")
    assert error.endswith("and this machine has 0.0322; give smaller sizes")


def test_memory_is_counted_by_numbers_and_their_size() -> None:
    with Fitting(copies=1) as fitting:
        torch.empty(3, 5)
        torch.zeros(7, dtype=torch.float64)
        torch.eye(4)
    assert fitting.bytes == 3 * 5 * 4 + 7 * 8 + 4 * 4 * 4


def test_layers_are_the_same_while_memory_is_counted() -> None:
    layers = []
    for copies in (0, 4):
        torch.manual_seed(0)
        if copies:
            with Fitting(copies):
                layers.append(torch.nn.Linear(5, 3))
        else:
            layers.append(torch.nn.Linear(5, 3))
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_a_machine_that_does_not_say_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")
    assert memory.most() == math.inf
    with Fitting(copies=4):
        torch.empty(3)


def test_an_error_of_pytorch_is_told_without_its_addresses() -> None:
    with pytest.raises((RuntimeError, TypeError)) as caught:
        torch.empty(10**30)
    assert "frame #" in str(caught.value)
    assert "Overflow" in reason(caught.value)
    assert "frame #" not in reason(caught.value)
