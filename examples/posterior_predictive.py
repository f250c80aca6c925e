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
from pyro_infocat.data import load, observe
from pyro_infocat.errors import UserError

SHOWN, DRAWS = 8, 200


def main(folder: str, data_root: str = "data") -> None:
    run = pyro_infocat.load(folder)
    test = load(run.settings.data, Path(data_root)).test
    torch.manual_seed(run.settings.seed)
    x = observe(test.grey(slice(SHOWN)), run.seen)
    # Of q itself: a guide may leave c to the model, whose draws are of p(c).
    q = run.guide.category(x).probs.detach()

    program = poutine.uncondition(run.model)
    draws = Predictive(program, guide=run.guide, num_samples=DRAWS)(x)

    distance = (draws["x"] - x).square().mean(-1).sqrt()
    for index in range(len(x)):
        likeliest = ", ".join(f"{c}: {q[index, c]:.2f}" for c in q[index].topk(2).indices.tolist())
        label = f"label {run.facts.classes[test.labels[index]]}   " if run.facts.classes else ""
        print(
            f"{label}categories {likeliest}   "
            f"distance of a new image {distance[:, index].mean():.3f} a pixel"
        )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
