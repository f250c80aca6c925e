"""The generative program.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from models.decoders import Decoder
from models.priors import Prior


class CatVAE(nn.Module):
    """A variational autoencoder with a category (Pineau and Lelarge 2018, section 3).

        c ~ p(c)             a category, uniform unless the prior says otherwise
        z ~ p(z | c)         N(mu_c, I) under the paper's prior
        x ~ p(x | z)         the decoder's distribution

    :param prior: p(c) and p(z | c).
    :param decoder: p(x | z).
    :param kl: ``analytic`` lets the bound put -KL(q(z | x, c) || p(z | c)) in the place of its
        one-sample estimate; ``sampled`` keeps the estimate, as Pyro does by itself.
    :raises ValueError: for another kl.
    """

    def __init__(
        self,
        prior: Prior,
        decoder: Decoder,
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> None:
        super().__init__()
        if kl not in ("analytic", "sampled"):
            raise ValueError(f"kl must be 'analytic' or 'sampled', not {kl!r}")
        self.prior, self.decoder, self.kl = prior, decoder, kl

    def forward(self, x: Tensor) -> Tensor:
        """The Pyro program with sites ``c``, ``z`` and ``x``, the last observed as x (B, X)."""
        pyro.module("model", self)
        with pyro.plate("batch", x.shape[0]):
            # Enumerated here only where the guide leaves c out.
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c), infer={"kl": self.kl})
            return pyro.sample("x", self.decoder(z), obs=x)

    def generate(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw c (B,), z (B, D) and x (B, X) with gradients to prior and decoder.

        Where no gradient is asked for, neither p(z | c) nor p(x | z) needs an ``rsample``.

        c is stratified: each category comes within one of ``number`` * p(c) times, which keeps
        every average over draws unbiased and takes most of c's noise away.

        :param number: B, the number of draws.
        """
        share = self.prior.category().probs.cumsum(-1)
        steps = torch.arange(number, device=share.device, dtype=share.dtype)
        points = (steps + torch.rand((), device=share.device, dtype=share.dtype)) / number
        c = torch.searchsorted(share, points).clamp_max(self.prior.categories - 1)
        z = _draw(self.prior.component(c))
        return c, z, _draw(self.decoder(z))


def _draw(distribution: dist.Distribution) -> Tensor:
    reparameterised = torch.is_grad_enabled() or distribution.has_rsample
    return distribution.rsample() if reparameterised else distribution.sample()
