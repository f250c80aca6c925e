"""A term of the objective that looks at labels."""

from torch import Tensor

from pyro_infocat import Batch, Term


class Supervised(Term):
    """log q(c = label | x)."""

    name, sign, needs = "supervised", 1, frozenset({"category", "labels"})

    def __call__(self, batch: Batch) -> Tensor:
        return batch.category.log_prob(batch.labels).sum()
