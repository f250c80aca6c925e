"""Copies of model and guide: averaged, pickled, copied; and parts that are not each other's.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from guides import Bayes, Gumbel, SoftCode
from guides.guide import Guide
from models import CatVAE
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective import Batch, Term
from tests.pyro_infocat.objective.programs import D, K, encoder, make_programs
from tests.pyro_infocat.objective.ways import assert_same, expect, through_loss

pytestmark = pytest.mark.usefixtures("double")

GUIDES: dict[str, Callable[[], Guide]] = {
    "gumbel": lambda: Gumbel(encoder(), K, D),
    "soft": lambda: SoftCode(encoder(), K, D),
    "quirks": lambda: SoftCode(encoder(), K, D, quirks=True),
}
Both = tuple[CatVAE, Guide]
TOGETHER: dict[str, Callable[[CatVAE, Guide], Both]] = {
    "copied": lambda model, guide: copy.deepcopy((model, guide)),
    "averaged": lambda *both: tuple(AveragedModel(nn.ModuleList(both)).module),
    "pickled": lambda *both: pickle.loads(pickle.dumps(both)),
}
ALONE: dict[str, Callable[[CatVAE, Guide], Both]] = {
    "copied": lambda model, guide: (copy.deepcopy(model), copy.deepcopy(guide)),
    "averaged": lambda model, guide: (AveragedModel(model).module, AveragedModel(guide).module),
    "pickled": lambda model, guide: (
        pickle.loads(pickle.dumps(model)),
        pickle.loads(pickle.dumps(guide)),
    ),
}


def programs(guide: str) -> tuple[CatVAE, Guide, torch.Tensor]:
    model, made, x = make_programs(
        "mixture", guide if guide in ("enumerated", "shared", "bayes") else "enumerated",
        kl="sampled" if guide == "bayes" else "analytic",
    )  # fmt: skip
    return model, GUIDES[guide]() if guide in GUIDES else made, x


@pytest.mark.parametrize("guide", ["enumerated", "shared", "bayes", *GUIDES])
@pytest.mark.parametrize("way", TOGETHER)
def test_copies_of_both_have_the_loss_and_gradients(way: str, guide: str) -> None:
    model, original, x = programs(guide)
    others = TOGETHER[way](model, original)
    assert {id(p) for one in others for p in one.parameters()}.isdisjoint(
        id(p) for one in (model, original) for p in one.parameters()
    )
    objective = InfoCatELBO(weights={"marginal_entropy": 1.0})
    expected = through_loss(objective, model, original, x)
    assert_same(through_loss(objective, *others, x), expected)


@pytest.mark.parametrize("guide", ["enumerated", "shared", *GUIDES])
@pytest.mark.parametrize("way", ALONE)
def test_copies_of_each_have_the_loss_and_gradients(way: str, guide: str) -> None:
    model, original, x = programs(guide)
    expected = through_loss(InfoCatELBO(), model, original, x)
    assert_same(through_loss(InfoCatELBO(), *ALONE[way](model, original), x), expected)


@pytest.mark.parametrize(
    "apart",
    [
        lambda model, guide: (AveragedModel(model).module, guide),
        lambda model, guide: (model, pickle.loads(pickle.dumps(guide))),
        lambda model, guide: (copy.deepcopy(model), guide),
    ],
    ids=["model averaged", "guide pickled", "model copied"],
)
def test_a_bayes_guide_of_another_prior_is_refused(
    apart: Callable[[CatVAE, Guide], Both],
) -> None:
    """Its q(c | x) would be read off a prior that is never trained."""
    model, guide, x = programs("bayes")
    others = apart(model, guide)
    for objective in (InfoCatELBO(0), InfoCatELBO(0, direct=False)):
        with expect(ValueError, "Bayes reads p(c|z) off a prior that is not the model's; make it"):
            objective.loss(*others, x)


def test_the_prior_of_a_bayes_guide_is_the_models() -> None:
    model, guide, _ = programs("bayes")
    assert isinstance(guide, Bayes)
    assert guide.prior is model.prior
    assert "prior" not in dict(guide.named_modules())


def test_a_copy_has_a_dropout_rate_of_its_own() -> None:
    """Under quirks dropout stays on at test time: without any, two passes are the same."""
    _, guide, x = programs("quirks")
    other = copy.deepcopy(guide)
    other.rate = 0.0
    assert torch.equal(other.category(x).logits, other.category(x).logits)
    assert not torch.equal(guide.category(x).logits, guide.category(x).logits)


class Looks(Term):
    """A user's own term, which classifies other images."""

    name, sign = "looks", 1

    def __call__(self, batch: Batch) -> torch.Tensor:
        return batch.classify(1 - batch.x).logits.sum()


def test_what_is_around_a_module_or_of_it_is_not_taken_for_it() -> None:
    model, guide, x = make_programs()
    needs = "the information bound needs model.generate(number), model.prior and guide.critic(x), "
    entropy = InfoCatELBO(0, weights={"marginal_entropy": 1.0})
    for wrapped, said in (
        ((AveragedModel(model), AveragedModel(guide)), "give what is in the wrapper, its .module"),
        ((model.forward, guide.forward), "give the module itself, not its method"),
    ):
        with pytest.raises(TypeError, match=f"; {said}$") as caught:
            InfoCatELBO(1).loss(*wrapped, x)
        assert str(caught.value).startswith(needs)
        with expect(
            TypeError,
            f"marginal_entropy needs guide.category(x), as guides.guide.Guide has it; {said}",
        ):
            entropy.loss(*wrapped, x)
        with expect(
            TypeError, f"a term needs guide.category(x), as guides.guide.Guide has it; {said}"
        ):
            InfoCatELBO(0, extra=[Looks()]).loss(*wrapped, x)
        # The bound itself needs no more than a program.
        torch.manual_seed(1)
        loss = InfoCatELBO(0).loss(*wrapped, x)
        torch.manual_seed(1)
        assert loss == pytest.approx(InfoCatELBO(0, direct=False).loss(model, guide, x), rel=1e-12)
