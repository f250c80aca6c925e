"""Pixels in reading order: normalised, causal, and drawn from what log_prob says."""

import itertools
import re
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from models.decoders import MLP
from models.likelihoods import AutoregressiveBernoulli, Bernoulli, before

pytestmark = pytest.mark.usefixtures("double")

SHAPE = (2, 3)
X = 6


def made(**arguments: Any) -> tuple[AutoregressiveBernoulli, Tensor]:
    """A likelihood whose pixels matter to one another, and raw numbers for two images."""
    likelihood = AutoregressiveBernoulli(
        SHAPE, **({"reach": 1, "rank": 2, "hidden": 5} | arguments)
    )
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.normal_()
    return likelihood, 2 * torch.randn(2, X, likelihood.outputs)


def every_image() -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=X)))


def test_who_is_before_whom() -> None:
    """Left above, above, right above and left; 6 is beyond the edge."""
    assert before(SHAPE, 1).tolist() == [
        [6, 6, 6, 6],
        [6, 6, 6, 0],
        [6, 6, 6, 1],
        [6, 0, 1, 6],
        [0, 1, 2, 3],
        [1, 2, 6, 4],
    ]


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_every_neighbour_comes_before(reach: int) -> None:
    neighbours = before((5, 4), reach)
    assert neighbours.shape == (20, 2 * reach * (reach + 1))
    for pixel, row in enumerate(neighbours.tolist()):
        assert all(other < pixel or other == 20 for other in row)
        inside = [other for other in row if other < 20]
        assert len(set(inside)) == len(inside)
        expected = [
            other
            for other in range(pixel)
            if pixel // 4 - other // 4 <= reach and abs(pixel % 4 - other % 4) <= reach
        ]
        assert inside == expected


@pytest.mark.parametrize("reach", [1, 2])
def test_the_masses_of_all_images_sum_to_one(reach: int) -> None:
    likelihood, raw = made(reach=reach)
    log_mass = likelihood(raw.unsqueeze(1)).log_prob(every_image())
    assert log_mass.shape == (2, 2**X)
    torch.testing.assert_close(log_mass.logsumexp(1), torch.zeros(2))
    # The pixels do hang together: independent ones of the same raw numbers say otherwise.
    independent = Bernoulli()(raw.unsqueeze(1)[..., :1]).log_prob(every_image())
    assert (log_mass - independent).abs().max() > 1


def test_a_pixel_by_hand() -> None:
    likelihood, raw = made()
    x = every_image()[37]
    said = likelihood.context(torch.stack([x[0], x[1], x[2], x[3]]))
    expected = raw[:, 4, 0] + raw[:, 4, 1] * said[0] + raw[:, 4, 2] * said[1]
    torch.testing.assert_close(likelihood(raw).logits(x)[:, 4], expected)
    torch.testing.assert_close(likelihood(raw).logits(x, slice(4, 5))[:, 0], expected)


def test_draws_are_as_frequent_as_their_mass() -> None:
    """Chi-square over all 64 images; fails by chance once in 1000 choices of the seed."""
    likelihood, raw = made()
    pixels = likelihood(0.5 * raw[0])
    number = 20_000
    drawn = pixels.sample((number,))
    codes = (drawn @ 2.0 ** torch.arange(X - 1, -1, -1)).long()
    found = torch.bincount(codes, minlength=2**X)
    expected = number * pixels.log_prob(every_image()).exp()
    rare = expected < 5
    found = torch.cat([found[~rare], found[rare].sum().view(1)])
    expected = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    assert chisquare(found.numpy(), expected.detach().numpy()).pvalue > 1e-3


def test_a_draw_has_the_gradient_of_its_means() -> None:
    likelihood, raw = made()
    raw.requires_grad_()
    weights = torch.randn(2, X)
    torch.manual_seed(1)
    draw = likelihood(raw).rsample()
    assert set(draw.unique().tolist()) <= {0.0, 1.0}
    (found,) = torch.autograd.grad((weights * draw).sum(), raw)
    mean = likelihood(raw).logits(draw.detach()).sigmoid()
    (expected,) = torch.autograd.grad((weights * mean).sum(), raw)
    torch.testing.assert_close(found, expected)


def test_without_context_pixels_are_independent() -> None:
    likelihood, raw = made()
    with torch.no_grad():
        likelihood.context[-1].weight.zero_()
        likelihood.context[-1].bias.zero_()
    alone = Bernoulli()(raw[..., :1])
    torch.testing.assert_close(likelihood(raw).mean, alone.mean)
    x = every_image()[:2]
    torch.testing.assert_close(likelihood(raw).log_prob(x), alone.log_prob(x))


def test_the_first_pixel_has_its_true_mean() -> None:
    likelihood, raw = made()
    masses = likelihood(raw.unsqueeze(1)).log_prob(every_image()).exp()
    torch.testing.assert_close(likelihood(raw).mean[:, 0], masses @ every_image()[:, 0])


@pytest.mark.parametrize("left", [(), (3,), (3, 2)])
def test_left_dimensions_and_expand(left: tuple[int, ...]) -> None:
    likelihood, _ = made()
    decoder = MLP(3, X, likelihood, [4])
    z = torch.randn(*left, 3)
    pixels = decoder(z)
    assert pixels.batch_shape == left
    assert pixels.event_shape == (X,)
    assert pixels.rsample((7,)).shape == (7, *left, X)
    assert pixels.mean.shape == (*left, X)
    x = every_image()[9]
    wide = pixels.expand(torch.Size([4, *left]))
    assert wide.batch_shape == (4, *left)
    torch.testing.assert_close(wide.log_prob(x), pixels.log_prob(x).expand(4, *left))


@pytest.mark.parametrize("name", ["reach", "rank", "hidden"])
def test_refuses_nothing_to_see(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} must be at least 1, not 0")):
        AutoregressiveBernoulli(SHAPE, **{name: 0})
