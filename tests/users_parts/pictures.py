"""Figures of one's own."""

from matplotlib.figure import Figure

from pyro_infocat import Plot, Tested


class Shares(Plot):
    """How many test examples each category has."""

    name = "shares"

    def __init__(self, colour: str = "black") -> None:
        self.colour = colour

    def __call__(self, tested: Tested) -> Figure:
        figure = Figure(figsize=(3, 2))
        counts = tested.category.bincount(minlength=tested.guide.categories)
        figure.add_subplot().bar(range(len(counts)), counts.numpy(), color=self.colour)
        return figure


class OfLabels(Shares):
    """Left out where there are none."""

    name, needs_labels = "of_labels", True
