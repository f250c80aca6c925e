"""Decoding a few categories for certain and one by chance is right on average."""

import functools
import math

import pytest
import torch
from torch import Tensor

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective.bound import _expectation, likeliest_and_one

K, B, X = 6, 4, 5
pytestmark = pytest.mark.usefixtures("double")


def programs() -> tuple[CatVAE, Enumerated]:
    prior = priors.Orthogonal(K, 1)
    model = CatVAE(prior, decoders.MLP(prior.latent, X, likelihoods.Bernoulli(), [7]))
    guide = Enumerated(functools.partial(encoders.MLP, X, [7]), K, prior.latent, hidden=5)
    return model, guide


def some_log_q() -> Tensor:
    return (2 * torch.randn(K, B)).log_softmax(0)


@pytest.mark.parametrize("decoded", [1, 2, 4])
def test_weights_and_their_gradients_stand_for_all_categories_on_average(decoded: int) -> None:
    """For every category that can be drawn, weighed by its chance: no sampling error at all."""
    logits = torch.randn(K, B, requires_grad=True)
    values = torch.randn(K, B)
    log_q = logits.log_softmax(0)
    exact = (log_q.exp() * values).sum()
    (right,) = torch.autograd.grad(exact, logits, retain_graph=True)

    top = log_q.topk(decoded, dim=0).indices
    rest = log_q.detach().scatter(0, top, -math.inf).softmax(0)
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for _ in range(2000):
        c, weights = likeliest_and_one(log_q, decoded)
        torch.testing.assert_close(weights.detach().sum(0), torch.ones(B))
        assert torch.equal(c[:decoded], top)
        for b in range(B):
            key = (b, int(c[-1, b]))
            if key not in found:
                part = (weights[:, b] * values[c[:, b], b]).sum()
                (gradient,) = torch.autograd.grad(part, logits, retain_graph=True)
                found[key] = (part.detach(), gradient)
    possible = {(b, k) for b in range(B) for k in range(K) if rest[k, b] > 0}
    likely = {(b, k) for b, k in possible if rest[k, b] > 0.01}
    # A category of chance 0.01 stays undrawn 2,000 times with probability 2e-9.
    assert likely <= set(found) <= possible
    mean = sum(rest[k, b] * value for (b, k), (value, _) in found.items())
    slope = sum(rest[k, b] * gradient for (b, k), (_, gradient) in found.items())
    left = sum(rest[k, b] for b, k in possible - set(found))
    torch.testing.assert_close(mean, exact.detach(), atol=1e-9 + 10 * float(left), rtol=0)
    torch.testing.assert_close(slope, right, atol=1e-9 + 10 * float(left), rtol=0)


def test_the_category_by_chance_comes_as_often_as_it_should() -> None:
    log_q = some_log_q()
    draws = 2000
    counts = torch.zeros(K, B)
    for _ in range(draws):
        c, _ = likeliest_and_one(log_q, 2)
        counts.scatter_add_(0, c[-1:], torch.ones(1, B))
    top = log_q.topk(2, dim=0).indices
    share = log_q.scatter(0, top, -math.inf).softmax(0)
    spread = (share * (1 - share) / draws).sqrt()
    # 24 counts within five standard deviations each; the rarest are far from normal, and by their
    # binomial tails the error rate is 5e-5.
    assert ((counts / draws - share).abs() <= 5 * spread + 1e-12).all()


@pytest.mark.slow
def test_bound_and_gradient_agree_with_full_enumeration_on_average() -> None:
    model, guide = programs()
    x = torch.bernoulli(torch.full((B, X), 0.5))
    parameters = [*model.parameters(), *guide.parameters()]

    def draws(decoded: int, number: int) -> Tensor:
        bound = InfoCatELBO(0.0, decoded=decoded)
        rows = []
        for _ in range(number):
            loss = bound.differentiable_loss(model, guide, x)
            gradient = torch.autograd.grad(loss, parameters)
            rows.append(torch.cat([loss.detach().reshape(1), *map(torch.flatten, gradient)]))
        return torch.stack(rows)

    full, partial = draws(0, 600), draws(2, 600)
    difference = full.mean(0) - partial.mean(0)
    spread = (full.var(0) / len(full) + partial.var(0) / len(partial)).sqrt()
    # 364 numbers within five standard deviations each: an error rate of about 2e-4.
    assert (difference.abs() <= 5 * spread + 1e-12).all()
    assert partial.var(0).sum() > full.var(0).sum()


def test_a_constant_in_the_values_adds_no_noise_to_the_gradient() -> None:
    """The likeliest category's value is a control variate."""
    logits = torch.randn(K, B, requires_grad=True)
    values = torch.randn(K, B)
    slopes = []
    for constant in (0.0, 1000.0):
        torch.manual_seed(0)
        c, weights = likeliest_and_one(logits.log_softmax(0), 2)
        total = _expectation(weights, (values + constant).gather(0, c), drawn=True)
        slopes.append(torch.autograd.grad(total, logits)[0])
    assert slopes[0].abs().max() > 0
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-10)


def test_all_but_one_decoded_or_more_is_full_enumeration() -> None:
    model, guide = programs()
    x = torch.bernoulli(torch.full((B, X), 0.5))
    losses = []
    for decoded in (0, K - 1, K, 100):
        torch.manual_seed(0)
        losses.append(InfoCatELBO(decoded=decoded).loss(model, guide, x))
    assert len(set(losses)) == 1


@pytest.mark.parametrize("decoded", [1, K - 2])
def test_as_many_are_decoded_as_it_says_and_one_more(decoded: int) -> None:
    model, guide = programs()
    shapes: list[tuple[int, ...]] = []
    model.decoder.register_forward_pre_hook(lambda _, z: shapes.append(tuple(z[0].shape)))
    InfoCatELBO(0.0, decoded=decoded).loss(model, guide, torch.zeros(B, X))
    assert shapes == [(1, decoded + 1, B, K)]


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^decoded must not be negative, not -1$"):
        InfoCatELBO(decoded=-1)


def test_a_dead_category_of_huge_kl_takes_no_digits_from_the_others() -> None:
    """Float32: a category without weight may be anywhere, and the rest keep their precision."""
    weights = torch.tensor([[0.0], [0.75], [0.25]], dtype=torch.float32)
    values = torch.tensor([[1e10], [1.0], [2.0]], dtype=torch.float32)
    assert _expectation(weights, values, drawn=False) == 1.25
