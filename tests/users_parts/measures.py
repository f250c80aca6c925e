"""Metrics of one's own."""

from collections.abc import Mapping

from pyro_infocat import Metric, Tested


class Fullest(Metric):
    """The share of the test examples that the fullest category has."""

    name = "fullest"

    def __init__(self, number: int = 1) -> None:
        self.number = number

    def __call__(self, tested: Tested) -> float:
        counts = tested.category.bincount().sort(descending=True).values
        return counts[: self.number].sum().item() / len(tested.x)


class PerLabel(Metric):
    """How many test examples each label has."""

    name, needs_labels = "per_label", True

    def __call__(self, tested: Tested) -> Mapping[str, int]:
        counts = tested.labels.bincount().tolist()
        names = tested.data.facts.classes
        return {f"label_{name}": count for name, count in zip(names, counts, strict=True)}


class Draws(Metric):
    """Five random numbers, of the run's seed."""

    name = "draws"

    def __call__(self, tested: Tested) -> Mapping[str, list[float]]:
        return {"draws": tested.model.prior.component(tested.category[:5]).sample()[:, 0].tolist()}


class NameOfTheRun(Metric):
    """A name that metrics.json has for something else."""

    name = "epochs"

    def __call__(self, tested: Tested) -> float:
        return 1.0


class AmongOthers(Metric):
    """Its own name is free, and one of those that it gives is not."""

    name = "free"

    def __call__(self, tested: Tested) -> Mapping[str, float]:
        return {"free": 1.0, "kl_z": 2.0}
