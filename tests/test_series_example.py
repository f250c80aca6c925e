"""The example of time series: its parts against theory, and its commands in processes of their own.

The statistical tests have fixed seeds and allow 5 standard errors: where the code is right, each
comparison fails for 6 seeds in 10 million.
"""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_infocat as pic
from examples.series import (
    REACH,
    STRIDE,
    Convolutional,
    Series,
    Transposed,
    Warped,
    lengths,
    sides,
)
from models.likelihoods import Gaussian
from tests.brief import ROOT

SIDES = [(1, 1), (2, 3), (7, 1), (9, 2), (24, 1), (29, 12), (131, 1)]
"""T and C: one, even, odd, prime."""

ERRORS = 5
"""Standard errors that a statistic may lie from its expectation."""


def waves(number: int, steps: int, channels: int, seed: int = 0) -> np.ndarray:
    """Series (N, T, C): even ones are fast waves, odd ones slow."""
    random = np.random.default_rng(seed)
    speed = np.where(np.arange(number) % 2, 1, 3)[:, None, None]
    time = 2 * math.pi * np.arange(steps)[:, None] / steps
    noise = random.normal(size=(number, steps, channels))
    return 5 + 2 * np.sin(speed * time + np.arange(channels)) + 0.2 * noise


def saved(folder: Path, **arrays: object) -> str:
    np.savez(folder / "series.npz", **arrays)
    return str(folder / "series.npz")


# The view.


@pytest.fixture
def seeded() -> object:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def view(steps: int, channels: int = 1, **strengths: float) -> Warped:
    none = {"warp": 0.0, "shift": 0.0, "scaling": 0.0, "jitter": 0.0}
    return Warped((steps, channels), **none | strengths)


def seen(made: Warped, x: Tensor) -> Tensor:
    return made(x, None)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 24, 131, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_a_warp_keeps_the_order_of_steps(steps: int, shift: float, seeded: None) -> None:
    places = view(steps, warp=1.0, shift=shift).places(torch.zeros(200, steps))
    assert places.shape == (200, steps)
    assert places.min() >= 0
    assert places.max() <= steps - 1
    step = places.diff(dim=1)
    assert (step >= 0).all()
    if not shift:
        assert (step > 0).all()
        torch.testing.assert_close(places[:, 0], torch.zeros(200))
        torch.testing.assert_close(places[:, -1], torch.full((200,), steps - 1.0))


def test_a_warp_changes_the_speed_within_a_series(seeded: None) -> None:
    step = view(24, warp=0.5).places(torch.zeros(200, 24)).diff(dim=1)
    assert (step.amax(1) > 1.1 * step.amin(1)).all()


@pytest.mark.parametrize(("steps", "channels"), SIDES)
def test_a_view_of_no_strength_is_the_series(steps: int, channels: int, seeded: None) -> None:
    x = torch.rand(50, steps * channels)
    torch.testing.assert_close(seen(view(steps, channels), x), x, rtol=0, atol=1e-6)


def test_a_warp_reads_between_steps(seeded: None) -> None:
    """Of a straight line in each channel a warp is the line at its places."""
    made = view(31, 2, warp=0.5)
    line = torch.arange(31.0)
    x = torch.stack([line, 100 - 2 * line], -1).flatten().expand(20, -1)
    state = torch.random.get_rng_state()
    places = made.places(x)
    torch.random.set_rng_state(state)
    wanted = torch.stack([places, 100 - 2 * places], -1).flatten(1)
    torch.testing.assert_close(seen(made, x), wanted, rtol=0, atol=1e-4)


def check_normal(values: Tensor, spread: float) -> None:
    """Whether independent numbers (N,) have the moments of normal ones about 0."""
    number = values.numel()
    assert abs(values.mean()) < ERRORS * spread / math.sqrt(number)
    # The variance of a sample variance of normal numbers is 2 spread^4 / N.
    assert abs(values.square().mean() / spread**2 - 1) < ERRORS * math.sqrt(2 / number)


def test_jitter_is_noise_in_standard_deviations_of_a_channel(seeded: None) -> None:
    x = torch.rand(500, 40, dtype=torch.float64)
    check_normal((seen(view(20, 2, jitter=0.3), x) - x).flatten(), 0.3 / (2 * REACH))


def test_scaling_is_a_log_normal_factor_on_each_channel(seeded: None) -> None:
    x = 1 + torch.rand(4000, 7 * 3, dtype=torch.float64)
    made = seen(view(7, 3, scaling=0.4), x)
    logs = ((made - 0.5) / (x - 0.5)).log().reshape(4000, 7, 3)
    torch.testing.assert_close(logs, logs[:, :1].expand(-1, 7, -1))
    check_normal(logs[:, 0].flatten(), 0.4)
    # Channels are scaled apart: a correlation of independent numbers has a spread of 1 / sqrt(N).
    assert abs((logs[:, 0, 0] * logs[:, 0, 1]).mean()) / 0.4**2 < ERRORS / math.sqrt(4000)


def test_a_shift_is_a_share_of_the_series(seeded: None) -> None:
    """In the middle, 9 standard deviations from the ends."""
    places = view(1001, shift=0.05).places(torch.zeros(4000, 1001, dtype=torch.float64))
    check_normal(places[:, 500] - 500, 0.05 * 1001)


@pytest.mark.parametrize("name", ["warp", "shift", "scaling", "jitter"])
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, math.inf])
def test_a_strength_is_a_share(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a share from 0 to 1"):
        view(5, **{name: value})


# Encoder and decoder.


class Wide(Gaussian):
    """A likelihood that asks for two numbers a feature."""

    outputs = 2


@pytest.mark.parametrize(("steps", "channels"), SIDES)
def test_shapes_and_gradients(steps: int, channels: int, seeded: None) -> None:
    assert sides((steps, channels)) == (steps, channels)
    encoder = Convolutional((steps, channels), width=4, hidden=6)
    x = torch.rand(3, 8, steps * channels, requires_grad=True)
    hidden = encoder(x)
    assert hidden.shape == (3, 8, 6)
    decoder = Transposed(5, (steps, channels), Wide(), width=4)
    z = torch.randn(3, 8, 5, requires_grad=True)
    raw = decoder.raw(z)
    assert raw.shape == (3, 8, steps * channels, 2)
    # Of random weights, since the sum of what batch normalisation makes has no gradient.
    ((hidden * torch.randn_like(hidden)).sum() + (raw * torch.randn_like(raw)).sum()).backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-5, name
    assert x.grad.abs().max() > 0
    assert z.grad.abs().max() > 0


@pytest.mark.parametrize("steps", [1, 4, 8, 32, 33, 427])
def test_convolutions_shorten_a_series_to_eight_steps(steps: int) -> None:
    found = lengths(steps)
    assert found[0] == steps
    assert found[-1] <= 8
    assert all(a == math.ceil(b / STRIDE) for a, b in zip(found[1:], found, strict=False))
    assert len(found) == 2 or found[-2] > 8


def test_a_decoder_writes_step_by_step() -> None:
    """With biases alone, each step has the channels' numbers in their order."""
    decoder = Transposed(3, (9, 2), Wide(), width=4)
    last = decoder.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(9, 1).expand(5, 18, 2)
    torch.testing.assert_close(decoder.raw(torch.randn(5, 3)), wanted)


def test_an_encoder_reads_along_time(seeded: None) -> None:
    """A change at one step reaches only the places of the first convolution that are near it."""
    encoder = Convolutional((60, 2), width=4).eval()
    first = encoder.network[0]
    found = []
    first.register_forward_hook(lambda _, __, output: found.append(output.detach()))
    x = torch.rand(1, 120)
    other = x.clone()
    other[0, 2 * 30 + 1] += 1
    encoder(x), encoder(other)
    changed = (found[0] != found[1]).any(1).flatten().nonzero().flatten().tolist()
    assert changed == [n for n in range(15) if abs(n * STRIDE - 30) <= 4]


@pytest.mark.parametrize("kind", [Convolutional, Warped])
def test_data_of_another_reader_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"needs series, as examples.series.Series reads them"):
        kind((7,))


@pytest.mark.parametrize("name", ["width", "hidden"])
def test_sizes_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        Convolutional((3, 1), **{name: 0})


# The reader.


def test_channels_are_standardised_by_the_training_split(tmp_path: Path) -> None:
    x = waves(30, 11, 3) * [1, 10, 0.1] + [0, 5, 100]
    data = Series(saved(tmp_path, x_train=x[:20], x_test=x[20:])).read()
    train = data.train.pixels.reshape(20, 11, 3).double()
    wanted = torch.full((3,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(train.mean((0, 1)), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(train.std((0, 1), correction=0), wanted / REACH, rtol=1e-4, atol=0)
    mean, spread = x[:20].mean((0, 1)), x[:20].std((0, 1))
    test = 0.5 + (x[20:] - mean) / (8 * spread)
    torch.testing.assert_close(data.test.pixels, torch.from_numpy(test).float().flatten(1))
    assert not data.train.labelled
    assert data.facts.classes == ()


def test_one_channel_needs_no_axis(tmp_path: Path) -> None:
    x = waves(20, 11, 1)
    flat = Series(saved(tmp_path, x_train=x[..., 0])).read()
    deep = Series(saved(tmp_path, x_train=x)).read()
    assert flat.facts == deep.facts
    assert flat.fingerprint == deep.fingerprint
    np.save(tmp_path / "series.npy", x)
    assert Series(str(tmp_path / "series.npy")).read().fingerprint == deep.fingerprint


def test_a_fixed_fifth_is_held_out(tmp_path: Path) -> None:
    data = Series(saved(tmp_path, x_train=waves(40, 5, 1), y_train=np.arange(40) % 3)).read()
    assert (len(data.train), len(data.test)) == (32, 8)
    there = torch.cat([data.train.pixels, data.test.pixels])
    assert len(there.unique(dim=0)) == 40


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        (np.array(["up", "down", "up", "flat"]), ("down", "flat", "up")),
        (np.array([7, -1, 7, 10]), ("-1", "7", "10")),
    ],
)
def test_labels_are_words_or_whole_numbers(
    words: np.ndarray, classes: tuple[str, ...], tmp_path: Path
) -> None:
    x = waves(4, 5, 1)
    file = saved(tmp_path, x_train=x[:3], x_test=x[3:], y_train=words[:3], y_test=words[3:])
    data = Series(file).read()
    assert data.facts.classes == classes
    codes = [*data.train.labels.tolist(), *data.test.labels.tolist()]
    assert [classes[code] for code in codes] == [str(word) for word in words]


HOLE = waves(6, 5, 2)
HOLE[4, 3, 1] = np.inf
STILL = waves(6, 5, 2)
STILL[..., 1] = 0.1


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y_train": np.arange(3)}, "give at least 2 series, (N, T) or (N, T, C), under x_train"),
        ({"x_test": waves(6, 5, 1)}, "give at least 2 series, (N, T) or (N, T, C), under x_train"),
        ({"x_train": waves(1, 5, 1)}, "give at least 2 series, (N, T) or (N, T, C), under x_train"),
        ({"x_train": np.arange(5.0)}, "x_train is float64 (5,); give reals (N, T) or (N, T, C)"),
        ({"x_train": np.zeros((3, 0))}, "x_train is float64 (3, 0); give reals (N, T)"),
        ({"x_train": np.full((3, 2), "a")}, "x_train is <U1 (3, 2); give reals (N, T)"),
        (
            {"x_train": waves(6, 5, 2), "x_test": waves(6, 4, 2)},
            "T, C of x_train, x_test are [(5, 2), (4, 2)]; give both of the same T, C",
        ),
        (
            {"x_train": waves(6, 5, 1), "y_train": np.arange(5)},
            "labels: int64 (5,); give an integer or word a series",
        ),
        (
            {"x_train": waves(6, 5, 1), "y_train": np.ones(6)},
            "labels: float64 (6,); give an integer or word a series",
        ),
        (
            {"x_train": waves(6, 5, 1), "x_test": waves(2, 5, 1), "y_train": np.arange(6)},
            "labels: int64 (6,); give an integer or word a series",
        ),
        ({"x_train": STILL}, "channel 1 has spread"),
        (
            {"x_train": HOLE, "x_test": HOLE},
            "channel 1 has spread nan; give finite, varying numbers",
        ),
        (
            {"x_train": waves(6, 5, 2), "x_test": HOLE},
            "series 10 at t3.c1 is not finite; mend it",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arrays: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    file = saved(tmp_path, **arrays)
    with pytest.raises(pic.UserError) as caught:
        Series(file).read()
    assert f"--data: '{file}': {said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_new_series_are_standardised_as_the_runs_are(tmp_path: Path) -> None:
    x = waves(30, 7, 2)
    data = Series(saved(tmp_path, x_train=x[:20], x_test=x[20:])).read()
    new = Series(saved(tmp_path, x_train=x[20:21], x_test=x[:2])).again(data.facts)
    assert new.names == ["x_train/0", "x_test/0", "x_test/1"]
    wanted = torch.cat([data.test.pixels[:1], data.train.pixels[:2]])
    torch.testing.assert_close(new.split.pixels, wanted)
    with pytest.raises(pic.UserError, match=r"T, C are \(9, 2\); give series of the run's \(7, 2"):
        Series(saved(tmp_path, x_train=waves(3, 9, 2))).again(data.facts)


# From the shell.


def run(*words: str) -> str:
    """What a command says that has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_by_the_config_and_its_categories_of_new_series(tmp_path: Path) -> None:
    x = waves(40, 13, 2)
    file = saved(tmp_path, x_train=x, y_train=np.arange(40) % 2)
    out = str(tmp_path / "out")
    brief = ["--epochs", "2", "--nll_samples", "2", "--device", "cpu"]
    said = run(
        *("pyro_infocat.run", "--config", "examples/series.yaml", "--data", file, *brief),
        *("--prior.categories", "2", "--view.warp", "0.3", "--out", out),
    )
    assert "accuracy" in said
    new = waves(5, 13, 2, seed=1)
    file = saved(tmp_path, x_test=new)
    trust = ["--trust", "examples.series"]
    run("pyro_infocat.categorise", out, file, *trust)
    with (tmp_path / "out" / "categories.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows] == [f"x_test/{n}" for n in range(5)]
    again = pic.load(out, trust="examples.series")
    x = Series(file).again(again.facts).split.pixels
    q = again.guide.category(x).probs.detach()
    found = torch.tensor([[float(row["q_0"]), float(row["q_1"])] for row in rows])
    torch.testing.assert_close(found, q, rtol=1e-4, atol=1e-5)
    # The run itself knows how its channels were standardised.
    for given in (new, new.reshape(5, -1)):
        np.testing.assert_allclose(again.probabilities(given), q, rtol=1e-4, atol=1e-5)
    back = again.inverse(x).to_numpy().reshape(new.shape)
    np.testing.assert_allclose(back, new, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "number", "shape", "classes"),
    [("ItalyPowerDemand", (877, 219), (24, 1), 2), ("BasicMotions", (40, 40), (100, 6), 4)],
)
def test_the_data_beside_the_example(
    name: str, number: tuple[int, int], shape: tuple[int, int], classes: int
) -> None:
    data = Series(str(ROOT / "examples" / "data" / f"{name}.npz")).read()
    assert (len(data.train), len(data.test)) == number
    assert data.facts.shape == shape
    assert len(data.facts.classes) == classes
