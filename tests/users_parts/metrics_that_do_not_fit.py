"""Metrics that a run must refuse, each for one reason."""

import torch

from pyro_infocat import Metric, Tested


class Abstract(Metric):
    name = "mine"


class WithoutName(Metric):
    def __call__(self, tested: Tested) -> float: ...


class NameTaken(Metric):
    name = "accuracy"

    def __call__(self, tested: Tested) -> float:
        return 1.0


class OfTensors(Metric):
    name = "mine"

    def __call__(self, tested: Tested) -> float:
        return torch.ones(2)


class Fails(Metric):
    name = "mine"

    def __call__(self, tested: Tested) -> float:
        return 1 / 0
