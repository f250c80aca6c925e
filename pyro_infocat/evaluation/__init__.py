"""What a run learned: the metrics and the figures of the test split."""

from pyro_infocat.evaluation.part import Metric, Plot, Tested

__all__ = ["Metric", "Plot", "Tested"]
