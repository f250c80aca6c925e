"""What ends training: numbers that are not finite."""

import math

import pyro
import pytest
from torch import nn

from models import CatVAE
from pyro_infocat import UserError
from pyro_infocat.build import Parts
from pyro_infocat.data.readers import digits
from pyro_infocat.training.loop import (
    diagnose,
)
from tests.pyro_infocat.training.pieces import fit, make_parts, settings

pytestmark = pytest.mark.usefixtures("alone")


def test_the_term_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a draw from NaN raises before its term can say so."""

    def generate(*_: object) -> None:
        raise RuntimeError("probabilities must be finite")

    def spoil(parts: Parts) -> None:
        # Finite, but what is computed from them is not: infinities of both signs.
        first, last = parts.model.decoder.network[0], parts.model.decoder.network[-1]
        for layer in (first, last):
            layer.weight.data.fill_(3e38)
        last.weight.data[:, ::2] *= -1

    monkeypatch.setattr(CatVAE, "generate", generate)
    said = r"stopped at step 1 of epoch 1: reconstruction is nan; the checkpoint"
    # As in a run: with Pyro's checks of every value on, those would raise.
    with pyro.validation_enabled(False), pytest.raises(UserError, match=said):
        fit(settings(epochs=1), before=spoil)


def test_a_parameter_that_is_not_finite_is_named() -> None:
    def spoil(parts: Parts) -> None:
        nn.init.constant_(parts.guide.from_x.bias, math.nan)

    with pytest.raises(UserError, match=r"epoch 1: the parameter guide.from_x.bias is not finite"):
        fit(settings(epochs=1), before=spoil)


def test_of_finite_terms_nothing_is_said() -> None:
    parts = make_parts(settings())
    x = digits().train.grey(slice(20))
    with pyro.validation_enabled(False):
        found = [diagnose(parts.bound, parts.model, parts.guide, x)]
        nn.init.constant_(parts.model.decoder.network[-1].bias, math.nan)
        found.append(diagnose(parts.bound, parts.model, parts.guide, x))
    assert found == [None, "reconstruction is nan"]


def test_an_error_of_a_users_own_is_not_taken_for_one_of_numbers() -> None:
    def spoil(parts: Parts) -> None:
        def broken(*_: object) -> None:
            raise ValueError("not of numbers")

        parts.guide.classifier.register_forward_hook(broken)

    with pytest.raises(ValueError, match=r"^not of numbers$"):
        fit(settings(epochs=1), before=spoil)
