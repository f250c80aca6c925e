"""Merging categories that views take for each other, by the information that is lost.

With c ~ q(c|x) and c' ~ q(c'|view of x), I(c; c') is what two looks at an example have in common
(Ji et al. 2019, equation 3). Those two categories are merged first that lose least of it, as
clusters are in Slonim and Tishby (1999).

Shapes: F categories at first, K in the end, N examples.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Merging(NamedTuple):
    """What :func:`merge` found.

    :param group: of each fine category, the merged one (F,).
    :param lost: nats of I(c; c') that each merging cost, of F, F - 1, ... categories.
    """

    group: Tensor
    lost: Tensor


def merge(joint: Tensor, categories: int) -> Merging:
    """Merge fine categories, pair after pair, each time the two that lose least of I(c; c').

    :param joint: p(c, c') of an example and its view (F, F).
    :param categories: K, how many are to be left.
    """
    joint = (joint + joint.mT).double() / 2
    group = torch.arange(len(joint), device=joint.device)
    lost = []
    while len(joint) > categories:
        loss = losses(joint).fill_diagonal_(math.inf)
        first, second = sorted(divmod(int(loss.argmin()), len(joint)))
        lost.append(loss[first, second])
        kept = torch.arange(len(joint), device=joint.device) != second
        joint[first] += joint[second]
        joint[:, first] += joint[:, second]
        joint = joint[kept][:, kept]
        group = torch.where(group == second, first, group)
        group = group - (group > second).long()
    return Merging(group, torch.stack(lost) if lost else joint.new_zeros(0))


def losses(joint: Tensor) -> Tensor:
    """Nats of I(c; c') lost where two categories become one, for each pair (F, F).

    With f(p) = p log p it is I = sum f(p(c, c')) - 2 sum f(p(c)) of a symmetric p(c, c'): only the
    rows and columns of the two change.

    :param joint: p(c, c') (F, F), symmetric.
    """
    f, own = torch.xlogy(joint, joint), joint.diagonal()
    both = joint[:, None] + joint[None]
    each = torch.xlogy(both, both) - f[:, None] - f[None]
    # The cells of the two themselves become one.
    at = torch.arange(len(joint), device=joint.device)
    others = each.sum(-1) - each[at[:, None], at, at[:, None]] - each[at[:, None], at, at]
    one = own[:, None] + own + 2 * joint
    inner = torch.xlogy(one, one) - f.diagonal()[:, None] - f.diagonal() - 2 * f
    share = joint.sum(1)
    pair = share[:, None] + share
    g = torch.xlogy(share, share)
    outer = torch.xlogy(pair, pair) - g[:, None] - g
    return 2 * outer - 2 * others - inner


def agreement(first: Tensor, second: Tensor) -> float:
    """I(c; c') / log K for q(c|x) and q'(c'|x) (N, K) of the same examples, from 0 to 1.

    c and c' are drawn for the same x, one of the N.
    """
    joint = first.double().mT @ second.double() / len(first)
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    nats = (torch.xlogy(joint, joint) - torch.xlogy(joint, apart)).sum()
    # Rounding may take it below.
    return max(0.0, nats.item()) / math.log(first.shape[1])
