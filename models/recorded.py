"""Parts that remember the arguments of their constructor."""

import inspect
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any, Self


class Recorded:
    """Keeps the plain values given to the constructor: a configuration can be written from them.

    Plain are None, bool, int, float and str, and lists, tuples and dicts of those. A path is kept
    as a word and an Enum as its value; other values, such as modules, tensors and functions, are
    left out. So are values taken by ``*args``, which have no name; those taken by ``**kwargs`` are
    kept under their own names.
    """

    constructor_arguments: dict[str, Any]
    """The values by parameter name, without the defaults that were not given."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        instance = super().__new__(cls)
        # nn.Module.__setattr__ is meant for use after nn.Module.__init__, which has not run yet.
        instance.__dict__["constructor_arguments"] = _plain_arguments(cls, args, kwargs)
        return instance


def _plain_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(cls).bind(*args, **kwargs)
    except TypeError:
        # The constructor raises it again. copy and pickle give no arguments and set __dict__ later.
        return {}
    given = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            given.pop(name, None)
        elif parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    plain = {}
    for name, value in given.items():
        with suppress(TypeError):
            plain[name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    """A copy in built-in types alone: a configuration holds no torch.Size and no numpy float.

    :raises TypeError: for a value that is not plain.
    """
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    for sequence in (list, tuple):
        if isinstance(value, sequence):
            return sequence(_plain(item) for item in value)
    # bool first, as it is an int.
    for scalar in (bool, int, float, str):
        if isinstance(value, scalar):
            return scalar(value)
    if value is None:
        return None
    raise TypeError(f"{type(value).__name__} is not plain")
