"""From what Python code gives, data and keyword arguments, to a data set and settings."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_infocat.catalogue import IN_MEMORY
from pyro_infocat.data import DataSet
from pyro_infocat.data.archive import checked
from pyro_infocat.data.images import of_archive
from pyro_infocat.errors import UserError, reason
from pyro_infocat.kinds import TABLE
from pyro_infocat.loading import is_frame
from pyro_infocat.parts import named
from pyro_infocat.places import PRESETS
from pyro_infocat.resolve import Given, Resolver, nearest, preset_of, preset_path, read_config
from pyro_infocat.settings import DECLARED, ROLES, SEVERAL, Part, Settings, default


def given_data(
    data: Any, labels: Any, x_test: Any, y_test: Any, whole: bool = False
) -> tuple[str | None, Any]:
    """The name of the data, None for the preset's own, and what was given in their place.

    That is a data set or the rows of a table, which only settings say what to make of.

    :param whole: hold no image out: train and test on the same.

    :raises UserError: for arrays that are neither images nor a table.
    """
    if data is None or isinstance(data, str | Path | DataSet):
        if labels is not None or x_test is not None or y_test is not None:
            raise UserError("labels, x_test and y_test belong to arrays of images", "data")
        if isinstance(data, DataSet):
            return IN_MEMORY, data
        return None if data is None else str(data), None
    arrays = {"x_train": data, "y_train": labels, "x_test": x_test, "y_test": y_test}
    held = {name: _array(one) for name, one in arrays.items() if one is not None}
    if is_frame(data) or held["x_train"].ndim == 2:
        # pandas is imported for those who have tables alone.
        from pyro_infocat.data.table import in_memory

        return IN_MEMORY, in_memory(data, x_test, held)
    return IN_MEMORY, of_archive(checked(held, "the data"), "the data", whole=whole)


def usual_preset(held: Any) -> str | None:
    """The preset of a table, or the one that a data set says; None where that is none of ours."""
    if isinstance(held, DataSet):
        own = held.facts.preset
        return own if own in {file.stem for file in PRESETS.glob("*.yaml")} else None
    return None if held is None else TABLE.preset


def in_memory_data(held: Any, settings: Settings, whole: bool = False) -> DataSet:
    """The data that were given in Python, as settings say to take them.

    :param whole: hold no row of a table out.
    :raises UserError: for settings of another kind of data, or a table that cannot be used.
    """
    if isinstance(held, DataSet):
        for name in ("data_label", "data_columns"):
            if getattr(settings, name) is not None:
                raise UserError("is of tables, and the data are none; leave it out", name)
        return held
    from pyro_infocat.data.table import data_set

    return data_set(held, "the data", settings.data_label, settings.data_columns, whole)


def _array(value: Any) -> np.ndarray:
    try:
        return (
            value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        )
    # A TypeError or RuntimeError is of a tensor that NumPy knows no like of, such as bfloat16.
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot be made an array ({reason(error)}); give arrays, or dense tensors of float32 "
            "or bytes, images and labels as two arguments",
            "data",
        ) from error


def resolved(
    function: str, data: str | None, preset: str | Path | None, settings: Mapping[str, Any]
) -> tuple[Settings, dict[str, Any], str]:
    """The settings, the parts that were given as instances, by role, and the preset's name."""
    if preset is None:
        reader = settings.get("reader") is not None
        path = preset_of(default(DECLARED["data"]) if data is None else data, reader)
    else:
        path = preset_path(str(preset)) if "." not in str(preset) else Path(preset)
    below, unknown = read_config(path)
    for line in unknown:
        print(line, file=sys.stderr)
    given = [] if data in (None, IN_MEMORY) else [Given(("data",), data, "")]
    instances: dict[str, Any] = {}
    for name, value in settings.items():
        key = tuple(name.split("."))
        if key[0] not in DECLARED:
            listed = "Settings in pyro_infocat/settings.py"
            raise TypeError(f"{function}() has no setting '{name}'; {nearest(name, listed)}")
        if name in SEVERAL:
            value = list(value) if isinstance(value, list | tuple) else [value]
            made = [_is_instance(one) for one in value]
            if any(made) and not all(made):
                raise TypeError(f"{name}: give instances alone, or none")
            if any(made):
                instances[name] = value
        elif name in ROLES and _is_instance(value):
            instances[name] = value
        given.append(Given(key, _plain(value), ""))
    for name in settings:
        role, _, argument = name.partition(".")
        if argument and role in instances:
            raise TypeError(f"{name}: {role} is an instance; give it the argument")
    for role, made in instances.items():
        base = named(ROLES[role].base)
        for one in made if role in SEVERAL else [made]:
            if not isinstance(one, base):
                raise TypeError(f"{role}: a {type(one).__name__} is no {base.__name__}")
    resolver = Resolver([*below, *given], source="")
    if data == IN_MEMORY:
        resolver.in_memory = True
    try:
        return resolver.settings(), instances, path.stem
    except UserError as error:
        raise UserError(error.told(resolver.origin)) from error


def _plain(value: Any) -> Any:
    """A value as a config has it: a path is a word, and NumPy's numbers are Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path | torch.device) else value


def _is_instance(value: Any) -> bool:
    return not (value is None or isinstance(value, str | Mapping | type | Part))
