"""The generative program.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.params.param_store import param_with_module_name
from torch import Tensor, nn

from models.decoders import Decoder
from models.priors import Prior
from models.recorded import Recorded


class CatVAE(Recorded, nn.Module):
    """The generative program of a VAE with a category (Pineau and Lelarge 2018, section 3).

        c ~ p(c)             a category, uniform unless the prior says otherwise
        z ~ p(z | c)         N(mu_c, I) under the paper's prior
        x ~ p(x | z)         the decoder's distribution

    To write a program of your own, subclass this class and override ``forward``, with sites named
    ``c``, ``z`` and ``x`` in a plate over the batch. Override ``log_joint`` with it, else the
    importance-weighted NLL is not measured, and ``generate``, from which the information bound
    draws, where c, z and x are drawn in another way.

    :param prior: p(c) and p(z | c).
    :param decoder: p(x | z).
    :param kl: how the bound takes KL(q(z | x, c) || p(z | c)): ``analytic`` in closed form,
        ``sampled`` by its one-sample estimate, Pyro's default.
    :raises ValueError: for another kl, or parts that are no prior and decoder.
    """

    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""

    def __init__(
        self,
        prior: Prior,
        decoder: Decoder,
        kl: Literal["analytic", "sampled"] = "analytic",
    ) -> None:
        super().__init__()
        if kl not in ("analytic", "sampled"):
            raise ValueError(f"kl must be 'analytic' or 'sampled', not {kl!r}")
        for name, part, kind in (("prior", prior, Prior), ("decoder", decoder, Decoder)):
            if not isinstance(part, kind):
                raise ValueError(f"{name} must be an instance of one, not {part!r:.80}")
        self.prior, self.decoder, self.kl = prior, decoder, kl

    def forward(self, x: Tensor) -> Tensor:
        """The Pyro program with sites ``c``, ``z`` and ``x``, the last observed as x (B, X)."""
        # As pyro.module("model", self), without its warnings of what is held fixed.
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                pyro.param(param_with_module_name("model", name), parameter)
        with pyro.plate("batch", x.shape[0]):
            # The model enumerates c only where the guide has no site c.
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c), infer={"kl": self.kl})
            return pyro.sample("x", self.decoder(z), obs=x)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) + log p(z) in nats, c summed out: (..., B) for x (B, X) and z (..., B, D).

        The density of the generative program, for evaluation's importance weights. A subclass that
        overrides ``forward`` must override this too, else the importance-weighted NLL is not
        measured.
        """
        return self.decoder(z).log_prob(x) + self.prior.log_prob(z)

    def generate(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw c (B,), z (B, D) and x (B, X), with gradients to prior and decoder.

        Under ``torch.no_grad`` neither p(z | c) nor p(x | z) needs an ``rsample``.

        c is stratified: each category is drawn ``number`` * p(c) times, up to a difference below
        one. Averages over draws stay unbiased, with less variance.

        :param number: B, the number of draws.
        :raises NotImplementedError: where gradients are enabled and a distribution has no
            ``rsample``.
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
