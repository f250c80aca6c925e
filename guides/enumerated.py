"""The paper's guide, with c enumerated.

Shapes: B batch, K categories, D latent dimensions, X features, H hidden features.
"""

from collections.abc import Callable

import pyro.distributions as dist
from torch import Tensor, nn

from guides.arguments import whole
from guides.encoders import Encoder
from guides.guide import Guide, Posterior, built, normal


class Enumerated(Guide):
    """q(c, z | x) = q(c | x) q(z | x, c) (Pineau and Lelarge 2018, section 3).

        c ~ Categorical(classifier(x))                 all K values in parallel
        z ~ N(mean(x, c), scale(x, c))

    q(z | x, c) is computed from relu(A h(x) + e_c), whose x part is shared by all categories.

    :param encoder: builds a network from x (..., X) to hidden features (..., H), with ``width`` H.
    :param categories: K.
    :param latent: D.
    :param hidden: width of the layer that e_c is added to.
    :param shared: use one encoder for q(c | x) and q(z | x, c) instead of one each.
    :raises ValueError: for a size below 1.
    :raises TypeError: for what builds no encoder.
    """

    def __init__(
        self,
        encoder: Callable[[], Encoder],
        categories: int,
        latent: int,
        hidden: int = 128,
        shared: bool = False,
    ) -> None:
        super().__init__(categories)
        whole("latent", latent)
        whole("hidden", hidden)
        self.encoder = built(encoder)
        self.classifier = nn.Linear(self.encoder.width, categories)
        self.latent_encoder = self.encoder if shared else built(encoder)
        self.from_x = nn.Linear(self.latent_encoder.width, hidden)
        self.from_c = nn.Embedding(categories, hidden)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(hidden, 2 * latent))

    def posterior(self, x: Tensor) -> Posterior:
        features = self.encoder(x)
        shared = self.latent_encoder is self.encoder
        from_x = self.from_x(features if shared else self.latent_encoder(x))
        return Posterior(
            dist.Categorical(logits=self.classifier(features)),
            lambda c: normal(self.head(from_x + self.from_c(c))),
        )

    def category(self, x: Tensor) -> dist.Categorical:
        return dist.Categorical(logits=self.classifier(self.encoder(x)))
