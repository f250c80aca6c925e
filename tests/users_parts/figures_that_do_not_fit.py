"""Figures that a run must refuse, each for one reason."""

from matplotlib.figure import Figure

from pyro_infocat import Plot, Tested


class Abstract(Plot):
    name = "mine"


class WithoutName(Plot):
    def __call__(self, tested: Tested) -> Figure: ...


class NameTaken(Plot):
    name = "latent"

    def __call__(self, tested: Tested) -> Figure: ...


class Nothing(Plot):
    name = "mine"

    def __call__(self, tested: Tested) -> Figure:
        return None


class Fails(Plot):
    name = "mine"

    def __call__(self, tested: Tested) -> Figure:
        return 1 / 0
