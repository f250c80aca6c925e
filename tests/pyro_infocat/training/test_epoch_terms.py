"""The named terms of an epoch."""

import math

import pytest
import torch
from torch import nn

from pyro_infocat import UserError
from pyro_infocat.runtime import processes
from pyro_infocat.training.epoch_terms import CHECK_EVERY, EpochTerms


def test_means_are_over_examples() -> None:
    terms = EpochTerms(0)
    terms.add({"reconstruction": torch.tensor(-30.0), "kl_z": torch.tensor(3.0)}, 3)
    terms.add({"reconstruction": torch.tensor(-10.0), "kl_z": torch.tensor(1.0)}, 1)
    terms.check()
    assert terms.means() == {"reconstruction": -10, "kl_z": 1, "elbo": -11}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, CHECK_EVERY, CHECK_EVERY + 7])
def test_the_error_names_term_step_and_epoch(value: float, step: int) -> None:
    terms = EpochTerms(4)

    def go_on() -> None:
        for number in range(1, 2 * CHECK_EVERY):
            last = value if number == step else 1.0
            terms.add({"kl_z": torch.tensor(1.0), "kl_c": torch.tensor(last)}, 1)
        terms.check()

    with pytest.raises(UserError, match=rf"step {step} of epoch 5: kl_c is {value}; .*kept"):
        go_on()


def test_a_term_that_is_not_finite_is_found_while_the_epoch_goes_on() -> None:
    terms = EpochTerms(0)
    for _ in range(CHECK_EVERY - 1):
        terms.add({"kl_z": torch.tensor(math.nan)}, 1)
    with pytest.raises(UserError, match="step 1 of epoch 1: kl_z is nan"):
        terms.add({"kl_z": torch.tensor(1.0)}, 1)


def test_a_process_that_looks_alone_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an error of its own: they may wait elsewhere."""

    def waits(_: object) -> None:
        raise AssertionError("it waited")

    monkeypatch.setattr(processes, "total", waits)
    terms = EpochTerms(0)
    terms.add({"kl_z": torch.tensor(math.nan)}, 1)
    with pytest.raises(UserError, match="step 1 of epoch 1: kl_z is nan"):
        terms.check(alone=True)


def test_the_error_names_a_parameter() -> None:
    module = nn.Linear(2, 2)
    terms = EpochTerms(0)
    terms.add({"kl_z": torch.tensor(1.0)}, 1)
    terms.check(module)
    module.bias.data[1] = math.inf
    with pytest.raises(UserError, match="step 1 of epoch 1: the parameter bias is not finite"):
        terms.check(module)


def test_means_over_more_steps_than_are_looked_at_at_once() -> None:
    """Without the ELBO where its terms are not, as in epochs in which they have no weight."""
    terms = EpochTerms(0)
    numbers = torch.arange(2 * CHECK_EVERY + 50, dtype=torch.float32)
    for number in numbers:
        terms.add({"mine": number}, 2)
    terms.check()
    assert terms.means() == {"mine": pytest.approx(numbers.double().mean().item() / 2)}
    assert str(terms.stopped("it is", 1)).startswith("training stopped at step 251 of epoch 1: it")


def test_a_healthy_module_is_not_named() -> None:
    terms = EpochTerms(0)
    terms.add({"kl_z": torch.tensor(1.0)}, 1)
    terms.check(nn.Linear(2, 2))
    assert terms.means() == {"kl_z": 1}
