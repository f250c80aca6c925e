"""Generative programs that a run must refuse, each for one reason."""

from torch import Tensor

from models import CatVAE


class WithoutSuper(CatVAE):
    def __init__(self) -> None:
        pass


class WithoutSites(CatVAE):
    def forward(self, x: Tensor | None = None) -> None:
        pass


class Fails(CatVAE):
    def forward(self, x: Tensor | None = None) -> None:
        raise LookupError("no such mode")
