"""A latent site ``w`` of the user's own: its term is ``kl_w``, of weight 1 unless told otherwise.

Shapes: B batch, D latent dimensions.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.by_hand import log_normal
from tests.pyro_infocat.objective.programs import B, D, make_programs
from tests.pyro_infocat.objective.ways import expect

# No site is enumerated in these programs.
quiet = {"strict_enumeration_warning": False}
pytestmark = pytest.mark.usefixtures("double")

NO_BOUND = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0)


def model(x: Tensor) -> None:
    """An offset w of all examples beside each example's z."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("batch", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + w, 1.0).to_event(1), obs=x)


def guide(x: Tensor) -> None:
    pyro.sample("w", dist.Normal(pyro.param("mean", torch.tensor(1.0)), 0.5))
    with pyro.plate("batch", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))


def terms_by_hand(x: Tensor, mean: Any = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(1)
    w = mean + 0.5 * torch.randn(())
    z = x / 2 + torch.randn(B, D)
    one, unit = torch.ones(1), torch.ones(D)
    q_w = log_normal(w.reshape(1), mean * one, 0.5 * one)
    return {
        "reconstruction": log_normal(x, z + w, unit).sum(),
        "kl_w": q_w - log_normal(w.reshape(1), 0 * one, one),
        "kl_z": (log_normal(z, x / 2, unit) - log_normal(z, 0 * z, unit)).sum(),
    }


def loss_of(objective: InfoCatELBO, x: Tensor) -> float:
    torch.manual_seed(1)
    return objective.loss(model, guide, x)


def by_hand(x: Tensor, **weights: float) -> Any:
    terms = terms_by_hand(x)
    signs = {"reconstruction": -1, "kl_w": 1, "kl_z": 1}
    loss = sum(signs[name] * weights.get(name, 1) * float(term) for name, term in terms.items())
    return pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("weight", [0.5, 0.0, 3.0])
def test_its_weight_when_made_and_set_afterwards(weight: float) -> None:
    x = torch.randn(B, D)
    expected = by_hand(x, kl_w=weight)
    assert loss_of(InfoCatELBO(0, weights={"kl_w": weight}, **quiet), x) == expected
    objective = InfoCatELBO(0, **quiet)
    assert loss_of(objective, x) == by_hand(x)
    objective.weights["kl_w"] = weight
    assert loss_of(objective, x) == expected
    assert objective.terms["kl_w"].item() == pytest.approx(float(terms_by_hand(x)["kl_w"]))


def test_it_weighs_1_where_the_bounds_own_terms_weigh_nothing() -> None:
    """The programs are run once to look for it, which draws nothing of the run's numbers."""
    x = torch.randn(B, D)
    objective = InfoCatELBO(0, weights=NO_BOUND, **quiet)
    assert loss_of(objective, x) == by_hand(x, reconstruction=0, kl_z=0)


def test_nothing_weighs_anything_is_said() -> None:
    x = torch.randn(B, D)
    with expect(ValueError, "no term of the objective has a weight"):
        InfoCatELBO(0, weights=NO_BOUND | {"kl_w": 0.0}, **quiet).loss(model, guide, x)
    with expect(ValueError, "no term of the objective has a weight"):
        InfoCatELBO(0, weights=NO_BOUND).loss(*make_programs())


def test_programs_are_told_apart() -> None:
    """What one pair's sites are says nothing of the next, though it lie where the first was."""
    x = torch.randn(B, D)
    objective = InfoCatELBO(0, weights=NO_BOUND, **quiet)

    def pair(own: bool) -> tuple[Callable, Callable]:
        def program(x: Tensor, sites: Callable[[Tensor], None]) -> None:
            if own:
                pyro.sample("w", dist.Normal(float(sites is prior), 1.0))
            with pyro.plate("batch", len(x)):
                sites(x)

        def prior(x: Tensor) -> None:
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def posterior(x: Tensor) -> None:
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

        return lambda x: program(x, prior), lambda x: program(x, posterior)

    for _ in range(5):
        assert math.isfinite(objective.loss(*pair(True), x))
        assert set(objective.terms) == {"reconstruction", "kl_w", "kl_z"}
        with expect(ValueError, "no term of the objective has a weight"):
            objective.loss(*pair(False), x)


def test_svi_trains_by_its_weighted_term() -> None:
    """One step down the gradient of half of it: d/dm of log q(w) - log p(w) at w = m + s e is w."""
    x = torch.randn(B, D)
    w = 1 + 0.5 * torch.randn((), generator=torch.Generator().manual_seed(1))
    objective = InfoCatELBO(0, weights=NO_BOUND | {"kl_w": 0.5}, **quiet)
    torch.manual_seed(1)
    SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), objective).step(x)
    assert pyro.param("mean").item() == pytest.approx(1 - 0.1 * 0.5 * w.item(), rel=1e-9)


def test_looking_for_sites_moves_no_statistics() -> None:
    """Normalising layers of the programs remember the examples once a step."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.BatchNorm1d(D)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("batch", len(x)):
                pyro.sample("w", dist.Normal(self.layer(x), 1.0).to_event(1))

    def prior(x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("w", dist.Normal(torch.zeros(D), 1.0).to_event(1))

    normed, x = Normed().train(), torch.randn(B, D)
    InfoCatELBO(0, weights=NO_BOUND, **quiet).loss(prior, normed, x)
    assert normed.layer.num_batches_tracked == 1
    torch.testing.assert_close(normed.layer.running_mean, 0.1 * x.mean(0))


def test_a_weight_of_a_site_that_is_not_there() -> None:
    """The programs alone know their sites, so it is said at the first bound."""
    x = torch.randn(B, D)
    message = "no term 'kl_v' to weigh; there are reconstruction, kl_z, kl_c, information_bound, "
    with expect(ValueError, message):
        InfoCatELBO(0, weights={"kl_v": 0.5}, **quiet).loss(model, guide, x)
    model_, guide_, x = make_programs()
    objective = InfoCatELBO()
    objective.weights["kl_v"] = 0.5
    with expect(ValueError, message):
        objective.loss(model_, guide_, x)


def test_its_weight_is_not_negative() -> None:
    with expect(ValueError, "the weight of kl_w must not be negative, not -1"):
        InfoCatELBO(weights={"kl_w": -1})
