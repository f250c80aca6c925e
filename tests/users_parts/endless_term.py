"""A term of the objective that is not finite."""

from torch import Tensor

from pyro_infocat import Batch, Term


class Endless(Term):
    name, sign, weight = "endless", 1, 0.0

    def __call__(self, batch: Batch) -> Tensor:
        return batch.x.sum() * float("inf")
