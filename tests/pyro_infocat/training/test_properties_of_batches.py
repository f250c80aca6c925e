"""What holds of every way that examples are dealt out: to batches, processes and held-out shares.

Shapes: N examples.
"""

import math
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_infocat.data import Split
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import Settings
from pyro_infocat.training.feed import batches
from pyro_infocat.training.loop import validation_split, waited

CPU = torch.device("cpu")
SIZES = st.integers(1, 200)


def numbered(examples: int) -> Split:
    """Examples that are their own numbers."""
    pixels = torch.arange(examples).unsqueeze(-1).expand(-1, 2)
    return Split(pixels, torch.arange(examples), examples)


@given(SIZES, SIZES, st.integers(1, 4), st.integers(0, 2**31))
def test_an_epoch_is_every_example_once_whoever_takes_it(
    examples: int, size: int, world: int, seed: int
) -> None:
    """No batch is larger than its size by more than what no batch of its own could be made of."""
    torch.manual_seed(seed)
    order = numbered(examples).shuffled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(world))
        found = batches(order, size)
        assert torch.equal(torch.cat(found), order)
        assert {len(batch) for batch in found[:-1]} <= {size}
        assert len(found[-1]) < size + 2 * world
        assert len(found) in (math.ceil(examples / size), math.ceil(examples / size) - 1)
        for batch in found:
            shares = []
            for rank in range(world):
                patch.setenv("RANK", str(rank))
                shares.append(processes.mine(batch))
            assert sorted(torch.cat(shares).tolist()) == sorted(batch.tolist())
            lengths = [len(share) for share in shares]
            assert max(lengths) - min(lengths) <= 1
            if size >= 2 * world and examples >= 2 * world:
                # Batch normalisation needs two examples in each process.
                assert min(lengths) >= 2


@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_what_is_held_out_and_what_is_fitted_are_all(
    examples: int, share: float, patience: int, seed: int
) -> None:
    """The same at every start of a run of one seed, and no random number is taken for it."""
    settings = Settings(validation=share, patience=patience, seed=seed)
    before = torch.get_rng_state()
    fitted, rest = validation_split(numbered(examples), settings)
    assert torch.equal(torch.get_rng_state(), before)
    if rest is None:
        assert not patience
        assert len(fitted) == examples
        return
    assert patience
    assert abs(len(rest) - share * examples) <= 0.5 or len(rest) == 1
    assert sorted([*fitted.labels.tolist(), *rest.labels.tolist()]) == list(range(examples))
    again = validation_split(numbered(examples), settings)[1]
    assert again is not None
    assert torch.equal(again.pixels, rest.pixels)


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=20))
def test_epochs_waited_for_a_better_bound(bounds: list[float | None]) -> None:
    """Since the first epoch of the best; epochs before the bound had a weight do not count."""
    rows = [{} if bound is None else {"validation_elbo": bound} for bound in bounds]
    held = [bound for bound in bounds if bound is not None]
    expected = len(held) - 1 - held.index(max(held)) if held else 0
    assert waited(rows) == expected


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.lists(st.booleans(), max_size=4))
def test_looking_leaves_no_trace(seed: int, inside: int, training: list[bool]) -> None:
    """Neither in random numbers, nor in modes, nor after an error; inside they are of the seed."""
    modules: list[nn.Module] = [nn.Dropout().train(mode) for mode in training]
    torch.manual_seed(seed)
    expected = torch.rand(3)
    torch.manual_seed(inside)
    looked = torch.rand(2)
    torch.manual_seed(seed)
    with suppress(ZeroDivisionError), evaluating(CPU, *modules, seed=inside):
        assert torch.equal(torch.rand(2), looked)
        assert not any(module.training for module in modules)
        assert not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in modules] == training
    assert torch.is_grad_enabled()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_one_process_alone_shares_with_nobody(values: list[float]) -> None:
    tensor = torch.tensor(values)
    assert processes.shared(tensor) is tensor
    assert processes.total(tensor) is tensor
    assert processes.every(tensor) == [tensor]
    assert torch.equal(processes.mine(tensor), tensor)
