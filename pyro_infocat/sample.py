"""``python -m pyro_infocat.sample RUN``: generate, reconstruct and interpolate from a run.

Shapes: B batch, K categories, D latent dimensions, S samples, X features.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_infocat.errors import UserError
from pyro_infocat.parser import Parser
from pyro_infocat.settings import MOST_SEED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options = parser().parse_args(argv)
        write(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> Parser:
    """The command line."""
    made = Parser(
        prog="python -m pyro_infocat.sample",
        description=(__doc__ or "").split("\n")[0],
    )
    add = made.add_argument
    add("run", type=Path, help="the folder of a run")
    add(
        "--number",
        type=int,
        help="samples of each category, steps between two, or images of 'test'; default 10",
    )
    add("--temperature", type=float, default=1.0, help="factor on the spread of p(z|c)")
    either = made.add_mutually_exclusive_group().add_argument
    either("--categories", type=int, nargs="+", help="which categories; all when not given")
    either(
        "--reconstruct",
        nargs="+",
        help="reconstruct images: PNG files, an .npy or .npz of shape (B, height, width) in "
        "[0, 1] or bytes, or 'test' for the first of the test split",
    )
    either(
        "--interpolate",
        nargs=2,
        metavar=("FROM", "TO"),
        help="walk between two category centres (numbers) or two images (files, the first of each)",
    )
    add("--data_root", help="where the archives are, for --reconstruct test; default the run's")
    add("--seed", type=int, default=0, help="of every random number")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--out", type=Path, help="folder for PNG and .npz; default RUN/samples")
    return made


def write(options: argparse.Namespace) -> None:
    """Do what the options ask and write a PNG and an .npz of it.

    :raises UserError: for anything that the user gave wrong.
    """
    import numpy as np
    import torch
    from torchvision.utils import save_image

    from pyro_infocat import generate
    from pyro_infocat.loading import load

    of_test = "test" in (options.reconstruct or [])
    if options.number is not None and options.reconstruct and not of_test:
        raise UserError(
            f"--number {options.number}: all images of the files are reconstructed; only 'test' "
            "has a number"
        )
    if options.data_root is not None and not of_test:
        raise UserError(
            f"--data_root {options.data_root}: only --reconstruct test reads a data set; leave it "
            "out"
        )
    number = 10 if options.number is None else options.number
    if number < 1:
        raise UserError(f"--number {number}: must be at least 1")
    if options.interpolate and number < 2:
        raise UserError(f"--number {number}: --interpolate takes at least 2 steps")
    if options.temperature != 1 and (options.reconstruct or options.interpolate):
        raise UserError(
            f"--temperature {options.temperature}: only samples have one; leave it out with "
            "--reconstruct and --interpolate"
        )
    if not 0 <= options.temperature < float("inf"):
        raise UserError(f"--temperature {options.temperature}: must be finite and at least 0")
    if not 0 <= options.seed <= MOST_SEED:
        raise UserError(f"--seed {options.seed}: must lie in 0 to {MOST_SEED}")
    run = load(options.run, options.device)
    torch.manual_seed(options.seed)
    with torch.no_grad():
        if options.reconstruct:
            root = Path(options.data_root or run.settings.data_root)
            images = generate.read_images(run, options.reconstruct, root, number)
            name, arrays = "reconstructions", generate.reconstruct(run, images)
            rows = torch.cat([arrays["original"], arrays["x"]])
            columns = len(images)
        elif options.interpolate:
            name, arrays = (
                "interpolation",
                generate.interpolate(run, options.interpolate, number),
            )
            rows, columns = arrays["x"], number
        else:
            name, arrays = (
                "samples",
                generate.conditional(run, options.categories, number, options.temperature),
            )
            rows, columns = arrays["x"], number
    out = options.out or options.run / "samples"
    numbers: Any = {key: value.cpu().numpy() for key, value in arrays.items()}
    pictures = rows.clamp(0, 1).reshape(-1, 1, *run.facts.shape)
    enlarged = torch.nn.functional.interpolate(pictures, scale_factor=4, mode="nearest")
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / f"{name}.npz", **numbers)
        save_image(enlarged, out / f"{name}.png", nrow=columns, padding=4, pad_value=1)
    except OSError as error:
        raise UserError(
            f"--out: cannot write '{error.filename or out}' ({error.strerror}); choose a folder "
            "that can be written"
        ) from error
    print(f"{out / name}.png and .npz")


if __name__ == "__main__":
    sys.exit(main())
