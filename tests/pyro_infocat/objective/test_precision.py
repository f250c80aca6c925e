"""The bound where networks, or all of the programs, compute in half precision or in another one."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from guides import Gumbel
from pyro_infocat import InfoCatELBO
from pyro_infocat.networks import computing_in
from tests.pyro_infocat.objective.programs import D, K, encoder, make_programs
from tests.pyro_infocat.objective.ways import with_gradients

REAL = {"marginal_entropy": 1.0, "conditional_entropy": 1.0}
WAYS: dict[str, tuple[str, bool]] = {
    "direct": ("enumerated", True),
    "traced": ("enumerated", False),
    "bayes": ("bayes", True),
    "relaxed": ("gumbel", True),
}


@pytest.mark.parametrize(("guide_name", "direct"), WAYS.values(), ids=WAYS)
def test_autocast_reaches_the_networks_alone(guide_name: str, direct: bool) -> None:
    """The loss is that of networks in bfloat16 and a bound in float32; the draws are the same."""
    torch.manual_seed(0)
    bayes = guide_name == "bayes"
    model, guide, x = make_programs("mixture", "bayes" if bayes else "enumerated", kl="sampled")
    guide = Gumbel(encoder(), K, D) if guide_name == "gumbel" else guide
    both = nn.ModuleList([model, guide])
    losses = {}
    for name, context in {
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "by hand": computing_in("bfloat16", both),
        "float32": nullcontext(),
    }.items():
        torch.manual_seed(1)
        with context:
            loss = InfoCatELBO(weights=REAL, direct=direct).differentiable_loss(model, guide, x)
        losses[name] = with_gradients(loss, model, guide)
    assert losses["autocast"][0].dtype is torch.float32
    assert losses["autocast"][0] == losses["by hand"][0]
    assert losses["autocast"][0] != losses["float32"][0]
    torch.testing.assert_close(losses["autocast"][0], losses["float32"][0], rtol=5e-3, atol=0)
    # Autocast adds the gradients of a weight that is used twice up in bfloat16.
    for name, gradient in losses["by hand"][1].items():
        found = losses["autocast"][1][name]
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, gradient, rtol=0, atol=0.01 * float(gradient.abs().max()))
    assert "forward" not in vars(model.decoder.network)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype, direct: bool) -> None:
    """A sum over 784 pixels of 128 images is beyond float16; bfloat16 has two or three digits."""
    model, guide, x = make_programs()
    both = nn.ModuleList([model, guide]).to(dtype)
    with pytest.raises(ValueError, match=f"is {dtype}, too coarse for a sum; keep the"):
        InfoCatELBO(direct=direct).loss(*both, x.to(dtype))


@pytest.mark.parametrize("given", ["x", "model", "guide"])
def test_one_precision_is_the_same_everywhere(given: str) -> None:
    parts: dict[str, Any] = dict(zip(("model", "guide", "x"), make_programs(), strict=True))
    parts[given] = parts[given].double()
    said = {name: "torch.float64" if name == given else "torch.float32" for name in parts}
    message = (
        f"^x is {said['x']}, the model {said['model']} and the guide {said['guide']}; give all "
        "three the same$"
    )
    for direct in (True, False):
        with pytest.raises(ValueError, match=message):
            InfoCatELBO(direct=direct).loss(parts["model"], parts["guide"], parts["x"])


@pytest.mark.parametrize("prior", ["orthogonal", "simplex", "mixture", "vamp"])
def test_in_double_the_loss_is_the_same_up_to_rounding(prior: str) -> None:
    """No constant stays behind in float32. Draws differ, so that the terms without any are held."""
    model, guide, x = make_programs(prior)
    terms = []
    for _ in range(2):
        objective = InfoCatELBO(0, weights=REAL)
        objective.evaluate(model, guide, x)
        terms.append(objective.terms)
        model, guide, x = model.double(), guide.double(), x.double()
    assert all(term.dtype is torch.float64 for term in terms[1].values())
    for name in ("kl_z", "kl_c", *REAL):
        torch.testing.assert_close(terms[0][name].double(), terms[1][name], rtol=1e-5, atol=1e-5)
