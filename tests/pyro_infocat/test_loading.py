"""A finished run comes back as it was."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

import pyro_infocat
from pyro_infocat import experiment
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import Tested
from pyro_infocat.evaluation.metrics import evaluate
from pyro_infocat.loading import Run
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, from_dict
from pyro_infocat.storage.configuration import read_yaml, write_yaml
from tests.brief import be_brief
from tests.runs import history, metrics, parse

pytestmark = pytest.mark.usefixtures("alone")

CPU = ["--device", "cpu"]
KINDS = {
    # What batch normalisation counted in training must come back as well.
    "plain": ["--encoder.norm", "true"],
    "Bayes": [
        *("--guide", "guides.Bayes", "--kl", "sampled", "--prior", "models.priors.Mixture"),
        *("--encoder.norm", "false"),
        *("--prior.learn_weights", "true", "--likelihood", "models.likelihoods.Bernoulli"),
    ],
}


@dataclass(frozen=True)
class Finished:
    """A run's folder, and the parameters and buffers that training ended with."""

    folder: Path
    flags: list[str]
    model: dict[str, Tensor]
    guide: dict[str, Tensor]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """A run of each kind, of one epoch; never to be written to."""
    states, runs = [], {}

    def remember(tested: Tested, *rest: Any) -> Any:
        states.extend([tested.model.state_dict(), tested.guide.state_dict()])
        return evaluate(tested, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(experiment, "evaluate", remember)
        be_brief(patch)
        for name, part in KINDS.items():
            flags = [*CPU, "--epochs", "1", "--batch_size", "400", "--nll_samples", "2", *part]
            folder = tmp_path_factory.mktemp("finished")
            assert main([*flags, "--out", str(folder)]) == 0
            runs[name] = Finished(folder, flags, *states[-2:])
    pyro.clear_param_store()
    return runs


def load(folder: str | Path) -> Run:
    return pyro_infocat.load(folder, "cpu")


# What comes back.


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits(kind: str, finished: dict[str, Finished]) -> None:
    before = finished[kind]
    run = load(before.folder)
    for was, part in ((before.model, run.model), (before.guide, run.guide)):
        now = part.state_dict()
        assert now.keys() == was.keys()
        for name, value in now.items():
            assert torch.equal(value, was[name]), name
        assert not any(module.training for module in part.modules())
    assert any("running_var" in name for name in before.guide) == (kind == "plain")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_metrics(kind: str, finished: dict[str, Finished]) -> None:
    run = load(str(finished[kind].folder))
    written, settings = metrics(finished[kind].folder), run.settings
    tested = Tested(
        *(run.model, run.guide, digits(), run.observation, run.history),
        *(settings.nll_samples, settings.seed),
    )
    found = evaluate(tested)
    assert found == {name: written[name] for name in found}
    assert run.metrics == written
    assert run.history == history(run.folder)
    assert found["elbo"] < 0


@pytest.mark.parametrize("kind", KINDS)
def test_settings_and_facts(kind: str, finished: dict[str, Finished]) -> None:
    before = finished[kind]
    run = load(before.folder)
    assert run.settings == parse(before.flags)[0]
    assert run.facts == DATA_SETS["digits"]
    assert run.observation == ("grey" if kind == "plain" else "binary")


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--data", "mnist", "--observe", "binary", "--particles", "3", "--decoded", "2"],
        ["--schedules", "{kl_z: [[0, 0], [10, 1]]}", "--weights", "{consistency: 0.1}"],
        ["--prior.weights", "[1, 2, 3]", "--prior.categories", "3", "--learning_rate", "1e-5"],
    ],
)
def test_settings_survive_their_file(flags: list[str]) -> None:
    settings = parse(flags)[0]
    assert from_dict(read_yaml(write_yaml(settings.as_dict()))) == (settings, [])


def test_an_example_does_not_depend_on_its_batch(finished: dict[str, Finished]) -> None:
    guide = load(finished["plain"].folder).guide
    x = digits().test.grey(slice(5))
    whole, alone = guide.category(x).probs, guide.category(x[:1]).probs
    torch.testing.assert_close(whole[:1], alone)


# Under Pyro's own tools.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guided", [True, False], ids=["posterior", "prior"])
def test_predictive_shapes(guided: bool, kind: str, finished: dict[str, Finished]) -> None:
    run = load(finished[kind].folder)
    x = torch.rand(5, run.facts.features).round()
    guide = run.guide if guided else None
    draws = Predictive(poutine.uncondition(run.model), guide=guide, num_samples=7)(x)
    assert {name: draws[name].shape for name in ("c", "z", "x")} == {
        "c": (7, 5),
        "z": (7, 5, run.model.prior.latent),
        "x": (7, 5, 64),
    }
    assert (draws["x"] != x).any()


def test_predictive_draws_from_the_posterior(finished: dict[str, Finished]) -> None:
    """Ten shares of 4,000 draws, each within five standard errors: one of 200,000 seeds fails."""
    torch.manual_seed(0)
    run = load(finished["plain"].folder)
    x = digits().test.grey(slice(1)).expand(100, -1)
    draws = Predictive(poutine.uncondition(run.model), guide=run.guide, num_samples=40)(x)
    category, latent = run.guide.posterior(x[:1])
    shares = torch.bincount(draws["c"].flatten(), minlength=10) / 4000
    torch.testing.assert_close(shares, category.probs[0], rtol=0, atol=0.04)
    every = latent(torch.arange(10).unsqueeze(-1))
    mean, scale = every.base_dist.loc[:, 0], every.base_dist.scale[:, 0]
    noise = (draws["z"] - mean[draws["c"]]) / scale[draws["c"]]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_predictive_without_a_guide_draws_from_the_prior(finished: dict[str, Finished]) -> None:
    """The mean of 80,000 normal numbers has the narrowest bound: one of 50,000,000 seeds fails."""
    torch.manual_seed(0)
    run = load(finished["plain"].folder)
    x = torch.zeros(100, 64)
    draws = Predictive(poutine.uncondition(run.model), num_samples=40)(x)
    shares = torch.bincount(draws["c"].flatten(), minlength=10) / 4000
    torch.testing.assert_close(shares, torch.full((10,), 0.1), rtol=0, atol=0.03)
    noise = draws["z"] - run.model.prior.component(draws["c"]).mean
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_two_runs_in_one_process_keep_apart(finished: dict[str, Finished], tmp_path: Path) -> None:
    """Both have the names that Pyro's parameter store knows them by."""
    other = shutil.copytree(finished["plain"].folder, tmp_path / "other")
    checkpoint = torch.load(other / CHECKPOINT, weights_only=True)
    for name in ("model", "guide"):
        for value in checkpoint[name].values():
            if value.is_floating_point():
                value *= 1.5
    torch.save(checkpoint, other / CHECKPOINT)

    def means() -> Tensor:
        torch.manual_seed(0)
        run = load(other)
        x = torch.ones(3, 64)
        return Predictive(poutine.uncondition(run.model), guide=run.guide, num_samples=2)(x)["z"]

    alone = means()
    pyro.clear_param_store()
    first = load(finished["plain"].folder)
    Predictive(poutine.uncondition(first.model), guide=first.guide, num_samples=2)(
        torch.ones(3, 64)
    )
    assert torch.equal(means(), alone)
