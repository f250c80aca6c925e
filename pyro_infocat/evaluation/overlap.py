"""How far q(c | x) takes generated images of one category for another's. No label is read.

    taken_cc'   the mean of q(c'|x) for z ~ p(z|c), and x what p(x|z) shows
    overlap     2 (taken_cc' + taken_c'c) / (taken_cc + taken_cc' + taken_c'c + taken_c'c')

An overlap of 0 says that q(c|x) tells two categories' images apart, 1 that it cannot, however it
divides them. Where all errors are on one side, it is their share there.

Shapes: K categories.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.evaluation.means import mean_of

CHUNK = 1000
"""Images in one pass of a network."""

MOST_DRAWN, FEWEST_DRAWN, DRAWN = 50, 5, 5000
"""Generated images of a category, and about how many of all K together."""


def taken_for(model: CatVAE, guide: Guide) -> Tensor:
    """What is generated of each category is taken for what, (K, K), on the CPU."""
    categories, device = guide.categories, model.prior.logits.device
    drawn = max(FEWEST_DRAWN, min(MOST_DRAWN, DRAWN // categories))
    rows = []
    for some in torch.arange(categories, device=device).split(CHUNK // drawn):
        z = model.prior.component(some.repeat_interleave(drawn)).sample()
        # Not the guide's critic, whose probabilities may be blunter than q(c|x).
        q = guide.category(shown(model, model.decoder(z))).probs
        rows.append(q.unflatten(0, (len(some), drawn)).mean(1))
    return torch.cat(rows).cpu()


def shown(model: CatVAE, p: Distribution) -> Tensor:
    """What p(x|z) shows (..., X): its mean, or a draw where x is 0 or 1.

    Noise of grey levels and of columns is the likelihood's and not the data's: q(c|x) may make
    nothing of draws, though it knows every real example. Of 0 and 1 it has seen nothing else.
    """
    return p.sample() if model.decoder.likelihood.binary else mean_of(p)


def overlaps(taken: Tensor) -> Tensor:
    """The overlap of every two categories (K, K), for what is taken for what (K, K)."""
    own, crossed = taken.diagonal(), taken + taken.T
    errors = 2 * crossed / (own + own.unsqueeze(1) + crossed)
    # By chance errors can be more than those of a coin; 0 / 0 is of two that take nothing.
    return errors.clamp_max(1).nan_to_num()
