"""Guides that decode once an example instead of once a category: the paper's rivals.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from abc import abstractmethod
from collections.abc import Callable

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import dropout, gumbel_softmax

from guides.encoders import Encoder
from guides.enumerated import Enumerated


class Relaxed(Enumerated):
    """The paper's guide, trained on one decoding of a mixture of the K codes.

        reconstruction = log p(x | z),   z normal with
            mean = sum_c w_c mean_c,   scale = exp(sum_c w_c log scale_c)

    This is no bound on log p(x): the decoder sees codes that no category has. Evaluation
    enumerates, so that its ELBO is a bound again.
    """

    @abstractmethod
    def mix(self, log_q: Tensor) -> Tensor:
        """Weights w (B, K) that sum to one, from log q(c | x) (B, K)."""

    def forward(self, x: Tensor) -> None:
        """No Pyro program expresses a mixed code.

        :raises TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} mixes the codes of all categories, which no Pyro program "
            "expresses; InfoCatELBO(direct=True) trains it"
        )


class SoftCode(Relaxed):
    """w = q(c | x): what the authors' published code trains.

    :param quirks: also what else their code does differently: dropout on the encoders' features
        that stays on at test time (theirs is on the decoder's too), and a softmax of probabilities
        in the information term's critic.
    :param rate: the share of features that ``quirks`` drops.
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
        self.quirks, self.rate = quirks, rate
        if quirks:
            for encoder in {self.encoder, self.latent_encoder}:
                encoder.register_forward_hook(
                    lambda module, inputs, features: dropout(features, self.rate, training=True)
                )

    def mix(self, log_q: Tensor) -> Tensor:
        return log_q.exp()

    def critic(self, x: Tensor) -> dist.Categorical:
        category = self.category(x)
        return dist.Categorical(logits=category.probs) if self.quirks else category


class Gumbel(Relaxed):
    """w ~ Gumbel-softmax(q(c | x), temperature) (Jang et al. 2017, equation 2).

    :param temperature: at the start; ``schedules`` can lower it by the name ``temperature``.
    :raises ValueError: for a temperature that is not positive.
    """

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
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature

    def mix(self, log_q: Tensor) -> Tensor:
        return gumbel_softmax(log_q, self.temperature)
