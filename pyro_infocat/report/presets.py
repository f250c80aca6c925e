"""Which preset a run is nearest to, and in what it differs."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pyro_infocat.errors import UserError
from pyro_infocat.places import PRESETS
from pyro_infocat.resolve import Given, Resolver, preset_path, read_config
from pyro_infocat.settings import MACHINE, Settings
from pyro_infocat.storage.folder import differences


class Beside(NamedTuple):
    """A preset beside a run.

    :ivar changed: each setting that differs, with the preset's value and the run's.
    """

    preset: str
    changed: list[tuple[str, Any, Any]]


def nearest(settings: Settings, usual: str) -> Beside | None:
    """Of the data's own preset and others for the same data, the one that differs least.

    None where no preset can be read.

    :param usual: the name of the data's own.
    """
    files = [f for f in sorted(PRESETS.glob("*.yaml")) if _data_of(f) == settings.data]
    with suppress(UserError):
        own = preset_path(usual)
        files = [own, *(file for file in files if file != own)]
    found = []
    for file in files:
        with suppress(UserError):
            found.append(Beside(file.stem, _changed(read_config(file)[0], settings)))
    return min(found, key=lambda one: len(one.changed), default=None)


def _data_of(file: Path) -> str:
    """What a preset is for, without reading the rest of it, which takes a while."""
    found = re.search(r"^data: (\S+)$", file.read_text(), re.MULTILINE)
    return found.group(1) if found else ""


def _changed(preset: list[Given], settings: Settings) -> list[tuple[str, Any, Any]]:
    """What differs. Where a part is of another class, that alone is told of it."""
    resolver = Resolver(preset)
    # Data of the run's own need not lie where they lay.
    resolver.in_memory = True
    every = list(differences(resolver.settings(), settings))
    classes = {key.removesuffix("class_path") for key, *_ in every if key.endswith(".class_path")}
    return [
        (key, then, now)
        for key, then, now in every
        if key.partition(".")[0] not in MACHINE | {"data"}
        and (key.endswith(".class_path") or not key.startswith(tuple(classes) or "\0"))
    ]
