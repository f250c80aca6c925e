"""Encoders: any left dimensions, and what the recurrent one reads, by hand."""

import math
import re

import pytest
import torch

from guides.encoders import MLP, Convolutional, Encoder, Recurrent, Upright

pytestmark = pytest.mark.usefixtures("double")

SHAPES = [(4, 4), (8, 8), (9, 7), (28, 28)]


def make(kind: type[Encoder], shape: tuple[int, int], norm: bool = False) -> Encoder:
    if kind is MLP:
        return MLP(shape[0] * shape[1], hidden=[5, 4], norm=norm)
    if kind is Convolutional:
        return Convolutional(shape, width=2, hidden=5, norm=norm)
    if kind is Upright:
        return Upright(shape, hidden=[5, 4], width=2, norm=norm)
    return Recurrent(shape, hidden=4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [MLP, Convolutional, Upright, Recurrent])
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


@pytest.mark.parametrize("kind", [MLP, Convolutional, Upright, Recurrent])
def test_every_pixel_is_seen(kind: type[Encoder]) -> None:
    encoder = make(kind, (9, 7))
    x = torch.rand(50, 63, requires_grad=True)
    (encoder(x) ** 2).sum().backward()
    assert (x.grad.abs().amax(0) > 0).all()


@pytest.mark.parametrize("kind", [MLP, Convolutional, Upright])
def test_a_fresh_encoder_remembers_nothing(kind: type[Encoder]) -> None:
    """How large its layers must be is found without counting as an example."""
    encoder = make(kind, (8, 8), norm=True)
    layers = [
        layer
        for layer in encoder.modules()
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)
    ]
    assert layers
    for layer in layers:
        assert layer.num_batches_tracked == 0
        assert (layer.running_mean == 0).all()
        assert (layer.running_var == 1).all()
    assert all(module.training for module in encoder.modules())


@pytest.mark.parametrize("left", [(8,), (4, 2), (2, 1, 4)])
@pytest.mark.parametrize("kind", [MLP, Convolutional, Upright])
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


def test_convolutional_takes_one_width_or_several() -> None:
    torch.manual_seed(0)
    one, same = (Convolutional((9, 7), width=2, hidden=hidden) for hidden in (5, [5]))
    same.load_state_dict(one.state_dict())
    x = torch.rand(4, 63)
    assert torch.equal(one(x), same(x))
    several = Convolutional((9, 7), width=2, hidden=[6, 5, 3], norm=True)
    assert several(x).shape == (4, 3)
    assert several.width == 3
    assert [
        layer.out_features for layer in several.network if isinstance(layer, torch.nn.Linear)
    ] == [6, 5, 3]


def test_convolutional_sees_the_image_row_by_row() -> None:
    encoder = Convolutional((9, 7), width=2, hidden=5)
    image = torch.rand(9, 7)
    rows = torch.cat(list(image))
    torch.testing.assert_close(encoder(rows), encoder.network(image.reshape(1, 1, 9, 7))[0])


def strided(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Every other place of (C, h, w), and what a border of zeros leaves around it, by a kernel."""
    padded = torch.zeros(len(image), image.shape[1] + 2, image.shape[2] + 2)
    padded[:, 1:-1, 1:-1] = image
    rows, columns = (range(0, side - 3, 2) for side in padded.shape[1:])
    seen = [
        [(padded[:, i : i + 4, j : j + 4] * weight).sum((1, 2, 3)) for j in columns] for i in rows
    ]
    return torch.stack([torch.stack(row, -1) for row in seen], -2) + bias[:, None, None]


def normalised(features: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    """As at test time, the first axis being that of the channels."""
    ones = (-1, *[1] * (features.ndim - 1))
    mean, variance, weight, bias = (
        getattr(layer, name).reshape(ones)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (features - mean) / (variance + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("shape", [(1, 30), (2, 2), (7, 1), (3, 5), (3, 2, 9)])
def test_an_image_of_few_rows_or_columns_gets_black_ones(shape: tuple[int, ...]) -> None:
    *colour, height, width = shape
    torch.manual_seed(0)
    small = Convolutional(shape, width=2, hidden=5).double()
    sides = (max(4, height), max(4, width))
    large = Convolutional((*colour, *sides), width=2, hidden=5).double()
    large.load_state_dict(small.state_dict())
    x = torch.rand(3, *shape, dtype=torch.float64)
    padded = torch.zeros(3, *colour, *sides, dtype=torch.float64)
    padded[..., :height, :width] = x
    torch.testing.assert_close(small(x.flatten(1)), large(padded.flatten(1)))


@pytest.mark.parametrize("norm", [False, True])
def test_convolutional_by_hand(norm: bool) -> None:
    """Two convolutions, the second with twice the channels, and a layer; ReLU after each."""
    encoder = Convolutional((9, 7), width=3, hidden=5, norm=norm).eval()
    layers = [layer for layer in encoder.modules() if not list(layer.children())]
    weighted = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    norms = [layer for layer in layers if "Norm" in type(layer).__name__]
    assert len(norms) == 3 * norm
    for layer in norms:
        for name in ("running_mean", "running_var", "weight", "bias"):
            torch.nn.init.uniform_(getattr(layer, name), 0.5, 2)
    assert [layer.bias.numel() for layer in weighted] == [3, 6, 5]
    image = torch.rand(1, 9, 7)
    features = image
    for number, layer in enumerate(weighted):
        if number < 2:
            features = strided(features, layer.weight, layer.bias)
        else:
            features = layer.weight @ features.flatten() + layer.bias
        if norm:
            features = normalised(features, norms[number])
        features = features.clamp_min(0)
    torch.testing.assert_close(encoder(image.flatten()), features)


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
    message = f"hidden must be widths of at least 1, as [400], not {hidden}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MLP(6, hidden)


SIDE = 28


def blob(move: torch.Tensor) -> torch.Tensor:
    """A lopsided smooth blob seen through the inverse of a move (2, 3), as (1, 1, SIDE, SIDE)."""
    centres = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    y, x = torch.meshgrid(centres.double(), centres.double(), indexing="ij")
    back = torch.linalg.inv(move[:, :2])
    u, v = torch.einsum("ij,jhw->ihw", back, torch.stack([x, y]) - move[:, 2, None, None])
    image = torch.exp(-0.5 * ((u / 0.2) ** 2 + (v / 0.3) ** 2)) * (1 + 0.5 * torch.sin(9 * v))
    return image[None, None]


def moments(image: torch.Tensor) -> dict[str, float]:
    centres = ((2 * torch.arange(SIDE) + 1) / SIDE - 1).double()
    weights = image[0, 0] / image.sum()
    x, y = centres.expand(SIDE, SIDE), centres.unsqueeze(-1).expand(SIDE, SIDE)
    middle, level = (weights * x).sum(), (weights * y).sum()
    right, below = x - middle, y - level
    return {
        "middle": middle.item(),
        "level": level.item(),
        "across": (weights * right**2).sum().sqrt().item(),
        "down": (weights * below**2).sum().sqrt().item(),
        "slant": (weights * right * below).sum().item(),
    }


MOVES = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    [[1.0, 0.4, 0.1], [0.0, 1.0, -0.15]],
    [[0.8, -0.3, -0.2], [0.0, 0.7, 0.1]],
]


@pytest.mark.parametrize("move", MOVES)
def test_an_upright_image_has_the_moments_asked_for(move: list[list[float]]) -> None:
    encoder = Upright((SIDE, SIDE), spread=(0.3, 0.25))
    image, _ = encoder.upright(blob(torch.tensor(move).double()))
    found = moments(image)
    # Interpolation between pixels smooths: a few thousandths of a half image.
    assert found["middle"] == pytest.approx(0, abs=5e-3)
    assert found["level"] == pytest.approx(0, abs=5e-3)
    assert found["slant"] == pytest.approx(0, abs=2e-3)
    assert found["down"] == pytest.approx(0.3, abs=0.01)
    assert found["across"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("move", MOVES[1:])
def test_a_shear_a_stretch_and_a_shift_are_taken_away_and_told(move: list[list[float]]) -> None:
    encoder = Upright((SIDE, SIDE))
    moved = torch.tensor(move).double()
    still, pose = encoder.upright(blob(torch.tensor(MOVES[0]).double()))
    image, told = encoder.upright(blob(moved))
    # Interpolated twice, once from coarser pixels: alike to a few hundredths of full white.
    assert (image - still).abs().max() < 0.08
    assert (image - still).abs().max() < 0.2 * (blob(moved) - still).abs().max()
    change = (told - pose)[0].tolist()
    expected = [math.log(move[0][0]), math.log(move[1][1]), move[0][1] / move[1][1]]
    assert change[:3] == pytest.approx(expected, abs=0.03)


def test_the_pose_weight_says_how_much_of_a_move_is_seen() -> None:
    """At 0 a moved image looks the same but for interpolation; the rest is linear in the weight."""
    torch.manual_seed(0)
    encoder = Upright((SIDE, SIDE), hidden=[50])
    still, moved = (blob(torch.tensor(move).double()).flatten(1) for move in MOVES[:2])
    layer = encoder.network.network[0]
    assert isinstance(layer, torch.nn.Linear)

    def change(weight: float) -> torch.Tensor:
        encoder.pose_weight = weight
        seen = []
        with torch.no_grad():
            hook = layer.register_forward_hook(lambda *triple: seen.append(triple[-1]))
            encoder(moved), encoder(still)
            hook.remove()
        return seen[0] - seen[1]

    poses = [encoder.upright(x.reshape(-1, 1, SIDE, SIDE))[1] for x in (moved, still)]
    told = (poses[0] - poses[1]) @ layer.weight[:, -5:].mT
    torch.testing.assert_close(change(15.0) - change(0.0), 15 * told)
    assert change(0.0).norm() < 0.2 * change(15.0).norm()


@pytest.mark.parametrize("norm", [False, True])
def test_upright_is_layers_on_the_upright_image_and_the_pose(norm: bool) -> None:
    encoder = Upright((9, 7), hidden=[5, 4], norm=norm, pose_weight=3.0).eval()
    assert encoder.width == 4
    x = torch.rand(6, 63)
    image, pose = encoder.upright(x.reshape(6, 1, 9, 7))
    layers = MLP(63 + 5, [5, 4], norm).eval()
    # Strict: the layers of the one are those of the other, normalising ones too.
    layers.load_state_dict(encoder.network.state_dict())
    torch.testing.assert_close(encoder(x), layers(torch.cat([image.flatten(1), 3 * pose], -1)))


def test_upright_refuses_a_negative_pose_weight() -> None:
    with pytest.raises(ValueError, match=r"^pose_weight must be at least 0 and finite, not -1.0$"):
        Upright((8, 8), pose_weight=-1.0)


@pytest.mark.parametrize("pixels", [0, 1])
def test_blank_images_and_single_pixels_are_finite(pixels: int) -> None:
    encoder = Upright((8, 8), hidden=[5])
    x = torch.zeros(2, 64, requires_grad=True)
    lit = x + torch.eye(64)[[9, 50]] * pixels
    features = encoder(lit)
    (gradient,) = torch.autograd.grad(features.square().sum(), x)
    assert features.isfinite().all()
    assert gradient.isfinite().all()


def test_a_single_pixel_counts_as_one_pixel_wide() -> None:
    encoder = Upright((10, 10), hidden=[5], spread=(0.2, 0.4))
    image = torch.zeros(1, 1, 10, 10)
    image[..., 3, 6] = 1
    _, pose = encoder.upright(image)
    # From edge to edge an image is two wide, and a pixel of ten a fifth.
    expected = [math.log(0.2 / 0.4), math.log(0.2 / 0.2), 0, 0.3, -0.3]
    torch.testing.assert_close(pose, torch.tensor([expected]))


@pytest.mark.parametrize("spread", [(0.3,), (0.3, 0.0), (-1.0, 0.2)])
def test_upright_needs_two_spreads(spread: tuple[float, ...]) -> None:
    message = f"spread must be two numbers above 0, not {list(spread)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Upright((8, 8), spread=spread)


# In colour: X runs channel by channel, each row by row.

COLOUR = (3, 9, 7)


def test_convolutional_sees_all_channels() -> None:
    encoder = Convolutional(COLOUR, width=2, hidden=5)
    images = torch.rand(2, 4, *COLOUR)
    expected = encoder.network(images.flatten(0, 1)).reshape(2, 4, 5)
    torch.testing.assert_close(encoder(images.flatten(2)), expected)


def test_a_step_of_the_recurrence_has_the_rows_of_all_channels() -> None:
    encoder, wide = Recurrent(COLOUR, hidden=4), Recurrent((9, 21), hidden=4)
    wide.load_state_dict(encoder.state_dict())
    images = torch.rand(2, *COLOUR)
    side_by_side = torch.cat(images.unbind(1), -1)
    torch.testing.assert_close(encoder(images.flatten(1)), wide(side_by_side.flatten(1)))


def test_upright_goes_by_the_luminance_and_moves_all_channels_alike() -> None:
    """Resampling is linear: the luminance of what comes out is the luminance, made upright."""
    images = torch.rand(4, *COLOUR)
    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = torch.einsum("c,bchw->bhw", weights, images).unsqueeze(1)
    seen, pose = Upright(COLOUR, hidden=(4,)).upright(images)
    expected, its = Upright((9, 7), hidden=(4,)).upright(grey)
    torch.testing.assert_close(pose, its)
    torch.testing.assert_close(torch.einsum("c,bchw->bhw", weights, seen), expected[:, 0])
    # A channel that is the same in all three would hide that one is moved another way.
    alone = images.clone()
    alone[:, 1:] = 0
    alone[:, 0] = grey[:, 0] / 0.299
    torch.testing.assert_close(
        0.299 * Upright(COLOUR, hidden=(4,)).upright(alone)[0][:, :1], expected
    )


@pytest.mark.parametrize("width", [0, 2])
def test_upright_takes_images_in_colour(width: int) -> None:
    encoder = Upright(COLOUR, hidden=(6,), width=width)
    assert encoder(torch.rand(2, 3, 3 * 9 * 7)).shape == (2, 3, 6)
