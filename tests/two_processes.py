"""What each of two processes does in test_processes.py; run by torchrun.

Writes to the folder given: the terms and the gradients of one step on this process's share, and
the parameters after a hundred steps.
"""

import functools
import sys
from pathlib import Path

import torch

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import processes
from pyro_infocat.data import Split
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.step import Step
from pyro_infocat.train import adam
from pyro_infocat.views import Same

BATCH, FEATURES, STEPS = 13, 10, 100
"""An odd batch: one process has an example more than the other."""


def parts() -> tuple[CatVAE, Enumerated]:
    torch.manual_seed(0)
    prior = priors.Orthogonal(3, 2)
    decoder = decoders.MLP(prior.latent, FEATURES, likelihoods.Bernoulli(), [8])
    encoder = functools.partial(encoders.MLP, FEATURES, [8])
    return CatVAE(prior, decoder), Enumerated(encoder, 3, prior.latent, hidden=8)


def split() -> Split:
    """Black and white examples."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(2, (BATCH, FEATURES), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.zeros(BATCH, dtype=torch.int64), levels=2)


def noise(rank: int) -> None:
    """Each process's own random numbers."""
    torch.manual_seed(100 + rank)


def main(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    processes.join(torch.device("cpu"))
    model, guide = parts()
    bound = InfoCatELBO()
    module = bound(model, guide)
    parallel = processes.wrap(module, some_unused=False)
    optimizer = adam(module.parameters(), 1e-2)
    step = Step(split(), "grey", Same(), guide, bound, parallel, optimizer)
    index = torch.arange(BATCH)

    noise(processes.rank())
    terms = {name: processes.total(term.clone()) for name, term in step(index).items()}
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    for _ in range(STEPS - 1):
        step(index)
    result = {"terms": terms, "gradients": gradients, "after": module.state_dict()}
    torch.save(result, folder / f"{processes.rank()}.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
