"""All figures of metrics.json together, and further metrics."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import DataSet, Tested
from pyro_infocat.data.readers import digits
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.metrics import evaluate
from tests.brief import judge_little
from tests.users_parts.measures import AmongOthers, Draws, Fullest, NameOfTheRun, PerLabel

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return digits()


@pytest.fixture
def tested(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> Tested:
    """An untrained model and guide, and a classifier that learns little."""
    judge_little(monkeypatch)
    torch.manual_seed(0)
    prior = priors.Orthogonal(6, 2)
    decoder = decoders.MLP(prior.latent, data.facts.features, likelihoods.Bernoulli(), [8])
    guide = Enumerated(partial(encoders.MLP, data.facts.features, [8]), 6, prior.latent, 8)
    return Tested(CatVAE(prior, decoder), guide, data, "binary", [], nll_samples=3, seed=0)


def unlabelled(data: DataSet) -> DataSet:
    return replace(data, facts=replace(data.facts, classes=()))


@pytest.mark.parametrize("extra", [(), (Draws(),)], ids=["ours", "one more"])
def test_evaluation_repeats_itself_and_leaves_no_trace(
    extra: tuple[Draws, ...], tested: Tested
) -> None:
    found = []
    for start, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(start)
        np.random.seed(start)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        found.append(evaluate(replace(tested, seed=seed), extra))
        assert torch.equal(torch.get_rng_state(), before)
        assert np.random.get_state()[1].tolist() == numpy_before
    assert found[0] == found[1]
    drawn = ("elbo", "nll", "reconstruction", "information_bound", *("draws" for _ in extra))
    for name in drawn:
        assert found[0][name] != found[2][name]
    # Categories are the likeliest and depend on no draw.
    assert found[0]["accuracy"] == found[2]["accuracy"]
    assert found[0]["nll_samples"] == 3
    parts = (tested.model, tested.guide)
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())


def test_further_metrics_come_beside_the_others(tested: Tested) -> None:
    ours, more = evaluate(tested), evaluate(tested, [Fullest(), PerLabel()])
    counts = tested.data.test.labels.bincount().tolist()
    assert {name: more[name] for name in ours} == ours
    shares = tested.category.bincount() / len(tested.x)
    assert {name: more[name] for name in more.keys() - ours.keys()} == {
        "fullest": pytest.approx(shares.max().item()),
        **{f"label_{label}": count for label, count in enumerate(counts)},
    }


def test_without_labels_what_needs_them_is_left_out(tested: Tested) -> None:
    found = evaluate(replace(tested, data=unlabelled(tested.data)), [PerLabel(), Fullest()])
    assert "fullest" in found
    assert not {name for name in found if name.startswith("label_")}
    assert not {"accuracy", "purity", "nmi", "ari", "generation_accuracy"} & found.keys()
    assert {"clusters_used", "elbo", "nll"} < found.keys()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([Fullest(), Fullest(2)], "Fullest: there is a metric 'fullest' already"),
        ([AmongOthers()], "AmongOthers: there is a metric 'kl_z' already"),
        ([NameOfTheRun()], "NameOfTheRun: there is a metric 'epochs' already"),
    ],
)
def test_a_name_that_is_taken(metrics: list[Fullest], said: str, tested: Tested) -> None:
    with pytest.raises(UserError) as refusal:
        evaluate(tested, metrics, taken=["epochs", "seed"])
    assert str(refusal.value).endswith(said)
    assert str(refusal.value).startswith("--metrics tests.users_parts.measures.")


def test_what_tested_holds(tested: Tested) -> None:
    """Computed in parts of 1,000 and once."""
    data = tested.data
    many = replace(tested, data=DataSet(data.facts, data.test, data.train))
    with torch.no_grad():
        assert len(many.x) == 1297
        assert many.x.unique().tolist() == [0, 1]
        assert torch.equal(many.x, data.train.fixed("binary"))
        posterior = tested.guide.posterior(many.x)
        assert torch.equal(many.category, posterior.category.logits.argmax(-1))
        torch.testing.assert_close(many.z, posterior.latent(many.category).mean)
        assert many.z is many.z
        assert torch.equal(many.labels, data.train.labels)
