"""Decoders: any left dimensions, image layout, and the GRU's recurrence by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.decoders import MLP, Convolutional, Decoder, Posed, Recurrent
from models.likelihoods import Bernoulli, DiscretisedLogistic, Likelihood

pytestmark = pytest.mark.usefixtures("double")

LATENT = 3
SHAPES = [(4, 4), (8, 8), (9, 7), (28, 28)]
LIKELIHOODS = [Bernoulli, lambda: DiscretisedLogistic(4)]


def make(kind: type[Decoder], shape: tuple[int, int], likelihood: Likelihood) -> Decoder:
    if kind is MLP:
        return MLP(LATENT, shape[0] * shape[1], likelihood, hidden=[5, 4])
    if kind is Convolutional:
        return Convolutional(LATENT, shape, likelihood, width=2)
    if kind is Posed:
        return Posed(LATENT, shape, likelihood, hidden=[5], pose_hidden=4)
    return Recurrent(LATENT, shape, likelihood, hidden=4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["one-output", "two-outputs"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [MLP, Convolutional, Posed, Recurrent])
@pytest.mark.parametrize("left", [(), (5,), (3, 5), (3, 2, 5), (3, 1, 2, 1)])
def test_left_dimensions(
    kind: type[Decoder],
    shape: tuple[int, int],
    likelihood: Callable[[], Likelihood],
    left: tuple[int, ...],
) -> None:
    """The output for a stack of z is the stack of the outputs for each z."""
    decoder = make(kind, shape, likelihood())
    features = shape[0] * shape[1]
    z = torch.randn(*left, LATENT)
    raw = decoder.raw(z)
    assert raw.shape == (*left, features, decoder.likelihood.outputs)
    each = [decoder.raw(item) for item in z.reshape(-1, LATENT)]
    torch.testing.assert_close(raw, torch.stack(each).reshape(raw.shape))

    distribution = decoder(z)
    assert distribution.batch_shape == left
    assert distribution.event_shape == (features,)
    x = torch.randint(0, 2, (features,)).double()
    log_prob = torch.stack([decoder(item).log_prob(x) for item in z.reshape(-1, LATENT)])
    torch.testing.assert_close(distribution.log_prob(x), log_prob.reshape(left))


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
def test_mlp_by_hand(hidden: tuple[int, ...]) -> None:
    decoder = MLP(LATENT, 6, DiscretisedLogistic(4), hidden)
    parameters = list(decoder.parameters())
    z = out = torch.randn(2, LATENT)
    for number, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        out = (out if number == 0 else out.clamp_min(0)) @ weight.mT + bias
    assert len(parameters) == 2 * (len(hidden) + 1)
    torch.testing.assert_close(decoder.raw(z), out.reshape(2, 6, 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutional_layout(shape: tuple[int, int]) -> None:
    """Features run row by row, and each holds its outputs side by side."""
    decoder = Convolutional(LATENT, shape, DiscretisedLogistic(4), width=2)
    z = torch.randn(LATENT)
    small = decoder.expand(z).reshape(1, *decoder.small)
    image = decoder.network(small)[0]
    raw = decoder.raw(z)
    height, breadth = shape
    for i, j in [(0, 0), (0, breadth - 1), (height - 1, 0), (height - 1, breadth - 1), (2, 1)]:
        torch.testing.assert_close(raw[i * breadth + j], image[:, i, j])


def transposed(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each number of (C, h, w) sown, by its kernel, around its place in (O, 2 h, 2 w)."""
    _, height, breadth = images.shape
    # A border of one, which is cut off again.
    sown = torch.zeros(len(bias), 2 * height + 2, 2 * breadth + 2)
    for i in range(height):
        for j in range(breadth):
            kernels = (images[:, i, j, None, None, None] * weight).sum(0)
            sown[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += kernels
    return sown[:, 1:-1, 1:-1] + bias[:, None, None]


@pytest.mark.parametrize("shape", [(4, 4), (5, 7)])
def test_convolutional_by_hand(shape: tuple[int, int]) -> None:
    """Twice as many channels on a quarter of the sides, rounded up; doubled twice, then cut."""
    decoder = Convolutional(LATENT, shape, DiscretisedLogistic(4), width=3)
    start, start_bias, first, first_bias, second, second_bias = decoder.parameters()
    for z in 5 * torch.randn(2, LATENT):
        small = (start @ z + start_bias).clamp_min(0)
        small = small.reshape(6, -(-shape[0] // 4), -(-shape[1] // 4))
        image = transposed(transposed(small, first, first_bias).clamp_min(0), second, second_bias)
        image = image[:, : shape[0], : shape[1]]
        torch.testing.assert_close(decoder.raw(z), image.movedim(0, -1).reshape(-1, 2))


def gru_step(decoder: Recurrent, step: Tensor, state: Tensor) -> Tensor:
    """One step of a GRU (Cho et al. 2014), from its weights."""
    gru = decoder.gru
    from_step = (gru.weight_ih_l0 @ step + gru.bias_ih_l0).chunk(3)
    from_state = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
    reset = torch.sigmoid(from_step[0] + from_state[0])
    update = torch.sigmoid(from_step[1] + from_state[1])
    new = torch.tanh(from_step[2] + reset * from_state[2])
    return (1 - update) * new + update * state


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["one-output", "two-outputs"])
def test_recurrent_by_hand(likelihood: Callable[[], Likelihood]) -> None:
    """Row by row from the state that z starts, z in every step."""
    decoder = Recurrent(LATENT, (4, 3), likelihood(), hidden=5)
    batch = torch.randn(2, LATENT)
    for z, raw in zip(batch, decoder.raw(batch), strict=True):
        state = decoder.start(z)
        rows = []
        for step in decoder.steps:
            state = gru_step(decoder, z + step, state)
            rows.append(decoder.row(state).reshape(3, -1))
        torch.testing.assert_close(raw, torch.cat(rows))


@pytest.mark.parametrize("kind", [MLP, Convolutional, Posed, Recurrent])
def test_every_parameter_is_used(kind: type[Decoder]) -> None:
    decoder = make(kind, (9, 7), DiscretisedLogistic(4))
    # Away from the origin no ReLU of these few is dead for every z.
    (decoder.raw(10 * torch.randn(50, LATENT)) ** 2).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_mlp_refuses_a_layer_of_no_width() -> None:
    message = r"^hidden must be widths of at least 1, as \[400\], not \[0\]$"
    with pytest.raises(ValueError, match=message):
        MLP(LATENT, 4, Bernoulli(), [0])


def pose(decoder: Posed, moves: list[list[float]]) -> None:
    """Let every z have this pose, as a distance from the identity."""
    with torch.no_grad():
        decoder.head[-1].weight.zero_()
        decoder.head[-1].bias.copy_(torch.tensor(moves).flatten() / decoder.strength)


def test_training_starts_with_poses_near_the_identity() -> None:
    """Of 64 features within +-1 and weights of standard deviation 0.01: about 0.08 at most."""
    decoder = Posed(10, (9, 7), Bernoulli())
    moves = decoder.head(torch.randn(1000, 10))
    assert 0 < moves.square().mean().sqrt() < 0.1
    assert moves.abs().max() < 0.5


def test_what_tells_the_steps_apart_is_of_about_length_one_whatever_d_is() -> None:
    """The mean of N squared lengths, each with variance 2 / D, within 5 standard errors."""
    rows = 40
    for latent in (5, 80):
        lengths = Recurrent(latent, (rows, 3), Bernoulli(), hidden=2).steps.square().sum(-1)
        assert (lengths.mean() - 1).abs() < 5 * (2 / latent / rows) ** 0.5


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["one-output", "two-outputs"])
def test_a_picture_that_is_not_moved_is_seen_as_it_is(
    likelihood: Callable[[], Likelihood],
) -> None:
    decoder = Posed(LATENT, (9, 7), likelihood())
    pose(decoder, [[0, 0, 0], [0, 0, 0]])
    z = torch.randn(4, LATENT)
    torch.testing.assert_close(decoder.raw(z), decoder.picture.raw(z))


def test_a_picture_looked_at_from_the_right_moves_left_and_its_border_goes_on() -> None:
    height, width = 9, 7
    decoder = Posed(LATENT, (height, width), DiscretisedLogistic(4))
    pose(decoder, [[0, 0, 2 / width], [0, 0, 0]])
    z = torch.randn(4, LATENT)
    before = decoder.picture.raw(z).unflatten(-2, (height, width))
    after = decoder.raw(z).unflatten(-2, (height, width))
    torch.testing.assert_close(after[..., :-1, :], before[..., 1:, :])
    torch.testing.assert_close(after[..., -1, :], before[..., -1, :])


def test_a_picture_looked_at_upside_down() -> None:
    decoder = Posed(LATENT, (9, 7), Bernoulli())
    pose(decoder, [[0, 0, 0], [0, -2, 0]])
    z = torch.randn(4, LATENT)
    before = decoder.picture.raw(z).unflatten(-2, (9, 7))
    torch.testing.assert_close(decoder.raw(z).unflatten(-2, (9, 7)), before.flip(-3))


# In colour: X runs channel by channel, each row by row.

COLOUR = (3, 5, 7)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["one-output", "two-outputs"])
@pytest.mark.parametrize("kind", [Convolutional, Posed, Recurrent])
@pytest.mark.parametrize("left", [(), (5,), (3, 1, 2)])
def test_left_dimensions_in_colour(
    kind: type[Decoder], likelihood: Callable[[], Likelihood], left: tuple[int, ...]
) -> None:
    decoder = kind(LATENT, COLOUR, likelihood())  # type: ignore[call-arg, arg-type]
    z = torch.randn(*left, LATENT)
    raw = decoder.raw(z)
    assert raw.shape == (*left, 3 * 5 * 7, decoder.likelihood.outputs)
    each = [decoder.raw(item) for item in z.reshape(-1, LATENT)]
    torch.testing.assert_close(raw, torch.stack(each).reshape(raw.shape))


def test_convolutional_layout_in_colour() -> None:
    """The last layer has a channel's outputs side by side."""
    decoder = Convolutional(LATENT, COLOUR, DiscretisedLogistic(4), width=2)
    z = torch.randn(LATENT)
    image = decoder.network(decoder.expand(z).reshape(1, *decoder.small))[0]
    raw = decoder.raw(z).reshape(*COLOUR, 2)
    for channel, i, j in [(0, 0, 0), (1, 4, 6), (2, 3, 1)]:
        expected = image[2 * channel : 2 * channel + 2, i, j]
        torch.testing.assert_close(raw[channel, i, j], expected)


def test_a_pose_moves_all_channels_alike() -> None:
    decoder = Posed(LATENT, COLOUR, DiscretisedLogistic(4))
    z = torch.randn(4, LATENT)
    pose(decoder, [[0, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(decoder.raw(z), decoder.picture.raw(z))
    pose(decoder, [[0, 0, 2 / 7], [0, 0, 0]])
    before = decoder.picture.raw(z).unflatten(-2, COLOUR)
    after = decoder.raw(z).unflatten(-2, COLOUR)
    torch.testing.assert_close(after[..., :-1, :], before[..., 1:, :])
    torch.testing.assert_close(after[..., -1, :], before[..., -1, :])


def test_a_step_of_the_recurrence_gives_the_rows_of_all_channels() -> None:
    decoder = Recurrent(LATENT, COLOUR, DiscretisedLogistic(4), hidden=4)
    z = torch.randn(LATENT)
    raw, state = decoder.raw(z).reshape(*COLOUR, 2), decoder.start(z)
    assert len(decoder.steps) == 5
    for row, step in enumerate(decoder.steps):
        state = gru_step(decoder, z + step, state)
        torch.testing.assert_close(raw[:, row], decoder.row(state).reshape(3, 7, 2))
