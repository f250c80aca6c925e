"""A run inside a user's own Python process: how it words errors, and what it leaves as it was."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

from pyro_infocat.errors import UserError
from pyro_infocat.runtime.device import cuda_kept
from pyro_infocat.runtime.randomness import random_states, restore_random
from pyro_infocat.settings import DECLARED


@contextmanager
def plain_origin() -> Iterator[None]:
    """Errors name settings as Python code gives them: ``epochs``, not ``--epochs``."""
    try:
        yield
    except UserError as error:
        # Without what it came of, which speaks of flags, and fills a notebook.
        line = error.told(lambda name: "preset" if name == "config" else name)
        raise UserError(in_python(line)) from error.__cause__


NAMES = "|".join([*DECLARED, "out", "resume", "config", "help"])
FLAG = re.compile(
    rf"(?<![^\s(;])--((?:{NAMES})(?:\.\w+)*)(?![\w-])(?: (true|false|[\d.]*\d)(?![\w.]))?"
)
"""A flag as a message names it, with a value that Python writes as well."""


def in_python(line: str) -> str:
    """A line with settings as Python code gives them: ``epochs=3`` for ``--epochs 3``."""

    def keyword(found: re.Match[str]) -> str:
        name, value = found.groups()
        name = {"config": "preset", "help": "Settings in pyro_infocat/settings.py"}.get(name, name)
        return name if value is None else f"{name}={WORDS.get(value, value)}"

    return FLAG.sub(keyword, line)


WORDS = {"true": "True", "false": "False"}


@contextmanager
def global_state_kept() -> Iterator[None]:
    """What a run sets for the whole process is as before afterwards."""
    with cuda_kept(), _generators_kept():
        yield


@contextmanager
def _generators_kept() -> Iterator[None]:
    states, others = random_states(torch.device("cpu")), (random.getstate(), np.random.get_state())
    try:
        with pyro.get_param_store().scope():
            yield
    finally:
        restore_random(states, torch.device("cpu"))
        random.setstate(others[0])
        np.random.set_state(others[1])
