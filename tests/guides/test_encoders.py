"""Encoders: any left dimensions, and what the recurrent one reads, by hand."""

import re

import pytest
import torch

from guides.encoders import MLP, Convolutional, Encoder, Recurrent

pytestmark = pytest.mark.usefixtures("double")

SHAPES = [(4, 4), (8, 8), (9, 7), (28, 28)]


def make(kind: type[Encoder], shape: tuple[int, int], norm: bool = False) -> Encoder:
    if kind is MLP:
        return MLP(shape[0] * shape[1], hidden=[5, 4], norm=norm)
    if kind is Convolutional:
        return Convolutional(shape, width=2, hidden=5, norm=norm)
    return Recurrent(shape, hidden=4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [MLP, Convolutional, Recurrent])
@pytest.mark.parametrize("left", [(), (5,), (3, 5), (3, 2, 5), (3, 1, 2, 1)])
def test_left_dimensions(
    kind: type[Encoder], shape: tuple[int, int], left: tuple[int, ...]
) -> None:
    """The features of a stack of x are the stack of the features of each x."""
    encoder = make(kind, shape)
    x = torch.rand(*left, shape[0] * shape[1])
    features = encoder(x)
    assert features.shape == (*left, encoder.width)
    each = [encoder(item) for item in x.reshape(-1, x.shape[-1])]
    torch.testing.assert_close(features, torch.stack(each).reshape(features.shape))


@pytest.mark.parametrize("kind", [MLP, Convolutional, Recurrent])
def test_every_pixel_is_seen(kind: type[Encoder]) -> None:
    encoder = make(kind, (9, 7))
    x = torch.rand(50, 63, requires_grad=True)
    (encoder(x) ** 2).sum().backward()
    assert (x.grad.abs().amax(0) > 0).all()


@pytest.mark.parametrize("left", [(8,), (4, 2), (2, 1, 4)])
@pytest.mark.parametrize("kind", [MLP, Convolutional])
def test_batch_normalisation_takes_all_left_dimensions_as_one_batch(
    kind: type[Encoder], left: tuple[int, ...]
) -> None:
    encoder = make(kind, (8, 8), norm=True)
    x = torch.rand(8, 64)
    expected = encoder(x)
    torch.testing.assert_close(encoder(x.reshape(*left, 64)), expected.reshape(*left, -1))
    # In training the other examples count, at test time they do not.
    assert not torch.allclose(encoder(x[:4]), expected[:4])
    encoder.eval()
    torch.testing.assert_close(encoder(x[:4]), encoder(x)[:4])
    torch.testing.assert_close(encoder(x[0]), encoder(x)[0])


@pytest.mark.parametrize("hidden", [(5,), (5, 4)])
def test_mlp_by_hand(hidden: tuple[int, ...]) -> None:
    encoder = MLP(6, hidden)
    parameters = list(encoder.parameters())
    assert encoder.width == hidden[-1]
    assert len(parameters) == 2 * len(hidden)
    x = out = torch.randn(3, 6)
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        out = (out @ weight.mT + bias).clamp_min(0)
    torch.testing.assert_close(encoder(x), out)


def test_convolutional_sees_the_image_row_by_row() -> None:
    encoder = Convolutional((9, 7), width=2, hidden=5)
    image = torch.rand(9, 7)
    rows = torch.cat(list(image))
    torch.testing.assert_close(encoder(rows), encoder.network(image.reshape(1, 1, 9, 7))[0])


def test_recurrent_by_hand() -> None:
    """The states after the last row read down and after the last row read up."""
    encoder = Recurrent((4, 3), hidden=2)
    x = torch.rand(4, 3)
    states = []
    for suffix, rows in (("", x), ("_reverse", x.flip(0))):
        w_x, w_h, b_x, b_h = (
            getattr(encoder.gru, f"{name}_l0{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state = torch.zeros(2)
        for row in rows:
            from_x, from_h = (w_x @ row + b_x).chunk(3), (w_h @ state + b_h).chunk(3)
            reset = torch.sigmoid(from_x[0] + from_h[0])
            update = torch.sigmoid(from_x[1] + from_h[1])
            new = torch.tanh(from_x[2] + reset * from_h[2])
            state = (1 - update) * new + update * state
        states.append(state)
    torch.testing.assert_close(encoder(x.flatten()), torch.cat(states))


@pytest.mark.parametrize("hidden", [[], [0], [4, -1]])
def test_mlp_needs_layers_of_some_width(hidden: list[int]) -> None:
    message = f"hidden must name widths of at least 1, as [400], not {hidden}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MLP(6, hidden)
