"""Parts that let schedules set a number, one of each role."""

from typing import Any

from torch import Tensor

from guides import Enumerated, Gumbel, encoders
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import Batch, Term
from pyro_infocat.views import Same


class Amount:
    """An attribute ``amount`` between 0 and 9."""

    schedulable: tuple[str, ...] = ("amount",)
    _amount: float = 1.0

    @property
    def amount(self) -> float:
        return self._amount

    @amount.setter
    def amount(self, value: float) -> None:
        if not 0 <= value <= 9:
            raise ValueError(f"amount must be between 0 and 9, not {value:g}")
        self._amount = value


class Prior(Amount, priors.Orthogonal):
    pass


class Likelihood(Amount, likelihoods.Gaussian):
    pass


class Decoder(Amount, decoders.MLP):
    pass


class Encoder(Amount, encoders.MLP):
    pass


class Guide(Amount, Enumerated):
    pass


class View(Amount, Same):
    pass


class Model(Amount, CatVAE):
    pass


class Amounts(Amount, Term):
    """The amount, for each example."""

    name, sign = "amounts", 1

    def __call__(self, batch: Batch) -> Tensor:
        return self.amount * batch.x.new_tensor(float(len(batch.x)))


class Tempered(Term):
    """A second part with a temperature, beside the guide's."""

    name, sign, schedulable = "tempered", -1, ("temperature",)
    temperature = 1.0

    def __call__(self, batch: Batch) -> Tensor:
        return batch.x.sum() * 0


class Whole(Gumbel):
    """Counts in whole numbers."""

    schedulable = ("steps",)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._steps = 1.0

    @property
    def steps(self) -> float:
        return self._steps

    @steps.setter
    def steps(self, value: float) -> None:
        if value != int(value):
            raise ValueError(f"steps must be a whole number, not {value:g}")
        self._steps = value


class Missing(Same):
    """Declares what it has not."""

    schedulable = ("amount",)


class Fixed(Same):
    """Declares what cannot be set."""

    schedulable = ("amount",)

    @property
    def amount(self) -> float:
        return 1.0
