"""SVI where models, parameters or names are shared, held fixed, or met as methods.

Shapes: B batch, D latent dimensions, X features.
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from models import decoders
from models.likelihoods import Bernoulli
from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.programs import D, X, encoder, make_guide, make_programs, mixture
from tests.pyro_infocat.objective.programs import parameters as by_name
from tests.pyro_infocat.objective.ways import assert_same, through_loss, through_svi

pytestmark = pytest.mark.usefixtures("double")


def trained(which: Sequence[int], guide: str, direct: bool) -> list[Tensor]:
    """Two pairs of programs of the same names, of which some are trained by turns."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    pairs = [make_programs("mixture", guide, kl="sampled") for _ in range(2)]
    loops = [
        SVI(*pair[:2], pyro.optim.Adam({"lr": 0.01}), InfoCatELBO(direct=direct)) for pair in pairs
    ]
    for step in range(3):
        for one in which:
            torch.manual_seed(10 * step + one)
            loops[one].step(pairs[one][2])
    return [
        torch.cat([p.detach().flatten() for p in by_name(model, made).values()])
        for model, made, _ in pairs
    ]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("guide", ["enumerated", "bayes"])
def test_two_models_trained_by_turns_are_as_each_alone(guide: str, direct: bool) -> None:
    """Both ask Pyro's store for the same names."""
    untrained, both = trained((), guide, direct), trained((0, 1), guide, direct)
    for one in (0, 1):
        alone = trained([one], guide, direct)
        assert torch.equal(both[one], alone[one])
        assert not torch.equal(both[one], untrained[one])
        assert torch.equal(alone[1 - one], untrained[1 - one])


class Tied(decoders.MLP):
    """Whose last layer is the first of an encoder, turned round."""

    shared: nn.Parameter

    def raw(self, z: Tensor) -> Tensor:
        return (self.network[:2](z) @ self.shared).unsqueeze(-1)


@pytest.mark.parametrize("direct", [True, False])
def test_a_parameter_of_model_and_guide_moves_once(direct: bool) -> None:
    """By the sum of both gradients, which finite differences give."""
    model, guide, x = make_programs()
    shared = guide.encoder.network[0].weight
    decoder = Tied(D, X, Bernoulli(), [4])
    decoder.shared, model.decoder = shared, decoder
    objective = InfoCatELBO(0, direct=direct)
    expected = through_loss(objective, model, guide, x)
    assert_same(through_svi(objective, model, guide, x), expected, "svi")
    losses, step = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            shared[1, 2] += sign * step
        torch.manual_seed(1)
        losses.append(objective.loss(model, guide, x))
        with torch.no_grad():
            shared[1, 2] -= sign * step
    slope = (losses[0] - losses[1]) / (2 * step)
    gradient = expected[1]["guide.encoder.network.0.weight"][1, 2].item()
    assert gradient == pytest.approx(slope, rel=1e-5)
    module = objective(model, guide)
    assert sum(p is shared for p in module.parameters()) == 1


@pytest.mark.parametrize("direct", [True, False])
def test_where_everything_is_held_fixed_nothing_moves(direct: bool) -> None:
    """As with Pyro's own losses, and without a warning."""
    model, guide, x = make_programs()
    for program in (model, guide):
        program.requires_grad_(False)
    before = {name: p.clone() for name, p in by_name(model, guide).items()}
    torch.manual_seed(1)
    loss = SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), InfoCatELBO(direct=direct)).step(x)
    torch.manual_seed(1)
    assert loss == InfoCatELBO(direct=direct).loss(model, guide, x)
    assert all(torch.equal(p, before[name]) for name, p in by_name(model, guide).items())


def test_what_is_held_fixed_is_not_warned_of_by_the_programs() -> None:
    """Warnings are errors here. Its neighbours move."""
    model, guide, x = make_programs("mixture")
    model.prior.mean.requires_grad_(False)
    guide.encoder.requires_grad_(False)
    fixed = {"model.prior.mean", *(n for n in by_name(model, guide) if "guide.encoder." in n)}
    before = {name: p.detach().clone() for name, p in by_name(model, guide).items()}
    SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), InfoCatELBO(direct=False)).step(x)
    still = {n for n, p in by_name(model, guide).items() if torch.equal(p, before[n])}
    assert still == fixed
    bayes = make_guide("bayes", "mlp", model.prior)
    bayes.encoder.requires_grad_(False)
    model.kl = "sampled"
    InfoCatELBO(0).loss(model, bayes, x)


class Pair(nn.Module):
    """Model and guide as two methods of one module, which register nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.encoder = mixture(), encoder()()
        self.weight, self.head = nn.Linear(D, X), nn.Linear(4, D)

    def model(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            c = pyro.sample("c", self.prior.category(), infer={"enumerate": "parallel"})
            z = pyro.sample("z", self.prior.component(c))
            pyro.sample("x", dist.Normal(self.weight(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("z", dist.Normal(self.head(self.encoder(x)), 1.0).to_event(1))


def test_the_graph_is_kept_where_that_is_asked_for() -> None:
    """What was computed once, outside, is gone through in each step."""
    root = torch.randn(X, requires_grad=True)
    centre = root.exp()

    def model(x: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            pyro.sample("x", dist.Normal(centre, 1.0).to_event(1), obs=x)

    quiet = {"strict_enumeration_warning": False}
    x = torch.randn(20, X)
    for _ in range(2):
        InfoCatELBO(0, retain_graph=True, **quiet).loss_and_grads(model, lambda x: None, x)
    slope = (centre * (len(x) * centre - x.sum(0))).detach()
    torch.testing.assert_close(root.grad, 2 * slope)
    InfoCatELBO(0, **quiet).loss_and_grads(model, lambda x: None, x)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        InfoCatELBO(0, **quiet).loss_and_grads(model, lambda x: None, x)


def test_the_module_of_a_method_is_trained() -> None:
    """Each parameter once, though model and guide are of one module."""
    pair, x = Pair(), torch.randn(20, X)
    torch.manual_seed(1)
    InfoCatELBO(0).differentiable_loss(pair.model, pair.guide, x).backward()
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    gradients = {name: p.grad for name, p in pair.named_parameters()}
    pair.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    SVI(pair.model, pair.guide, pyro.optim.SGD({"lr": 1e-3}), InfoCatELBO(0)).step(x)
    for name, parameter in pair.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] - 1e-3 * gradients[name])
        assert gradients[name].abs().max() > 0, name
