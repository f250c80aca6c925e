"""What z says beside the category: the style e = z - mu_c, where mu_c is the mean of p(z | c).

    style_leak           share of c that a linear classifier reads off e; chance is right
    own_block_variance   share of the variance of z within c that lies in c's own block
    style_kept           correlation of e with e read off again, drawn in another category

Shapes: K categories, D latent dimensions, N test examples, X features, R styles, S steps.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guides.guide import Guide
from models import CatVAE
from models.priors import Orthogonal, Prior
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.evaluation.part import CHUNK, Metric, Tested
from pyro_infocat.evaluation.trust import at_once

FOLDS = 5
"""Parts of the test examples, each judged by a classifier of the others."""

RIDGE = 1e-3
"""Added to the variances that the classifier divides by, as a share of their mean: a coordinate
that never changes is no evidence."""

DRAWN = 1000
"""Styles that are moved to another category and read off again."""

STYLES, STEPS, FARTHEST = 8, 5, 2.0
"""Styles that a figure shows; points along a coordinate, up to so many standard deviations."""


class Style(Metric):
    """How well category and style part; nothing for a prior of one category."""

    name = "style_leak"

    def __call__(self, tested: Tested) -> dict[str, float]:
        prior, category = tested.model.prior, tested.category
        if prior.categories == 1:
            return {}
        found = {
            "style_leak": leak(styles(tested), category, prior.categories),
            "style_leak_chance": category.bincount().max().item() / len(category),
        }
        own = blocks(prior)
        if own is not None:
            share = own_block_variance(tested.z, category, own)
            found |= {} if share is None else {"own_block_variance": share}
        return found | {"style_kept": kept(tested.model, tested.guide, at_once(tested))}


def centres(prior: Prior) -> Tensor:
    """mu (K, D)."""
    return mean_of(prior.all_components())


def styles(tested: Tested) -> Tensor:
    """e of each test example in its likeliest category (N, D)."""
    return tested.z - centres(tested.model.prior)[tested.category]


def blocks(prior: Prior) -> Tensor | None:
    """The coordinates of each category's own block (K, delta); None of a prior without blocks."""
    if not isinstance(prior, Orthogonal):
        return None
    return torch.arange(prior.latent, device=prior.modes.device).view(prior.categories, -1)


def leak(e: Tensor, category: Tensor, categories: int) -> float:
    """The share of examples whose category a linear classifier reads off their style.

    The classifier is linear discriminant analysis of the other folds' examples.

    :param e: styles (N, D).
    :param category: of each example (N,).
    """
    e, category = e.double().cpu(), category.cpu()
    order = torch.randperm(len(e), generator=torch.Generator().manual_seed(0))
    right = 0
    for fold in range(min(FOLDS, len(e))):
        here = torch.zeros(len(e), dtype=torch.bool)
        here[order[fold::FOLDS]] = True
        scores = _discriminant(e[~here], category[~here], categories, e[here])
        right += int((scores.argmax(1) == category[here]).sum())
    return right / len(e)


def _discriminant(e: Tensor, category: Tensor, categories: int, others: Tensor) -> Tensor:
    """log p(c | e) up to a constant, for normals of one covariance: (B, K) for others (B, D)."""
    member = one_hot(category, categories).to(e)
    counts = member.sum(0)
    mean = member.mT @ e / counts.clamp_min(1).unsqueeze(1)
    apart = e - mean[category]
    covariance = apart.mT @ apart / max(1, len(e))
    ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(e.dtype).tiny
    covariance.diagonal().add_(ridge)
    # A category without examples has a logarithm of -inf and is never chosen.
    weights = torch.linalg.lstsq(covariance, mean.mT, driver="gelsd").solution
    return others @ weights - (mean.mT * weights).sum(0) / 2 + counts.log()


def own_block_variance(z: Tensor, category: Tensor, own: Tensor) -> float | None:
    """The mean over categories of the share of their variance of z that lies in their own block.

    Of categories with two examples or more, whose z differ; None where there are none. A prior
    whose coordinates all vary alike has 1 / K.

    :param z: posterior means (N, D).
    :param category: of each (N,).
    :param own: the coordinates of each category's block (K, delta).
    """
    shares = []
    for c, coordinates in enumerate(own):
        here = z[category == c].double().cpu()
        variance = here.var(0) if len(here) > 1 else here.new_zeros(here.shape[1])
        total = variance.sum()
        if total > 0:
            shares.append(variance[coordinates.cpu()].sum() / total)
    return float(torch.stack(shares).mean()) if shares else None


def kept(model: CatVAE, guide: Guide, size: int = CHUNK) -> float:
    """How well a style is read off what it gives in another category.

        z ~ p(z | c),   e = z - mu_c,   x = mean of p(x | mu_c' + e),   c' another category than c
        e' = mean of q(z | x, c') - mu_c'
        the correlation of e_d with e'_d over draws, on average over coordinates d

    A coordinate that p(x | z) makes nothing of counts 0.

    :param size: draws that are decoded at a time.
    """
    prior = model.prior
    like, number, mu = prior.logits, prior.categories, centres(prior)
    c = torch.arange(DRAWN, device=like.device) % number
    other = (c + torch.randint(1, number, (DRAWN,)).to(c)) % number
    e = prior.component(c).sample() - mu[c]
    again = []
    for style, there in zip(e.split(size), other.split(size), strict=True):
        x = mean_of(model.decoder(mu[there] + style))
        again.append(mean_of(guide.posterior(x).latent(there)) - mu[there])
    one, two = (t.double().cpu() for t in (e, torch.cat(again)))
    one, two = one - one.mean(0), two - two.mean(0)
    product = (one.square().sum(0) * two.square().sum(0)).sqrt()
    # A constant has a correlation of 0 / 0.
    return float(((one * two).sum(0) / product.clamp_min(torch.finfo(product.dtype).tiny)).mean())


def exchanged(tested: Tested, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Test examples (R,), and each of them beside its style in every category: (R, 1 + C, X).

    :param shown: the categories (C,).
    """
    index = torch.linspace(0, len(tested.z) - 1, min(STYLES, len(tested.z))).long().to(shown.device)
    z = styles(tested)[index].unsqueeze(1) + centres(tested.model.prior)[shown]
    examples = tested.data.test.grey(index).to(z).unsqueeze(1)
    return index, torch.cat([examples, mean_of(tested.model.decoder(z))], 1)


def block_walk(model: CatVAE, shown: Tensor) -> Tensor | None:
    """Images along the first two coordinates of each category's own block: (C, S, S, X).

    From -2 to 2 standard deviations of p(z | c), the first coordinate to the right and the second
    upwards. None of a prior whose blocks have no two coordinates.

    :param shown: the categories (C,).
    """
    own = blocks(model.prior)
    if own is None or own.shape[1] == 1:
        return None
    mu = centres(model.prior)[shown]
    steps = torch.linspace(-FARTHEST, FARTHEST, STEPS, device=mu.device, dtype=mu.dtype)
    z = mu[:, None, None].repeat(1, STEPS, STEPS, 1)
    for number, coordinates in enumerate(own[shown]):
        z[number, :, :, coordinates[0]] += steps
        z[number, :, :, coordinates[1]] += steps.flip(0).unsqueeze(1)
    return mean_of(model.decoder(z))
