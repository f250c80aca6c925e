"""Merging categories by the information that is lost."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from pyro_infocat.training.merging import agreement, losses, merge


def joint(number: int, seed: int = 0) -> Tensor:
    """p(c, c') (F, F), symmetric, float64."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(number, number, generator=generator, dtype=torch.float64) ** 3
    raw = raw + raw.mT + 2 * torch.eye(number)
    return raw / raw.sum()


def nats(p: Tensor) -> float:
    """I(c; c') summed out."""
    total = 0.0
    for a, b in itertools.product(range(len(p)), repeat=2):
        if p[a, b] > 0:
            total += float(p[a, b] * (p[a, b] / (p[a].sum() * p[:, b].sum())).log())
    return total


def joined(p: Tensor, group: Tensor) -> Tensor:
    """p(c, c') of groups of categories."""
    number = int(group.max()) + 1
    q = torch.zeros(number, number, dtype=p.dtype)
    for a, b in itertools.product(range(len(p)), repeat=2):
        q[group[a], group[b]] += p[a, b]
    return q


def test_losses_are_what_information_falls_by() -> None:
    p = joint(5)
    found = losses(p)
    for a, b in itertools.combinations(range(5), 2):
        group = torch.tensor([k if k != b else a for k in range(5)])
        group = torch.tensor([sorted(set(group.tolist())).index(int(k)) for k in group])
        lost = nats(p) - nats(joined(p, group))
        assert float(found[a, b]) == pytest.approx(lost, abs=1e-12)
        assert float(found[b, a]) == pytest.approx(lost, abs=1e-12)


def test_losses_are_finite_where_categories_never_meet_or_are_empty() -> None:
    p = torch.diag(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    # Two halves that are told apart lose log 2; one that is empty loses nothing.
    expected = torch.tensor([[math.log(2), 0.0], [math.log(2), 0.0]], dtype=torch.float64)
    found = losses(p)
    torch.testing.assert_close(torch.stack([found[0, 1:], found[1, [0, 2]]]), expected)


@pytest.mark.parametrize("seed", range(5))
def test_each_merging_is_of_the_pair_that_loses_least(seed: int) -> None:
    p = joint(6, seed)
    group, before = torch.arange(6), nats(p)
    found = merge(p.clone(), 2)
    for number, told in zip(range(6, 2, -1), found.lost, strict=True):
        tried = {}
        for a, b in itertools.combinations(range(number), 2):
            other = torch.where(group == b, a, group)
            other = other - (other > b).long()
            tried[nats(joined(p, other))] = other
        best = max(tried)
        assert float(told) == pytest.approx(before - best, abs=1e-12)
        before, group = best, tried[best]
    assert found.group.tolist() == group.tolist()


def test_what_views_confuse_is_merged() -> None:
    kinds = torch.tensor([0, 1, 1, 2, 0, 2, 2])
    p = torch.where(kinds[:, None] == kinds, 0.3, 0.01) + torch.eye(7)
    found = merge((p / p.sum()).double(), 3)
    assert len(found.lost) == 4
    for kind in range(3):
        assert len(found.group[kinds == kind].unique()) == 1
    assert len(found.group.unique()) == 3


def test_nothing_is_merged_where_there_are_as_many_as_wanted() -> None:
    found = merge(joint(4), 4)
    assert found.group.tolist() == [0, 1, 2, 3]
    assert found.lost.tolist() == []


def test_a_joint_that_is_not_symmetric_counts_both_ways() -> None:
    p = torch.rand(5, 5, dtype=torch.float64)
    even = merge((p + p.mT) / 2, 2)
    assert merge(p, 2).group.tolist() == even.group.tolist()


def some_q(examples: int = 30, categories: int = 4) -> torch.Tensor:
    return (3 * torch.randn(examples, categories, dtype=torch.float64)).softmax(1)


def test_agreement_is_mutual_information_over_log_k_summed_out() -> None:
    torch.manual_seed(0)
    first, second = some_q(), some_q()
    nats = 0.0
    for k in range(4):
        for other in range(4):
            both = sum(first[n, k] * second[n, other] for n in range(30)) / 30
            alone = first[:, k].mean() * second[:, other].mean()
            nats += float(both * (both / alone).log())
    assert agreement(first, second) == pytest.approx(nats / math.log(4))


def test_agreement_is_of_categories_whatever_their_numbers() -> None:
    torch.manual_seed(0)
    first, second = some_q(), some_q()
    order = torch.tensor([2, 0, 3, 1])
    assert agreement(first, second[:, order]) == pytest.approx(agreement(first, second))
    decided = torch.eye(4).repeat(5, 1)
    assert agreement(decided, decided[:, order]) == pytest.approx(1)
    assert agreement(decided, torch.full((20, 4), 0.25)) == pytest.approx(0)
    # A category that no example has is a loss.
    three = torch.eye(4)[:3].repeat(5, 1)
    assert agreement(three, three) == pytest.approx(math.log(3) / math.log(4))
