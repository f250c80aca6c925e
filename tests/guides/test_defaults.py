"""What an argument is that nobody gives.

Old configs hold only what their versions knew: another default would load another guide from them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from guides import Enumerated, Gumbel, SoftCode, encoders
from tests.alike import assert_alike

SHAPE = (6, 5)
GUIDE = {"encoder": lambda: encoders.MLP(5, [4]), "categories": 3, "latent": 2}
ENUMERATED = {"hidden": 128, "shared": False}

DEFAULTS: dict[Callable[..., nn.Module], tuple[dict[str, Any], dict[str, Any]]] = {
    encoders.MLP: ({"features": 5}, {"hidden": (400,), "norm": False}),
    encoders.Convolutional: ({"shape": SHAPE}, {"width": 32, "hidden": 256, "norm": False}),
    encoders.Upright: (
        {"shape": SHAPE},
        {"hidden": (512, 512), "width": 0, "norm": False}
        | {"spread": (0.36, 0.22), "pose_weight": 1.0},
    ),
    encoders.Recurrent: ({"shape": SHAPE}, {"hidden": 128}),
    Enumerated: (GUIDE, ENUMERATED),
    SoftCode: (GUIDE, ENUMERATED | {"quirks": False, "rate": 0.25}),
    Gumbel: (GUIDE, ENUMERATED | {"temperature": 1.0}),
}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_an_argument_that_is_not_given_is_what_it_was(kind: Callable[..., nn.Module]) -> None:
    needed, defaults = DEFAULTS[kind]
    torch.manual_seed(0)
    short = kind(**needed)
    torch.manual_seed(0)
    assert_alike(short, kind(**needed, **defaults))
