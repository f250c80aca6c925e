"""Each metric by itself: its sign, its settings, and what it hands on.

Shapes: B batch, N examples, S samples, X features.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Metric, Tested, UserError
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import generation, likelihood, metrics
from pyro_infocat.evaluation.judge import Judge
from pyro_infocat.evaluation.likelihood import log_likelihood
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.evaluation.metrics import Bound, Generation, Likelihood, evaluate

pytestmark = pytest.mark.usefixtures("alone")

K = 6


@pytest.fixture(scope="module")
def data() -> DataSet:
    whole = digits()
    return DataSet(whole.facts, whole.train, whole.test.part(torch.arange(60)))


@pytest.fixture
def tested(data: DataSet) -> Tested:
    """An untrained model and guide."""
    torch.manual_seed(0)
    prior = priors.Orthogonal(K, 2)
    decoder = decoders.MLP(prior.latent, data.facts.features, likelihoods.Bernoulli(), [8])
    guide = Enumerated(partial(encoders.MLP, data.facts.features, [8]), K, prior.latent, 8)
    return Tested(CatVAE(prior, decoder), guide, data, "binary", [], nll_samples=3, seed=5)


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 3, 8])
def test_the_nll_is_of_as_many_samples_as_it_says(samples: int, tested: Tested) -> None:
    torch.manual_seed(1)
    found = Likelihood()(replace(tested, nll_samples=samples))
    torch.manual_seed(1)
    log_p = log_likelihood(tested.model, tested.guide, tested.x, samples)
    assert found == {"nll": pytest.approx(-log_p.mean().item()), "nll_samples": samples}
    # Binary images have a probability: nats of surprise are above zero.
    assert found["nll"] > 0


@torch.no_grad()
def test_the_elbo_is_the_reconstruction_less_both_kls(tested: Tested) -> None:
    found = Bound()(tested)
    parts = found["reconstruction"] - found["kl_z"] - found["kl_c"]
    assert found["elbo"] == pytest.approx(parts)
    assert found["kl_z"] > 0
    assert found["reconstruction"] < 0


@torch.no_grad()
def test_the_information_bound_of_each_part_is_of_as_many_examples(
    tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated examples: their number alone decides the size of the sum."""
    monkeypatch.setattr(
        likelihood, "information_bound", lambda model, guide, number: torch.tensor(2.0 * number)
    )
    # 60 examples in parts of 25.
    monkeypatch.setattr(likelihood, "chunk_numbers", lambda x: 25 * K * x.shape[-1])
    assert Bound()(tested)["information_bound"] == 2


def test_a_term_that_a_program_does_not_have_is_zero(
    tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as kl_c where the model sums c out."""
    terms = {"reconstruction": -30.0, "kl_z": 4.0, "information_bound": 0.5}
    monkeypatch.setattr(metrics, "mean_terms", lambda *_: dict(terms))
    assert Bound()(tested) == terms | {"elbo": -34.0, "kl_c": 0.0}


@torch.no_grad()
def test_what_is_generated_gets_the_seed_of_the_run(
    tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Any] = []
    monkeypatch.setattr(metrics, "generation", lambda *given: got.extend(given) or {})
    Generation()(tested)
    assert got[:2] == [tested.model, tested.data]
    assert got[2].tolist() == tested.category.tolist()
    assert got[3] == 5


# Metrics of one's own.


class Gives(Metric):
    """What it is told to give."""

    name = "given"

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, tested: Tested) -> float | Mapping[str, Any]:
        return self.value


@pytest.fixture
def alone_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this project's metrics."""
    monkeypatch.setattr(metrics, "METRICS", ())


@pytest.mark.usefixtures("alone_measured")
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.tensor(0.5), {"given": 0.5}),
        ({"one": torch.tensor(2), "two": 3.0}, {"one": 2, "two": 3.0}),
        (1, {"given": 1}),
    ],
)
def test_tensors_are_written_as_numbers(
    value: Any, found: dict[str, float], tested: Tested
) -> None:
    assert json.loads(json.dumps(evaluate(tested, [Gives(value)]))) == found


@pytest.mark.usefixtures("alone_measured")
@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan), torch.ones(2)])
def test_what_no_json_file_can_hold_is_refused(value: Any, tested: Tested) -> None:
    with pytest.raises(UserError, match=r"^--metrics .*test_each_metric\.Gives"):
        evaluate(tested, [Gives(value)])


# What the independent classifier is shown.


class Watching(Judge):
    """Keeps the examples that it was shown, and those whose features were asked for."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.shown: list[Tensor] = []
        self.compared: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return torch.zeros(len(x), 10)

    def features(self, x: Tensor) -> Tensor:
        self.compared.append(x)
        return torch.zeros(len(x), 128)


class Beyond(decoders.Decoder):
    """A normal distribution about -1 or 2: beyond black and white, and drawn from never."""

    def __init__(self, features: int) -> None:
        super().__init__(likelihoods.Bernoulli())
        self.features = features

    def raw(self, z: Tensor) -> Tensor:
        raise AssertionError

    def forward(self, z: Tensor) -> dist.Distribution:
        mean = torch.where(torch.arange(self.features) % 2 == 0, -1.0, 2.0)
        return dist.Normal(mean.expand(*z.shape[:-1], -1), 0.3).to_event(1)


@torch.no_grad()
def test_the_judge_is_shown_means_within_black_and_white(
    tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so many that the standard error of a share is 0.36 percent at most."""
    seen, taken = Watching(), []
    monkeypatch.setattr(generation, "judge_of", lambda _: seen)
    monkeypatch.setattr(generation, "taught", lambda of, y, *_: taken.append((of(...), y)) or seen)
    model = CatVAE(tested.model.prior, Beyond(tested.data.facts.features))
    found = generation.generation(model, tested.data, tested.category.numpy(), 0)
    shown, (learned, labels) = torch.cat(seen.shown), taken[0]
    assert len(shown) == found["generation_samples"] == 20_004
    assert math.sqrt(0.25 / len(shown)) < 0.0036
    mean = torch.tensor([0.0, 1.0]).repeat(32)
    assert torch.equal(shown.unique(dim=0), mean.unsqueeze(0))
    # The classifier that learns from them gets no others, equally many of each category.
    assert torch.equal(learned.unique(dim=0), mean.unsqueeze(0))
    used = tested.category.unique()
    assert len(labels) == len(learned) == 20_004 // K * len(used)
    # Features are of all of them, of as many as there are test images, and of test images.
    test = tested.data.test.grey()
    compared = torch.cat(seen.compared)
    assert len(compared) == 20_004 + 3 * len(test)
    assert torch.equal(compared[20_004:][: len(test)], test)


@torch.no_grad()
@pytest.mark.parametrize("room", [1, 7, 20_003, 30_000])
def test_of_large_images_as_many_are_learned_from_as_memory_is_given(
    room: int, tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, taken = Watching(), []
    monkeypatch.setattr(generation, "MOST_LEARNED", room * 64 + 63)
    monkeypatch.setattr(generation, "judge_of", lambda _: seen)
    monkeypatch.setattr(generation, "taught", lambda of, y, *_: taken.append(y) or seen)
    # Each category stands for a label of its own.
    categories = tested.labels.numpy() % K
    generation.generation(tested.model, tested.data, categories, 0)
    assert len(taken[0]) == min(room, 20_004)
    assert len(taken[0].unique()) == min(room, K)
    # Where the last category alone has examples, it is the one to learn from.
    generation.generation(tested.model, tested.data, categories * 0 + K - 1, 0)
    assert len(taken[1]) == min(room, 20_004 // K)


# Distributions without a mean.


class Draws:
    """Knows no mean; its first draw is 1, its second 2, and so on."""

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return torch.arange(1.0, math.prod(shape) + 1).reshape(*shape, 1).expand(*shape, 4)


def test_the_mean_of_a_hundred_draws_stands_for_one_that_is_not_known() -> None:
    assert mean_of(Draws()).tolist() == [50.5] * 4
    assert mean_of(dist.Normal(3.0, 1.0)).item() == 3
