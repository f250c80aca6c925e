"""Training by Pyro's SVI: what it moves.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from models import priors
from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.programs import (
    D,
    K,
    X,
    make_programs,
    parameters,
    plain_guide,
    plain_model,
)
from tests.pyro_infocat.objective.ways import assert_same, through_svi, with_gradients

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
def test_a_second_model_of_the_same_name_trains(guide: str, direct: bool) -> None:
    """And leaves the first, whose names Pyro's store holds, as it was."""
    all_programs = [make_programs(guide=guide, kl="sampled") for _ in range(2)]
    for model, q, x in all_programs:
        before = {name: p.detach().clone() for name, p in parameters(model, q).items()}
        others = [p for w in all_programs if w[0] is not model for p in parameters(*w[:2]).values()]
        others_before = [p.detach().clone() for p in others]
        svi = SVI(model, q, pyro.optim.Adam({"lr": 0.1}), InfoCatELBO(0.7, direct=direct))
        for _ in range(2):
            svi.step(x)
        for name, parameter in parameters(model, q).items():
            assert not torch.equal(parameter, before[name]), name
        for parameter, value in zip(others, others_before, strict=True):
            assert torch.equal(parameter, value)


@pytest.mark.parametrize("gamma", [0, 1.0])
@pytest.mark.parametrize("direct", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_training_lowers_the_loss(gamma: float, direct: bool) -> None:
    """By SVI, from its own start, on a batch that two categories explain.

    Of 14 seeds the highest loss was 0.68 of the first.
    """
    model, guide, _ = make_programs()
    x = torch.tensor([[0.0] * X, [1.0] * X]).repeat(10, 1)
    objective = InfoCatELBO(gamma, direct=direct)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), objective)
    start = objective.loss(model, guide, x)
    for _ in range(60):
        svi.step(x)
    assert objective.loss(model, guide, x) < 0.8 * start


def test_plain_pyro_programs_train_by_svi() -> None:
    """Of 14 seeds the highest ratio of losses was 0.17."""
    x = torch.randn(20, X)
    objective = InfoCatELBO(information_weight=0)
    svi = SVI(plain_model("analytic"), plain_guide, pyro.optim.Adam({"lr": 0.05}), objective)
    losses = [svi.step(x) for _ in range(100)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize(
    "term", ["marginal_entropy", "conditional_entropy", "consistency", "information_bound"]
)
def test_one_term_alone_trains_the_classifier(term: str) -> None:
    """As a head start for the classifier does, with no weight on the bound."""
    model, guide, x = make_programs()
    others = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0)
    objective = InfoCatELBO(0, weights=others | {term: 1.0})
    before = guide.classifier.weight.detach().clone()
    SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective).step(x, view=1 - x)
    assert not torch.equal(guide.classifier.weight, before)


class Networks(nn.Module):
    """A user's own module, of which each program registers only the layers that it runs.

    As in Pyro's tutorials; the critic is a layer of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prior = priors.Orthogonal(K, 1)
        self.decoder, self.odds = nn.Linear(D, X), nn.Linear(X, K)
        self.mean, self.critics = nn.Linear(X, D), nn.Linear(X, K)

    def category(self, x: Tensor) -> dist.Categorical:
        return dist.Categorical(logits=self.odds(x))

    def critic(self, x: Tensor) -> dist.Categorical:
        return dist.Categorical(logits=self.critics(x))

    def generate(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        c = self.prior.category().sample((number,))
        z = self.prior.component(c).rsample()
        return c, z, dist.Normal(self.decoder(z), 1.0).rsample()


class Model(Networks):
    def forward(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("batch", len(x)):
            c = pyro.sample("c", self.prior.category())
            z = pyro.sample("z", self.prior.component(c))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Inference(Networks):
    def forward(self, x: Tensor) -> None:
        pyro.module("odds", self.odds), pyro.module("mean", self.mean)
        with pyro.plate("batch", len(x)):
            pyro.sample("c", self.category(x), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(self.mean(x), 1.0).to_event(1))


NO_BOUND = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0)
USED = {
    "bound and critic": ({}, 1.0, {"model.decoder", "guide.odds", "guide.mean", "guide.critics"}),
    "bound alone": ({}, 0.0, {"model.decoder", "guide.odds", "guide.mean"}),
    "no bound": (
        NO_BOUND | {"marginal_entropy": 1.0},
        1.0,
        {"model.decoder", "guide.odds", "guide.critics"},
    ),
    "one term alone": (NO_BOUND | {"conditional_entropy": 1.0}, 0.0, {"guide.odds"}),
}
"""Weights, the information bound's, and the layers that the weighted terms use."""


@pytest.mark.parametrize(("weights", "gamma", "used"), USED.values(), ids=USED)
def test_what_a_weighted_term_uses_moves_by_its_gradient(
    weights: dict[str, float], gamma: float, used: set[str]
) -> None:
    """Once, though a layer may be registered under two names; nothing else moves."""
    model, guide, x = Model(), Inference(), torch.randn(20, X)
    torch.manual_seed(1)
    loss = InfoCatELBO(gamma, weights=weights).differentiable_loss(model, guide, x)
    expected = with_gradients(loss, model, guide)
    found = through_svi(InfoCatELBO(gamma, weights=weights), model, guide, x)
    assert_same(found, expected)
    moved = {name.rpartition(".")[0] for name, step in found[1].items() if step.any()}
    assert moved == used


def test_a_module_whose_parameters_have_constraints_moves_once() -> None:
    """Pyro's own modules hold what is trained under another name."""

    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.scale = PyroParam(torch.tensor(2.0), dist.constraints.positive)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("batch", len(x)):
                pyro.sample("x", dist.Normal(torch.zeros(X), self.scale).to_event(1), obs=x)

    model, guide, x = Model(), lambda x: None, torch.randn(20, X)
    SVI(
        model,
        guide,
        pyro.optim.SGD({"lr": 0.01}),
        InfoCatELBO(0, strict_enumeration_warning=False),
    ).step(x)
    # d/d log s of the sum of log s + x^2 / (2 s^2) over all numbers, at s = 2.
    slope = (1 - x.square() / 4).sum()
    expected = torch.exp(torch.tensor(2.0).log() - 0.01 * slope)
    torch.testing.assert_close(model.scale.detach(), expected)


def test_what_is_held_fixed_does_not_move_and_is_not_warned_of() -> None:
    model, guide, x = make_programs()
    guide.encoder.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in parameters(model, guide).items()}
    SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), InfoCatELBO()).step(x)
    for name, parameter in parameters(model, guide).items():
        fixed = name.startswith("guide.encoder.")
        assert torch.equal(parameter, before[name]) == fixed, name
