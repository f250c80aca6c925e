"""Whether two networks are the same."""

from typing import Any

import torch
from torch import nn

PLAIN = (bool, int, float, str, tuple)


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    """The same layers with the same numbers, as learned or as fixed, and the same plain attributes.

    What the constructor was given is not compared.
    """
    assert [name for name, _ in one.named_parameters()] == [n for n, _ in other.named_parameters()]
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    for mine, yours in zip(one.modules(), other.modules(), strict=True):
        assert plain(mine) == plain(yours)


def plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, PLAIN)}
