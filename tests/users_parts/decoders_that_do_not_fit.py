"""Decoders that a run must refuse, each for one reason."""

import torch
from torch import Tensor

from models.decoders import Decoder
from models.likelihoods import Likelihood


class Abstract(Decoder):
    pass


class Linear(Decoder):
    more_latent, more_features = 0, 0

    def __init__(self, features: int, latent: int, likelihood: Likelihood) -> None:
        super().__init__(likelihood)
        self.linear = torch.nn.Linear(latent + self.more_latent, features + self.more_features)

    def raw(self, z: Tensor) -> Tensor:
        return self.linear(z).unsqueeze(-1)


class TooManyFeatures(Linear):
    more_features = 1


class OtherLatent(Linear):
    more_latent = 1
