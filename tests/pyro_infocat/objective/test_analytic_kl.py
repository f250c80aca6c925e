"""``infer={"kl": "analytic"}``: the closed form, and where there is none.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from torch import Tensor

from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.by_hand import kl_normal, log_normal, plain_loss_by_hand
from tests.pyro_infocat.objective.programs import (
    MASK,
    B,
    D,
    K,
    X,
    make_programs,
    plain_guide,
    plain_model,
)
from tests.pyro_infocat.objective.ways import assert_equals_pyro, expect

pytestmark = pytest.mark.usefixtures("double")


def test_a_chain_of_analytic_kls() -> None:
    """Of two latents the second depends on the first, in the model and in the guide."""
    modes, means = torch.randn(K, D), torch.randn(K, D)
    odds = torch.tensor([0.1, 0.2, 0.7])

    def model(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(odds.flip(0)))
            analytic = {"kl": "analytic"}
            code = pyro.sample("code", dist.Normal(modes[kind], 1).to_event(1), infer=analytic)
            shade = pyro.sample("shade", dist.Normal(code, 2).to_event(1), infer=analytic)
            pyro.sample("image", dist.Normal(shade, 1).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            kind = pyro.sample("kind", dist.Categorical(odds), infer={"enumerate": "parallel"})
            code = pyro.sample("code", dist.Normal(x + means[kind], 0.5).to_event(1))
            pyro.sample("shade", dist.Normal(code / 2, 0.7).to_event(1))

    x = torch.randn(B, D)
    torch.manual_seed(1)
    loss = InfoCatELBO(0).loss(model, guide, x)
    torch.manual_seed(1)
    code = x + means.unsqueeze(1) + 0.5 * torch.randn(K, B, D)
    shade = code / 2 + 0.7 * torch.randn(K, B, D)
    unit = torch.ones(D)
    costs = (
        kl_normal(x + means.unsqueeze(1), 0.5 * unit, modes.unsqueeze(1), unit)
        + kl_normal(code / 2, 0.7 * unit, code, 2 * unit)
        + (odds / odds.flip(0)).log().unsqueeze(-1)
    )
    expected = odds @ (log_normal(x, shade, unit) - costs)
    assert loss == pytest.approx(-expected.sum().item(), rel=1e-9)


def test_an_analytic_kl_is_not_asked_of_what_is_observed() -> None:
    """A condition on the code leaves its likelihood to count."""

    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    model = poutine.condition(plain_model("analytic"), {"code": torch.randn(B, D)})
    assert_equals_pyro(model, guide, torch.randn(B, X))


COUNTED: dict[str, tuple[Callable, Tensor]] = {
    "masked and scaled": (
        lambda program: poutine.mask(poutine.scale(program, 3.0), mask=MASK),
        3.0 * MASK,
    ),
    "scaled one by one": (
        lambda program: poutine.scale(program, torch.linspace(0.5, 2, B)),
        torch.linspace(0.5, 2, B),
    ),
    "masked as a whole": (lambda program: poutine.mask(program, mask=False), torch.zeros(B)),
}


@pytest.mark.parametrize(("wrap", "counts"), COUNTED.values(), ids=COUNTED)
def test_an_analytic_kl_counts_as_often_as_its_site(wrap: Callable, counts: Tensor) -> None:
    x = torch.randn(B, X)
    objective = InfoCatELBO(0)
    torch.manual_seed(1)
    objective.loss(plain_model("analytic"), plain_guide, x)
    torch.manual_seed(1)
    loss = objective.loss(wrap(plain_model("analytic")), wrap(plain_guide), x)
    torch.manual_seed(1)
    assert loss == pytest.approx(plain_loss_by_hand(x, "analytic", counts).item(), rel=1e-9)


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda program: poutine.scale(program, 0.1), "scale"),
        (lambda program: poutine.mask(program, mask=MASK), "mask"),
    ],
)
def test_no_analytic_kl_where_the_model_alone_counts_otherwise(wrap: Callable, kind: str) -> None:
    said = f"site 'code': no analytic KL while its {kind} in the guide is not the model's"
    with pytest.raises(ValueError, match=said):
        InfoCatELBO(0).loss(wrap(plain_model("analytic")), plain_guide, torch.randn(B, X))


@pytest.mark.parametrize("word", ["exact", None])
def test_unknown_kl(word: Any) -> None:
    message = f"site 'code': infer kl must be 'analytic' or 'sampled', not {word!r}"
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model(word), plain_guide, torch.randn(B, X))


@pytest.mark.parametrize("direct", [False, True])
def test_unknown_kl_of_the_model(direct: bool) -> None:
    """Said where the model is made or at the first bound, on either path."""

    def evaluate() -> None:
        InfoCatELBO(0, direct=direct).loss(*make_programs(kl="exakt"))

    with pytest.raises(ValueError, match="kl must be 'analytic' or 'sampled', not 'exakt'"):
        evaluate()


def test_analytic_kl_of_a_marginalised_category() -> None:
    message = (
        "site 'z': no analytic KL while the model sums out 'c'; "
        "use kl='sampled', or a guide that samples it"
    )
    programs = make_programs(guide="bayes", kl="analytic")
    with expect(ValueError, message):
        InfoCatELBO(0).loss(*programs)


def test_analytic_kl_where_the_guide_draws_the_parent_later() -> None:
    def backwards(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            code = pyro.sample("code", dist.Normal(x[:, :D], 1).to_event(1))
            odds = dist.Categorical(logits=code)
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    message = (
        "site 'code': no analytic KL while the guide draws 'kind' after it; "
        "use kl='sampled', or draw it first"
    )
    x = torch.randn(B, X)
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model("analytic"), backwards, x)
    # The way out that the message names.
    assert_equals_pyro(plain_model("sampled"), backwards, x)


@pytest.mark.parametrize("event_dims", [0, 1])
def test_analytic_kl_of_an_unregistered_pair(event_dims: int) -> None:
    """The message names the two distributions, not what wraps them."""

    def model(kl: str) -> Callable[[Tensor], None]:
        def program(x: Tensor) -> None:
            standard = dist.Normal(torch.zeros_like(x), 1).to_event(event_dims)
            with pyro.plate("images", B):
                code = pyro.sample("code", standard, infer={"kl": kl})
                pyro.sample("image", dist.Normal(code, 1).to_event(event_dims), obs=x)

        return program

    def guide(x: Tensor) -> None:
        with pyro.plate("images", B):
            pyro.sample("code", dist.StudentT(5.0, x).to_event(event_dims))

    x = torch.randn([B, D][: event_dims + 1])
    # Nothing is there to enumerate.
    quiet = {"strict_enumeration_warning": False}
    message = "site 'code': no analytic KL between StudentT and Normal; use kl='sampled'"
    with expect(ValueError, message):
        InfoCatELBO(0, **quiet).loss(model("analytic"), guide, x)
    assert_equals_pyro(model("sampled"), guide, x, **quiet)


def test_analytic_kl_of_a_guide_that_is_not_reparameterised() -> None:
    def guide(x: Tensor) -> None:
        code = NonreparameterizedNormal(x[:, :D], torch.ones(D)).to_event(1)
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.ones(K))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})
            pyro.sample("code", code)

    message = "site 'code': an analytic KL needs a reparameterised guide, not "
    x = torch.randn(B, X)
    with expect(ValueError, message):
        InfoCatELBO(0).loss(plain_model("analytic"), guide, x)
    assert_equals_pyro(plain_model("sampled"), guide, x)


# Pyro warns of it too, on its way to the error.
@pytest.mark.filterwarnings("ignore:Found vars in model but not guide")
def test_analytic_kl_of_a_site_that_the_guide_lacks() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("images", len(x)):
            odds = dist.Categorical(torch.ones(K))
            pyro.sample("kind", odds, infer={"enumerate": "parallel"})

    with expect(ValueError, "site 'code': an analytic KL needs the site in the guide too"):
        InfoCatELBO(0).loss(plain_model("analytic"), guide, torch.randn(B, X))
