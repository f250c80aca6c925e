"""What a finished run makes of examples: category, q(c | x), z and log p(x) of each.

Shapes: B batch, D latent dimensions, K categories, N examples, S samples.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_infocat.data import Split, observe
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.likelihood import (
    chunk_numbers,
    knows_its_density,
    log_likelihood,
)
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.loading import Run
from pyro_infocat.runtime.randomness import evaluating

CHUNK = 1000
"""Examples assigned at a time."""


class Assignment(NamedTuple):
    """Of some examples, in their order.

    :ivar category: the likeliest, (B,).
    :ivar probabilities: q(c | x), (B, K).
    :ivar z: the mean of q(z | x, c) for the likeliest category, (B, D).
    :ivar log_p: log p(x) in nats, importance-weighted (B,); None where it was not asked for.
    """

    category: np.ndarray
    probabilities: np.ndarray
    z: np.ndarray
    log_p: np.ndarray | None


def assign(run: Run, split: Split, nll_samples: int, seed: int = 0) -> Iterator[Assignment]:
    """The examples of a split (N,), some at a time.

    A run on binarised pixels draws each example once.

    :param nll_samples: S, importance samples of log p(x); 0 leaves it out.
    :param seed: of the draws, which are the same at every call.
    :raises UserError: where log p(x) is asked of a program whose density is not known.
    """
    if nll_samples and not knows_its_density(run.model):
        raise UserError(
            f"{run.settings.model.class_path} has no log_joint of its own, so log p(x) is not "
            "known; give 0",
            "nll_samples",
            nll_samples,
        )
    device = run.model.prior.logits.device
    for number, rows in enumerate(torch.arange(len(split)).split(CHUNK)):
        with evaluating(device, run.model, run.guide, seed=seed + number):
            x = observe(split.part(rows).grey().to(run.model.prior.logits), run.observation)
            category, latent = run.guide.posterior(x)
            likeliest = category.logits.argmax(-1)
            z = mean_of(latent(likeliest))
            log_p = log_likelihood(run.model, run.guide, x, nll_samples) if nll_samples else None
            yield Assignment(
                likeliest.cpu().numpy(),
                category.probs.cpu().numpy(),
                z.cpu().numpy(),
                None if log_p is None else log_p.cpu().numpy(),
            )


def log_evidence(run: Run, split: Split, samples: int, seed: int = 0) -> np.ndarray:
    """log p(x) of each example of a split (N,) in nats, whatever other examples are beside it.

    As :func:`pyro_infocat.evaluation.likelihood.log_likelihood`, but all examples share the noise
    of their draws: each estimate is as good as there, and one does not depend on another.

    :param samples: S.
    :param seed: of the draws.
    :raises NotImplementedError: where q(z | x, c) is not normal in each dimension.
    """
    prior, guide = run.model.prior, run.guide
    found = []
    like = prior.logits
    with evaluating(like.device, run.model, guide, seed=seed):
        u = torch.rand(samples, 1, 1, dtype=like.dtype, device=like.device)
        noise = torch.randn(samples, 1, prior.latent, dtype=like.dtype, device=like.device)
        every = torch.arange(guide.categories, device=like.device).unsqueeze(-1)
        width = samples * max(prior.categories * prior.latent, split.pixels.shape[-1])
        for rows in torch.arange(len(split)).split(max(1, chunk_numbers(like) // width)):
            x = observe(split.part(rows).grey().to(like), run.observation)
            category, latent = guide.posterior(x)
            c = (category.probs.cumsum(-1) < u).sum(-1).clamp_max(guide.categories - 1)
            mean, scale = _normal(latent(c))
            z = mean + scale * noise
            densities = latent(every).log_prob(z.unsqueeze(1)) + category.logits.mT
            weights = run.model.log_joint(x, z) - densities.logsumexp(1)
            found.append(weights.logsumexp(0) - math.log(samples))
    return torch.cat(found).cpu().numpy()


def _normal(posterior: dist.Distribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(z | x, c), normal in each dimension."""
    inner = posterior.base_dist if isinstance(posterior, dist.Independent) else posterior
    if not isinstance(inner, dist.Normal):
        raise NotImplementedError(f"q(z | x, c) is a {type(inner).__name__}, not normal")
    return inner.loc, inner.scale
