"""The named terms of an epoch."""

import math

import pytest
import torch
from torch import nn

from pyro_infocat import processes
from pyro_infocat.errors import UserError
from pyro_infocat.ledger import CHECK_EVERY, Ledger


def test_the_ledger_averages_over_examples() -> None:
    ledger = Ledger(0)
    ledger.enter({"reconstruction": torch.tensor(-30.0), "kl_z": torch.tensor(3.0)}, 3)
    ledger.enter({"reconstruction": torch.tensor(-10.0), "kl_z": torch.tensor(1.0)}, 1)
    ledger.close()
    assert ledger.means() == {"reconstruction": -10, "kl_z": 1, "elbo": -11}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, CHECK_EVERY, CHECK_EVERY + 7])
def test_the_ledger_names_term_step_and_epoch(value: float, step: int) -> None:
    ledger = Ledger(4)

    def go_on() -> None:
        for number in range(1, 2 * CHECK_EVERY):
            last = value if number == step else 1.0
            ledger.enter({"kl_z": torch.tensor(1.0), "kl_c": torch.tensor(last)}, 1)
        ledger.close()

    with pytest.raises(UserError, match=rf"step {step} of epoch 5: kl_c is {value}; .*kept"):
        go_on()


def test_a_term_that_is_not_finite_is_found_while_the_epoch_goes_on() -> None:
    ledger = Ledger(0)
    for _ in range(CHECK_EVERY - 1):
        ledger.enter({"kl_z": torch.tensor(math.nan)}, 1)
    with pytest.raises(UserError, match="step 1 of epoch 1: kl_z is nan"):
        ledger.enter({"kl_z": torch.tensor(1.0)}, 1)


def test_a_process_that_looks_alone_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an error of its own: they may be at another meeting."""

    def waits(_: object) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr(processes, "total", waits)
    ledger = Ledger(0)
    ledger.enter({"kl_z": torch.tensor(math.nan)}, 1)
    with pytest.raises(UserError, match="step 1 of epoch 1: kl_z is nan"):
        ledger.close(alone=True)


def test_the_ledger_names_a_parameter() -> None:
    module = nn.Linear(2, 2)
    ledger = Ledger(0)
    ledger.enter({"kl_z": torch.tensor(1.0)}, 1)
    ledger.close(module)
    module.bias.data[1] = math.inf
    with pytest.raises(UserError, match="step 1 of epoch 1: the parameter bias is not finite"):
        ledger.close(module)
