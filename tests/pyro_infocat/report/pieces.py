"""A model whose every q(c|x), z and log p(x) is given, and what metrics.json would say of it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation import Tested
from pyro_infocat.evaluation.clustering import clustering, in_use
from pyro_infocat.settings import Settings


def examined(
    q: Tensor,
    labels: Sequence[int] = (),
    classes: Sequence[str] = (),
    shape: tuple[int, ...] = (4, 4),
    pixels: Tensor | None = None,
) -> Tested:
    """Test examples of given q(c|x) (N, K), with z and log p(x) drawn by chance.

    What generates, an untrained decoder, is recognised by an untrained guide.
    """
    generator = torch.Generator().manual_seed(0)
    number, categories = q.shape
    facts = Facts("digits", shape, 256, tuple(classes))
    if pixels is None:
        size = (number, facts.features)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
    known = torch.tensor(labels) if labels else torch.zeros(number, dtype=torch.int64)
    split = Split(pixels, known, 256, bool(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = priors.Orthogonal(categories, 1)
        decoder = decoders.MLP(prior.latent, facts.features, likelihoods.Gaussian(), [8])
        guide = Enumerated(partial(encoders.MLP, facts.features, [8]), categories, prior.latent, 8)
    made = Tested(CatVAE(prior, decoder), guide, DataSet(facts, split, split), "grey", [])
    made.__dict__.update(
        logits=q.log(),
        z=torch.randn(number, prior.latent, generator=generator),
        log_p=torch.randn(number, generator=generator),
    )
    return made


def result(of: Tested) -> dict[str, Any]:
    """Its metrics."""
    categories = of.category.numpy()
    number = of.guide.categories
    found = {"clusters_used": in_use(categories, number)}
    if of.data.facts.classes:
        found = clustering(np.asarray(of.labels), categories, number)
    return found | {
        **{"elbo": -23.456, "nll": 22.5, "own": 3, "epochs": 4, "train_seconds": 12.3},
        **{"device": "cpu", "seed": 0, "versions": {"python": "3"}},
        "made_by": {"version": "0.2.0", "commit": "0123456789abcdef", "clean": False},
    }


def sure(categories: Sequence[int], number: int, certainty: float = 0.98) -> Tensor:
    """q(c|x) (N, K) of examples that are nearly certain of their categories."""
    rest = (1 - certainty) / max(1, number - 1)
    q = torch.full((len(categories), number), rest)
    q[torch.arange(len(categories)), torch.tensor(categories)] = certainty
    return q


SETTINGS = Settings()
