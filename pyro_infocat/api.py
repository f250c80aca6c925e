"""What Python users call: :func:`fit` and :func:`check_parts`. A run itself is in experiment.py."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.catalogue import IN_MEMORY
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet
from pyro_infocat.data.archive import checked
from pyro_infocat.data.images import of_archive
from pyro_infocat.errors import UserError, reason
from pyro_infocat.experiment import read_data, run
from pyro_infocat.instances import check_instances
from pyro_infocat.loading import Run
from pyro_infocat.parts import named
from pyro_infocat.resolve import Given, Resolver, nearest, preset_of, preset_path, read_config
from pyro_infocat.runtime.device import pick
from pyro_infocat.runtime.randomness import random_states, restore_random
from pyro_infocat.settings import CONFIG, DECLARED, ROLES, SEVERAL, Part, Settings, default

Images = np.ndarray | torch.Tensor


def fit(
    data: str | Path | Images | DataSet | None = None,
    labels: Images | Sequence[int] | None = None,
    *,
    x_test: Images | None = None,
    y_test: Images | Sequence[int] | None = None,
    preset: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Train, evaluate and draw; as ``python -m pyro_infocat.run`` does.

    >>> import numpy as np, pyro_infocat as pic
    >>> from models.priors import Orthogonal
    >>> images = np.random.default_rng(0).random((60, 6, 6))
    >>> run = pic.fit(images, epochs=1, nll_samples=2, prior=Orthogonal(categories=4))
    >>> run.categorise(images[:3]).shape
    (3,)

    :param data: a name (digits, mnist, fashion-mnist), an .npz file, images (N, height, width) as
        bytes or in [0, 1], rows (N, X) likewise, or a data set; the preset's, or else the digits,
        when not given.
    :param labels: of the images (N,), whole numbers from 0, for evaluation alone.
    :param x_test: the test split; a fixed fifth of the images when not given.
    :param y_test: its labels.
    :param preset: the name of a preset, or a YAML file; the data's own when not given.
    :param out: the run's folder; a new one below ``runs`` when not given.
    :param resume: go on with the run in ``out``.
    :param progress: whether to show a bar; None shows one in a terminal or a notebook.
    :param settings: any setting by its name, over the preset's: ``epochs=20``. A part is a dotted
        path, a class, an instance, or ``{"class_path": ..., "init_args": ...}``; an argument of the
        preset's part is ``**{"prior.scale": 5}``.
    :returns: what :func:`pyro_infocat.load` returns. The global random state and Pyro's parameter
        store are as before.
    :raises UserError: for anything given wrong, in one line.
    """
    with _plain_origin(), _global_state_kept():
        given, found = _array_data(data, labels, x_test, y_test)
        resolved, instances = _resolved("fit", given, preset, settings)
        place = Path(out) if out is not None else _new_folder(given, preset, resolved.seed)
        return run(resolved, place, resume, found, instances, progress)


def check_parts(
    data: str | Path | Images | DataSet | None = None,
    labels: Images | Sequence[int] | None = None,
    *,
    preset: str | Path | None = None,
    **settings: Any,
) -> Parts:
    """Build a run's parts and try them on a few examples, without training.

    Takes what :func:`fit` takes of data and settings. For tests of one's own parts:

    >>> import pyro_infocat as pic
    >>> parts = pic.check_parts("digits", prior="models.priors.Simplex")
    >>> parts.model.prior.categories
    10

    :returns: model, guide, view and objective.
    :raises UserError: naming both sides of the first thing that does not fit, in one line.
    """
    with _plain_origin(), _global_state_kept():
        given, held = _array_data(data, labels, None, None)
        resolved, instances = _resolved("check_parts", given, preset, settings)
        device = pick(resolved.device)
        found = (read_data(resolved) if held is None else held).checked().to(device)
        pyro.set_rng_seed(resolved.seed)
        parts = Builder(resolved, found.facts, instances=instances).parts(device)
        observed = observation(resolved, parts.model.decoder.likelihood)
        try_parts(resolved, parts, found.train, observed)
        check_instances(resolved, found.facts, parts, instances)
        return parts


def _array_data(
    data: Any, labels: Any, x_test: Any, y_test: Any
) -> tuple[str | None, DataSet | None]:
    """The name of the data, None for the preset's own, and the data themselves where given.

    :raises UserError: for arrays that are no images.
    """
    if data is None or isinstance(data, str | Path | DataSet):
        if labels is not None or x_test is not None or y_test is not None:
            raise UserError("labels, x_test and y_test belong to arrays of images", "data")
        if isinstance(data, DataSet):
            return IN_MEMORY, data
        return None if data is None else str(data), None
    arrays = {"x_train": data, "y_train": labels, "x_test": x_test, "y_test": y_test}
    held = {name: _array(one) for name, one in arrays.items() if one is not None}
    for name in ("x_train", "x_test"):
        if name in held and held[name].ndim == 2:
            # Rows of X numbers are images of one row.
            held[name] = held[name][:, None]
    return IN_MEMORY, of_archive(checked(held, "the data"), "the data")


def _array(value: Any) -> np.ndarray:
    try:
        return (
            value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        )
    except ValueError as error:
        raise UserError(
            f"cannot be made an array ({reason(error)}); give images and labels as two arguments",
            "data",
        ) from error


def _resolved(
    function: str, data: str | None, preset: str | Path | None, settings: Mapping[str, Any]
) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the parts that were given as instances, by role."""
    if preset is None:
        path = preset_of(default(DECLARED["data"]) if data is None else data)
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
        return resolver.settings(), instances
    except UserError as error:
        raise UserError(error.told(resolver.origin)) from error


def _plain(value: Any) -> Any:
    """A value as a config has it: a path is a word, and NumPy's numbers are Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path | torch.device) else value


def _is_instance(value: Any) -> bool:
    return not (value is None or isinstance(value, str | Mapping | type | Part))


def _new_folder(data: str | None, preset: str | Path | None, seed: int) -> Path:
    """A folder below runs that holds nothing yet."""
    name = Path(str(preset or data or default(DECLARED["data"]))).stem
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        place = Path("runs") / name / f"seed{seed}{suffix}"
        if not (place / CONFIG).exists():
            return place
        number += 1


@contextmanager
def _plain_origin() -> Iterator[None]:
    """Errors name settings as Python code gives them: ``epochs``, not ``--epochs``."""
    try:
        yield
    except UserError as error:
        # Without what it came of, which speaks of flags, and fills a notebook.
        raise UserError(
            error.told(lambda name: "preset" if name == "config" else name)
        ) from error.__cause__


@contextmanager
def _global_state_kept() -> Iterator[None]:
    """What a run sets for the whole process is as before afterwards."""
    states, others = random_states(torch.device("cpu")), (random.getstate(), np.random.get_state())
    try:
        with pyro.get_param_store().scope():
            yield
    finally:
        restore_random(states, torch.device("cpu"))
        random.setstate(others[0])
        np.random.set_state(others[1])
