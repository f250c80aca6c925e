"""The bound and the importance-weighted likelihood of examples, in nats per example.

Shapes: B batch, K categories, D latent dimensions, N examples, S samples, X features.
"""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from guides.guide import Guide, Posterior
from models import CatVAE
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.objective.terms import information_bound

SAMPLES_AT_ONCE = 128
"""Samples of an example that share one pass of the encoder, where so many fit."""


def chunk_numbers(x: Tensor) -> int:
    """Numbers of x or z that evaluation makes at once, where x is.

    As many as stay in a processor's cache; more on a device, which few do not fill. Layers inside
    a likelihood may need a hundred times the memory.
    """
    return 2**21 if x.device.type == "cpu" else 2**23


def mean_terms(model: CatVAE, guide: Guide, x: Tensor) -> dict[str, float]:
    """The terms of the ELBO and the information bound in nats per example of x (N, X).

    Every category is decoded, however training estimates the bound.
    """
    bound = InfoCatELBO()
    # Each category has its own z of x as well as its own x.
    width = model.prior.categories * max(model.prior.latent, x.shape[-1])
    size = max(1, min(1000, chunk_numbers(x) // width))
    sums: dict[str, float] = {}
    for part in x.split(size):
        terms = bound.bound_terms(model, guide, part)
        terms["information_bound"] = information_bound(model, guide, len(part))
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item()
    return {name: total / len(x) for name, total in sums.items()}


def log_likelihood(model: CatVAE, guide: Guide, x: Tensor, samples: int) -> Tensor:
    """log p(x) of each example of x (N, X) in nats, importance-weighted: (N,).

        log 1/S sum_s p(x | z_s) p(z_s) / q(z_s | x),   z_s ~ q(z | x)

    with c summed out exactly on both sides, p(z) = sum_c p(c) p(z | c) and q(z | x) =
    sum_c q(c | x) q(z | x, c). Its mean rises with S to log p(x) (Burda et al. 2016, theorem 1).

    :param samples: S; each costs one decoding, however many categories there are.
    """
    width = max(model.prior.categories * model.prior.latent, x.shape[-1])
    rows = max(1, chunk_numbers(x) // width)
    share = min(samples, rows, SAMPLES_AT_ONCE)
    parts = []
    for part in x.split(rows // share):
        sums = [
            importance_weights(model, guide, part, min(share, samples - done)).logsumexp(0)
            for done in range(0, samples, share)
        ]
        parts.append(torch.stack(sums).logsumexp(0) - math.log(samples))
    return torch.cat(parts)


def log_likelihood_alone(model: CatVAE, guide: Guide, x: Tensor, samples: int) -> Tensor:
    """As :func:`log_likelihood`, of each example whatever other examples are beside it: (N,).

    All examples share the noise of their draws: each estimate is as good, and none depends on
    another.

    :param samples: S.
    :raises NotImplementedError: where q(z | x, c) is not normal in each dimension.
    """
    prior = model.prior
    u = torch.rand(samples, 1, 1, dtype=x.dtype, device=x.device)
    noise = torch.randn(samples, 1, prior.latent, dtype=x.dtype, device=x.device)
    width = samples * max(prior.categories * prior.latent, x.shape[-1])
    parts = []
    for part in x.split(max(1, chunk_numbers(x) // width)):
        posterior = guide.posterior(part)
        below = posterior.category.probs.cumsum(-1) < u
        mean, scale = _normal(posterior.latent(below.sum(-1).clamp_max(guide.categories - 1)))
        weights = _weights(model, posterior, part, mean + scale * noise)
        parts.append(weights.logsumexp(0) - math.log(samples))
    return torch.cat(parts)


def _normal(latent: dist.Distribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(z | x, c), normal in each dimension."""
    inner = latent.base_dist if isinstance(latent, dist.Independent) else latent
    if not isinstance(inner, dist.Normal):
        raise NotImplementedError(f"q(z | x, c) is a {type(inner).__name__}, not normal")
    return inner.loc, inner.scale


def importance_weights(model: CatVAE, guide: Guide, x: Tensor, samples: int) -> Tensor:
    """log p(x | z) p(z) / q(z | x) in nats for z ~ q(z | x), for x (B, X): (S, B)."""
    posterior = guide.posterior(x)
    z = posterior.latent(posterior.category.sample((samples,))).sample()
    return _weights(model, posterior, x, z)


def _weights(model: CatVAE, posterior: Posterior, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z) p(z) / q(z | x) in nats for x (B, X) and z (S, B, D): (S, B)."""
    category, latent = posterior
    every = torch.arange(category.logits.shape[-1], device=x.device).unsqueeze(-1)
    # A new axis for every category, in front of the batch: (S, K, B).
    densities = latent(every).log_prob(z.unsqueeze(1)) + category.logits.mT
    return model.log_joint(x, z) - densities.logsumexp(1)


def knows_its_density(model: CatVAE) -> bool:
    """Whether ``log_joint`` is the density of the model's program.

    It is, where no class in front of the one that defines ``log_joint`` defines ``forward`` anew.
    """
    for kind in type(model).__mro__:
        if "log_joint" in vars(kind):
            return True
        if "forward" in vars(kind):
            return False
    return False
