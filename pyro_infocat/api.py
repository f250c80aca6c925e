"""What Python users call: :func:`fit` and :func:`check_parts`. A run itself is in experiment.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet
from pyro_infocat.experiment import read_data, run
from pyro_infocat.in_python import global_state_kept, in_python, plain_origin
from pyro_infocat.instances import check_instances
from pyro_infocat.keywords import given_data, in_memory_data, resolved, usual_preset
from pyro_infocat.kinds import name_of
from pyro_infocat.loading import Run
from pyro_infocat.runtime.device import pick
from pyro_infocat.settings import CONFIG, DECLARED, default
from pyro_infocat.training.number import for_a_try
from pyro_infocat.training.sizes import sized

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

    :param data: a name (digits, mnist, fashion-mnist), a folder of pictures, an .npz or .npy file,
        images (N, height, width), in colour (N, 3, height, width) or (N, height, width, 3), as
        bytes or in [0, 1] (what may be read both ways has its channels first), a table (its file,
        a DataFrame or rows (N, X)), or a data set; the preset's, or else the digits, when not
        given.
    :param labels: of the examples (N,), whole numbers from 0 or words, -1 or "" for one that is not
        known; for evaluation alone, unless ``known_labels`` says how many training may see.
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
    with plain_origin(), global_state_kept():
        given, held = given_data(data, labels, x_test, y_test)
        usual = preset or usual_preset(held)
        chosen, instances, name = resolved("fit", given, usual, settings)
        found = None if held is None else in_memory_data(held, chosen)
        place = Path(out) if out is not None else _new_folder(given, preset, chosen.seed)
        said = "" if preset else name
        return run(chosen, place, resume, found, instances, progress, in_python, said)


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
    with plain_origin(), global_state_kept():
        given, held = given_data(data, labels, None, None)
        usual = preset or usual_preset(held)
        chosen, instances, _ = resolved("check_parts", given, usual, settings)
        device = pick(chosen.device)
        found = read_data(chosen) if held is None else in_memory_data(held, chosen)
        found = found.checked().to(device)
        chosen, _ = sized(for_a_try(chosen), len(found.train))
        pyro.set_rng_seed(chosen.seed)
        parts = Builder(chosen, found.facts, instances=instances).parts(device)
        observed = observation(chosen, parts.model.decoder.likelihood)
        try_parts(chosen, parts, found.train, observed)
        check_instances(chosen, found.facts, parts, instances)
        return parts


def _new_folder(data: str | None, preset: str | Path | None, seed: int) -> Path:
    """A folder below runs that holds nothing yet."""
    name = Path(str(preset)).stem if preset else name_of(data or default(DECLARED["data"]))
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        place = Path("runs") / name / f"seed{seed}{suffix}"
        if not (place / CONFIG).exists():
            return place
        number += 1
