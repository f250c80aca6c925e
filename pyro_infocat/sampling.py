"""Samples, reconstructions and walks from a finished run.

Shapes: B batch, D latent dimensions, S samples or steps, X features.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyro_infocat import pictures
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import observe
from pyro_infocat.data.archive import WHITE, as_rows, in_unit_interval, layouts
from pyro_infocat.data.readers import missing
from pyro_infocat.errors import UserError, reason
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.experiment import read_data
from pyro_infocat.kinds import TABLE, kind_of
from pyro_infocat.loading import Run

ARRAYS = (".npy", ".npz")
Arrays = dict[str, Tensor]


def conditional(
    run: Run, categories: Sequence[int] | None, number: int, temperature: float = 1.0
) -> Arrays:
    """``number`` samples of each category: c (B,), z (B, D) and the mean image x (B, X).

    Of a table x is a row drawn from p(x | z): its mean is no row that there could be.

    :param categories: which; all when None.
    :param temperature: factor on the spread of p(z | c) about its mean.
    :raises UserError: for a category that the run does not have.
    """
    highest = run.model.prior.categories - 1
    chosen = list(range(highest + 1)) if categories is None else list(categories)
    for category in chosen:
        if not 0 <= category <= highest:
            raise UserError(f"the run has 0 to {highest}", "categories", category)
    c = torch.tensor(chosen, device=_device(run)).repeat_interleave(number)
    component = run.model.prior.component(c)
    middle = mean_of(component)
    z = middle + temperature * (component.sample() - middle)
    described = run.model.decoder(z)
    x = described.sample() if run.facts.columns else mean_of(described)
    return {"c": c, "z": z, "x": x}


def reconstruct(run: Run, images: Tensor) -> Arrays:
    """Images (B, X) and what the model makes of them.

    :returns: ``original`` (B, X), ``c`` (B,) the likeliest category, ``q`` (B, K) = q(c | x),
        ``z`` (B, D) the mean of q(z | x, c), ``x`` (B, X) the mean of p(x | z).
    """
    category, latent = run.guide.posterior(observe(images, run.observation))
    c = category.logits.argmax(-1)
    z = mean_of(latent(c))
    return {
        "original": images,
        "c": c,
        "q": category.probs,
        "z": z,
        "x": mean_of(run.model.decoder(z)),
    }


def interpolate(run: Run, ends: Sequence[str], number: int) -> Arrays:
    """A straight walk in z (S, D) between two centres or images, and its images x (S, X).

    :param ends: two category numbers or image files.
    """
    start, stop = (_latent(run, end) for end in ends)
    share = torch.linspace(0, 1, number, device=start.device).unsqueeze(-1)
    # Unlike start + share * (stop - start), it ends at ``stop`` to the last bit.
    z = torch.lerp(start, stop, share)
    return {"z": z, "x": mean_of(run.model.decoder(z))}


def read_images(
    run: Run, names: Sequence[str], data_root: Path, number: int, trust: Sequence[str] = ()
) -> Tensor:
    """Grey images (B, X) in [0, 1] from files, or the first of the test split for 'test'.

    :param number: how many of the test split.
    :param trust: modules outside this project that the run's reader may be of.
    :raises UserError: for a file that cannot be read or whose images have another shape.
    """
    parts = []
    for name in names:
        if name == "test":
            lacking = [] if run.settings.reader else missing(run.settings.data, data_root)
            if lacking:
                # The run's config may be someone else's, and with it the place to write to.
                raise UserError(
                    f"'{data_root}' lacks {lacking[0]}, and nothing is downloaded here; give "
                    "--data_root, where the archives are",
                    "reconstruct",
                    "test",
                )
            data = read_data(replace(run.settings, data_root=str(data_root)), trust)
            if run.facts.columns and data.facts.columns != run.facts.columns:
                raise UserError(
                    f"the columns of '{run.settings.data}' are no longer the run's; give a table",
                    "reconstruct",
                    "test",
                )
            if data.facts.shape != run.facts.shape:
                raise UserError(
                    f"the images of '{run.settings.data}' are now of shape {data.facts.shape}, and "
                    f"the run's were of {run.facts.shape}; give images of its own",
                    "reconstruct",
                    "test",
                )
            parts.append(data.test.grey(slice(number)))
        else:
            parts.append(_read_file(Path(name), run.facts))
    return torch.cat(parts).to(_device(run))


def _latent(run: Run, end: str) -> Tensor:
    highest = run.model.prior.categories - 1
    if re.fullmatch(r"-?\d+", end):
        if not 0 <= int(end) <= highest:
            raise UserError(f"the run has categories 0 to {highest}", "interpolate", end)
        return mean_of(run.model.prior.component(torch.tensor([int(end)], device=_device(run))))
    if not Path(end).exists():
        raise UserError(
            f"no such file '{end}'; give {'a table' if run.facts.columns else 'an image file'}, or "
            f"a category from 0 to {highest}",
            "interpolate",
        )
    images = _read_file(Path(end), run.facts).to(_device(run))
    return reconstruct(run, images[:1])["z"]


def _read_file(path: Path, facts: Facts) -> Tensor:
    if facts.columns:
        from pyro_infocat.data.table import Table

        if kind_of(str(path)) is not TABLE:
            raise UserError(f"'{path}' is no table, and the run was trained on one; give a .csv")
        try:
            return Table(str(path)).again(facts).split.held()
        except UserError as error:
            raise UserError(error.message.removeprefix(": ")) from error
    try:
        array = _read_array(path, facts)
    # The readers of images, arrays and archives raise what they like.
    except Exception as error:
        raise UserError(
            f"cannot read images from '{path}' ({reason(error)}); give a PNG file, or an .npy or "
            ".npz of numbers"
        ) from error
    shape = facts.shape
    # One image, or a batch of them.
    rows = as_rows(array[None] if array.ndim == len(shape) else array, shape)
    if rows is None or not array.size:
        raise UserError(
            f"'{path}' has shape {array.shape}; the run needs {shape} or {layouts(shape, 'B')}"
        )
    # An array's bytes are grey levels of the run's own data, a picture's always go to 255.
    white = facts.levels - 1 if path.suffix in ARRAYS else WHITE
    return torch.from_numpy(in_unit_interval(rows, f"'{path}'", white))


def _read_array(path: Path, facts: Facts) -> np.ndarray:
    if path.exists() and not path.is_file():
        raise OSError("it is no file")  # A pipe would be waited for.
    if path.suffix not in ARRAYS:
        return _read_picture(path, facts)
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        if len(content.files) > 1:
            raise ValueError(
                f"it holds {', '.join(content.files)}, and one array is reconstructed; "
                "python -m pyro_infocat.categorise takes them all"
            )
        name = content.files[0]
        array = content[name]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"'{name}' in it is no array")
    return array


def _read_picture(path: Path, facts: Facts) -> np.ndarray:
    if facts.fitted:
        height, width = facts.shape[-2:]
        with pictures.quiet():
            return np.asarray(pictures.opened(str(path), height, width, facts.colour))
    with warnings.catch_warnings():
        # Of one that is much larger than any run's.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            # A PNG without its end has all its pixels or not.
            image.verify()
        with Image.open(path) as image:
            # Grey levels of more than a byte would become white.
            if image.mode[0] in "IF":
                return np.asarray(image)
            return np.asarray(image.convert("RGB" if facts.colour else "L"))


def _device(run: Run) -> torch.device:
    return run.model.prior.logits.device
