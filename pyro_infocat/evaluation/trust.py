"""How far categories can be trusted, mostly without a label.

What the model generates has a category that is known, so q(c|x) can be held against it; q(c|x) of
other data tells how sure it is; and runs of several seeds tell whether the categories are the
data's or chance's.

Shapes: K categories, M generated examples, N test examples, X features.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.evaluation.doubts import doubts
from pyro_infocat.evaluation.likelihood import chunk_numbers
from pyro_infocat.evaluation.overlap import shown
from pyro_infocat.evaluation.part import CHUNK, Metric, Tested

DRAWN, FEWEST_DRAWN = 2000, 5
"""Generated examples of all categories together, about, and of each at least. The error of a share
of all is then 1.1% at most, of one of ten categories 3.5%."""

BINS = 15
"""Of confidence, as Guo et al. 2017 have them."""


class Trust(Metric):
    """How sure q(c|x) is, how right to be so, and reasons to doubt the categories.

    One set of generated examples serves all.
    """

    name = "confidence"

    def __call__(self, tested: Tested) -> dict[str, Any]:
        model, categories = tested.model, tested.model.prior.categories
        confidence, category = tested.logits.softmax(-1).max(-1)
        mean = confidence.mean().item()
        truth, of_draws, of_means = recognised(model, tested.guide, at_once(tested))
        said, likeliest = of_draws.max(-1)
        expected = model.prior.category().probs.cpu()
        back = of_means.argmax(-1) == truth
        given_back = back.double().unflatten(0, (categories, -1)).mean(1).tolist()
        taken = of_means.unflatten(0, (categories, -1)).mean(1)
        counts = category.cpu().bincount(minlength=categories).tolist()
        found = {
            "confidence": mean,
            "calibration_error": calibration_error(said, likeliest == truth, expected[truth]),
            "given_back": given_back,
            "given_back_mean": float(np.mean(given_back)),
        }
        if tested.data.facts.classes:
            labels = tested.labels.cpu().numpy()
            hits = torch.from_numpy(stands_for(labels, category.cpu().numpy()) == labels)
            found["calibration_error_labels"] = calibration_error(confidence.cpu(), hits)
        return found | {"doubts": doubts(counts, expected.tolist(), mean, taken, given_back)}


def at_once(tested: Tested) -> int:
    """Examples of which memory holds x at one time."""
    return max(1, min(CHUNK, chunk_numbers(tested.x) // tested.data.facts.features))


def recognised(model: CatVAE, guide: Guide, size: int = CHUNK) -> tuple[Tensor, Tensor, Tensor]:
    """The category of draws z ~ p(z | c) (M,), and q(c|x) of what they generate, all on the CPU.

    First of x ~ p(x | z), then of what p(x | z) shows: each (M, K). As
    many draws are of each category as of any other, those of the first category first.

    :param size: draws that are decoded at a time.
    """
    categories, like = model.prior.categories, model.prior.logits
    each = max(FEWEST_DRAWN, DRAWN // categories)
    truth = torch.arange(categories, device=like.device).repeat_interleave(each)
    draws, means = [], []
    for c in truth.split(size):
        x = model.decoder(model.prior.component(c).sample())
        # Not the guide's critic, whose probabilities may be blunter than q(c|x).
        draws.append(guide.category(x.sample()).probs.cpu())
        means.append(guide.category(shown(model, x)).probs.cpu())
    return truth.cpu(), torch.cat(draws), torch.cat(means)


def calibration_error(confidence: Tensor, right: Tensor, weights: Tensor | None = None) -> float:
    """The expected calibration error of confidences (N,), in [0, 1] (Guo et al. 2017, equation 3).

        sum_b n_b / N |share of b that is right - mean confidence in b|

    over bins ((b - 1) / 15, b / 15] of confidence.

    :param right: whether each is right (N,).
    :param weights: what each example counts (N,); alike when not given.
    """
    sure = confidence.double()
    weights = torch.ones_like(sure) if weights is None else weights.double()
    bins = (sure * BINS).ceil().clamp(1, BINS).long() - 1
    gaps = sure.new_zeros(BINS).index_add(0, bins, weights * (right.double() - sure))
    return float(gaps.abs().sum() / weights.sum())


def stands_for(labels: NDArray[Any], categories: NDArray[Any]) -> NDArray[Any]:
    """The label that each example's category stands for (N,), -1 where it stands for none.

    Each category stands for one label at most, as ``accuracy`` has it (Hungarian method).
    """
    table = contingency_matrix(labels, categories)
    there, number = np.unique(labels), np.unique(categories, return_inverse=True)[1]
    rows, columns = linear_sum_assignment(table, maximize=True)
    of = np.full(table.shape[1], -1)
    of[columns] = there[rows]
    return of[number]


def agreement(runs: Sequence[NDArray[Any]]) -> float:
    """The mean adjusted Rand index of every two runs' categories of the same examples, each (N,).

    It is 1 where all put the same examples together, and 0 on average by chance.
    """
    found = [adjusted_rand_score(one, other) for one, other in combinations(runs, 2)]
    return float(np.mean(found))


def kept_together(
    one: NDArray[Any], others: Sequence[NDArray[Any]], categories: int
) -> list[float | None]:
    """How often two examples of a category of one run are together in another one too, K shares.

    None of a category with fewer than two examples. A run with fewer categories keeps more
    together.

    :param one: the categories of the examples (N,).
    :param others: those of other runs (N,).
    """
    shares = np.stack([_kept(one, other, categories) for other in others]).mean(0)
    return [None if np.isnan(share) else float(share) for share in shares]


def _kept(one: NDArray[Any], other: NDArray[Any], categories: int) -> NDArray[np.float64]:
    table = np.zeros((categories, int(other.max()) + 1))
    np.add.at(table, (one, other), 1)
    pairs = table.sum(1) * (table.sum(1) - 1)
    kept = (table * (table - 1)).sum(1)
    return np.divide(kept, pairs, out=np.full(categories, np.nan), where=pairs > 0)
