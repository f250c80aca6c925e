"""What can be evaluated where only some examples have a known label.

Shapes: N examples.
"""

from dataclasses import replace

import torch

from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluation.part import Tested


def evaluated(data: DataSet) -> tuple[DataSet, DataSet | None]:
    """What is evaluated, and of what what needs labels is, where that is less.

    Where labels of test examples are unknown, figures that need none are of all of them, and the
    others of those that have one; a line says how many.
    """
    of_both = [data.train.labels, data.test.labels]
    if not data.facts.classes or all(int(labels.min()) >= 0 for labels in of_both):
        return data, None
    some = replace(data, train=labelled(data.train), test=labelled(data.test))
    number = len(some.test)
    if len(some.train) and number == len(data.test):
        return some, None
    facts = replace(data.facts, classes=())
    shown = replace(
        data, facts=facts, train=_without_labels(data.train), test=_without_labels(data.test)
    )
    if not number:
        return shown, None
    print(
        f"{number:,} of {len(data.test):,} test examples have a known label: what compares with "
        "labels is of these, and no figure shows labels"
    )
    return shown, some


def few_to_judge_by(data: DataSet) -> bool:
    """Whether a classifier that learned these labels would say nothing of what is generated."""
    return min(len(data.train), len(data.test)) < LEAST_OF_CLASS * len(data.facts.classes)


LEAST_OF_CLASS = 10
"""Labelled examples of each class on average, in either split."""


def labelled(split: Split) -> Split:
    """The examples whose label is known."""
    return split.part((split.labels >= 0).nonzero()[:, 0])


def _without_labels(split: Split) -> Split:
    """The examples without their labels."""
    return replace(split, labels=torch.zeros_like(split.labels), labelled=False)


def class_accuracy(tested: Tested) -> dict[str, float]:
    """The share of test examples that lie in the category which stands for their class.

    Of classes that known labels have given a category; nothing where there are none, or no labels.
    """
    if not tested.data.facts.classes or not tested.data.names:
        return {}
    named = torch.tensor(sorted(tested.data.names), device=tested.labels.device)
    here = torch.isin(tested.labels, named)
    if not here.any():
        return {}
    right = tested.category[here] == tested.labels[here]
    return {"class_accuracy": right.double().mean().item()}
