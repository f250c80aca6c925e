"""The data sets that ``--data`` knows by name. Nothing here imports torch."""

from dataclasses import dataclass

from pyro_infocat.errors import UserError


@dataclass(frozen=True)
class Facts:
    """What a model must know of a data set.

    :ivar preset: the preset in runs/ that it is trained with where no --config is given.
    :ivar shape: (height, width) of an image.
    :ivar levels: number of grey levels.
    :ivar classes: a name for each label; none for data without labels.
    """

    preset: str
    shape: tuple[int, int]
    levels: int
    classes: tuple[str, ...]

    @property
    def features(self) -> int:
        """X, the pixels of an image."""
        return self.shape[0] * self.shape[1]


CLOTHES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
)

DATA_SETS = {
    "digits": Facts("digits", (8, 8), 17, tuple("0123456789")),
    "mnist": Facts("mnist", (28, 28), 256, tuple("0123456789")),
    "fashion-mnist": Facts("fashion", (28, 28), 256, CLOTHES),
}

ARCHIVE, OWN_PRESET = ".npz", "digits"
"""How the file name of one's own images ends; the preset for them."""

IN_MEMORY = "array"
"""The setting ``data`` of a run whose data were given in Python."""


def no_data_set(name: str) -> UserError:
    """The error for a name that is no data set's."""
    if name == IN_MEMORY:
        text = "the run's data were arrays given in Python, which no command line has; give --data"
    else:
        text = (
            f"no data set '{name}'; choose from {', '.join(DATA_SETS)}, or give an {ARCHIVE} "
            "of your own images"
        )
    return UserError(text, "data")
