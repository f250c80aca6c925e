"""What each of two processes does in test_processes.py; run by torchrun.

Writes to the folder given: the loss and the gradients of one step on this process's share, and
the parameters after a hundred steps.
"""

import functools
import sys
from pathlib import Path

import torch

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import processes
from pyro_infocat.objective import InfoCatELBO

BATCH, FEATURES, STEPS = 12, 10, 100


def parts() -> tuple[CatVAE, Enumerated]:
    torch.manual_seed(0)
    prior = priors.Orthogonal(3, 2)
    decoder = decoders.MLP(prior.latent, FEATURES, likelihoods.Bernoulli(), [8])
    encoder = functools.partial(encoders.MLP, FEATURES, [8])
    return CatVAE(prior, decoder), Enumerated(encoder, 3, prior.latent, hidden=8)


def batch() -> torch.Tensor:
    return torch.bernoulli(
        torch.full((BATCH, FEATURES), 0.5), generator=torch.Generator().manual_seed(1)
    )


def noise(rank: int) -> None:
    """Each process's own random numbers."""
    torch.manual_seed(100 + rank)


def main(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    processes.join(torch.device("cpu"))
    rank, world = processes.rank(), processes.world()
    model, guide = parts()
    module = InfoCatELBO()(model, guide)
    parallel = processes.wrap(module, some_unused=False)
    x = batch()[processes.mine(torch.arange(BATCH))]
    noise(rank)
    loss = parallel(x) * world / BATCH
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    total = processes.total(loss.detach().clone()) / world

    adam = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(STEPS):
        adam.zero_grad()
        (parallel(x) * world / BATCH).backward()
        adam.step()
    result = {"loss": total, "gradients": gradients, "after": module.state_dict()}
    torch.save(result, folder / f"{rank}.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
