"""What a metric or a figure of one's own extends, and what both may look at.

Shapes: K categories, D latent dimensions, N test examples, X features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from guides.guide import Guide
from models import CatVAE
from models.recorded import Recorded
from pyro_infocat.data import DataSet, Observation
from pyro_infocat.evaluation.likelihood import log_likelihood
from pyro_infocat.evaluation.means import mean_of

CHUNK = 1000
"""Examples encoded at a time."""

History = list[dict[str, float]]
"""A row an epoch: ``epoch``, ``seconds`` and every named term in nats per example."""


@dataclass(frozen=True)
class Tested:
    """A model and a guide beside the test split, in evaluation mode and without gradients.

    :ivar data: with both splits; ``data.facts.classes`` is empty where there are no labels.
    :ivar observation: whether x is binarised pixels or grey levels.
    :ivar history: of training; empty where there was none.
    :ivar nll_samples: S, of the importance-weighted likelihood.
    :ivar seed: of the run.
    """

    model: CatVAE
    guide: Guide
    data: DataSet
    observation: Observation
    history: History
    nll_samples: int = 200
    seed: int = 0

    __test__ = False  # pytest would take the name for a test's.

    @cached_property
    def x(self) -> Tensor:
        """The test examples as the likelihood gets them (N, X)."""
        return self.data.test.fixed(self.observation)

    @cached_property
    def logits(self) -> Tensor:
        """log q(c | x) of each test example (N, K), in nats."""
        return torch.cat([self.guide.category(x).logits for x in self.x.split(CHUNK)])

    @cached_property
    def category(self) -> Tensor:
        """The likeliest category of each test example (N,)."""
        return self.logits.argmax(-1)

    @cached_property
    def z(self) -> Tensor:
        """The mean of q(z | x, c) for each test example and its likeliest category (N, D)."""
        means = []
        for x in self.x.split(CHUNK):
            posterior = self.guide.posterior(x)
            means.append(mean_of(posterior.latent(posterior.category.logits.argmax(-1))))
        return torch.cat(means)

    @cached_property
    def log_p(self) -> Tensor:
        """log p(x) of each test example (N,) in nats, by ``nll_samples`` importance samples."""
        return log_likelihood(self.model, self.guide, self.x, self.nll_samples)

    @property
    def labels(self) -> Tensor:
        """The labels of the test split (N,)."""
        return self.data.test.labels


class Metric(Recorded, ABC):
    """A figure of the test split, written to metrics.json.

    :cvar name: its key there.
    :cvar needs_labels: whether it is left out for data without labels.
    """

    name: str
    needs_labels: bool = False

    @abstractmethod
    def __call__(self, tested: Tested) -> float | Mapping[str, Any]:
        """The value, or several by name."""


class Plot(Recorded, ABC):
    """A figure of a trained model, written to figures/NAME.png.

    :cvar name: of the file.
    :cvar needs_labels: whether it is left out for data without labels.
    """

    name: str
    needs_labels: bool = False

    @abstractmethod
    def __call__(self, tested: Tested) -> Figure:
        """The figure."""
