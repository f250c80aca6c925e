"""A guide with a Pyro program of its own."""

import pyro
from torch import Tensor

from guides import Enumerated


class Mine(Enumerated):
    def forward(self, x: Tensor) -> None:
        pyro.module("guide", self)
        category, latent = self.posterior(x)
        with pyro.plate("batch", x.shape[0]):
            c = pyro.sample("c", category, infer={"enumerate": "parallel"})
            pyro.sample("z", latent(c))
