"""A program with a latent site of its own: w shifts every pixel of an example."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from guides import Enumerated
from models import CatVAE


class Shifted(CatVAE):
    def forward(self, x: Tensor) -> Tensor:
        pyro.module("model", self)
        with pyro.plate("batch", len(x)):
            w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c), infer={"kl": self.kl})
            grey = self.decoder(z).mean + 0.1 * w.unsqueeze(-1)
            return pyro.sample("x", dist.Normal(grey, 0.5).to_event(1), obs=x)


class Shift(Enumerated):
    def __init__(self, *arguments: Any, features: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.mean = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        category, latent = self.posterior(x)
        with pyro.plate("batch", len(x)):
            pyro.sample("w", dist.Normal(self.mean(x).squeeze(-1), 0.5 * torch.ones(len(x))))
            c = pyro.sample("c", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(c))
