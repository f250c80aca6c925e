"""Data: readers and the splits that they make. No other package knows where examples come from."""

from pyro_infocat.data.dataset import DataSet, Observation, Split, observe
from pyro_infocat.data.images import own
from pyro_infocat.data.reader import Examples, Reader
from pyro_infocat.data.readers import load

__all__ = ["DataSet", "Examples", "Observation", "Reader", "Split", "load", "observe", "own"]
