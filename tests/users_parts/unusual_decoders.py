"""Decoders that fit, and are out of the ordinary."""

import torch
from torch import Tensor

from models.decoders import MLP, Decoder
from models.likelihoods import Likelihood


class Linear(Decoder):
    def __init__(self, features: int, latent: int, likelihood: Likelihood) -> None:
        super().__init__(likelihood)
        self.linear = torch.nn.Linear(latent, features)

    def raw(self, z: Tensor) -> Tensor:
        return self.linear(z).unsqueeze(-1)


class NotANumberInTheThirdStep(MLP):
    """Fits on the first examples, and fails in training."""

    calls = 0

    def raw(self, z: Tensor) -> Tensor:
        # Twice a step: for the examples and for the generated ones.
        self.calls += torch.is_grad_enabled()
        return super().raw(z) * (torch.nan if self.calls > 4 else 1)
