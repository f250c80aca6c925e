"""A finished run comes back as it was, without a pickle, or says why it does not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
import yaml
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

import pyro_infocat
from pyro_infocat import evaluate, figures
from pyro_infocat.arguments import parse
from pyro_infocat.data import digits
from pyro_infocat.errors import UserError
from pyro_infocat.loading import Run
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, CONFIG, DATA_SETS, METRICS, Settings
from pyro_infocat.train import set_validation

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
    measure, states, runs = evaluate.evaluate, [], {}

    def remember(model: torch.nn.Module, guide: torch.nn.Module, *rest: Any) -> Any:
        states.extend([model.state_dict(), guide.state_dict()])
        return measure(model, guide, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setattr(evaluate, "evaluate", remember)
        patch.setattr(evaluate, "JUDGE_EXAMPLES", 1)
        patch.setattr(figures, "draw", lambda *_: None)
        for name, part in KINDS.items():
            flags = [*CPU, "--epochs", "1", "--batch_size", "400", "--nll_samples", "2", *part]
            folder = tmp_path_factory.mktemp("finished")
            assert main([*flags, "--out", str(folder)]) == 0
            runs[name] = Finished(folder, flags, *states[-2:])
    set_validation(True)
    pyro.clear_param_store()
    return runs


@pytest.fixture
def copy(finished: dict[str, Finished], tmp_path: Path) -> Path:
    """The plain run in a folder that may be changed."""
    return shutil.copytree(finished["plain"].folder, tmp_path / "run")


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
    written = json.loads((finished[kind].folder / METRICS).read_text())
    settings = run.settings
    set_validation(False)
    found = evaluate.evaluate(
        run.model, run.guide, digits(), run.seen, settings.nll_samples, settings.seed
    )
    assert found == {name: written[name] for name in found}
    assert found["elbo"] < 0


@pytest.mark.parametrize("kind", KINDS)
def test_settings_and_facts(kind: str, finished: dict[str, Finished]) -> None:
    before = finished[kind]
    run = load(before.folder)
    assert run.settings == parse(before.flags)[0]
    assert run.facts == DATA_SETS["digits"]
    assert run.seen == ("grey" if kind == "plain" else "binary")


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
    text = yaml.safe_dump(settings.as_dict(), sort_keys=False)
    assert Settings.from_dict(yaml.safe_load(text)) == settings


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


# What does not come back.


class Malice:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path("executed"),)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.mark.parametrize("whole", [True, False])
def test_no_pickle_is_executed(whole: bool, copy: Path) -> None:
    path = copy / CHECKPOINT
    torch.save(Malice() if whole else torch.load(path) | {"more": Malice()}, path)
    message = refused(copy)
    assert "is corrupt or no checkpoint of this project" in message
    assert not Path("executed").exists()
    torch.load(path, weights_only=False)
    assert Path("executed").exists()


def test_no_object_of_a_config_is_made(copy: Path) -> None:
    text = "!!python/object/apply:os.mkdir [executed]"
    (copy / CONFIG).write_text(text)
    assert "is not the folder of a run" in refused(copy)
    assert not Path("executed").exists()
    yaml.unsafe_load(text)
    assert Path("executed").exists()


def change(folder: Path, part: str, **values: object) -> None:
    """Give a part of a run's config other values."""
    config = yaml.safe_load((folder / CONFIG).read_text())
    config[part] |= values
    (folder / CONFIG).write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("part", ["prior", "encoder", "guide", "view"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone.Mine", "No module named 'gone'"),
        ("models.priors.Gone", "has no attribute 'Gone'"),
        ("Mine", "Empty module name"),
        (3, "'int' object"),
    ],
)
def test_a_class_that_has_gone(part: str, path: object, said: str, copy: Path) -> None:
    change(copy, part, class_path=path)
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be built" in message
    assert said in message
    assert "classes that it names can be imported" in message


def test_a_class_that_has_changed(copy: Path) -> None:
    change(copy, "prior", init_args={"height": 3})
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be built" in message
    assert "--prior models.priors.Orthogonal" in message
    assert "'height'" in message


def test_a_class_whose_file_is_broken(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text("mode = 1 / 0")
    monkeypatch.syspath_prepend(".")
    change(copy, "prior", class_path="broken.Mine")
    assert "division by zero" in refused(copy)


def test_a_checkpoint_from_before_it_knew_its_data(copy: Path) -> None:
    old = torch.load(copy / CHECKPOINT, weights_only=True)
    del old["facts"]
    torch.save(old, copy / CHECKPOINT)
    assert pyro_infocat.load(copy).facts == DATA_SETS["digits"]
    # Nothing says what an unknown data set was like.
    config = yaml.safe_load((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(yaml.safe_dump(config | {"data": "cifar"}))
    message = refused(copy)
    assert f"'{copy / CONFIG}' cannot be built" in message
    assert "'cifar'" in message


MISFITS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "swapped": lambda old: old | {"model": old["guide"], "guide": old["model"]},
    "no parameters": lambda old: old | {"guide": {}},
    "parameters by number": lambda old: old | {"model": {0: torch.zeros(1)}},
    "one less": lambda old: old | {"model": dict(list(old["model"].items())[1:])},
    "no dictionary": lambda old: old | {"model": 3},
    "no tensors": lambda old: old | {"model": dict.fromkeys(old["model"], 3)},
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_a_checkpoint_that_does_not_fit(
    misfit: Callable[[dict[str, Any]], dict[str, Any]], copy: Path
) -> None:
    path = copy / CHECKPOINT
    torch.save(misfit(torch.load(path, weights_only=True)), path)
    message = refused(copy)
    assert "its checkpoint does not fit its config.yaml" in message
    assert "one of the two was replaced" in message


def test_a_checkpoint_of_other_shapes(copy: Path) -> None:
    change(copy, "decoder", init_args={"hidden": [17]})
    message = refused(copy)
    assert "its checkpoint does not fit its config.yaml" in message
    assert "size mismatch" in message


def test_a_list_instead_of_a_checkpoint(copy: Path) -> None:
    torch.save([1, 2], copy / CHECKPOINT)
    assert "is corrupt or no checkpoint of this project" in refused(copy)


def test_a_device_that_is_none(finished: dict[str, Finished]) -> None:
    with pytest.raises(UserError, match="--device: no device 'gpu'; choose auto, cpu"):
        pyro_infocat.load(finished["plain"].folder, "gpu")
