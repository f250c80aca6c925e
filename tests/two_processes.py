"""What each of two processes does in test_processes.py; run by torchrun.

Writes to the folder given: the terms and the gradients of one step on this process's share, the
parameters after a hundred steps, and the histories of a run in one go and of one that was resumed.
"""

import functools
import sys
from pathlib import Path

import torch
from torch import distributed

from guides import Enumerated, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.build import Builder, Parts
from pyro_infocat.data.dataset import Split
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation.part import History
from pyro_infocat.runtime import processes
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import adam, train
from pyro_infocat.training.step import Step
from pyro_infocat.views import Same
from tests.runs import parse

BATCH, FEATURES, STEPS = 13, 10, 100
"""An odd batch: one process has an example more than the other."""


def programs() -> tuple[CatVAE, Enumerated]:
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


def histories(folder: Path) -> list[History]:
    """Of two epochs in one go, and of one after the other; a layer of the guide has no use."""
    flags = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--batch_size", "400"]
    chosen, _, _ = parse([*flags, "--epochs", "2", "--guide", "tests.users_parts.spare.Spare"])
    data = digits()
    found = []
    for name, stops in (("whole", [2]), ("resumed", [1, 2])):
        place = RunFolder(folder / name)
        if processes.rank() == 0:
            place.create(chosen)
        checkpoint = None
        for until in stops:
            torch.manual_seed(0)
            built = Builder(chosen, data.facts).parts(torch.device("cpu"))
            history = train(chosen, data, built, place, checkpoint, until, progress=False)
            # The first process writes what both read.
            distributed.barrier()
            checkpoint = place.checkpoint()
        found.append([row | {"seconds": 0.0} for row in history])
    return found


def main(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    processes.join(torch.device("cpu"))
    model, guide = programs()
    bound = InfoCatELBO()
    module = bound(model, guide)
    parallel = processes.wrap(module, some_unused=False)
    optimizer = adam(module.parameters(), 1e-2)
    step = Step(split(), "grey", Parts(model, guide, Same(), bound), parallel, optimizer)
    index = torch.arange(BATCH)

    noise(processes.rank())
    terms = {name: processes.total(term.clone()) for name, term in step(index).items()}
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    for _ in range(STEPS - 1):
        step(index)
    result = {"terms": terms, "gradients": gradients, "after": module.state_dict()}
    torch.set_default_dtype(torch.float32)
    result["histories"] = histories(folder)
    torch.save(result, folder / f"{processes.rank()}.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
