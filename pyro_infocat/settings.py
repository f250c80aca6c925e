"""What a run is told, without anything heavy to import."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyro_infocat.parts import COMPONENTS

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the packages, and the presets in ``runs``."""


@dataclass(frozen=True)
class Facts:
    """What a model must know of a data set.

    :ivar preset: the file in ``runs`` that it is trained with where no --config is given.
    :ivar shape: (height, width) of an image.
    :ivar levels: number of grey levels.
    :ivar classes: a name for each label.
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
"""How a file of one's own images ends; the preset for them where no --config is given."""


def no_data_set(name: str, flag: str = "--data") -> str:
    """What to say of a name that is no data set's."""
    return (
        f"{flag}: no data set '{name}'; choose from {', '.join(DATA_SETS)}, or give an {ARCHIVE} "
        "of your own images"
    )


CONFIG, CHECKPOINT = "config.yaml", "checkpoint.pt"
HISTORY, METRICS = "history.jsonl", "metrics.json"
"""The files of a run's folder."""

STARTS = "starts"
"""The folder in it that holds the beginnings of which one went on."""


MOST_SEED = 2**32 - 1
"""NumPy takes no larger one."""

ALSO_SCHEDULED = ("learning_rate", "temperature", "moves")
"""What ``schedules`` may hold besides the weights of terms."""

Observe = Literal["auto", "binary", "grey"]
"""What the likelihood sees: binarised pixels, grey levels, or whichever fits it."""

Anneal = Literal["constant", "cosine"]
"""How the learning rate falls."""

KL = Literal["analytic", "sampled"]
"""KL(q(z|x,c) || p(z|c)) in closed form or from the samples."""

Precision = Literal["float32", "bfloat16"]
"""What the networks compute in while training."""


@dataclass(frozen=True)
class Component:
    """A class by dotted path and the keyword arguments for it."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on. Written to config.yaml; read back, it repeats the run."""

    prior: Component
    likelihood: Component
    decoder: Component
    encoder: Component
    guide: Component
    view: Component
    data: str
    data_root: str
    observe: Observe
    epochs: int
    batch_size: int
    learning_rate: float
    anneal: Anneal
    information_weight: float
    weights: dict[str, float]
    schedules: dict[str, list[list[float]]]
    kl: KL
    particles: int
    decoded: int
    precision: Precision
    compile: bool
    graph: bool
    starts: int
    start_epochs: int
    patience: int
    validation: float
    nll_samples: int
    seed: int
    device: str

    def held_out(self, examples: int) -> int:
        """How many of so many training examples early stopping looks at."""
        return max(1, round(self.validation * examples)) if self.patience else 0

    def as_dict(self) -> dict[str, Any]:
        """What config.yaml holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """What config.yaml held.

        :raises KeyError: where a part is missing.
        :raises TypeError: where any other setting is, or there are more.
        """
        parts = {name: Component(**values[name]) for name in COMPONENTS}
        return cls(**(values | parts))
