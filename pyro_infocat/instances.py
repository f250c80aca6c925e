"""Whether config.yaml describes the parts that the user made: what cannot be rebuilt is refused.

A run is loaded and resumed from its config. A part whose constructor got a function, or whose
attributes were changed afterwards, would come back as another one without a word.
"""

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from pyro_infocat.build import Builder, Parts
from pyro_infocat.catalogue import Facts
from pyro_infocat.errors import UserError
from pyro_infocat.parts import is_plain, plain
from pyro_infocat.settings import SEVERAL, Settings

OF_TORCH = ("training", "constructor_arguments")


def check_instances(
    settings: Settings, facts: Facts, parts: Parts, instances: Mapping[str, Any]
) -> None:
    """Refuse an instance that the settings' classes and arguments do not give again.

    :param parts: with copies of the instances, before training.
    :raises UserError: naming the first difference.
    """
    roles = {role for role in instances if role not in SEVERAL}
    if not roles:
        return
    with torch.random.fork_rng(devices=[]):
        again = Builder(settings, facts).parts(torch.device("cpu"))
    # A decoder has its likelihood inside, and an encoder is inside of the guide.
    roles |= {"likelihood"} if "decoder" in roles else set()
    roles = {"guide" if role == "encoder" else role for role in roles}
    for role in sorted(roles):
        mine, other = (one.schedulable()[role][0] for one in (parts, again))
        for difference in _differences(mine, other):
            raise UserError(
                f"config.yaml would not give this instance again: {difference}; make it by its "
                "constructor from plain arguments, or give its class by path",
                role,
                type(mine).__name__,
            )


def _differences(one: Any, other: Any) -> Iterator[str]:
    """How a part differs from the one that its config gives, apart from the values of tensors."""
    held, again = (
        dict(part.named_modules()) if isinstance(part, nn.Module) else {"": part}
        for part in (one, other)
    )
    if held.keys() != again.keys():
        yield f"it has other modules ({', '.join(sorted(held.keys() ^ again.keys()))})"
        return
    for place, module in held.items():
        twin, where = again[place], f"'{place}' " if place else "it "
        if type(module) is not type(twin):
            yield f"{where}is a {type(module).__name__}, and would be a {type(twin).__name__}"
            return
        for name in sorted(vars(module).keys() | vars(twin).keys()):
            if name not in OF_TORCH and not name.startswith("_forward"):
                mine, its = vars(module).get(name), vars(twin).get(name)
                if _unlike(mine, its):
                    yield f"{where}has {name} {mine!r}, and would have {its!r}"
    if isinstance(one, nn.Module):
        yield from _other_tensors(one, other)


def _unlike(mine: Any, its: Any) -> bool:
    if isinstance(mine, FunctionType) or isinstance(its, FunctionType):
        return getattr(mine, "__code__", None) != getattr(its, "__code__", None)
    if is_plain(mine) and is_plain(its):
        return plain(mine) != plain(its)
    return False


def _other_tensors(one: nn.Module, other: nn.Module) -> Iterator[str]:
    held, again = one.state_dict(keep_vars=True), other.state_dict(keep_vars=True)
    for name in sorted(held.keys() | again.keys()):
        mine, its = held.get(name), again.get(name)
        if not isinstance(mine, Tensor) or not isinstance(its, Tensor):
            yield f"its '{name}' is there in one of the two alone"
        elif mine.shape != its.shape:
            yield f"its '{name}' has shape {tuple(mine.shape)}, and would have {tuple(its.shape)}"
        elif mine.requires_grad != its.requires_grad:
            yield f"its '{name}' is {'learned' if mine.requires_grad else 'held fixed'}"
