"""What a finished run makes of examples: category, q(c | x), z and log p(x) of each.

Shapes: B batch, D latent dimensions, K categories, N examples, S samples.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from pyro_infocat.data import Split, observe
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.likelihood import knows_its_density, log_likelihood
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.loading import Run
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import CHECKPOINT
from pyro_infocat.storage.folder import RunFolder

CHUNK = 1000
"""Examples assigned at a time."""


class Assignment(NamedTuple):
    """Of some examples, in their order.

    :ivar category: the likeliest, (B,).
    :ivar probabilities: q(c | x), (B, K).
    :ivar z: the mean of q(z | x, c) for the likeliest category, (B, D).
    :ivar log_p: log p(x) in nats, importance-weighted (B,); None where it was not asked for.
    """

    category: np.ndarray
    probabilities: np.ndarray
    z: np.ndarray
    log_p: np.ndarray | None


def assign(run: Run, split: Split, nll_samples: int, seed: int = 0) -> Iterator[Assignment]:
    """The examples of a split (N,), some at a time.

    A run on binarised pixels draws each example once.

    :param nll_samples: S, importance samples of log p(x); 0 leaves it out.
    :param seed: of the draws, which are the same at every call.
    :raises UserError: where log p(x) is asked of a program whose density is not known.
    """
    if nll_samples:
        check_density(run, nll_samples)
    device = run.model.prior.logits.device
    for number, rows in enumerate(torch.arange(len(split)).split(CHUNK)):
        with evaluating(device, run.model, run.guide, seed=seed + number):
            x = observe(split.part(rows).grey().to(run.model.prior.logits), run.observation)
            category, latent = run.guide.posterior(x)
            likeliest = category.logits.argmax(-1)
            z = mean_of(latent(likeliest))
            log_p = log_likelihood(run.model, run.guide, x, nll_samples) if nll_samples else None
            yield Assignment(
                likeliest.cpu().numpy(),
                category.probs.cpu().numpy(),
                z.cpu().numpy(),
                None if log_p is None else log_p.cpu().numpy(),
            )


def class_names(run: Run) -> dict[int, str]:
    """The classes that categories stand for, by the category; none without known labels.

    :raises UserError: where the run's checkpoint cannot be read, or holds something else.
    """
    held = RunFolder(run.folder).checkpoint().get("names", {}) if run.settings.known_labels else {}
    right = isinstance(held, dict) and all(
        type(c) is int and isinstance(name, str) for c, name in held.items()
    )
    if not right:
        raise UserError(f"'{run.folder / CHECKPOINT}' is corrupt (names are none of categories)")
    return dict(held)


def check_density(run: Run, nll_samples: int) -> None:
    """Refuse to measure log p(x) by a program whose density is not known."""
    if not knows_its_density(run.model):
        raise UserError(
            f"{run.settings.model.class_path} has no log_joint of its own, so log p(x) is not "
            "known; give 0",
            "nll_samples",
            nll_samples,
        )
