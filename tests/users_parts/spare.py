"""A guide with a layer that no step uses."""

from torch import nn

from guides import Enumerated
from guides.encoders import Encoder


class Spare(Enumerated):
    """The paper's guide and a layer kept for later."""

    def __init__(self, encoder: type[Encoder], categories: int, latent: int) -> None:
        super().__init__(encoder, categories, latent, hidden=8)
        self.later = nn.Linear(4, 4)
