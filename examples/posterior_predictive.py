"""Posterior predictive sampling from a finished run, with Pyro's own tools.

    python -m examples.posterior_predictive runs/digits/seed0

For the first test images: how likely each category is, and how far new images drawn from the
posterior predictive lie from the one they answer to.
"""

import sys
from pathlib import Path

import torch
from pyro import poutine
from pyro.infer import Predictive

import pyro_infocat
from guides.relaxed import Relaxed
from pyro_infocat.data import load, observe
from pyro_infocat.errors import UserError
from pyro_infocat.parser import Parser

SHOWN, DRAWS = 8, 200


def main(folder: Path, data_root: Path | None) -> None:
    run = pyro_infocat.load(folder)
    if isinstance(run.guide, Relaxed):
        raise UserError(
            f"'{folder}': {type(run.guide).__name__} mixes the codes of all categories, which no "
            "Pyro program expresses; give a run of another guide"
        )
    test = load(run.settings.data, data_root or Path(run.settings.data_root)).test
    torch.manual_seed(run.settings.seed)
    x = observe(test.grey(slice(SHOWN)), run.seen)
    # Of q itself: a guide may leave c to the model, whose draws are of p(c).
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


if __name__ == "__main__":
    parser = Parser(prog="python -m examples.posterior_predictive")
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--data_root", type=Path, help="where the archives are; default the run's")
    try:
        options = parser.parse_args()
        main(options.run, options.data_root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
