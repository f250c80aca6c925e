"""What reads data: the base class of every kind's reader and of a user's own."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from models.recorded import Recorded
from pyro_infocat.catalogue import Facts
from pyro_infocat.data.dataset import DataSet, Split
from pyro_infocat.errors import UserError


class Examples(NamedTuple):
    """Examples for a run that has been trained, in the order in which they lie there.

    :ivar split: as the run's own data are held.
    :ivar names: one for each: ``x_test/17``, a file, a row's number.
    """

    split: Split
    names: list[str]


class Reader(Recorded, ABC):
    """Reads data of a kind of your own.

    Its constructor is handed the settings ``data``, ``data_root``, ``data_size``, ``data_label``
    and ``data_columns`` where it names them.
    """

    @abstractmethod
    def read(self) -> DataSet:
        """The data, on the CPU.

        :raises UserError: for what cannot be read: one line.
        """

    def again(self, facts: Facts) -> Examples:
        """Every example, as a run that was trained on data of these facts takes it.

        What ``python -m pyro_infocat.categorise`` asks for; training does not.

        :raises UserError: where they are of another kind than the run's.
        """
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        raise UserError(
            "reads training data alone; give it a method again(facts), as in pyro_infocat.Reader",
            "reader",
            kind,
        )


def in_order(data: DataSet) -> Examples:
    """The examples of the training split and then those of the test split."""
    splits = {"train": data.train, "test": data.test}
    names = [f"{name}/{n}" for name, split in splits.items() for n in range(len(split))]
    return Examples(Split.joined([data.train, data.test]), names)
