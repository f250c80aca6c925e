"""The encoder of rows of a table: what its layers get, and what is missing."""

import math

import pytest
import torch
from torch import Tensor, nn

from guides.encoders import Table
from tests.tables import COLUMNS, WHERE

pytestmark = pytest.mark.usefixtures("double")

X, C = 9, 6


def seen(x: Tensor) -> Tensor:
    """What the layers get of x (..., X)."""
    encoder = Table(COLUMNS, [4])
    encoder.network = nn.Identity()  # type: ignore[assignment]
    return encoder(x)


def test_layers_get_the_columns_on_one_scale_and_which_are_there() -> None:
    x = torch.rand(X)
    x[4] = 6
    got = seen(x)
    assert got[4].item() == pytest.approx((math.log(7) - 1.2) / 0.7)
    same = [n for n in range(X) if n != 4]
    assert torch.equal(got[same], x[same])
    assert torch.equal(got[X:], torch.ones(C))


@pytest.mark.parametrize(("number", "name"), list(enumerate(WHERE)))
def test_a_missing_value_is_zero_and_said_to_be_missing(number: int, name: str) -> None:
    x = torch.rand(2, X)
    x[0, WHERE[name]] = torch.nan
    got = seen(x)
    assert torch.equal(got[0, WHERE[name]], torch.zeros(WHERE[name].stop - WHERE[name].start))
    assert got[0, X:].tolist() == [float(n != number) for n in range(C)]
    assert torch.equal(got[1], seen(x[1]))


def test_a_missing_value_leaves_no_trace_in_the_gradient() -> None:
    encoder = Table(COLUMNS, [4], norm=False)
    x = torch.rand(3, X)
    x[0, 4], x[1, 0] = torch.nan, torch.nan
    x.requires_grad_()
    encoder(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[0, 4] == x.grad[1, 0] == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("left", [(), (5,), (3, 5), (3, 1, 2)])
def test_left_dimensions(left: tuple[int, ...]) -> None:
    encoder = Table(COLUMNS, [5, 4]).eval()
    x = torch.rand(*left, X)
    features = encoder(x)
    assert features.shape == (*left, 4)
    each = [encoder(row) for row in x.reshape(-1, X)]
    torch.testing.assert_close(features, torch.stack(each).reshape(features.shape))


def test_data_without_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the columns of a table"):
        Table(())


def test_a_checkpoint_of_it_holds_the_layers_alone() -> None:
    encoder = Table(COLUMNS, [7, 6], norm=False)
    assert encoder.width == 6
    assert all(name.startswith("network.") for name in encoder.state_dict())
