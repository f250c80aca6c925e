"""Data: readers and the splits that they make. No other package knows where images come from."""

from pyro_infocat.data.dataset import DataSet, Observation, Split, observe
from pyro_infocat.data.readers import Reader, load, own

__all__ = ["DataSet", "Observation", "Reader", "Split", "load", "observe", "own"]
