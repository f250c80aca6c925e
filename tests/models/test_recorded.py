"""What the parts remember of their constructors' arguments, in both packages."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import guides.recorded
import models.recorded
from guides import Bayes, Enumerated, SoftCode, encoders
from models import CatVAE, decoders
from models.likelihoods import Bernoulli, Gaussian
from models.priors import FixedModes, Mixture, Orthogonal, Prior


class Wider(Orthogonal):
    """A constructor of its own, the rest handed on by name."""

    def __init__(self, *rest: int, extra: float = 0.5, **options) -> None:
        super().__init__(**options)
        self.extra = extra


class Inherited(Orthogonal):
    """No constructor of its own."""


def encoder() -> encoders.MLP:
    return encoders.MLP(6, hidden=[4])


def test_both_packages_have_the_same_lines() -> None:
    assert inspect.getsource(models.recorded) == inspect.getsource(guides.recorded)


def test_positional_and_keyword_arguments_without_defaults() -> None:
    assert Orthogonal(4, 1, scale=2.5).constructor_arguments == {
        "categories": 4,
        "delta": 1,
        "scale": 2.5,
    }
    assert Orthogonal().constructor_arguments == {}
    assert Inherited(4).constructor_arguments == {"categories": 4}
    assert Gaussian(learn_scale=True).constructor_arguments == {"learn_scale": True}
    assert Bernoulli().constructor_arguments == {}
    assert encoder().constructor_arguments == {"features": 6, "hidden": [4]}


def test_what_is_not_plain_is_left_out() -> None:
    """Tensors, modules, functions, and lists that hold any."""
    assert FixedModes(torch.eye(2), [1, 2]).constructor_arguments == {"weights": [1, 2]}
    prior = Mixture(3, 3)
    decoder = decoders.MLP(3, 6, Bernoulli(), hidden=(4,))
    assert decoder.constructor_arguments == {"latent": 3, "features": 6, "hidden": (4,)}
    assert CatVAE(prior, decoder, kl="sampled").constructor_arguments == {"kl": "sampled"}
    assert Bayes(encoder, prior, 3).constructor_arguments == {"latent": 3}
    assert Enumerated(encoder, 3, latent=3).constructor_arguments == {"categories": 3, "latent": 3}
    assert SoftCode(encoder, 3, 3, quirks=True).constructor_arguments == {
        "categories": 3,
        "latent": 3,
        "quirks": True,
    }


class Anything(models.recorded.Recorded, nn.Module):
    def __init__(self, value: object, cls: object = None) -> None:
        super().__init__()


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.5, "word", [1, [2.0]], (1, ("a", None)), {"a": [1], 2: {"b": (True,)}}],
)
def test_plain_values_are_kept_as_they_are(value: object) -> None:
    kept = Anything(value).constructor_arguments["value"]
    assert kept == value
    assert type(kept) is type(value)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(1), nn.ReLU(), len, object(), [1, torch.zeros(1)], {"a": (len,)}, {len: 1}, {1}],
)
def test_other_values_are_left_out(value: object) -> None:
    assert Anything(value, cls="kept").constructor_arguments == {"cls": "kept"}


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.float64(0.5), 0.5), (torch.Size([2, 3]), (2, 3)), ([np.float64(2)], [2.0])],
)
def test_subclasses_become_built_in(value: object, plain: object) -> None:
    kept = Anything(value).constructor_arguments["value"]
    assert kept == plain
    assert repr(kept) == repr(plain)


def test_a_list_that_changes_later_is_kept_as_it_was_given() -> None:
    weights = [1.0, 2.0]
    prior = Mixture(2, 2, weights=weights)
    weights.append(3.0)
    assert prior.constructor_arguments["weights"] == [1.0, 2.0]


def test_a_subclass_with_its_own_constructor() -> None:
    """Its own names, not those that it hands to super(); ``*args`` has none."""
    prior = Wider(7, extra=1.5, categories=4, delta=1)
    assert prior.constructor_arguments == {"extra": 1.5, "categories": 4, "delta": 1}
    assert Wider(**prior.constructor_arguments).constructor_arguments == prior.constructor_arguments


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_copies_keep_them(copied) -> None:
    for part in (Orthogonal(4, delta=1), decoders.MLP(3, 6, Bernoulli(), [4])):
        twin = copied(part)
        assert twin.constructor_arguments == part.constructor_arguments
        assert twin.constructor_arguments is not part.constructor_arguments
        for name, tensor in part.state_dict().items():
            assert torch.equal(twin.state_dict()[name], tensor)


def test_the_module_is_as_without_them() -> None:
    prior = Orthogonal(4, delta=1)
    assert set(prior.state_dict()) == {"logits", "modes"}
    assert list(inspect.signature(Orthogonal).parameters)[:3] == ["categories", "delta", "scale"]


def test_arguments_that_do_not_fit_are_the_constructors_to_refuse() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'breadth'"):
        Orthogonal(breadth=3)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Anything()
    assert Anything.__new__(Anything).constructor_arguments == {}
    with pytest.raises(TypeError, match="abstract"):
        Prior(3, 3)
