"""The named terms of an epoch, and the error that stops training when one is not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_infocat.errors import UserError
from pyro_infocat.objective import elbo_of
from pyro_infocat.runtime import processes

CHECK_EVERY = 100
"""Steps between looks at the terms: a look makes the host wait for the device."""


class EpochTerms:
    """Sums of the named terms of an epoch, kept on the device and checked every 100 steps.

    :param epoch: number of the epoch, from 0, for the error.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch, self.step = epoch, 0
        self.names: list[str] = []
        self.open: list[Tensor] = []
        self.sums: Tensor | float = 0.0
        self.examples = 0

    def add(self, terms: Mapping[str, Tensor], examples: int) -> None:
        """Add a step's terms, sums over ``examples`` in nats."""
        self.names = list(terms)
        self.open.append(torch.stack(list(terms.values())))
        self.examples += examples
        if len(self.open) == CHECK_EVERY:
            self.check()

    def check(self, module: nn.Module | None = None, alone: bool = False) -> None:
        """Add up the open steps of all processes.

        :param module: whose parameters to look at too.
        :param alone: only of this process, where the others may be waiting elsewhere.
        :raises UserError: at the first term or parameter that is not finite.
        """
        if self.open:
            rows = torch.stack(self.open)
            if not alone:
                rows = processes.total(rows)
            wrong = (~rows.isfinite()).nonzero()
            if len(wrong):
                row, column = wrong[0].tolist()
                raise self.stopped(f"{self.names[column]} is {rows[row, column].item()}", row + 1)
            self.step += len(rows)
            # On the CPU, since not every device has float64; looking has waited for it already.
            self.sums = self.sums + rows.cpu().double().sum(0)
            self.open.clear()
        for name, parameter in module.named_parameters() if module else ():
            if not parameter.isfinite().all():
                raise self.stopped(f"the parameter {name} is not finite", 0)

    def stopped(self, reason: str, ahead: int) -> UserError:
        """The error that ends training, ``ahead`` steps after those added up."""
        return UserError(
            f"training stopped at step {self.step + ahead} of epoch {self.epoch + 1}: "
            f"{reason}; the checkpoint of the epoch before is kept. A smaller --learning_rate "
            "usually helps"
        )

    def means(self) -> dict[str, float]:
        """Each term and the ELBO in nats per example, of the steps added up."""
        assert isinstance(self.sums, Tensor)
        means = dict(zip(self.names, self.sums / self.examples, strict=True))
        if "reconstruction" in means:
            means["elbo"] = elbo_of(means)
        return {name: mean.item() for name, mean in means.items()}
