"""Whether generated images are what their category stands for, of models that show real scans."""

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.data import DataSet
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import generation as module
from pyro_infocat.evaluation.generation import generation, judge


class Shown(decoders.Decoder):
    """One picture (K, X) for each category, whose mode is the nearest to z."""

    def __init__(self, modes: Tensor, pictures: Tensor) -> None:
        super().__init__(likelihoods.Gaussian())
        self.modes, self.pictures = modes, pictures.clamp(1e-3, 1 - 1e-3).logit()

    def raw(self, z: Tensor) -> Tensor:
        nearest = torch.cdist(z.flatten(0, -2), self.modes).argmin(-1)
        return self.pictures[nearest].unflatten(0, z.shape[:-1]).unsqueeze(-1)


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


@pytest.fixture(scope="module")
def classifier(data: DataSet) -> MLPClassifier:
    """The independent classifier."""
    return judge(data.train, 0)


@pytest.fixture
def trained_once(classifier: MLPClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "judge", lambda *_: classifier)


def scans(data: DataSet, labels: Tensor) -> Tensor:
    """The first training scan of each of the labels (K,): (K, X)."""
    return torch.stack([data.train.grey()[data.train.labels == label][0] for label in labels])


def showing(data: DataSet, labels: Tensor) -> CatVAE:
    """A model that shows a real scan of ``labels[c]`` for category c."""
    prior = priors.Orthogonal(len(labels), 1, 20.0)
    return CatVAE(prior, Shown(prior.modes, scans(data, labels)))


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_model_that_shows_what_its_categories_stand_for(
    data: DataSet, classifier: MLPClassifier
) -> None:
    labels = torch.arange(10)
    # Category c holds the label 9 - c.
    categories = 9 - data.test.labels.numpy()
    found = generation(showing(data, labels.flip(0)), data, categories, 0)
    assert found["generation_accuracy"] >= 0.9
    own = classifier.score(data.test.grey().numpy(), data.test.labels.numpy())
    assert found["generation_accuracy_classifier"] == own > 0.9
    # Every category shows its neighbour's label.
    found = generation(showing(data, labels.flip(0).roll(1)), data, categories, 0)
    assert found["generation_accuracy"] <= 0.1


@pytest.mark.usefixtures("alone", "trained_once")
def test_an_image_of_a_category_without_examples_is_wrong(data: DataSet) -> None:
    labels = torch.cat([torch.arange(10), torch.arange(10)])
    # Categories 10 to 19 show digits that the judge knows, but no test example falls into them.
    found = generation(showing(data, labels), data, data.test.labels.numpy(), 0)
    assert 0.45 <= found["generation_accuracy"] <= 0.5


@pytest.fixture
def halves(data: DataSet) -> tuple[np.ndarray, Tensor]:
    """A category for the digits 0 to 4 and one for the others; the likeliest digit of each."""
    counts = np.bincount(data.test.labels.numpy())
    majority = torch.tensor([counts[:5].argmax(), 5 + counts[5:].argmax()])
    return (data.test.labels >= 5).long().numpy(), majority


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_category_stands_for_its_majority_label(
    data: DataSet, halves: tuple[np.ndarray, Tensor]
) -> None:
    categories, majority = halves
    found = generation(showing(data, majority), data, categories, 0)
    assert found["generation_accuracy"] == 1
    assert generation(showing(data, majority.flip(0)), data, categories, 0) == found | {
        "generation_accuracy": 0
    }


@pytest.mark.usefixtures("alone", "trained_once")
@pytest.mark.parametrize("at_once", [1, 10, 10**6])
def test_equally_many_images_of_each_category_however_many_fit_in_memory(
    data: DataSet,
    halves: tuple[np.ndarray, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(module, "GENERATED", 20)
    monkeypatch.setattr(module, "chunk_numbers", lambda _: at_once * data.facts.features)
    categories, majority = halves
    # The third category has no examples, and a third of 20 images is not a whole number.
    shown = showing(data, torch.cat([majority, majority[:1]]))
    found = generation(shown, data, categories, 0)
    assert found["generation_samples"] == 21
    assert found["generation_accuracy"] == 14 / 21


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("number", [10, 40])
def test_the_judge_learns_from_few_examples(number: int) -> None:
    """Too few for a stratified share to stop early by."""
    data = digits()
    few = data.train.part(torch.arange(number))
    assert judge(few, 0).score(few.grey().numpy(), few.labels.numpy()) > 0.8
