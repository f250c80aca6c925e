"""Posterior predictive sampling from a finished run, with Pyro's own tools.

    python -m examples.posterior_predictive runs/digits/seed0

For the first test images: which two categories are likeliest, and how far new images, drawn from
the posterior predictive distribution of an image, lie from that image.

Shapes: B batch, K categories, X features, S samples.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pyro import poutine
from pyro.infer import Predictive

import pyro_infocat as pic
from guides.relaxed import Relaxed
from pyro_infocat.cli.command_line import parse, positional
from pyro_infocat.data import observe
from pyro_infocat.experiment import read_data
from pyro_infocat.settings import setting

SHOWN, DRAWS = 8, 200
"""B and S."""


@dataclass(frozen=True)
class Options:
    """Posterior predictive sampling from a finished run, with Pyro's own tools."""

    run: Path = positional("the folder of a run")
    data_root: str | None = setting(None, "where the archives are; default the run's")


def predict(options: Options) -> None:
    """Print a line for each of the first test images."""
    run = pic.load(options.run)
    if isinstance(run.guide, Relaxed):
        raise pic.UserError(
            f"'{options.run}': {type(run.guide).__name__} mixes the codes of all categories, which "
            "no Pyro program expresses; give a run of another guide"
        )
    root = options.data_root or run.settings.data_root
    test = read_data(replace(run.settings, data_root=root), trust=()).test
    torch.manual_seed(run.settings.seed)
    x = observe(test.grey(slice(SHOWN)), run.observation)
    # From q itself: a guide may leave c to the model, which then draws it from p(c).
    q = run.guide.category(x).probs.detach()

    program = poutine.uncondition(run.model)
    draws = Predictive(program, guide=run.guide, num_samples=DRAWS)(x)

    distance = (draws["x"] - x).square().mean(-1).sqrt()
    for index in range(len(x)):
        two = q[index].argsort(descending=True)[:2].tolist()
        likeliest = ", ".join(f"{c}: {q[index, c]:.2f}" for c in two)
        label = f"label {run.facts.classes[test.labels[index]]}   " if run.facts.classes else ""
        print(
            f"{label}categories {likeliest}   "
            f"distance of a new image {distance[:, index].mean():.3f} a pixel"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options, _ = parse(Options, argv, "examples.posterior_predictive")
        predict(options)
    except pic.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
