"""Terms of the objective that a run must refuse, each for one reason."""

import torch
from torch import Tensor

from pyro_infocat import Batch, Term


class Abstract(Term):
    name, sign = "mine", 1


class Nothing(Term):
    """Zero; a subclass changes one thing."""

    name, sign = "mine", 1

    def __call__(self, batch: Batch) -> Tensor:
        return 0 * batch.x.sum()


class WithoutName(Term):
    sign = 1

    def __call__(self, batch: Batch) -> Tensor: ...


class WithoutSign(Term):
    name = "mine"

    def __call__(self, batch: Batch) -> Tensor: ...


class OtherSign(Nothing):
    sign = 2


class NameTaken(Nothing):
    name = "consistency"


class NameOfTwoWords(Nothing):
    name = "mine.too"


class NeedsWhatIsNotThere(Nothing):
    needs = frozenset({"weather"})


class NegativeWeight(Nothing):
    weight = -1.0


class SchedulesWhatIsNotThere(Nothing):
    schedulable = ("height",)


class NeedsLabels(Nothing):
    needs = frozenset({"labels"})


class WithoutSaying(Nothing):
    """Looks at what it did not declare."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.view.sum()


class OneForEach(Nothing):
    def __call__(self, batch: Batch) -> Tensor:
        return batch.x.sum(1)


class PlainNumber(Nothing):
    def __call__(self, batch: Batch) -> Tensor:
        return 3.0


class NotANumber(Nothing):
    def __call__(self, batch: Batch) -> Tensor:
        return torch.tensor(torch.nan)


class Fails(Nothing):
    def __call__(self, batch: Batch) -> Tensor:
        return batch.x.turned()
