"""Whatever is given wrong ends in exit code 2 and one line that says what would be right."""

import errno
import gzip
import hashlib
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torchvision.datasets import MNIST

import pyro_infocat
from pyro_infocat import build, data, evaluate, train
from pyro_infocat import run as command
from pyro_infocat.arguments import parse
from pyro_infocat.device import pick
from pyro_infocat.errors import UserError
from pyro_infocat.run import main
from pyro_infocat.sample import main as sample
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY, METRICS
from tests.brief import SMALL, start, wait_for
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("alone")

OUT = "out"
Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run flags that must be refused; returns the error without ``error:``."""

    def refuse(*flags: str, fresh: bool = True) -> str:
        code = main([*flags, *(["--out", OUT] if "--out" not in flags else [])])
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert error.endswith("\n")
        assert "Traceback" not in error
        if fresh:
            assert not Path(OUT).exists()
        return error.removeprefix("error: ").strip()

    return refuse


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module of a user's own; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code: str) -> str:
        # A name of its own, since modules are imported once.
        name = f"mine_{hashlib.md5(code.encode()).hexdigest()[:8]}"
        (tmp_path / f"{name}.py").write_text(HEAD + code)
        return name

    return write


HEAD = """
import pyro
import pyro.distributions as dist
import torch
from guides import Enumerated
from guides.guide import Guide, Posterior
from models.decoders import Decoder
from models.likelihoods import Bernoulli, Likelihood
from models.priors import Prior
from pyro_infocat.views import View

def normal(*shape):
    return dist.Normal(torch.zeros(shape), 1.0).to_event(1)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but the empty one that processes wait at."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch, interrupted before evaluation; to be copied."""

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(evaluate, "evaluate", interrupt)
        assert main([*SMALL, "--epochs", "1", "--out", OUT]) == 130
    return folder / OUT


# Flags and presets.

FLAGS = {
    "no value before a flag": (
        ["--prior.scale", "--epochs", "1"],
        ["a value is missing"],
    ),
    "data set": (["--data", "cifar"], ["--data", "'cifar'", "digits, mnist, fashion-mnist"]),
    "no value": (["--config"], ["--config: a value is missing"]),
    "flag": (["--epoch", "3"], ["--epoch 3", "did you mean --epochs?"]),
    "stray word": (["5"], ["no such flag: 5"]),
    "part's argument": (
        ["--prior.sale", "3"],
        ["--prior", "models.priors.Orthogonal takes no 'sale'", "categories, delta, scale"],
    ),
    "config that is not there": (
        ["--config", "none.yaml"],
        ["--config", "'none.yaml'", "No such file", "runs/digits.yaml"],
    ),
    "config that is a folder": (["--config", "."], ["--config", "'.'", "Is a directory"]),
    "epochs": (["--epochs", "0"], ["--epochs 0", "at least 1"]),
    "epochs in words": (["--epochs", "many"], ["--epochs: expected a whole number, not 'many'"]),
    "no epochs": (["--epochs="], ["--epochs: expected a whole number, not ''"]),
    "half an epoch": (["--epochs", "1.5"], ["--epochs: expected a whole number, not '1.5'"]),
    "batch size": (["--batch_size", "-3"], ["--batch_size -3", "at least 1"]),
    "particles": (["--particles", "0"], ["--particles 0", "at least 1"]),
    "nll samples": (["--nll_samples", "0"], ["--nll_samples 0", "at least 1"]),
    "patience": (["--patience", "-1"], ["--patience -1", "at least 0"]),
    "starts": (["--starts", "0"], ["--starts 0", "at least 1"]),
    "start epochs": (["--start_epochs", "0"], ["--start_epochs 0", "at least 1"]),
    "precision": (["--precision", "half"], ["--precision", "'half'", "float32", "bfloat16"]),
    "graph": (["--graph", "maybe"], ["--graph", "'maybe'", "true or false"]),
    "compile": (["--compile", "maybe"], ["--compile", "'maybe'", "true or false"]),
    "validation": (["--validation", "1"], ["--validation 1.0", "between 0 and 1"]),
    "gamma": (["--information_weight", "-1"], ["--information_weight -1.0", "at least 0"]),
    "gamma nan": (["--information_weight", ".nan"], ["--information_weight nan", "finite"]),
    "gamma inf": (["--information_weight", ".inf"], ["--information_weight inf", "finite"]),
    "gamma in words": (
        ["--information_weight", "nan"],
        ["--information_weight: expected a number, not 'nan'"],
    ),
    "learning rate": (["--learning_rate", "0"], ["--learning_rate 0.0", "above 0"]),
    "learning rate inf": (["--learning_rate", ".inf"], ["--learning_rate inf", "finite"]),
    "negative seed": (["--seed", "-1"], ["--seed -1", "at least 0"]),
    "large seed": (["--seed", "4294967296"], ["--seed 4294967296", "at most 4294967295"]),
    "K": (["--prior.categories", "0"], ["--prior", "categories must be at least 1, not 0"]),
    "negative K": (["--prior.categories", "-2"], ["--prior", "categories must be at least 1"]),
    "delta": (["--prior.delta", "0"], ["--prior", "delta must be at least 1, not 0"]),
    "scale": (["--prior.scale", "x"], ["--prior.scale: expected a number, not 'x'"]),
    "scale nan": (["--prior.scale", ".nan"], ["--prior.scale nan", "finite"]),
    "p(c)": (["--prior.weights", "[1, 2]"], ["--prior", "10 positive numbers, not [1.0, 2.0]"]),
    "p(c) in words": (
        ["--prior.weights", "[a]"],
        ["--prior.weights: expected a list of numbers or null, not '['a']'"],
    ),
    "p(c) inf": (["--prior.weights", "[1, .inf]"], ["--prior.weights inf", "finite"]),
    "width": (["--decoder.hidden", "[-3]"], ["--decoder models.decoders.MLP", "-3"]),
    "widths": (
        ["--decoder.hidden", "3"],
        ["--decoder.hidden: expected a list such as [400, 400], not '3'"],
    ),
    "observe": (["--observe", "dark"], ["--observe", "'auto', 'binary', 'grey'", "'dark'"]),
    "grey Bernoulli": (
        ["--observe", "grey", "--likelihood", "models.likelihoods.Bernoulli"],
        ["--observe grey", "models.likelihoods.Bernoulli", "ContinuousBernoulli"],
    ),
    "resume": (["--resume", "perhaps"], ["--resume: expected true or false, not 'perhaps'"]),
    "weights": (["--weights", "3"], ["--weights: expected names with values", "'3'"]),
    "weight in words": (["--weights", "{kl_z: x}"], ["--weights: expected a number, not 'x'"]),
    "unknown term": (["--weights", "{kl: 1}"], ["--weights", "'kl'", "reconstruction, kl_z"]),
    "negative weight": (["--weights", "{kl_z: -1}"], ["--weights", "kl_z", "not -1"]),
    "weight nan": (["--weights", "{kl_z: .nan}"], ["--weights.kl_z nan", "finite"]),
    "schedule of no term": (
        ["--schedules", "{kl: [[0, 1]]}"],
        ["--schedules", "'kl'", "reconstruction, kl_z"],
    ),
    "schedule of a number": (
        ["--schedules", "{kl_z: 3}"],
        ["--schedules: expected a list of [epoch, weight] pairs, not '3'"],
    ),
    "schedule of no learning": (
        ["--schedules", "{learning_rate: [[0, 0.001], [5, 0]]}"],
        ["--schedules", "learning_rate is [[0.0, 0.001], [5.0, 0.0]]", "above 0"],
    ),
    "schedule without points": (["--schedules", "{kl_z: []}"], ["--schedules", "kl_z", "[[0, 0]"]),
    "schedule of triples": (
        ["--schedules", "{kl_z: [[0, 1, 2]]}"],
        ["--schedules", "[[0.0, 1.0, 2.0]]", "[epoch, weight] pairs"],
    ),
    "schedule back in time": (
        ["--schedules", "{kl_z: [[5, 1], [0, 1]]}"],
        ["--schedules", "kl_z", "[[5.0, 1.0], [0.0, 1.0]]", "must rise"],
    ),
    "negative schedule": (["--schedules", "{kl_z: [[0, -1]]}"], ["--schedules", "not -1"]),
    "schedule nan": (["--schedules", "{kl_z: [[0, .nan]]}"], ["--schedules.kl_z nan", "finite"]),
    "temperature of no guide": (
        ["--schedules", "{temperature: [[0, 1]]}"],
        ["--schedules", "guides.enumerated.Enumerated has no temperature", "guides.Gumbel"],
    ),
    "temperature": (
        ["--guide", "guides.Gumbel", "--schedules", "{temperature: [[0, 1], [9, 0]]}"],
        ["--schedules", "temperature", "[9.0, 0.0]", "above 0"],
    ),
    "schedule of nothing": (
        ["--schedules", "{move: [[0, 1]]}"],
        ["--schedules", "nothing is called 'move'", "consistency", "learning_rate", "moves"],
    ),
    "epsilon": (
        ["--view", "pyro_infocat.views.VirtualAdversarial", "--view.epsilon", "-1"],
        ["--view pyro_infocat.views.VirtualAdversarial", "epsilon must be at least 0, not -1"],
    ),
    "neighbour": (
        ["--view", "pyro_infocat.views.AdversarialAffine", "--view.neighbour", "0"],
        ["--view pyro_infocat.views.AdversarialAffine", "neighbour must be at least 1, not 0"],
    ),
    "probe": (
        ["--view", "pyro_infocat.views.VirtualAdversarial", "--view.probe", "0"],
        ["--view pyro_infocat.views.VirtualAdversarial", "probe must be above 0, not 0"],
    ),
    "moves of no view": (
        ["--view", "pyro_infocat.views.VirtualAdversarial", "--schedules", "{moves: [[0, 1]]}"],
        ["--schedules", "VirtualAdversarial has no moves", "pyro_infocat.views.Affine has"],
    ),
    "moves": (
        ["--view", "pyro_infocat.views.Affine", "--schedules", "{moves: [[0, 1], [9, -1]]}"],
        ["--schedules", "moves", "[9.0, -1.0]", "at least 0"],
    ),
    "device": (["--device", "gpu"], ["--device", "'gpu'", "auto, cpu, cuda, cuda:N or mps"]),
    "Bayes with an analytic KL": (
        ["--guide", "guides.Bayes"],
        ["--guide guides.Bayes", "analytic KL", "use --kl sampled"],
    ),
}


@pytest.mark.parametrize(("flags", "said"), FLAGS.values(), ids=FLAGS)
def test_a_wrong_flag(flags: list[str], said: list[str], refuse: Refuse) -> None:
    error = refuse(*flags)
    for part in said:
        assert part in error


PARTS = {
    "prior": "models.priors.Orthogonal",
    "guide": "guides.enumerated.Enumerated",
    "likelihood": "models.likelihoods.Bernoulli",
    "decoder": "models.decoders.MLP",
    "encoder": "guides.encoders.MLP",
    "view": "pyro_infocat.views.Same",
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("path", "trouble"),
    [
        ("nowhere.Thing", "No module named 'nowhere'"),
        ("models.priors.Nothing", "no attribute 'Nothing'"),
        ("models.generative.CatVAE", "is no"),
        ("models.priors", "is no"),
        ("thing", "is no class"),
        ("3", "is no class"),
    ],
)
def test_a_class_that_is_none(part: str, path: str, trouble: str, refuse: Refuse) -> None:
    error = refuse(f"--{part}", path)
    assert error.startswith(f"--{part}: ")
    assert path in error
    assert trouble in error
    assert f"such as {PARTS[part]}, or your own" in error


CONFIGS = {
    "unknown key": ("epoch: 3", ["no such key 'epoch'", "did you mean epochs?"]),
    "not YAML": ("epochs: [1", ["is not YAML"]),
    "not text": ("\0", ["is not YAML"]),
    "list": ("- epochs: 3", ["must hold keys with values", "not a list"]),
    "word alone": ("epochs", ["must hold keys with values", "not a str"]),
    "empty": ("", ["must hold keys with values", "not nothing"]),
    "type": ("epochs: many", ["epochs: expected a whole number, not 'many'"]),
    "type of a list": ("weights: [1]", ["weights: expected names with values", "'[1]'"]),
    "type of a part": ("prior: 3", ["prior: '3' is no Prior", "models.priors.Orthogonal"]),
    "argument of a part": (
        "prior: {class_path: models.priors.Orthogonal, init_args: {sale: 3}}",
        ["prior: models.priors.Orthogonal takes no 'sale'", "scale"],
    ),
    "type of a part's argument": (
        "prior: {class_path: models.priors.Orthogonal, init_args: {scale: x}}",
        ["prior.scale: expected a number, not 'x'"],
    ),
    "word": ("data_root: [a]", ["data_root: expected a word, not '['a']'"]),
}


@pytest.mark.parametrize(("text", "said"), CONFIGS.values(), ids=CONFIGS)
def test_a_wrong_config(text: str, said: list[str], tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    error = refuse("--config", "mine.yaml")
    assert "mine.yaml" in error
    for part in said:
        assert part in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs:", "mine.yaml: epochs has no value; leave the key out"),
        ("prior:\nseed: 1", "mine.yaml: prior has no value"),
        ("data: cifar", "mine.yaml: data: no data set 'cifar'"),
        ("information_weight: .inf", "mine.yaml: information_weight inf: must be a finite number"),
        ("batch_size: 0", "mine.yaml: batch_size 0: must be at least 1"),
        ("weights: {foo: 1}", "mine.yaml: weights: no term 'foo' to weigh"),
        ("device: gpu", "mine.yaml: device: no device 'gpu'; choose auto"),
        (
            "prior: {class_path: models.priors.Orthogonal, init_args: {delta: 0}}",
            "mine.yaml: prior models.priors.Orthogonal: delta must be at least 1",
        ),
        ("schedules: {kl_z: []}", "mine.yaml: schedules: kl_z is []; give [epoch, weight] pairs"),
        (
            "prior:\n  class_path: models.priors.Orthogonal\n  init_args: {scale: .nan}",
            "mine.yaml: prior.scale nan: must be a finite number",
        ),
    ],
)
def test_a_wrong_value_in_a_config(text: str, said: str, tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert said in refuse("--config", "mine.yaml")


def test_a_flag_over_a_config_is_named_as_a_flag(tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3")
    error = refuse("--config", "mine.yaml", "--epochs", "many")
    assert error == "--epochs: expected a whole number, not 'many'"


def test_a_flag_beside_a_config_is_named_as_a_flag(tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3")
    error = refuse("--config", "mine.yaml", "--device", "gpu")
    assert error.startswith("--device: no device 'gpu'")


def test_a_flag_over_what_is_wrong_in_a_config(tmp_path: Path, refuse: Refuse) -> None:
    """Of a run whose images have moved, say."""
    (tmp_path / "mine.yaml").write_text("data: gone.npz\nweights: {kl_z: .nan}\nepochs: 0")
    flags = ["--config", "mine.yaml", "--data", "digits", "--weights.kl_z", "1"]
    assert refuse(*flags) == "mine.yaml: epochs 0: must be at least 1"
    assert refuse(*flags, "--epochs", "-1") == "--epochs -1: must be at least 1"
    error = refuse("--config", "mine.yaml", "--epochs", "1", "--weights.kl_z", "1")
    assert error.startswith("mine.yaml: data: no file 'gone.npz'")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_device_that_is_not_there(
    name: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    error = refuse("--device", name)
    assert f"--device: '{name}' is not on this machine, which has cpu" in error


def test_one_gpu_for_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick("cuda") == torch.device("cuda:1")
    message = r"^--device cuda:0: is one GPU for 2 processes; give --device cuda, one for each$"
    with pytest.raises(UserError, match=message):
        pick("cuda:0")


def test_a_gpu_beyond_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"'cuda:7' is not .* cpu, cuda, cuda:0, cuda:1"):
        pick("cuda:7")
    assert pick("auto") == pick("cuda") == torch.device("cuda:0")


def test_more_processes_than_gpus_are_refused_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for world in (2, 3):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
        for rank in range(world):
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            if world == 2:
                assert pick("cuda") == torch.device(f"cuda:{rank}")
                continue
            with pytest.raises(UserError, match=r"3 processes for 2 GPUs .* --device cpu"):
                pick("auto")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--batch_size", "1", "--encoder.norm", "false"],
            "at least 2; a step needs an example",
        ),
        (
            ["--batch_size", "3", "--encoder.norm", "true"],
            "at least 4; batch normalisation needs",
        ),
    ],
)
def test_a_batch_that_does_not_go_round(
    flags: list[str], said: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert said in refuse("--device", "cpu", *flags)


@pytest.mark.parametrize(
    ("flags", "epoch"),
    [
        (["--information_weight", "0", "--weights.kl_c", "0"], 1),
        (["--schedules.information_bound", "[[0, 1], [2, 0]]"], 3),
    ],
)
def test_an_epoch_in_which_no_term_counts(flags: list[str], epoch: int, refuse: Refuse) -> None:
    nothing = "{reconstruction: 0, kl_z: 0, consistency: 0}"
    flags = ["--weights", nothing, "--weights.kl_c", "0", *flags]
    said = f"--weights: no term of the objective has a weight in epoch {epoch}; give one"
    assert said in refuse(*flags)


# Classes of a user's own.

PRIOR = """
class Mine(Prior):
    def __init__(self, categories: int = 10):
        super().__init__(categories, 4)
    def component(self, c):
        return {component}
"""
DECODER = """
class Mine(Decoder):
    def __init__(self, features: int, latent: int, likelihood: Likelihood):
        super().__init__(likelihood)
        self.linear = torch.nn.Linear({latent}, features + {extra})
    def raw(self, z):
        return self.linear(z).unsqueeze(-1)
"""
GUIDE = """
class Mine(Guide):
    def __init__(self, categories: int, latent: int):
        super().__init__(categories)
        self.latent = latent
    def posterior(self, x):
        category = dist.Categorical(logits=0 * x[:, :1] + torch.zeros({categories}))
        return Posterior(category, lambda c: normal(*c.shape[:-1], len(x), {latent}))
"""


def guide_of(latent: str) -> str:
    """A guide whose q(z | x, c) is ``latent``, in terms of its ``shape``."""
    right = GUIDE.format(categories="self.categories", latent="self.latent")
    shape = "(*c.shape[:-1], len(x), self.latent)"
    return right.replace(f"normal{shape}", latent.format(shape=shape))


LIKELIHOOD = """
class Mine(Likelihood):
    def forward(self, raw):
        return {x}
"""

CLASSES = {
    "prior whose constructor refuses": (
        "prior",
        "class Mine(Prior):\n"
        "    def __init__(self, height: float = -1.0):\n"
        "        raise ValueError(f'height must be above 0, not {height}')\n"
        "    def component(self, c): ...\n",
        ["height must be above 0, not -1.0"],
    ),
    "prior whose constructor fails": (
        "prior",
        "class Mine(Prior):\n"
        "    def __init__(self):\n"
        "        raise KeyError('modes')\n"
        "    def component(self, c): ...\n",
        ["KeyError: 'modes'"],
    ),
    "prior without super": (
        "prior",
        "class Mine(Prior):\n    def __init__(self): pass\n    def component(self, c): ...\n",
        ["'categories'", "must call super().__init__"],
    ),
    "abstract prior": ("prior", "class Mine(Prior): ...\n", ["must define component"]),
    "abstract guide": ("guide", "class Mine(Guide): ...\n", ["must define posterior"]),
    "abstract decoder": ("decoder", "class Mine(Decoder): ...\n", ["must define raw"]),
    "abstract likelihood": ("likelihood", "class Mine(Likelihood): ...\n", ["must define forward"]),
    "abstract view": ("view", "class Mine(View): ...\n", ["must define __call__"]),
    "prior with a missing argument": (
        "prior",
        "class Mine(Prior):\n"
        "    def __init__(self, k: int):\n"
        "        super().__init__(k, 4)\n"
        "    def component(self, c): ...\n",
        ["needs --prior.k"],
    ),
    "prior without types": (
        "prior",
        "class Mine(Prior):\n"
        "    def __init__(self, k):\n"
        "        super().__init__(k, 4)\n"
        "    def component(self, c): ...\n",
        ["must give a type to 'k', as in 'k: int'"],
    ),
    "prior of another D": (
        "prior",
        PRIOR.format(component="normal(*c.shape, 5)"),
        ["shape (10, 5)", "(10, 4) would fit"],
    ),
    "prior without a batch": (
        "prior",
        PRIOR.format(component="normal(4)"),
        ["shape (4,)", "(10, 4)"],
    ),
    "prior that fails": (
        "prior",
        PRIOR.format(component="normal(*c.shape, 4, nothing)"),
        ["NameError: name 'nothing' is not defined"],
    ),
    "prior of PyTorch's distributions": (
        "prior",
        PRIOR.format(component="torch.distributions.Normal(torch.zeros(10, 4), 1.0)"),
        ["'Normal' object has no attribute 'shape'"],
    ),
    "prior of no distribution": (
        "prior",
        PRIOR.format(component="dist.Normal(torch.full((*c.shape, 4), torch.nan), 1).to_event(1)"),
        ["loc", "nan"],
    ),
    "decoder of too many features": (
        "decoder",
        DECODER.format(latent="latent", extra=1),
        ["(10, 4, 65)", "the data need (10, 4, 64)"],
    ),
    "decoder of another D": (
        "decoder",
        DECODER.format(latent="latent + 1", extra=0),
        ["cannot decode z of shape (10, 4, 20)", "must accept (..., 20)"],
    ),
    "guide of another K": (
        "guide",
        GUIDE.format(categories="self.categories + 1", latent="self.latent"),
        ["q(c|x) has 11 categories", "models.priors.Orthogonal has 10"],
    ),
    "guide of another D": (
        "guide",
        GUIDE.format(categories="self.categories", latent="self.latent - 1"),
        ["q(z|x,c) has shape (10, 4, 19)", "(10, 4, 20) would fit"],
    ),
    "guide with other sites": (
        "guide",
        "class Mine(Enumerated):\n"
        "    def forward(self, x):\n"
        "        with pyro.plate('batch', len(x)):\n"
        "            pyro.sample('code', normal(len(x), 20))\n",
        ["its sites are code", "the model's are c and z"],
    ),
    "guide without sites": (
        "guide",
        "class Mine(Enumerated):\n    def forward(self, x): pass\n",
        ["its sites are none", "c and z"],
    ),
    "guide that fails": (
        "guide",
        "class Mine(Enumerated):\n    def posterior(self, x): return 1 / 0\n",
        ["ZeroDivisionError", "must accept x of shape (4, 64)"],
    ),
    "grey levels under a likelihood of 0 and 1": (
        "likelihood",
        "class Mine(Bernoulli):\n    binary = False\n",
        ["support does not hold the data", "between 0 and 1", "ContinuousBernoulli"],
    ),
    "prior of independent examples": (
        "prior",
        PRIOR.format(component="dist.Normal(torch.zeros(*c.shape, 4), 1.0)"),
        ["p(z|c) has event shape ()", "(4,) would fit", ".to_event(1)"],
    ),
    "likelihood of independent examples": (
        "likelihood",
        LIKELIHOOD.format(x="dist.Normal(raw.squeeze(-1), 1.0)"),
        ["p(x|z) has event shape ()", "(64,) would fit", ".to_event(1)"],
    ),
    "guide of independent examples": (
        "guide",
        guide_of("dist.Normal(0.0, 1.0).expand({shape})"),
        ["q(z|x,c) has event shape ()", "(20,) would fit", ".to_event(1)"],
    ),
    "likelihood without a finite mean": (
        "likelihood",
        LIKELIHOOD.format(x="dist.Cauchy(raw.squeeze(-1), 1.0).to_event(1)"),
        ["its mean is not finite", "give a distribution that has one"],
    ),
    "likelihood without gradients of its draws": (
        "likelihood",
        LIKELIHOOD.format(x="dist.Poisson(raw.squeeze(-1).exp()).to_event(1)"),
        ["has no rsample", "--information_weight 0 does without"],
    ),
    "guide without gradients of its draws": (
        "guide",
        guide_of("dist.Poisson(torch.ones({shape})).to_event(1)"),
        ["q(z|x,c) has no rsample"],
    ),
    "likelihood of infinite density": (
        "likelihood",
        LIKELIHOOD.format(
            x="dist.Gamma(0.5 + 0 * raw.squeeze(-1), 1.0, validate_args=False).to_event(1)"
        ),
        ["reconstruction is inf on the first examples", "between 0 and 1"],
    ),
    "guide of a family without an analytic KL": (
        "guide",
        guide_of("dist.StudentT(5.0, torch.zeros({shape})).to_event(1)"),
        ["no analytic KL", "use --kl sampled"],
    ),
    "view of another shape": (
        "view",
        "class Mine(View):\n    def __call__(self, grey, classifier): return grey[:, :9]\n",
        ["of shape (4, 9) of torch.float32 of shape (4, 64)"],
    ),
    "view that fails": (
        "view",
        "class Mine(View):\n    def __call__(self, grey, classifier): return grey.turned()\n",
        # Where it does is for whoever wrote it.
        ["no attribute 'turned'", ".py, line 15)", "must accept x of shape (4, 64)"],
    ),
    "view of another type": (
        "view",
        "class Mine(View):\n    def __call__(self, grey, classifier): return grey.double()\n",
        ["makes torch.float64 of shape (4, 64) of torch.float32 of shape (4, 64)"],
    ),
    "view of no numbers": (
        "view",
        "class Mine(View):\n    def __call__(self, grey, classifier): return grey / 0\n",
        ["makes numbers that are not finite of x"],
    ),
    "prior that forgot its base": (
        "prior",
        "class Mine(Prior):\n"
        "    def __init__(self): self.categories, self.latent = 10, 3\n"
        "    def component(self, c): return normal(*c.shape, 3)\n",
        ["has no '_modules'", "must call super().__init__"],
    ),
    "guide that forgot K": (
        "guide",
        "class Mine(Guide):\n"
        "    def __init__(self): torch.nn.Module.__init__(self)\n"
        "    def posterior(self, x): pass\n",
        ["has no 'categories'", "must call super().__init__"],
    ),
    "prior of another p(c)": (
        "prior",
        PRIOR.format(component="normal(*c.shape, 4)")
        + "    def category(self): return dist.Categorical(torch.ones(9))\n",
        ["p(c) has logits of shape (9,)", "would fit its K"],
    ),
    "guide without a posterior": (
        "guide",
        "class Mine(Enumerated):\n    def posterior(self, x): return None\n",
        ["no attribute 'category'", "posterior must return guides.guide.Posterior"],
    ),
    "guide for all categories alone": (
        "guide",
        "class Mine(Enumerated):\n"
        "    def posterior(self, x):\n"
        "        category, latent = super().posterior(x)\n"
        "        every = torch.arange(self.categories).unsqueeze(-1)\n"
        "        return Posterior(category, lambda c: latent(every))\n",
        ["q(z|x,c) has shape (10, 4, 20) for c of shape (4,); (4, 20) would fit"],
    ),
    "guide whose buffer grows": (
        "guide",
        "class Mine(Enumerated):\n"
        "    def posterior(self, x):\n"
        "        self.register_buffer('rows', torch.cat([self._buffers.get('rows', x), x]))\n"
        "        return super().posterior(x)\n",
        ["'guide.rows' has shape (16, 64) after its first use", "no checkpoint could be read back"],
    ),
    "slip in a user's own arithmetic": (
        "guide",
        "class Mine(Enumerated):\n    def posterior(self, x): return 1 + 'one'\n",
        ["unsupported operand", ".py, line 15)"],
    ),
    "file that is not there": (
        "guide",
        "import numpy\n"
        "class Mine(Enumerated):\n    def posterior(self, x): return numpy.load('modes.npy')\n",
        ["modes.npy", ".py, line 16)"],
    ),
    "a whole tensor in an error": (
        "guide",
        "class Mine(Enumerated):\n    def posterior(self, x): raise ValueError('1 ' * 9999)\n",
        ["1 1 ...", ".py, line 15)"],
    ),
    "critic that is not there yet": (
        "guide",
        "class Mine(Enumerated):\n    def critic(self, x): raise NotImplementedError('later')\n",
        ["NotImplementedError: later", ".py, line 15)"],
    ),
}


@pytest.mark.parametrize(("part", "code", "said"), CLASSES.values(), ids=CLASSES)
def test_a_class_of_ones_own_that_does_not_fit(
    part: str, code: str, said: list[str], mine: Callable[[str], str], refuse: Refuse
) -> None:
    path = f"{mine(code)}.Mine"
    error = refuse(f"--{part}", path)
    assert f"--{part}" in error
    assert path in error
    assert "site-packages" not in error
    for words in said:
        assert words in error


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("Path", "images.npy", "config.yaml cannot hold a PosixPath"),
        ("Shade", "DARK", "config.yaml cannot hold a Shade"),
        ("Prior", "models.priors.Orthogonal", "is a class, and nothing makes one"),
    ],
)
def test_an_argument_that_no_config_holds(
    kind: str, value: str, said: str, mine: Callable[[str], str], refuse: Refuse
) -> None:
    name = mine(
        "from enum import Enum\nfrom pathlib import Path\nfrom models.priors import Orthogonal\n"
        "class Shade(Enum):\n    DARK = 1\n"
        "class Mine(Orthogonal):\n"
        f"    def __init__(self, extra: {kind}) -> None: super().__init__()\n"
    )
    error = refuse("--prior", f"{name}.Mine", "--prior.extra", value)
    assert error.startswith(f"--prior.extra: {said}")
    assert "let the constructor take" in error


@pytest.mark.usefixtures("brief")
def test_a_tuple_is_read_back_as_what_it_was(
    mine: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = mine(
        "from models.priors import Orthogonal\n"
        "class Mine(Orthogonal):\n"
        "    def __init__(self, sizes: tuple[int, int] = (5, 2)) -> None:\n"
        "        super().__init__(*sizes)\n"
    )
    flags = [*SMALL, "--prior", f"{name}.Mine", "--prior.sizes", "[4, 2]", "--out", OUT]
    assert main([*flags, "--epochs", "1"]) == 0, capsys.readouterr().err
    assert main([*flags, "--epochs", "2", "--resume", "true"]) == 0, capsys.readouterr().err
    assert pyro_infocat.load(OUT).model.prior.categories == 4


@pytest.mark.parametrize(
    ("kind", "wanted"), [("list[int]", "a list"), ("dict[str, dict[str, float]]", "names with")]
)
def test_an_argument_of_the_wrong_type(
    kind: str, wanted: str, mine: Callable[[str], str], refuse: Refuse
) -> None:
    name = mine(
        "from models.priors import Orthogonal\n"
        "class Mine(Orthogonal):\n"
        f"    def __init__(self, extra: {kind}) -> None: super().__init__()\n"
    )
    error = refuse("--prior", f"{name}.Mine", "--prior.extra", "3")
    assert f"--prior.extra: expected {wanted}" in error
    assert "pairs" not in error
    assert "kl_z" not in error


@pytest.mark.usefixtures("brief")
def test_what_is_held_fixed_is_no_cause_for_alarm(
    mine: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = mine(
        "class Mine(Enumerated):\n"
        "    def __init__(self, encoder, categories, latent):\n"
        "        super().__init__(encoder, categories, latent)\n"
        "        self.encoder.requires_grad_(False)\n"
    )
    assert main([*SMALL[:-2], "--guide", f"{name}.Mine", "--epochs", "1", "--out", OUT]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("brief")
def test_a_guide_without_parameters(
    mine: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = mine(
        "class Mine(Guide):\n"
        "    def __init__(self, categories: int, latent: int):\n"
        "        super().__init__(categories)\n"
        "        self.latent = latent\n"
        "    def posterior(self, x):\n"
        "        category = dist.Categorical(logits=torch.zeros(*x.shape[:-1], self.categories))\n"
        "        size = self.latent\n"
        "        return Posterior(category, lambda c: normal(\n"
        "            *torch.broadcast_shapes(c.shape, x.shape[:-1]), size))\n"
    )
    flags = ["--guide", f"{name}.Mine", "--view", "pyro_infocat.views.Same", "--weights", "{}"]
    small = [*SMALL[:6], "--decoder.hidden", "[16]"]
    assert main([*small, *flags, "--epochs", "1", "--out", OUT]) == 0, capsys.readouterr().err


def test_more_epochs_than_there_is_time_for_are_not_counted_through() -> None:
    settings, _, _ = parse(["--epochs", "9" * 18])
    assert build.objective(settings).weights["kl_z"] == 1


def test_a_parameter_in_pyros_store(mine: Callable[[str], str], refuse: Refuse) -> None:
    code = (
        "class Mine(Enumerated):\n"
        "    def posterior(self, x):\n"
        "        return super().posterior(x + pyro.param('shift', torch.zeros(())))\n"
    )
    assert refuse("--guide", f"{mine(code)}.Mine") == (
        "pyro.param 'shift' of a part would be neither trained nor saved; make it a "
        "torch.nn.Parameter of the class"
    )


FLOW = """
class Mine(Enumerated):
    def posterior(self, x):
        category, latent = super().posterior(x)
        bend = dist.transforms.SoftplusTransform()
        return Posterior(category, lambda c: dist.TransformedDistribution(latent(c), [bend]))
"""
LOGIT_NORMAL = """
class Mine(Likelihood):
    def forward(self, raw):
        squash = [torch.distributions.transforms.SigmoidTransform()]
        spread = dist.TransformedDistribution(dist.Normal(raw.squeeze(-1), 1.0), squash)
        return Shifted(spread.to_event(1))

class Shifted(dist.TorchDistribution):
    # Grey levels may be 0 and 1, where a logit is infinite.
    support, has_rsample = torch.distributions.constraints.real_vector, True
    arg_constraints = {}
    def __init__(self, base):
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
    def log_prob(self, x): return self.base.log_prob(0.01 + 0.98 * x)
    def rsample(self, shape=torch.Size()): return self.base.rsample(shape)
"""
DRAWN = """
class Drawn(dist.Normal):
    has_rsample = False
    def rsample(self, shape=torch.Size()): raise NotImplementedError
"""
NO_INFORMATION = ["--information_weight", "0", "--schedules", "{information_bound: [[0, 0]]}"]
WITHOUT: dict[str, tuple[str, str, list[str]]] = {
    "posterior without a mean": ("guide", FLOW, ["--kl", "sampled"]),
    "likelihood without a mean": ("likelihood", LOGIT_NORMAL, []),
    "likelihood without gradients": (
        "likelihood",
        DRAWN + LIKELIHOOD.format(x="Drawn(raw.squeeze(-1), 0.3).to_event(1)"),
        ["--information_weight", "0"],
    ),
    "prior without gradients": (
        "prior",
        DRAWN + PRIOR.format(component="Drawn(torch.zeros(*c.shape, 4), 1.0).to_event(1)"),
        [*NO_INFORMATION, "--kl", "sampled"],
    ),
}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("part", "code", "flags"), WITHOUT.values(), ids=WITHOUT)
def test_distributions_that_lack_what_a_run_can_do_without(
    part: str,
    code: str,
    flags: list[str],
    mine: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = f"{mine(code)}.Mine"
    command = [*SMALL, "--epochs", "1", f"--{part}", path, *flags, "--out", OUT]
    assert main(command) == 0, capsys.readouterr().err
    assert (Path(OUT) / METRICS).exists()
    assert sample([OUT, "--reconstruct", "test", "--device", "cpu"]) == 0


@pytest.mark.usefixtures("brief")
def test_classes_of_ones_own_that_do_fit(
    mine: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The cases above fail for what they say they fail for."""
    prior = mine(PRIOR.format(component="normal(*c.shape, 4)"))
    decoder = mine(DECODER.format(latent="latent", extra=0))
    flags = ["--prior", f"{prior}.Mine", "--decoder", f"{decoder}.Mine", "--epochs", "1"]
    assert main([*flags, "--nll_samples", "2", "--out", OUT]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine(", "SyntaxError"),
        ("mode = 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('no way')", "no way"),
        ("import nothere", "No module named 'nothere'"),
    ],
)
def test_a_file_that_cannot_be_imported(
    code: str, said: str, mine: Callable[[str], str], refuse: Refuse
) -> None:
    name = mine(code)
    error = refuse("--prior", f"{name}.Mine")
    assert said in error
    assert f"{name}.py" in error


# Data.

MNIST_ARCHIVES = [file for file, _ in MNIST.resources]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of this machine that nothing listens on in the place of the mirrors."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_data_root_that_cannot_be_written(root: str, tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "file").write_text("mine")
    error = refuse("--data", "mnist", "--data_root", root)
    assert f"--data_root: cannot write to '{root}'" in error
    assert "give a folder that can be written" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("no_network")
def test_a_download_that_fails(tmp_path: Path, refuse: Refuse) -> None:
    error = refuse("--data", "mnist", "--data_root", "archives")
    assert "--data mnist: the download into 'archives/MNIST/raw' failed" in error
    assert "by hand" in error
    for file in MNIST_ARCHIVES:
        assert file in error
    # The folder that the message speaks of is there to place them in.
    assert (tmp_path / "archives/MNIST/raw").is_dir()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "content", [gzip.compress(b"other")[:9], gzip.compress(b"other"), b""], ids=len
)
def test_an_archive_that_is_truncated_or_another(
    content: bytes, tmp_path: Path, refuse: Refuse
) -> None:
    archive = tmp_path / "data/MNIST/raw" / MNIST_ARCHIVES[1]
    archive.parent.mkdir(parents=True)
    archive.write_bytes(content)
    error = refuse("--data", "mnist")
    assert f"'data/MNIST/raw/{archive.name}' is truncated or damaged ({len(content)} bytes" in error
    assert MNIST.resources[1][1] in error
    assert archive.read_bytes() == content


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "header alone": lambda content: content[:16],
    "part of the header": lambda content: content[:6],
    "three bytes": lambda content: content[:3],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>Not found</html>",
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_an_unpacked_file_that_is_damaged(
    file: str, damage: Callable[[bytes], bytes], tmp_path: Path, refuse: Refuse
) -> None:
    write_tiny_mnist(tmp_path / "data", 20, 10)
    path = tmp_path / "data/MNIST/raw" / file
    path.write_bytes(damage(path.read_bytes()))
    before = contents(tmp_path / "data")
    error = refuse("--data", "mnist")
    assert f"'data/MNIST/raw/{file}' is truncated or damaged" in error
    assert "delete it" in error
    assert contents(tmp_path / "data") == before


@pytest.mark.usefixtures("no_network")
def test_a_file_that_may_not_be_read(
    tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of someone else's, say; whoever runs the tests may read everything."""

    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "images")

    write_tiny_mnist(tmp_path / "data", 20, 10)
    monkeypatch.setattr(data, "_refuse_torn", closed)
    assert "--data_root: cannot read 'images' (Permission denied)" in refuse("--data", "mnist")


@pytest.mark.usefixtures("no_network")
def test_unpacked_files_that_do_not_belong_together(tmp_path: Path, refuse: Refuse) -> None:
    write_tiny_mnist(tmp_path / "data", 20, 10)
    folder = tmp_path / "data/MNIST/raw"
    labels = folder / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    shutil.copy(folder / "t10k-labels-idx1-ubyte", labels)
    assert "do not belong together" in refuse("--data", "mnist")
    labels.write_bytes(whole[:-1] + b"\x0a")
    assert "do not belong together" in refuse("--data", "mnist")


# The folder of a run.


@pytest.mark.parametrize("held", [CONFIG, CHECKPOINT, HISTORY, METRICS])
def test_a_folder_that_holds_another_run(held: str, tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / OUT).mkdir()
    (tmp_path / OUT / held).write_text("mine")
    error = refuse("--epochs", "1", fresh=False)
    if held == CONFIG:
        # There is nothing to go on with.
        assert f"--out: '{OUT}' holds the settings of another run, which never began" in error
        assert "delete it" in error
    else:
        assert f"--out: '{OUT}' holds another run" in error
        assert "--resume true" in error
    assert "another --out" in error
    assert contents(tmp_path / OUT) == {held: b"mine"}


def test_a_run_is_not_overwritten(trained: Path, tmp_path: Path, refuse: Refuse) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    before = contents(tmp_path / OUT)
    assert "holds another run" in refuse(*SMALL, "--epochs", "1", fresh=False)
    assert contents(tmp_path / OUT) == before


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_out_that_is_a_file(out: str, tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "file").write_text("mine")
    error = refuse("--out", out)
    assert f"--out: cannot write to '{out}'" in error
    assert "choose a folder that can be written" in error
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_below_what_nobody_can_write(refuse: Refuse) -> None:
    """Not even whoever may do anything: the kernel makes these folders."""
    error = refuse("--out", "/proc/pyro_infocat/below")
    assert "--out: cannot write to '/proc/pyro_infocat/below'" in error
    assert "choose a folder that can be written" in error


def test_a_share_that_leaves_nothing_takes_no_folder(refuse: Refuse, tmp_path: Path) -> None:
    np.savez(tmp_path / "three.npz", x_train=np.eye(4).reshape(4, 1, 4))
    flags = ["--data", "three.npz", "--patience", "1", "--validation"]
    assert refuse(*flags, "0.9") == (
        "--validation 0.9: leaves 0 examples to train on; at least 2 are needed, 2 in each process"
    )


@pytest.mark.parametrize("there", [False, True])
def test_resume_without_a_checkpoint(there: bool, tmp_path: Path, refuse: Refuse) -> None:
    if there:
        (tmp_path / OUT).mkdir()
    error = refuse("--resume", "true", fresh=not there)
    assert f"--resume: no checkpoint in '{OUT}'" in error
    assert "without --resume" in error


class Malice:
    """A pickle that leaves a file behind where it is loaded."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def poisoned(content: bytes) -> bytes:
    return pickle.dumps(Malice())


CORRUPT: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"a checkpoint",
    "pickle": poisoned,
}


@pytest.mark.parametrize("corrupt", CORRUPT.values(), ids=CORRUPT)
def test_resume_of_a_corrupt_checkpoint(
    corrupt: Callable[[bytes], bytes], trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    path = tmp_path / OUT / CHECKPOINT
    path.write_bytes(corrupt(path.read_bytes()))
    before = contents(tmp_path / OUT)
    error = refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert f"'{OUT}/{CHECKPOINT}' is corrupt" in error
    assert "train again" in error
    assert contents(tmp_path / OUT) == before
    assert not (tmp_path / "executed").exists()


def test_the_poisoned_pickle_would_execute(tmp_path: Path) -> None:
    pickle.loads(poisoned(b""))
    assert (tmp_path / "executed").exists()


def test_a_pickle_inside_a_real_checkpoint_is_not_executed(
    trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    path = tmp_path / OUT / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {"more": Malice()}, path)
    assert "is corrupt" in refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["epochs: [", "3", "epochs: 1", None])
def test_resume_of_a_folder_without_its_config(
    damage: str | None, trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    config = tmp_path / OUT / CONFIG
    config.unlink() if damage is None else config.write_text(damage)
    error = refuse(*SMALL, "--resume", "true", fresh=False)
    assert f"'{OUT}/{CONFIG}' cannot be read" in error
    assert "give the --out of a run" in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "5"], "seed 0, not 5"),
        (["--prior.scale", "2.5"], "prior.scale 3.0, not 2.5"),
        (["--weights.kl_z", "2"], "weights.kl_z None, not 2.0"),
        (
            ["--guide", "guides.SoftCode"],
            "guide.class_path guides.enumerated.Enumerated, not guides.SoftCode",
        ),
    ],
)
def test_resume_under_another_configuration(
    flags: list[str], said: str, trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    before = contents(tmp_path / OUT)
    error = refuse(*SMALL, "--epochs", "1", *flags, "--resume", "true", fresh=False)
    assert said in error
    assert f"--config {OUT}/{CONFIG} --out {OUT}" in error
    assert contents(tmp_path / OUT) == before


def test_resume_with_fewer_epochs_than_there_were(
    trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    path = tmp_path / OUT / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {"epoch": 3}, path)
    before = contents(tmp_path / OUT)
    error = refuse(*SMALL, "--epochs", "2", "--resume", "true", fresh=False)
    assert f"--epochs 2: '{OUT}' has had 3" in error
    assert "at least as many" in error
    assert contents(tmp_path / OUT) == before


def test_resume_with_more_epochs_than_a_cosine_was_spread_over(
    trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    config = tmp_path / OUT / CONFIG
    values = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(values | {"anneal": "cosine"}))
    before = contents(tmp_path / OUT)
    flags = [*SMALL, "--anneal", "cosine", "--resume", "true"]
    error = refuse(*flags, "--epochs", "7", fresh=False)
    assert f"--epochs 7: the cosine learning rate of '{OUT}' was spread over 1" in error
    assert contents(tmp_path / OUT) == before
    # Where a schedule says the rate, there is none to spread.
    schedule = ["--schedules.learning_rate", "[[0, 0.001]]"]
    values |= {"anneal": "cosine", "schedules": {"learning_rate": [[0, 0.001]]}}
    config.write_text(yaml.safe_dump(values))
    assert main([*flags, *schedule, "--epochs", "2", "--out", str(tmp_path / OUT)]) == 0


def test_resume_of_a_checkpoint_of_another_model(
    trained: Path, tmp_path: Path, refuse: Refuse
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    config = tmp_path / OUT / CONFIG
    values = yaml.safe_load(config.read_text())
    values["decoder"]["init_args"]["hidden"] = [17]
    config.write_text(yaml.safe_dump(values))
    error = refuse("--config", f"{OUT}/{CONFIG}", "--resume", "true", fresh=False)
    assert "the checkpoint does not fit" in error
    assert "size mismatch" in error


# Trouble on the way.


def again(epochs: int) -> list[str]:
    """Flags that continue the copy of ``trained`` to more epochs."""
    return ["--config", str(Path(OUT, CONFIG)), "--epochs", str(epochs), "--resume", "true"]


def epoch_in(folder: Path) -> int:
    return torch.load(folder / CHECKPOINT, weights_only=True)["epoch"]


@pytest.mark.parametrize("file", [CHECKPOINT, HISTORY])
def test_a_full_disk(file: str, trained: Path, tmp_path: Path, refuse: Refuse) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    whole = (tmp_path / OUT / file).read_bytes()
    (tmp_path / OUT / f"{file}.new").symlink_to("/dev/full")
    error = refuse(*again(3), fresh=False)
    assert f"--out: cannot write '{OUT}' (No space left on device)" in error
    assert "make room" in error
    assert (tmp_path / OUT / file).read_bytes() == whole
    assert epoch_in(tmp_path / OUT) == 1


def test_a_history_that_a_kill_left_behind_is_made_whole(trained: Path, tmp_path: Path) -> None:
    """Also where no epoch is left that would write it."""
    shutil.copytree(trained, tmp_path / OUT)
    whole = (tmp_path / OUT / HISTORY).read_bytes()
    (tmp_path / OUT / HISTORY).write_text("")
    assert main([*again(1), "--out", OUT]) == 0
    assert (tmp_path / OUT / HISTORY).read_bytes() == whole


def test_a_disk_that_is_full_as_the_run_begins(
    tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refuse(*SMALL, fresh=False)
    assert not (tmp_path / OUT / CONFIG).exists()


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "weights.npz"),
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    ],
)
def test_an_error_that_is_not_of_the_folder_keeps_its_traceback(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a mistake in a user's own class, and another folder would not mend it."""

    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "run", stop)
    with pytest.raises(type(error)):
        main(SMALL)


def test_nobody_reads_what_is_said(tmp_path: Path) -> None:
    """As with ``| head -1``: what is done can be gone on with, and nothing more is said."""
    process = start(*SMALL, "--epochs", "1", "--out", OUT)
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (141, "")
    assert epoch_in(tmp_path / OUT) == 1


def test_a_file_that_may_not_grow(trained: Path, tmp_path: Path, refuse: Refuse) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    flags = again(3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        error = refuse(*flags, fresh=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in error
    assert epoch_in(tmp_path / OUT) == 1


@pytest.mark.parametrize("gamma", ["0", "1"])
def test_a_loss_that_is_no_number(gamma: str, tmp_path: Path, refuse: Refuse) -> None:
    flags = ["--learning_rate", "1e20", "--information_weight", gamma]
    error = refuse(*SMALL, *flags, fresh=False)
    assert "training stopped at step 2 of epoch 1: reconstruction is" in error
    assert "A smaller --learning_rate" in error
    checkpoint = torch.load(tmp_path / OUT / CHECKPOINT, weights_only=True)
    assert checkpoint["epoch"] == 0
    assert all(value.isfinite().all() for value in checkpoint["model"].values())


def test_a_draw_from_what_is_no_number(
    tmp_path: Path, refuse: Refuse, mine: Callable[[str], str]
) -> None:
    """PyTorch refuses to draw before the objective has a term to show for it."""
    name = mine(
        "from models.decoders import MLP\n"
        "class Mine(MLP):\n"
        "    calls = 0\n"
        "    def raw(self, z):\n"
        "        # Twice a step: for the examples and for the generated ones.\n"
        "        self.calls += torch.is_grad_enabled()\n"
        "        return super().raw(z) * (torch.nan if self.calls > 4 else 1)\n"
    )
    flags = ["--decoder", f"{name}.Mine", "--likelihood", "models.likelihoods.Bernoulli"]
    error = refuse("--batch_size", "400", *flags, fresh=False)
    assert "training stopped at step 3 of epoch 1: reconstruction is nan" in error
    assert epoch_in(tmp_path / OUT) == 0


def test_a_step_beyond_the_largest_float(refuse: Refuse, tmp_path: Path) -> None:
    error = refuse(*SMALL, "--learning_rate", "1e38", fresh=False)
    assert re.match(r"training stopped at step 2 of epoch 1: \w+ is (nan|-?inf)", error)
    assert epoch_in(tmp_path / OUT) == 0


def test_a_step_that_ruins_the_parameters_is_not_saved(
    trained: Path, tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / OUT)
    step = torch.optim.Adam.step
    steps = []

    def ruin(self: torch.optim.Adam) -> None:
        step(self)
        steps.append(1)
        if len(steps) == 4:  # The last of the epoch.
            self.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.Adam, "step", ruin)
    error = refuse(*again(3), fresh=False)
    assert "training stopped at step 4 of epoch 2: the parameter" in error
    assert "not finite" in error
    assert epoch_in(tmp_path / OUT) == 1


def test_ctrl_c_before_there_is_anything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", interrupt)
    assert main(["--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_ctrl_c_in_the_folder_of_another_run(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the command has come to see whose it is."""

    shutil.copytree(trained, tmp_path / OUT)
    monkeypatch.setattr(data, "load", interrupt)
    assert main(["--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_ctrl_c_is_told_once(
    rank: str,
    lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(command, "run", interrupt)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    assert main(["--out", OUT]) == 130
    # torchrun ends all as soon as one ends: the silent ones wait for the one that speaks.
    assert len(waits) == 1 - lines
    assert capsys.readouterr().err.count("\n") == lines


def test_ctrl_c_between_the_settings_and_the_first_checkpoint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train", interrupt)
    assert main([*SMALL, "--out", OUT]) == 130
    assert capsys.readouterr().err == "interrupted; the same command begins again\n"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process started now hears Ctrl-C, even where a shell had this one ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("brief", "interruptible")
def test_ctrl_c_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a folder"
    process = start(*SMALL, "--epochs", "60", "--out", str(out))
    wait_for(lambda: (out / HISTORY).exists() and (out / HISTORY).read_text(), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.count("\n") == 1
    epoch = epoch_in(out)
    assert 1 <= epoch < 60
    command = shlex.split(error.split("continue with: ")[1])
    assert command[:3] == ["python", "-m", "pyro_infocat.run"]
    assert main(command[3:]) == 0
    assert len((out / HISTORY).read_text().splitlines()) == 60
    assert capsys.readouterr().err == ""


def test_a_real_command() -> None:
    process = start("--prior.sale", "3")
    output, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output == ""
    assert error.startswith("error: --prior: models.priors.Orthogonal takes no 'sale'")
    assert error.count("\n") == 1


def test_batch_normalisation_of_one(refuse: Refuse) -> None:
    assert refuse("--batch_size", "1", "--encoder.norm", "true") == (
        "--batch_size 1: must be at least 2; batch normalisation needs 2 examples in each process"
    )


def test_the_information_weight_has_one_place(refuse: Refuse) -> None:
    message = refuse("--weights", "{information_bound: 3}")
    assert message == "--weights: information_bound has a flag of its own, --information_weight"
