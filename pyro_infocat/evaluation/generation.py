"""Whether generated examples are what their category stands for, and how like real ones they are.

Shapes: H features of the judge, K categories, M generated examples, N examples, X features.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import CatVAE
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation.judge import MOST_LEARNED, Judge, judge_of, taught
from pyro_infocat.evaluation.likelihood import chunk_numbers
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.runtime.randomness import evaluating

GENERATED = 20_000
"""Generated examples that are judged and learned from, of all categories together."""

COMPARED, BLOCK = 10_000, 1000
"""Test examples that are compared with generated ones, at most, and those of one estimate of it."""

NEAREST, MOST_BALLS = 3, 2000
"""The neighbour that a ball reaches to, and the examples that have one, at most."""


def generation(model: CatVAE, data: DataSet, categories: np.ndarray, seed: int) -> dict[str, Any]:
    """What an independent classifier makes of generated examples: the judge of the data set.

    A category stands for the label that most of its test examples have.

    ``generation_accuracy``: the share of means of p(x | z), z ~ p(z | c), that the judge gives the
    label which their category stands for; those of a category without test examples are wrong.
    ``gan_train``: the accuracy on the test split of a classifier that has learned from generated
    examples alone. ``kid``, ``generation_precision`` and ``generation_recall``: how the judge's
    features of generated and of test examples differ; c ~ p(c), and for each category a list.

    Generated images are means of p(x | z), as in all figures: pixels' noise is the likelihood's
    and nothing that an image shows. Rows and series are draws, but for ``generation_accuracy``:
    the spread of a column is part of what a row is.

    :param categories: the likeliest category of each test example, (N,).
    :param seed: of the draws, which leave no trace and depend on nothing else.
    """
    with evaluating(data.test.device, seed=seed):
        return _generation(model, data, categories)


def _generation(model: CatVAE, data: DataSet, categories: np.ndarray) -> dict[str, Any]:
    """See :func:`generation`."""
    test, facts, number = data.test, data.facts, model.prior.categories
    judge = judge_of(data)
    labels = test.labels.cpu().numpy()
    table = np.zeros((number, len(facts.classes)), dtype=int)
    np.add.at(table, (categories, labels), 1)
    majority = np.where(table.sum(1) > 0, table.argmax(1), -1)
    stands_for = torch.from_numpy(majority).to(test.device)

    # One of each category after the other, so that also the first of them are equally many.
    c = torch.arange(number, device=test.device).repeat(math.ceil(GENERATED / number))
    right, features, learned, meant = 0, [], [], []
    room = max(1, MOST_LEARNED // facts.features)
    for part, mean, x in generated(model, c, facts):
        label = stands_for[part]
        right += int((judge(mean).argmax(-1) == label).sum())
        features.append(judge.features(x))
        some = (label >= 0).nonzero()[:room, 0]
        room -= len(some)
        learned.append(x[some])
        meant.append(label[some])
    real, hits = _seen(judge, test)
    found: dict[str, Any] = {
        "generation_accuracy": right / len(c),
        "generation_accuracy_classifier": hits / len(test),
        "generation_samples": len(c),
        "gan_train": gan_train(torch.cat(learned), torch.cat(meant), data),
    }

    # The test split may lie in the order of its labels.
    order = torch.randperm(len(test))
    real, where = real[order], torch.from_numpy(categories)[order]
    like_real = model.prior.category().sample((min(len(test), COMPARED),))
    drawn = [judge.features(x) for _, _, x in generated(model, like_real, facts)]
    whole = likeness(real[:COMPARED], _exact(drawn))
    of_each, c = _exact(features), c.cpu()
    each = [likeness(real[where == one][:COMPARED], of_each[c == one]) for one in range(number)]
    for name, value in whole.items():
        if value is not None:
            found[name] = value
        found[f"{name}_of_categories"] = [one[name] for one in each]
    return found


def generated(model: CatVAE, c: Tensor, facts: Facts) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some at a time, of categories c (M,): c, the mean of p(x | z), and the example (B, X).

    The example is the mean of an image, and a draw of anything else.
    """
    for part in c.split(max(1, chunk_numbers(c) // facts.features)):
        p = model.decoder(model.prior.component(part).sample())
        mean = mean_of(p)
        if facts.images:
            mean = mean.clamp(0, 1)
        yield part, mean, mean if facts.images else p.sample()


def gan_train(x: Tensor, labels: Tensor, data: DataSet) -> float:
    """Accuracy on the test split of a classifier that has learned from generated examples alone.

    GAN-train of Shmelkov et al. 2018, section 3. It learns as the judge does.

    :param x: generated examples (M, X).
    :param labels: what their categories stand for (M,).
    """
    pupil = taught(lambda index: x[index], labels, x.shape[1], len(data.facts.classes))
    return _seen(pupil, data.test)[1] / len(data.test)


def _seen(judge: Judge, split: Split) -> tuple[Tensor, int]:
    """The features (N, H) of a labelled split, and how many of it the judge is right about."""
    size = max(1, chunk_numbers(split.labels) // split.pixels.shape[1])
    features, hits = [], 0
    for first in range(0, len(split), size):
        some = slice(first, first + size)
        features.append(judge.features(split.grey(some)))
        hits += int((judge.last(features[-1]).argmax(-1) == split.labels[some]).sum())
    return _exact(features), hits


def _exact(parts: list[Tensor]) -> Tensor:
    """Features in float64, on the CPU: not every device has it."""
    return torch.cat(parts).cpu().double()


def likeness(real: Tensor, generated: Tensor) -> dict[str, float | None]:
    """How features (M, H) of generated examples differ from those of real ones (N, H).

    None where there are too few to tell.
    """
    number = min(len(real), len(generated))
    found: dict[str, float | None] = dict.fromkeys(
        ("kid", "generation_precision", "generation_recall")
    )
    if number >= 2:
        found["kid"] = kernel_distance(real, generated)
    if number > NEAREST:
        # As many of both: balls are the smaller the more there are.
        real, generated = (one[: min(number, MOST_BALLS)] for one in (real, generated))
        found["generation_precision"] = covered(generated, real)
        found["generation_recall"] = covered(real, generated)
    return found


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The kernel inception distance of features x (N, H) and y (M, H), at the judge's features.

        MMD^2(x, y) = E k(x, x') + E k(y, y') - 2 E k(x, y),   k(x, y) = (x . y / H + 1)^3

    estimated without bias (Binkowski et al. 2018, equation 4 and section 4): so it may be below 0.
    The mean of the estimates by blocks of ``BLOCK``, which x and y are cut into.
    """
    # At least two of each in every block.
    blocks = min(math.ceil(len(x) / BLOCK), len(y) // 2)
    cut = [one[: blocks * BLOCK].tensor_split(blocks) for one in (x, y)]
    return float(np.mean([_squared_distance(*pair) for pair in zip(*cut, strict=True)]))


def _squared_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of MMD^2 by one block."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return (within(x) + within(y) - 2 * kernel(x, y).mean()).item()


def covered(points: Tensor, others: Tensor) -> float:
    """Share of points (N, H) that lie in a ball around one of others (M, H).

    Each ball reaches to the ``NEAREST`` neighbour of its own centre among the others
    (Kynkaanniemi et al. 2019, equations 1 and 2). Precision is that of generated examples among
    real ones, recall that of real ones among generated ones.
    """
    # Each is the nearest to itself.
    reach = torch.cdist(others, others).kthvalue(NEAREST + 1, dim=-1).values
    return (torch.cdist(points, others) <= reach).any(-1).double().mean().item()
