"""The terms of the ELBO, the enumerated sum written out in PyTorch.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Categorical
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from guides.guide import Posterior
from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat.objective.terms import log_probabilities

Terms = dict[str, Tensor]
"""Named terms, each a sum over the batch in nats."""

ELBO_SIGNS = {"reconstruction": 1, "kl_z": -1, "kl_c": -1}
"""The terms of the ELBO, and whether it grows (1) or shrinks (-1) with each."""


def direct_terms(
    model: CatVAE, posterior: Posterior, x: Tensor, particles: int = 1, decoded: int = 0
) -> Terms:
    """The terms of the ELBO for x (B, X), as sums over the batch in nats.

    :param posterior: q(c, z | x) of the same examples.
    :param particles: draws of z for each category and example.
    :param decoded: how many categories of each example to decode for certain; 0 decodes all.
    """
    log_q = log_probabilities(posterior.category).mT
    categories = log_q.shape[0]
    _check_categories(model, categories)
    drawn = 0 < decoded < categories - 1
    if drawn:
        c, q = likeliest_and_one(log_q, decoded)
    else:
        c, q = torch.arange(categories, device=x.device).unsqueeze(-1), log_q.exp()
    latent, component = posterior.latent(c), model.prior.component(c)
    z = latent.rsample((particles,))
    pixels = model.decoder(z)
    _check_events(model, latent, component, pixels, x)
    log_likelihood = pixels.log_prob(x).mean(0)
    if model.kl == "analytic":
        kl_z = analytic_kl(latent, component)
    else:
        kl_z = (latent.log_prob(z) - component.log_prob(z)).mean(0)
    log_p = model.prior.category().logits.unsqueeze(-1)
    return {
        "reconstruction": _expectation(q, log_likelihood, drawn),
        "kl_z": _expectation(q, kl_z, drawn),
        "kl_c": (log_q.exp() * (log_q - log_p)).sum(),
    }


def certain(category: Categorical, known: Tensor) -> Categorical:
    """q(c | x), certain of the examples whose category is observed.

    The bound of such an example is that of its category alone, one on log p(x, c).

    :param known: (B,), int64; -1 where it is not.
    """
    logits, there = category.logits, known.unsqueeze(-1)
    others = torch.arange(logits.shape[-1], device=logits.device) != there
    alone = torch.zeros_like(logits).masked_fill(others, -math.inf)
    return Categorical(logits=alone.where(there >= 0, logits))


def analytic_kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) in closed form, in nats, of the distributions' batch shape.

    :raises ValueError: where there is none.
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError as error:
        pair = " and ".join(type(getattr(one, "base_dist", one)).__name__ for one in (q, p))
        raise ValueError(f"no analytic KL between {pair}; use kl='sampled'") from error


def likeliest_and_one(log_q: Tensor, decoded: int) -> tuple[Tensor, Tensor]:
    """Categories and weights that stand for all K without bias (Liu et al. 2019, equation 8).

    The ``decoded`` likeliest categories weigh q(c | x). One more, drawn from the rest in
    proportion to q(c | x), weighs all that the rest holds; a factor of value one carries the
    score function's gradient. So weighted sums and their gradients are right on average.

    :param log_q: log q(c | x), (K, B).
    :returns: c (decoded + 1, B) and weights of the same shape.
    """
    top = log_q.detach().topk(decoded, dim=0).indices
    rest = log_q.detach().scatter(0, top, -math.inf)
    # The Gumbel trick draws from the rest without a multinomial, which no CUDA graph can hold.
    gumbel = -torch.empty_like(rest).exponential_().log()
    drawn = (rest + gumbel).argmax(0, keepdim=True)
    c = torch.cat([top, drawn])
    chosen = log_q.gather(0, c)
    held = torch.cat([chosen[:decoded].detach(), rest.logsumexp(0, keepdim=True)])
    return c, (held + chosen - chosen.detach()).exp()


def _expectation(weights: Tensor, values: Tensor, drawn: bool) -> Tensor:
    """sum_c,b w_cb v_cb for weights that add up to one over c.

    :param drawn: take the likeliest category's value, the first, off the others and put it back:
        a control variate for the gradient of weights of which one is drawn.
    """
    if not drawn:
        return (weights * values).sum()
    base = values[:1].detach()
    return (weights * (values - base)).sum() + base.sum()


def relaxed_terms(model: CatVAE, guide: Relaxed, posterior: Posterior, x: Tensor) -> Terms:
    """The terms for x (B, X) where one mixture of the K codes is decoded: sums in nats.

    They make no bound: see :class:`Relaxed`.
    """
    c = torch.arange(guide.categories, device=x.device).unsqueeze(-1)
    latent, component = posterior.latent(c), model.prior.component(c)
    _check_categories(model, posterior.category.logits.shape[-1])
    w = guide.mix(posterior.category.logits)
    mean, log_scale = (
        torch.einsum("bk,kbd->bd", w, codes) for codes in (latent.mean, latent.stddev.log())
    )
    z = mean + log_scale.exp() * torch.randn_like(mean)
    pixels = model.decoder(z)
    _check_events(model, latent, component, pixels, x)
    log_q = log_probabilities(posterior.category).mT
    log_p = model.prior.category().logits.unsqueeze(-1)
    q = log_q.exp()
    return {
        "reconstruction": pixels.log_prob(x).sum(),
        "kl_z": (q * analytic_kl(latent, component)).sum(),
        "kl_c": (q * (log_q - log_p)).sum(),
    }


def _check_categories(model: CatVAE, found: int) -> None:
    """Refuse a q(c | x) of another K, which may broadcast with p(c)."""
    if found != model.prior.categories:
        raise ValueError(
            f"q(c|x) has {found} categories and the prior has {model.prior.categories}; they must "
            "be the same"
        )


def _check_events(
    model: CatVAE, latent: Distribution, component: Distribution, pixels: Distribution, x: Tensor
) -> None:
    """Refuse distributions of z or x of another size, which may broadcast."""
    width, features = (model.prior.latent,), tuple(x.shape[-1:])
    for name, distribution, wanted in (
        ("p(z|c)", component, width),
        ("q(z|x,c)", latent, width),
        ("p(x|z)", pixels, features),
    ):
        if tuple(distribution.event_shape) != wanted:
            raise ValueError(
                f"{name} has event shape {tuple(distribution.event_shape)}; {wanted} would fit"
            )


def elbo_of(terms: Mapping[str, Any]) -> Any:
    """The evidence lower bound of ``terms``, in their unit, without weights.

    The information bound and the terms on real data are no part of it.
    """
    return terms["reconstruction"] - sum(v for k, v in terms.items() if k.startswith("kl_"))
