"""What normalising layers remember is of the examples alone."""

import copy
import functools
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.checks import try_parts
from pyro_infocat.data.readers import digits
from pyro_infocat.networks import statistics_kept
from tests.pyro_infocat.training.pieces import make_parts, make_step, settings

pytestmark = pytest.mark.usefixtures("double")


class Moving(nn.Module):
    """A user's layer that subtracts a moving mean, which it writes anew or over."""

    def __init__(self, over: bool) -> None:
        super().__init__()
        self.over = over
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        now = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        if self.over:
            self.mean.copy_(now)
        else:
            self.mean = now
        return x - now


class Counting(nn.BatchNorm1d):
    """A user's batch normalisation that counts examples too."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.register_buffer("examples", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.examples += len(x)
        return super().forward(x)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(3),
    "batch, of all batches": lambda: nn.BatchNorm1d(3, momentum=None),
    "batch of images": lambda: nn.Sequential(nn.Unflatten(1, (3, 1, 1)), nn.BatchNorm2d(3)),
    "instance": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.InstanceNorm1d(1, track_running_stats=True)
    ),
    "spectral": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
    "own, written over": lambda: Moving(over=True),
    "own, written anew": lambda: Moving(over=False),
    "own batch": lambda: Counting(3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_whatever_the_layer_it_forgets_what_it_is_shown_inside(name: str) -> None:
    """And computes as outside, with gradients that outlast it; outside it remembers."""
    layer, x = LAYERS[name]().train(), torch.randn(8, 3) + 5
    twin = copy.deepcopy(layer)
    before = copy.deepcopy(layer.state_dict())
    with statistics_kept(layer):
        inside = layer(x.requires_grad_())
    assert layer.state_dict().keys() == before.keys()
    for key, kept in before.items():
        assert torch.equal(layer.state_dict()[key], kept), key
    (slope,) = torch.autograd.grad(inside.square().sum(), x)
    outside = twin(x)
    torch.testing.assert_close(inside, outside)
    torch.testing.assert_close(slope, torch.autograd.grad(outside.square().sum(), x)[0])
    # The test would find it, and the layer works as before.
    torch.testing.assert_close(layer(x), outside)
    moved = [key for key, kept in before.items() if not torch.equal(layer.state_dict()[key], kept)]
    assert moved
    for key, value in layer.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[key])


def test_layers_that_evaluate_are_left_alone() -> None:
    layer = nn.BatchNorm1d(3).eval()
    with statistics_kept(layer):
        assert layer.track_running_stats
        torch.testing.assert_close(layer(torch.ones(2, 3)), torch.ones(2, 3), rtol=1e-4, atol=0)


def test_batch_normalisation_remembers_the_examples_alone() -> None:
    """After a step the statistics are those of one pass over x, whatever views and draws were."""
    flags = ["--encoder.norm", "true", "--view", "pyro_infocat.views.VirtualAdversarial"]
    chosen = settings(*flags, weights={"consistency": 1.0, "marginal_entropy": 1.0})
    parts = make_parts(chosen)
    guide, expected = parts.guide, copy.deepcopy(parts.guide)
    step = make_step(chosen, parts, 0.1)
    index = torch.arange(50)
    step(index)
    expected.train().posterior(digits().train.grey(index))
    remembered, right = dict(guide.named_buffers()), dict(expected.named_buffers())
    assert right
    for name in right:
        torch.testing.assert_close(remembered[name], right[name])
        assert not remembered[name].eq(round(float("var" in name))).all()


def test_a_decoder_remembers_nothing_of_what_is_generated() -> None:
    prior = priors.Orthogonal(3, 2)
    model = CatVAE(prior, decoders.MLP(prior.latent, 5, likelihoods.Bernoulli(), [4]))
    guide = Enumerated(functools.partial(encoders.MLP, 5, [4]), 3, prior.latent, 4)
    model.decoder.network.append(nn.BatchNorm1d(5))
    remembered = copy.deepcopy(dict(model.named_buffers()))
    weights = dict.fromkeys(("reconstruction", "kl_z", "kl_c"), 0.0)
    InfoCatELBO(weights=weights).loss(model.train(), guide, torch.rand(9, 5).round())
    assert any(name.endswith("num_batches_tracked") for name in remembered)
    for name, kept in remembered.items():
        assert torch.equal(model.state_dict()[name], kept), name


def test_trying_the_parts_is_no_step() -> None:
    chosen = settings("--encoder.norm", "true")
    parts = make_parts(chosen)
    before = copy.deepcopy(parts.guide.state_dict())
    parts.model.train(), parts.guide.train()
    try_parts(chosen, parts, digits().train, "grey")
    for name, kept in before.items():
        assert torch.equal(parts.guide.state_dict()[name], kept), name


def test_statistics_are_kept_only_inside_and_also_after_an_error() -> None:
    layer = nn.Sequential(nn.BatchNorm1d(2, momentum=0.25), nn.BatchNorm1d(2, momentum=None))
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(5, 2) + 3
    with suppress(ZeroDivisionError), statistics_kept(layer):
        inside = layer.train()(x)
        raise ZeroDivisionError
    for name, kept in before.items():
        assert torch.equal(layer.state_dict()[name], kept), name
    # They normalise by the batch as outside, where they remember by the momentum they had.
    torch.testing.assert_close(layer(x), inside)
    torch.testing.assert_close(layer[0].running_mean, 0.25 * x.mean(0))
    assert layer[1].momentum is None
    with statistics_kept(lambda x: x):
        pass
