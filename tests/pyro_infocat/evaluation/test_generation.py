"""Whether generated images are what their category stands for, of models that show real scans."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import DataSet, Split
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import generation as module
from pyro_infocat.evaluation.generation import generation
from pyro_infocat.evaluation.judge import Judge, judge_of


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
def judge(data: DataSet) -> Judge:
    return judge_of(data)


@pytest.fixture
def trained_once(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "judge_of", lambda _: judge)
    monkeypatch.setattr(module, "GENERATED", 2000)


def scans(data: DataSet, labels: Tensor) -> Tensor:
    """The first training scan of each of the labels (K,): (K, X)."""
    return torch.stack([data.train.grey()[data.train.labels == label][0] for label in labels])


def showing(data: DataSet, labels: Tensor) -> CatVAE:
    """A model that shows a real scan of ``labels[c]`` for category c."""
    prior = priors.Orthogonal(len(labels), 1, 20.0)
    return CatVAE(prior, Shown(prior.modes, scans(data, labels)))


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_model_that_shows_what_its_categories_stand_for(data: DataSet, judge: Judge) -> None:
    labels = torch.arange(10)
    # Category c holds the label 9 - c.
    categories = 9 - data.test.labels.numpy()
    found = generation(showing(data, labels.flip(0)), data, categories, 0)
    assert found["generation_accuracy"] >= 0.9
    said = judge(data.test.grey()).argmax(-1)
    own = (said == data.test.labels).double().mean().item()
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
    flipped = generation(showing(data, majority.flip(0)), data, categories, 0)
    assert flipped["generation_accuracy"] == 0


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


@pytest.mark.usefixtures("alone", "trained_once")
def test_the_seed_alone_decides_what_is_drawn(data: DataSet) -> None:
    model, categories, found = drawing(data, torch.arange(10)), data.test.labels.numpy(), []
    for start, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(start)
        before = torch.get_rng_state()
        found.append(generation(model, data, categories, seed))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert found[0]["kid"] != found[2]["kid"]


# A classifier that learns from what is generated.


class Scans(Shown):
    """A training scan of ``labels[c]`` for category c: another one for each z."""

    def __init__(self, data: DataSet, labels: Tensor, modes: Tensor) -> None:
        super().__init__(modes, scans(data, labels))
        grey = data.train.grey().clamp(1e-3, 1 - 1e-3).logit()
        self.of_each = [grey[data.train.labels == label] for label in labels]

    def raw(self, z: Tensor) -> Tensor:
        flat = z.flatten(0, -2)
        nearest = torch.cdist(flat, self.modes).argmin(-1)
        # The distance to the mode, in thousandths, has a remainder as good as a draw.
        draw = (flat - self.modes[nearest]).square().sum(-1) * 1000 % 1
        shown = [self.of_each[c][int(u * len(self.of_each[c]))]
                 for c, u in zip(nearest.tolist(), draw.tolist(), strict=True)]  # fmt: skip
        return torch.stack(shown).unflatten(0, z.shape[:-1]).unsqueeze(-1)


def drawing(data: DataSet, labels: Tensor, weights: list[float] | None = None) -> CatVAE:
    """A model that shows a scan of ``labels[c]`` for category c, another one each time."""
    prior = priors.Orthogonal(len(labels), 1, 20.0, weights)
    return CatVAE(prior, Scans(data, labels, prior.modes))


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_classifier_of_generated_examples_knows_real_ones(data: DataSet) -> None:
    """Category c stands for the label 9 - c, and shows it or its neighbour."""
    labels, categories = torch.arange(10).flip(0), 9 - data.test.labels.numpy()
    assert generation(drawing(data, labels), data, categories, 0)["gan_train"] > 0.93
    assert generation(drawing(data, labels.roll(1)), data, categories, 0)["gan_train"] < 0.1


@pytest.mark.usefixtures("alone", "trained_once")
def test_a_model_of_one_image_a_category_teaches_less(data: DataSet) -> None:
    labels = torch.arange(10)
    found = generation(showing(data, labels), data, data.test.labels.numpy(), 0)
    assert found["generation_accuracy"] > 0.9
    assert 0.3 < found["gan_train"] < 0.85
    # It shows nothing that is not real, and little of what is.
    assert found["generation_precision"] > 0.8
    assert found["generation_recall"] < 0.1


@pytest.mark.usefixtures("alone", "trained_once")
def test_nothing_is_learned_from_a_category_without_test_examples(data: DataSet) -> None:
    # Categories 10 to 19 show other digits than 0 to 9 do, and no test example falls into them.
    labels = torch.cat([torch.arange(10), torch.arange(10).roll(1)])
    found = generation(drawing(data, labels), data, data.test.labels.numpy(), 0)
    assert found["gan_train"] > 0.93
    assert found["kid_of_categories"][10:] == [None] * 10
    assert None not in found["kid_of_categories"][:10]


@pytest.mark.usefixtures("alone", "trained_once")
def test_real_scans_are_like_real_scans(data: DataSet) -> None:
    """Each category on its own, too: of another digit's scans nothing is like its own."""
    labels, categories = torch.arange(10), data.test.labels.numpy()
    found = generation(drawing(data, labels), data, categories, 0)
    other = generation(drawing(data, labels.roll(1)), data, categories, 0)
    for name in ("generation_precision", "generation_recall"):
        assert found[name] > 0.8
        assert min(found[f"{name}_of_categories"]) > 0.6
        # As a whole both show the same ten digits.
        assert other[name] > 0.8
        # On average, since a ball around an odd scan may reach far.
        assert sum(other[f"{name}_of_categories"]) / 10 < 0.3
    assert abs(found["kid"]) < 0.05
    assert max(found["kid_of_categories"]) < min(other["kid_of_categories"]) / 3


@pytest.mark.usefixtures("alone", "trained_once")
def test_categories_are_as_frequent_as_the_prior_says(data: DataSet) -> None:
    """Half the digits of the test split, and a model that draws these hardly ever or mostly."""
    few = DataSet(data.facts, data.train, data.test.part(data.test.labels < 5))
    categories, labels = few.test.labels.numpy(), torch.arange(10)
    weights = [1.0] * 5 + [1e-6] * 5
    found = generation(drawing(data, labels, weights), few, categories, 0)
    other = generation(drawing(data, labels, weights[::-1]), few, categories, 0)
    assert found["generation_precision"] > 0.8 > 0.1 > other["generation_precision"]
    assert abs(found["kid"]) < other["kid"] / 20


@pytest.mark.usefixtures("alone", "trained_once")
def test_the_order_of_the_test_split_does_not_matter(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of half of it, where it lies in the order of its labels."""
    monkeypatch.setattr(module, "COMPARED", 250)
    ordered = DataSet(data.facts, data.train, data.test.part(data.test.labels.argsort()))
    model, categories = drawing(data, torch.arange(10)), ordered.test.labels.numpy()
    found = generation(model, ordered, categories, 0)
    assert abs(found["kid"]) < 0.05
    assert min(found["kid_of_categories"]) < 0.05
    assert found["generation_precision"] > 0.8


class Beside(decoders.Decoder):
    """A normal distribution of mean z and standard deviation 3."""

    def __init__(self) -> None:
        super().__init__(likelihoods.Gaussian())

    def raw(self, z: Tensor) -> Tensor:
        raise AssertionError

    def forward(self, z: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Independent(torch.distributions.Normal(z, 3.0), 1)


@pytest.mark.usefixtures("alone")
def test_rows_are_draws_since_their_spread_is_part_of_them() -> None:
    """Of means alone the spread would be 1, and of draws it is that of the rows, sqrt(10)."""
    torch.manual_seed(0)
    modes = torch.eye(2).mul(15)
    labels = torch.arange(4000) % 2
    rows = modes[labels] + 10**0.5 * torch.randn(4000, 2)
    train, test = Split(rows[:3000], labels[:3000], 0), Split(rows[3000:], labels[3000:], 0)
    data = DataSet(Facts("table", (2,), 0, ("one", "two")), train, test)
    model = CatVAE(priors.FixedModes(modes), Beside())
    found = generation(model, data, test.labels.numpy(), 0)
    assert found["generation_recall"] > 0.9
    assert found["gan_train"] > 0.97
    assert abs(found["kid"]) < 0.01
