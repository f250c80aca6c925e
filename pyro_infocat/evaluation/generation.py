"""Whether generated images are what their category stands for.

Shapes: N examples, K categories, X features.
"""

import math
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from models import CatVAE
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation.likelihood import chunk_numbers
from pyro_infocat.evaluation.means import mean_of

JUDGE_EXAMPLES = 600_000
"""Examples that the independent classifier sees before it stops, unless it stops by itself."""

MOST_LEARNED = 60_000 * 28 * 28
"""Numbers that it is trained on, at most: all of MNIST. It makes copies of them."""

GENERATED = 20_000
"""Generated images that the independent classifier judges, of all categories together."""


def judge(train: Split, seed: int) -> MLPClassifier:
    """A classifier of grey images, trained on the labels of the training split."""
    train = train.some(MOST_LEARNED // train.pixels.shape[1])
    passes = max(10, JUDGE_EXAMPLES // len(train))
    labels = train.labels.cpu().numpy()
    # It stops early by a stratified tenth of the examples, where every label has one to give.
    early = bool(np.bincount(labels).min() >= 10)
    classifier = MLPClassifier((256,), max_iter=passes, early_stopping=early, random_state=seed)
    with warnings.catch_warnings():
        # A large split ends by the number of passes, which is enough and no cause for alarm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(whole(train.grey()), labels)


def whole(x: Tensor) -> np.ndarray:
    """x (N, X) for the classifier, which takes no NaN: what is missing of a row of a table is 0.

    That is the mean of a real column.
    """
    return x.nan_to_num(nan=0.0).cpu().numpy()


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
    own = classifier.score(whole(test.grey()), labels)
    table = np.zeros((model.prior.categories, len(data.facts.classes)), dtype=int)
    np.add.at(table, (categories, labels), 1)
    stands_for = np.where(table.sum(1) > 0, table.argmax(1), -1)
    # Equally many of each category; the error of the share depends on how many there are in all.
    c = torch.arange(model.prior.categories, device=test.device)
    c = c.repeat_interleave(math.ceil(GENERATED / model.prior.categories))
    right = 0
    for part in c.split(max(1, chunk_numbers(test.labels) // data.facts.features)):
        z = model.prior.component(part).sample()
        images = mean_of(model.decoder(z))
        images = images.clamp(0, 1) if data.facts.images else images
        right += int((classifier.predict(whole(images)) == stands_for[part.cpu().numpy()]).sum())
    return {
        "generation_accuracy": right / len(c),
        "generation_accuracy_classifier": float(own),
        "generation_samples": len(c),
    }
