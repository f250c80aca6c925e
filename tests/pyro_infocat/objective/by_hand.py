"""The objective by hand: category after category, in plain PyTorch.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from collections.abc import Iterator

import pyro
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from guides import Bayes, Enumerated
from guides.guide import Guide
from models import CatVAE, priors
from tests.pyro_infocat.objective.programs import D, K, X
from tests.pyro_infocat.objective.ways import Loss, with_gradients


def log_normal(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log N(z; mean, scale^2), summed over the last dimension."""
    log_density = -(((z - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2
    return log_density.sum(-1)


def kl_normal(mean_q: Tensor, scale_q: Tensor, mean_p: Tensor, scale_p: Tensor) -> Tensor:
    """KL between diagonal normals, summed over the last dimension."""
    ratio = (scale_q / scale_p) ** 2
    return ((ratio + ((mean_q - mean_p) / scale_p) ** 2 - 1 - ratio.log()) / 2).sum(-1)


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum(-1)


def split(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and bounded scale from (..., 2 D)."""
    return raw[..., :D], torch.exp(5 * torch.tanh(raw[..., D:] / 5))


def prior_by_hand(prior: priors.Prior) -> tuple[Tensor, Tensor, Tensor]:
    """log p(c) (K,), and the components' means and scales (K, D)."""
    components = [prior.component(torch.tensor(k)) for k in range(prior.categories)]
    return (
        log_softmax(prior.logits, 0),
        torch.stack([component.mean for component in components]),
        torch.stack([component.stddev for component in components]),
    )


def log_category_by_hand(model: CatVAE, guide: Guide, x: Tensor) -> Tensor:
    """log q(c | x): (B, K)."""
    h = guide.encoder(x)
    if isinstance(guide, Enumerated):
        return log_softmax(guide.classifier(h), -1)
    log_p, means, scales = prior_by_hand(model.prior)
    mean, _ = split(guide.head(h))
    return log_softmax(log_p + log_normal(mean.unsqueeze(1), means, scales), -1)


def latent_by_hand(guide: Enumerated, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Mean and scale (B, D) of q(z | x, c = k)."""
    hidden = torch.relu(guide.from_x(guide.latent_encoder(x)) + guide.from_c.weight[k])
    return split(guide.head[1](hidden))


def by_category(model: CatVAE, guide: Enumerated, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """log p(x | z) and the KL of z (B,) of one category after the other, for one draw of z each."""
    _, means, scales = prior_by_hand(model.prior)
    for k, noise in enumerate(torch.randn(guide.categories, len(x), D)):
        mean, scale = latent_by_hand(guide, x, k)
        z = mean + scale * noise
        if model.kl == "analytic":
            kl = kl_normal(mean, scale, means[k], scales[k])
        else:
            kl = log_normal(z, mean, scale) - log_normal(z, means[k], scales[k])
        yield likelihood_by_hand(model, z, x), kl


def likelihood_by_hand(model: CatVAE, z: Tensor, x: Tensor) -> Tensor:
    """log p(x | z) (B,)."""
    return model.decoder.likelihood(model.decoder.raw(z)).log_prob(x)


def bound_by_hand(model: CatVAE, guide: Guide, x: Tensor) -> dict[str, Tensor]:
    """The terms of the ELBO, category after category, for one draw of the noise."""
    log_p, means, scales = prior_by_hand(model.prior)
    terms = {name: torch.zeros(()) for name in ("reconstruction", "kl_z", "kl_c")}
    if isinstance(guide, Bayes):
        mean, scale = split(guide.head(guide.encoder(x)))
        z = mean + scale * torch.randn(len(x), D)
        log_mixture = torch.logsumexp(log_p + log_normal(z.unsqueeze(1), means, scales), -1)
        terms["reconstruction"] = likelihood_by_hand(model, z, x).sum()
        terms["kl_z"] = (log_normal(z, mean, scale) - log_mixture).sum()
        del terms["kl_c"]
        return terms

    log_q = log_category_by_hand(model, guide, x)
    for k, (fit, kl) in enumerate(by_category(model, guide, x)):
        q = log_q[:, k].exp()
        terms["reconstruction"] = terms["reconstruction"] + (q * fit).sum()
        terms["kl_z"] = terms["kl_z"] + (q * kl).sum()
        terms["kl_c"] = terms["kl_c"] + (q * (log_q[:, k] - log_p[k])).sum()
    return terms


def information_by_hand(model: CatVAE, guide: Guide, number: int) -> Tensor:
    """The information bound on ``number`` stratified draws, with the noise in generate's order."""
    log_p, means, scales = prior_by_hand(model.prior)
    points = (torch.arange(number) + torch.rand(())) / number
    # The category of a point is how many cumulated shares lie under it.
    c = (points.unsqueeze(1) > log_p.exp().cumsum(0)).sum(1)
    z = means[c] + scales[c] * torch.randn(number, D)
    x = model.decoder.likelihood(model.decoder.raw(z)).rsample()
    log_q = log_category_by_hand(model, guide, x)[torch.arange(number), c]
    # The gradient of an average over draws is the average of score times value.
    score = log_p[c] - log_p[c].detach()
    return (log_q + score * log_q.detach()).sum() - number * (log_p.exp() * log_p).sum()


def loss_by_hand(model: CatVAE, guide: Guide, x: Tensor, gamma: float) -> Loss:
    torch.manual_seed(1)
    bound = bound_by_hand(model, guide, x)
    loss = -bound["reconstruction"] + bound["kl_z"] + bound.get("kl_c", 0)
    if gamma:
        loss = loss - gamma * information_by_hand(model, guide, len(x))
    return with_gradients(loss, model, guide)


def plain_loss_by_hand(x: Tensor, kl: str, counts: Tensor) -> Tensor:
    """Minus the bound of the plain program, each example as often as it counts."""
    value = {name: pyro.param(name) for name in ("modes", "weight", "odds", "mean", "scale")}
    log_q = log_softmax(x @ value["odds"], -1)
    log_p = log_softmax(torch.tensor([0.1, 0.2, 0.3]), 0)
    scale, unit = value["scale"].expand(D), torch.ones(D)
    bound = torch.zeros(len(x))
    for k, noise in enumerate(torch.randn(K, len(x), D)):
        centre = x @ value["mean"][k]
        z = centre + scale * noise
        if kl == "analytic":
            cost = kl_normal(centre, scale, value["modes"][k], unit)
        else:
            cost = log_normal(z, centre, scale) - log_normal(z, value["modes"][k], unit)
        fit = log_normal(x, z @ value["weight"].mT, torch.full((X,), 0.5))
        bound = bound + log_q[:, k].exp() * (fit - cost - log_q[:, k] + log_p[k])
    return -(bound * counts).sum()
