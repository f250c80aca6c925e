"""``python -m pyro_infocat.sample RUN``: generate, reconstruct and interpolate from a run.

Shapes: B batch, K categories, D latent dimensions, S samples, X features.
"""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_infocat.cli.command_line import answer, positional, writing
from pyro_infocat.errors import UserError
from pyro_infocat.settings import MOST_SEED, setting
from pyro_infocat.storage.configuration import check_run
from pyro_infocat.storage.files import replace

MODULE = "pyro_infocat.sample"

MOST_DRAWN = 100
"""Images across and down of a PNG; the .npz holds all."""

LARGEST = 256
"""Side to which an image of a PNG is enlarged at most."""


@dataclass(frozen=True)
class Options:
    """Generate, reconstruct and interpolate from a finished run."""

    run: Path = positional("the folder of a run")
    number: int | None = setting(
        None,
        "samples of each category, steps between two, or images of 'test'; default 10",
        least=1,
        most=100_000,
    )
    temperature: float = setting(1.0, "factor on the spread of p(z|c)", least=0, most=1e6)
    categories: list[int] | None = setting(None, "which categories; all when not given")
    reconstruct: list[str] | None = setting(
        None,
        "reconstruct images: PNG or JPEG files, an .npy or .npz of shape (B, height, width), or "
        "(B, 3, height, width) in colour, in [0, 1] or bytes, or 'test' for the first of the test "
        "split",
    )
    interpolate: list[str] | None = setting(
        None,
        "walk between two category centres (numbers) or two images (files, the first of each)",
    )
    trust: list[str] | None = setting(
        None,
        "modules outside this project whose code may be run, where the run's config names them",
    )
    data_root: str | None = setting(
        None, "where the archives are, for --reconstruct test; default the run's"
    )
    seed: int = setting(0, "of every random number", least=0, most=MOST_SEED)
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")
    out: Path | None = setting(None, "folder for PNG and .npz; default RUN/samples")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return answer(Options, argv, MODULE, write)


def write(options: Options) -> None:
    """Do what the options ask and write a PNG and an .npz of it.

    :raises UserError: for anything that the user gave wrong.
    """
    _check(options)
    import numpy as np
    import torch
    from torchvision.utils import save_image

    from pyro_infocat import sampling
    from pyro_infocat.loading import load
    from pyro_infocat.runtime.device import pick

    pick(options.device)
    number = options.number or 10
    trust = options.trust or ()
    run = load(options.run, options.device, trust)
    torch.manual_seed(options.seed)
    with torch.no_grad():
        if options.reconstruct:
            root = Path(options.data_root or run.settings.data_root)
            images = sampling.read_images(run, options.reconstruct, root, number, trust)
            name, arrays = "reconstructions", sampling.reconstruct(run, images)
            grid = torch.stack([arrays["original"], arrays["x"]])
        elif options.interpolate:
            name, arrays = (
                "interpolation",
                sampling.interpolate(run, options.interpolate, number),
            )
            grid = arrays["x"].unsqueeze(0)
        else:
            name, arrays = (
                "samples",
                sampling.conditional(run, options.categories, number, options.temperature),
            )
            grid = arrays["x"].unflatten(0, (-1, number))
    out = options.out or options.run / "samples"
    numbers: Any = {key: value.cpu().numpy() for key, value in arrays.items()}
    if run.facts.columns:
        _write_table(out, name, numbers, run.inverse(arrays["x"]))
        return
    drawn = grid[:MOST_DRAWN, :MOST_DRAWN]
    *channels, height, width = run.facts.shape
    pictures = drawn.clamp(0, 1).reshape(-1, *(channels or [1]), height, width)
    scale = max(1, min(4, LARGEST // max(height, width)))
    enlarged = torch.nn.functional.interpolate(pictures, scale_factor=scale, mode="nearest")
    archive, picture = io.BytesIO(), io.BytesIO()
    np.savez(archive, **numbers)
    save_image(enlarged, picture, "png", nrow=drawn.shape[1], padding=4, pad_value=1)
    _put(out, {f"{name}.npz": archive, f"{name}.png": picture})
    some = "" if drawn.shape == grid.shape else f" (the first {MOST_DRAWN} across and down drawn)"
    print(f"{out / name}.png and .npz{some}")


def _write_table(out: Path, name: str, numbers: dict[str, Any], rows: Any) -> None:
    """Rows of a table in its own units, and all arrays as they are.

    :param rows: a DataFrame; in front of it stands the category, or the share of the way.
    """
    import numpy as np

    if "c" in numbers:
        first, values = "category", numbers["c"]
    else:
        first, values = "share", np.linspace(0, 1, len(rows))
    # The table may have a column of that name too.
    rows.insert(0, first, values, allow_duplicates=True)
    archive, table = io.BytesIO(), io.BytesIO()
    np.savez(archive, **numbers)
    rows.to_csv(table, index=False, float_format="%.6g", lineterminator="\n")
    _put(out, {f"{name}.npz": archive, f"{name}.csv": table})
    print(f"{out / name}.csv and .npz")


def _put(out: Path, files: dict[str, io.BytesIO]) -> None:
    with writing(out, "folder"):
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace(out / name, content.getvalue())


def _check(options: Options) -> None:
    """Refuse flags that do not go together, and a folder that is no run's."""
    chosen = [name for name in ("categories", "reconstruct", "interpolate")
              if getattr(options, name) is not None]  # fmt: skip
    if len(chosen) > 1:
        raise UserError(f"does not go with --{chosen[1]}; give one of them", chosen[0])
    of_test = "test" in (options.reconstruct or [])
    if options.number is not None and options.reconstruct and not of_test:
        raise UserError(
            "all images of the files are reconstructed; only 'test' has a number",
            "number",
            options.number,
        )
    if options.data_root is not None and not of_test:
        raise UserError(
            "only --reconstruct test reads a data set; leave it out", "data_root", options.data_root
        )
    if options.interpolate is not None and len(options.interpolate) != 2:
        raise UserError(
            f"takes two, a category or a file each, not {len(options.interpolate)}", "interpolate"
        )
    if options.interpolate and options.number == 1:
        raise UserError("--interpolate takes at least 2 steps", "number", 1)
    if options.temperature != 1 and (options.reconstruct or options.interpolate):
        raise UserError(
            "only samples have one; leave it out with --reconstruct and --interpolate",
            "temperature",
            options.temperature,
        )
    check_run(options.run)


if __name__ == "__main__":
    sys.exit(main())
