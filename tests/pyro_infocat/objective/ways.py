"""The ways to a loss and its gradients: the function, the ELBO module and SVI.

Shapes: B batch, X features.
"""

import re
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from torch import Tensor

from guides.guide import Guide
from models import CatVAE
from pyro_infocat import InfoCatELBO
from tests.pyro_infocat.objective.programs import parameters

Loss = tuple[Tensor, dict[str, Tensor]]
"""A loss and its gradient by each parameter, zero where it has none."""


def with_gradients(loss: Tensor, model: CatVAE, guide: Guide) -> Loss:
    by_name = parameters(model, guide)
    gradients = torch.autograd.grad(loss, list(by_name.values()), allow_unused=True)
    return loss.detach(), {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(by_name.items(), gradients, strict=True)
    }


def through_loss(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    torch.manual_seed(1)
    return with_gradients(objective.differentiable_loss(model, guide, x), model, guide)


def through_module(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    module = objective(model, guide)
    assert {*module.parameters()} == {*parameters(model, guide).values()}
    torch.manual_seed(1)
    loss = module(x)
    loss.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in parameters(model, guide).items()
    }
    module.zero_grad()
    return loss.detach(), gradients


def through_svi(objective: TraceEnum_ELBO, model: CatVAE, guide: Guide, x: Tensor) -> Loss:
    """Gradients read off one step of plain gradient descent with rate 1."""
    by_name = parameters(model, guide)
    before = {name: parameter.detach().clone() for name, parameter in by_name.items()}
    torch.manual_seed(1)
    loss = SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), objective).step(x)
    gradients = {name: before[name] - by_name[name].detach() for name in by_name}
    # For the next way: the step is taken back.
    with torch.no_grad():
        for name, parameter in by_name.items():
            parameter.copy_(before[name])
    return torch.tensor(loss), gradients


WAYS = {"loss": through_loss, "module": through_module, "svi": through_svi}


def assert_same(ours: Loss, expected: Loss, way: str = "loss") -> None:
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-9, atol=0, msg=lambda m: f"{way}: {m}")
    assert ours[1].keys() == expected[1].keys()
    largest = max(gradient.abs().max() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        # What cancels to nearly nothing is held to the size of the whole gradient.
        torch.testing.assert_close(
            ours[1][name],
            gradient,
            rtol=1e-9,
            atol=1e-11 * float(largest),
            msg=lambda m, name=name: f"{way}, gradient of {name}: {m}",
        )


def assert_equals_pyro(model: Callable, guide: Callable, x: Tensor, **options: Any) -> None:
    """The loss is that of TraceEnum_ELBO under the same noise."""
    torch.manual_seed(1)
    loss = InfoCatELBO(0, **options).loss(model, guide, x)
    torch.manual_seed(1)
    plain = TraceEnum_ELBO(**{"max_plate_nesting": 1} | options)
    assert loss == pytest.approx(plain.loss(model, guide, x), rel=1e-9)


def expect(error: type[Exception], message: str) -> Any:
    """The message from its start; Pyro puts the shapes of a failed trace after it."""
    return pytest.raises(error, match=f"^{re.escape(message)}")
