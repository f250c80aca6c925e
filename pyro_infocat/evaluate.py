"""What a run learned, on the test split.

Shapes: B batch, K categories, D latent dimensions, N examples, S samples, X features.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.aside import aside
from pyro_infocat.centre import centre
from pyro_infocat.data import DataSet, Observation, Split
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.terms import elbo, information_bound

SAMPLES_AT_ONCE = 128
"""Samples of an example that share one pass of the encoder, where so many fit."""

USED = 0.01
"""Least share of the test examples that a category in use has."""

JUDGE_EXAMPLES = 600_000
"""Examples that the independent classifier sees before it stops, unless it stops by itself."""

GENERATED = 20_000
"""Generated images that the independent classifier judges, of all categories together."""


def evaluate(
    model: CatVAE,
    guide: Guide,
    data: DataSet,
    seen: Observation,
    nll_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Every figure of the test split; likelihoods and terms in nats per example.

    Deterministic given the seed. Leaves the global random state as it was. Without classes there
    is nothing that compares with labels.
    """
    with aside(data.test.pixels.device, model, guide, seed=seed):
        x = data.test.fixed(seen)
        categories = categorise(guide, x)
        terms = mean_terms(model, guide, x)
        number = model.prior.categories
        if data.facts.classes:
            found = clustering(data.test.labels.cpu().numpy(), categories, number)
        else:
            found = {"clusters_used": in_use(categories, number)}
        return {
            **found,
            "elbo": elbo(terms),
            "nll": -log_likelihood(model, guide, x, nll_samples).mean().item(),
            "nll_samples": nll_samples,
            **{name: terms.get(name, 0.0) for name in ("reconstruction", "kl_z", "kl_c")},
            "information_bound": terms["information_bound"],
            **(generation(model, data, categories, seed) if data.facts.classes else {}),
        }


def chunk_numbers(x: Tensor) -> int:
    """Numbers of x or z that evaluation makes at once, where x is.

    As many as stay in a processor's cache; more on a device, which few do not fill. Layers inside
    a likelihood may need a hundred times the memory.
    """
    return 2**21 if x.device.type == "cpu" else 2**23


def categorise(guide: Guide, x: Tensor) -> np.ndarray:
    """The likeliest category of each example x (N, X): (N,)."""
    parts = [guide.category(part).logits.argmax(-1) for part in x.split(1000)]
    return torch.cat(parts).cpu().numpy()


def clustering(labels: np.ndarray, categories: np.ndarray, number: int) -> dict[str, Any]:
    """How well categories (N,) of ``number`` recover labels (N,).

    ``accuracy`` gives each category at most one label (Hungarian method), ``purity`` the label
    that most of its examples have.
    """
    table = contingency_matrix(labels, categories)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        "accuracy": float(table[rows, columns].sum() / table.sum()),
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "nmi": float(normalized_mutual_info_score(labels, categories)),
        "ari": float(adjusted_rand_score(labels, categories)),
        "clusters_used": in_use(categories, number),
    }


def in_use(categories: np.ndarray, number: int) -> int:
    """How many of ``number`` categories have at least the share ``USED`` of categories (N,)."""
    shares = np.bincount(categories, minlength=number) / len(categories)
    return int((shares >= USED).sum())


def mean_terms(model: CatVAE, guide: Guide, x: Tensor) -> dict[str, float]:
    """The terms of the ELBO and the information bound in nats per example of x (N, X).

    Every category is decoded, however training estimates the bound.
    """
    bound = InfoCatELBO()
    # Each category has its own z of x as well as its own x.
    width = model.prior.categories * max(model.prior.latent, x.shape[-1])
    size = max(1, min(1000, chunk_numbers(x) // width))
    sums: dict[str, float] = {}
    for part in x.split(size):
        terms = bound.bound_terms(model, guide, part)
        terms["information_bound"] = information_bound(model, guide, len(part))
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item()
    return {name: total / len(x) for name, total in sums.items()}


def log_likelihood(model: CatVAE, guide: Guide, x: Tensor, samples: int) -> Tensor:
    """log p(x) of each example of x (N, X) in nats, importance-weighted: (N,).

        log 1/S sum_s p(x | z_s) p(z_s) / q(z_s | x),   z_s ~ q(z | x)

    with c summed out exactly on both sides, p(z) = sum_c p(c) p(z | c) and q(z | x) =
    sum_c q(c | x) q(z | x, c). Its mean rises with S to log p(x) (Burda et al. 2016, theorem 1).

    :param samples: S; each costs one decoding, however many categories there are.
    """
    width = max(model.prior.categories * model.prior.latent, x.shape[-1])
    rows = max(1, chunk_numbers(x) // width)
    share = min(samples, rows, SAMPLES_AT_ONCE)
    parts = []
    for part in x.split(rows // share):
        sums = [
            importance_weights(model, guide, part, min(share, samples - done)).logsumexp(0)
            for done in range(0, samples, share)
        ]
        parts.append(torch.stack(sums).logsumexp(0) - math.log(samples))
    return torch.cat(parts)


def importance_weights(model: CatVAE, guide: Guide, x: Tensor, samples: int) -> Tensor:
    """log p(x | z) p(z) / q(z | x) in nats for z ~ q(z | x), for x (B, X): (S, B)."""
    category, latent = guide.posterior(x)
    every = torch.arange(guide.categories, device=x.device).unsqueeze(-1)
    z = latent(category.sample((samples,))).sample()
    # A new axis for every category, in front of the batch: (S, K, B).
    densities = latent(every).log_prob(z.unsqueeze(1)) + category.logits.mT
    log_q = densities.logsumexp(1)
    return model.decoder(z).log_prob(x) + model.prior.log_prob(z) - log_q


def judge(train: Split, seed: int) -> MLPClassifier:
    """A classifier of grey images, trained on the labels of the training split."""
    passes = max(10, JUDGE_EXAMPLES // len(train))
    labels = train.labels.cpu().numpy()
    # It stops early by a stratified tenth of the examples, where every label has one to give.
    early = bool(np.bincount(labels).min() >= 10)
    classifier = MLPClassifier((256,), max_iter=passes, early_stopping=early, random_state=seed)
    with warnings.catch_warnings():
        # A large split ends by the number of passes, which is enough and no cause for alarm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(train.grey().cpu().numpy(), labels)


def generation(model: CatVAE, data: DataSet, categories: np.ndarray, seed: int) -> dict[str, float]:
    """Whether generated images are what their category stands for.

    A category stands for the label that most of its test examples have. A classifier trained on
    the labelled training split judges the mean of p(x | z), z ~ p(z | c); an image of a category
    without test examples counts as wrong. ``generation_samples`` says how many images there were.

    :param categories: the likeliest category of each test example, (N,).
    """
    test = data.test
    labels = test.labels.cpu().numpy()
    classifier = judge(data.train, seed)
    own = classifier.score(test.grey().cpu().numpy(), labels)
    table = np.zeros((model.prior.categories, len(data.facts.classes)), dtype=int)
    np.add.at(table, (categories, labels), 1)
    stands_for = np.where(table.sum(1) > 0, table.argmax(1), -1)
    # Equally many of each category; the error of the share depends on how many there are in all.
    c = torch.arange(model.prior.categories, device=test.pixels.device)
    c = c.repeat_interleave(math.ceil(GENERATED / model.prior.categories))
    right = 0
    for part in c.split(max(1, chunk_numbers(test.pixels) // data.facts.features)):
        z = model.prior.component(part).sample()
        images = centre(model.decoder(z)).clamp(0, 1).cpu().numpy()
        right += int((classifier.predict(images) == stands_for[part.cpu().numpy()]).sum())
    return {
        "generation_accuracy": right / len(c),
        "generation_accuracy_classifier": float(own),
        "generation_samples": len(c),
    }
