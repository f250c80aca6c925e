"""Priors p(c) p(z | c) over K categories and D latent dimensions.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.arguments import not_negative, positive, whole
from models.recorded import Recorded
from models.scales import bounded


class Prior(Recorded, nn.Module, ABC):
    """p(c) and p(z | c). A subclass defines ``component``; the rest follows from it.

    :param categories: K, the number of categories.
    :param latent: D, the number of latent dimensions.
    :param weights: p(c) up to a factor, K positive numbers; uniform when not given.
    :param learn_weights: make the logits of p(c) a parameter.
    :raises ValueError: for a K or D that is no whole number from 1, or weights that are not K
        positive finite numbers.
    """

    categories: int
    latent: int
    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""

    def __init__(
        self,
        categories: int,
        latent: int,
        weights: Sequence[float] | None = None,
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        whole("categories", categories)
        whole("latent", latent)
        self.categories, self.latent = categories, latent
        # In float64, since weights may under- or overflow float32 where their logarithms do not.
        logits = torch.zeros(categories, dtype=torch.float64)
        if weights is not None:
            weights = list(weights)
            if len(weights) != categories or not all(0 < weight < math.inf for weight in weights):
                raise ValueError(f"weights must be {categories} positive numbers, not {weights}")
            logits = torch.tensor(weights, dtype=torch.float64).log()
        logits = logits.log_softmax(0).to(torch.get_default_dtype())
        self.logits: Tensor
        if learn_weights:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def category(self) -> dist.Categorical:
        """p(c), of batch shape ()."""
        return dist.Categorical(logits=self.logits)

    @abstractmethod
    def component(self, c: Tensor) -> dist.Distribution:
        """p(z | c) for categories c (...): batch shape (...), event shape (D,)."""

    def all_components(self) -> dist.Distribution:
        """p(z | c) for every c: batch shape (K,), event shape (D,)."""
        return self.component(torch.arange(self.categories, device=self.logits.device))

    def joint(self, z: Tensor) -> Tensor:
        """log p(c, z) in nats for z (..., D): (..., K)."""
        return self.category().logits + self.all_components().log_prob(z.unsqueeze(-2))

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) = log sum_c p(c) p(z | c) in nats for z (..., D): (...)."""
        return self.joint(z).logsumexp(-1)

    def responsibilities(self, z: Tensor) -> Tensor:
        """log p(c | z) in nats for z (..., D): (..., K)."""
        return self.joint(z).log_softmax(-1)


class FixedModes(Prior):
    """p(z | c) = N(mu_c, I) with fixed modes mu.

    :param modes: mu (K, D).
    :param weights: see :class:`Prior`, as for ``learn_weights``.
    :raises ValueError: for modes of another shape, or that are not finite.
    """

    def __init__(
        self, modes: Tensor, weights: Sequence[float] | None = None, learn_weights: bool = False
    ) -> None:
        # Those of a subclass follow from numbers that were looked at.
        own = type(self) is FixedModes
        if modes.ndim != 2 or (own and not modes.isfinite().all()):
            raise ValueError(f"modes must be finite numbers (K, D), not {tuple(modes.shape)}")
        super().__init__(modes.shape[0], modes.shape[1], weights, learn_weights)
        self.modes: Tensor
        self.register_buffer("modes", modes)

    def component(self, c: Tensor) -> dist.Distribution:
        mean = self.modes[c]
        return dist.Normal(mean, torch.ones_like(mean)).to_event(1)


class Orthogonal(FixedModes):
    """K orthogonal, equidistant modes (Pineau and Lelarge 2018, section 3).

        mu_c = scale on the delta coordinates of block c, 0 elsewhere;  D = K * delta

    so that mu_c . mu_c' = 0 and |mu_c - mu_c'| = scale * sqrt(2 * delta) for every pair.

    :param categories: K.
    :param delta: latent dimensions of each category.
    :param scale: lambda, the value of a mode on its own block.
    :param weights: see :class:`Prior`, as for ``learn_weights``.
    :raises ValueError: for a K or delta below 1 or a scale that is not above 0 and finite.
    """

    def __init__(
        self,
        categories: int = 10,
        delta: int = 2,
        scale: float = 3.0,
        weights: Sequence[float] | None = None,
        learn_weights: bool = False,
    ) -> None:
        whole("categories", categories)
        whole("delta", delta)
        positive("scale", scale)
        blocks = torch.eye(categories).repeat_interleave(delta, dim=1)
        super().__init__(scale * blocks, weights, learn_weights)


class Simplex(FixedModes):
    """K equidistant modes on a regular simplex centred at the origin.

        |mu_c| = scale;  mu_c . mu_c' = -scale^2 / (K - 1)

    :param categories: K, at least 2.
    :param latent: D, at least K - 1.
    :param scale: distance of every mode from the origin.
    :param weights: see :class:`Prior`, as for ``learn_weights``.
    :raises ValueError: for K below 2, D below K - 1 or a scale that is not above 0 and finite.
    """

    def __init__(
        self,
        categories: int = 10,
        latent: int = 20,
        scale: float = 4.0,
        weights: Sequence[float] | None = None,
        learn_weights: bool = False,
    ) -> None:
        whole("categories", categories, least=2)
        whole("latent", latent)
        if latent < categories - 1:
            raise ValueError(
                f"latent must be at least {categories - 1} for a simplex of {categories} modes, "
                f"not {latent}"
            )
        positive("scale", scale)
        centred = torch.eye(categories, dtype=torch.float64) - 1 / categories
        # The centred one-hot vectors have rank K - 1: the last singular vector is dropped.
        basis = torch.linalg.svd(centred).U[:, : categories - 1]
        corners = nn.functional.normalize(centred @ basis, dim=1) * scale
        modes = torch.zeros(categories, latent)
        modes[:, : categories - 1] = corners
        super().__init__(modes, weights, learn_weights)


class Gaussian(FixedModes):
    """One standard normal, K = 1: the prior of a plain VAE.

    :param latent: D.
    :raises ValueError: for a D below 1.
    """

    def __init__(self, latent: int = 20) -> None:
        whole("latent", latent)
        super().__init__(torch.zeros(1, latent))


class Mixture(Prior):
    """K Gaussians with learned means and scales.

    With fixed p(c) the prior of GMVAE (Shu 2016), with learned p(c) that of VaDE (Jiang et al.
    2017, section 3.1).

    :param categories: K.
    :param latent: D.
    :param spread: standard deviation of the initial means.
    :param weights: see :class:`Prior`, as for ``learn_weights``.
    :raises ValueError: for a spread that is not finite or below 0.
    """

    def __init__(
        self,
        categories: int = 10,
        latent: int = 10,
        spread: float = 1.0,
        weights: Sequence[float] | None = None,
        learn_weights: bool = False,
    ) -> None:
        super().__init__(categories, latent, weights, learn_weights)
        not_negative("spread", spread)
        self.mean = nn.Parameter(spread * torch.randn(categories, latent))
        self.log_scale = nn.Parameter(torch.zeros(categories, latent))

    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(self.mean[c], bounded(self.log_scale)[c].exp()).to_event(1)


class Encoding(Protocol):
    """The interface that :class:`Vamp` needs of an encoder."""

    width: int

    def __call__(self, x: Tensor) -> Tensor:
        """Hidden features (..., ``width``) of x (..., X)."""


class Vamp(Prior):
    """A mixture of encoded pseudo-inputs (Tomczak and Welling 2018, equation 9).

        p(z | c) = N(mean(u_c), scale(u_c))   with learned pseudo-inputs u (K, X) in [0, 1]

    The prior has an encoder of its own in the place of the guide's, so that the generative
    program does not depend on the guide.

    :param encoder: builds a network from x (..., X) to hidden features (..., H), with ``width`` H.
    :param features: X.
    :param categories: K.
    :param latent: D.
    :param weights: see :class:`Prior`, as for ``learn_weights``.
    """

    def __init__(
        self,
        encoder: Callable[[], Encoding],
        features: int,
        categories: int = 10,
        latent: int = 20,
        weights: Sequence[float] | None = None,
        learn_weights: bool = False,
    ) -> None:
        super().__init__(categories, latent, weights, learn_weights)
        whole("features", features)
        self.pseudo_logits = nn.Parameter(torch.randn(categories, features))
        self.encoder = encoder()
        self.head = nn.Linear(self.encoder.width, 2 * latent)

    def component(self, c: Tensor) -> dist.Distribution:
        hidden = self.encoder(self.pseudo_logits.sigmoid())
        mean, log_scale = self.head(hidden).chunk(2, dim=-1)
        return dist.Normal(mean[c], bounded(log_scale)[c].exp()).to_event(1)
