"""Relaxed guides: baselines with one decoding per example instead of one per category.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import dropout, gumbel_softmax

from guides.encoders import Encoder
from guides.enumerated import Enumerated


class Relaxed(Enumerated):
    """The paper's guide, trained on one decoding of a weighted average of the K codes.

        reconstruction = log p(x | z),   z normal with
            mean = sum_c w_c mean_c,   scale = exp(sum_c w_c log scale_c)

    The training objective is not a bound on log p(x), since no q(z | x, c) draws this z.
    Evaluation enumerates c, so that its ELBO is a bound.
    """

    @abstractmethod
    def mix(self, log_q: Tensor) -> Tensor:
        """Weights w (B, K), which sum to one over K, for log q(c | x) (B, K) in nats."""

    def forward(self, x: Tensor) -> None:
        """Not available: no Pyro program expresses an average of codes.

        :raises TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} mixes the codes of all categories, which no Pyro program "
            "expresses; InfoCatELBO(direct=True) trains it"
        )


class SoftCode(Relaxed):
    """w = q(c | x), as in the authors' published code.

    Further parameters: see :class:`guides.enumerated.Enumerated`.

    :param quirks: reproduce two more differences of that code from the paper: dropout on the
        encoders' features at test time too (that code's dropout on the decoder's is left out), and
        a critic that takes a softmax of probabilities.
    :param rate: dropout probability under ``quirks``.
    :raises ValueError: for a rate that is no probability.
    """

    def __init__(
        self,
        encoder: Callable[[], Encoder],
        categories: int,
        latent: int,
        hidden: int = 128,
        shared: bool = False,
        quirks: bool = False,
        rate: float = 0.25,
    ) -> None:
        super().__init__(encoder, categories, latent, hidden, shared)
        # The comparison refuses NaN too.
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must lie between 0 and 1, not {rate}")
        self.quirks, self.rate = quirks, rate
        if quirks:
            for encoder in {self.encoder, self.latent_encoder}:
                # A method goes with a copy of the guide, and can be pickled.
                encoder.register_forward_hook(self._drop)

    def _drop(self, module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
        return dropout(features, self.rate, training=True)

    def mix(self, log_q: Tensor) -> Tensor:
        return log_q.exp()

    def critic(self, x: Tensor) -> dist.Categorical:
        category = self.category(x)
        return dist.Categorical(logits=category.probs) if self.quirks else category


class Gumbel(Relaxed):
    """w ~ Gumbel-softmax(q(c | x), temperature) (Jang et al. 2017, equation 2).

    Further parameters: see :class:`guides.enumerated.Enumerated`.

    :param temperature: initial temperature, which a schedule may change.
    :raises ValueError: for a temperature that is not above 0 and finite.
    """

    schedulable = ("temperature",)

    def __init__(
        self,
        encoder: Callable[[], Encoder],
        categories: int,
        latent: int,
        hidden: int = 128,
        shared: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(encoder, categories, latent, hidden, shared)
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """Of the Gumbel-softmax; near 0 weights are one-hot.

        :raises ValueError: when set to a value that is not above 0 and finite.
        """
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        # The negated comparison refuses NaN too.
        if not 0 < value < math.inf:
            raise ValueError(f"temperature must be above 0 and finite, not {value}")
        self._temperature = value

    def mix(self, log_q: Tensor) -> Tensor:
        return gumbel_softmax(log_q, self.temperature)
