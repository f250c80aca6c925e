"""Every setting of a run, each declared once: type, default, limits and help.

The command line, ``--help``, presets, ``config.yaml``, error messages and docs/settings.md are made
from these declarations. Nothing here imports torch.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Literal, get_type_hints


@dataclass(frozen=True)
class Part:
    """A class by dotted path, and the keyword arguments for its constructor."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Role:
    """What a part is for.

    :ivar base: dotted path of the class that it must be a subclass of.
    :ivar given: constructor arguments that the run supplies, where the constructor names them.
    """

    base: str
    given: tuple[str, ...] = ()


AUTO = "auto"
"""What some settings may be: chosen by the machine or by the data, when a run begins."""


def setting(
    default: Any, help: str, before: Any = MISSING, auto: bool = False, **limits: float
) -> Any:
    """Declare a setting.

    :param before: the value in force in runs of before the setting was there, if not the default.
    :param auto: whether it may also be :data:`AUTO`, until a run knows better.
    :param limits: ``least``, ``above``, ``below`` and ``most``.
    """
    metadata = {"help": help, "limits": limits, "auto": auto}
    if before is not MISSING:
        metadata["before"] = before
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def part(default: str | None, base: str, help: str, given: tuple[str, ...] = ()) -> Any:
    """Declare a setting that is a class of the user's choice."""
    metadata = {"help": help, "limits": {}, "role": Role(base, given)}
    return field(default=Part(default) if default else None, metadata=metadata)


def parts(base: str, help: str) -> Any:
    """Declare a setting that is any number of classes of the user's own."""
    return field(default=(), metadata={"help": help, "limits": {}, "role": Role(base)})


DATA = ("features", "shape", "levels", "columns")
PRIOR = (*DATA, "encoder", "prior", "categories", "latent")
NETWORKS = (*PRIOR, "likelihood")

MOST = 2**31 - 1
MOST_CATEGORIES = 10_000
MOST_SEED = 2**32 - 1
"""NumPy takes no larger one."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on. Written to config.yaml; read back, it repeats the run."""

    prior: Part = part(
        "models.priors.Orthogonal", "models.priors.Prior", "p(c) and p(z|c)", (*DATA, "encoder")
    )
    likelihood: Part = part(
        "models.likelihoods.Bernoulli",
        "models.likelihoods.Likelihood",
        "p(x | the decoder's output)",
        PRIOR,
    )
    decoder: Part = part(
        "models.decoders.MLP", "models.decoders.Decoder", "the network from z to x", NETWORKS
    )
    encoder: Part = part(
        "guides.encoders.MLP",
        "guides.encoders.Encoder",
        "the guide's network from x to hidden features",
        DATA,
    )
    guide: Part = part(
        "guides.enumerated.Enumerated", "guides.guide.Guide", "q(c|x) and q(z|x,c)", NETWORKS
    )
    view: Part = part(
        "pyro_infocat.views.Same",
        "pyro_infocat.views.View",
        "a random change of an example that keeps its category, for the term consistency",
        NETWORKS,
    )
    model: Part = part(
        "models.generative.CatVAE",
        "models.generative.CatVAE",
        "the generative program over c, z and x",
        (*NETWORKS, "decoder", "kl"),
    )
    data: str = setting(
        "digits",
        "digits, mnist, fashion-mnist, a folder of pictures, a table (.csv, .tsv, .parquet), or an "
        ".npz or .npy file",
    )
    data_root: str = setting("data", "where archives are and are downloaded to")
    data_size: int = setting(
        32, "height and width that the pictures of a folder are made", least=4, most=512
    )
    data_label: str | None = setting(
        None,
        "the column of a table that evaluation compares the categories with, and that has the "
        "known labels; may be empty in some rows",
    )
    data_columns: list[str] | None = setting(
        None,
        "the columns of a table to use, each NAME or NAME:KIND (real, count, binary, category), or "
        "-NAME for all but these; all when not given, by what they hold",
    )
    data_on: Literal["auto", "device", "memory", "disk"] = setting(
        "auto",
        "where the training examples lie: on the device, in memory or on disk, from where batches "
        "are read ahead of the step; auto: the first that has room for them",
    )
    reader: Part | None = part(
        None,
        "pyro_infocat.data.Reader",
        "reads --data; chosen by what --data is when not given",
        ("data", "data_root", "data_size", "data_label", "data_columns", "data_on"),
    )
    known_labels: int | Literal["all"] = setting(
        0,
        "labels of the training split that training sees, evenly over the classes: category k then "
        "stands for class k; all: every one that is known",
        least=0,
        most=MOST,
    )
    observe: Literal["auto", "binary", "grey"] = setting(
        "auto", "what the likelihood gets: binarised pixels, grey levels, or whichever fits it"
    )
    epochs: int = setting(
        100,
        "passes over the training split; auto: by the number of examples",
        auto=True,
        least=1,
        most=1_000_000,
    )
    steps: int = setting(
        5000,
        "steps that --epochs auto makes of a run, about; 10 epochs at least",
        least=1,
        most=MOST,
    )
    batch_size: int = setting(
        128,
        "examples in a step; auto: by the number of examples",
        auto=True,
        least=1,
        most=MOST,
    )
    learning_rate: float = setting(1e-3, "of Adam", above=0)
    anneal: Literal["constant", "cosine"] = setting(
        "constant", "how the learning rate falls over the epochs"
    )
    information_weight: float = setting(
        1.0, "gamma, weight of the information bound for each example; 0 is CatVAE", least=0
    )
    weights: dict[str, float] = setting(
        {},
        "weights of other terms of the objective by name: {consistency: 5} instead of the "
        "preset's, --weights.consistency 5 in addition to them",
    )
    schedules: dict[str, list[list[float | str]]] = setting(
        {},
        "weights that change, as [epoch, weight] pairs joined by straight lines, such as "
        "{kl_z: [[0, 0], [10, 1]]}, or in shares of the run, [[0%, 0], [50%, 1]]; also "
        "learning_rate and what a part declares (temperature, moves). A preset's schedule is "
        "scaled when --information_weight, --learning_rate or --weights.TERM gives its largest "
        "value",
    )
    terms: tuple[Part, ...] = parts(
        "pyro_infocat.objective.Term", "further terms of the objective, by class"
    )
    kl: Literal["analytic", "sampled"] = setting(
        "analytic", "KL(q(z|x,c) || p(z|c)) in closed form or from the samples"
    )
    particles: int = setting(1, "draws of z for each category", least=1, most=10_000)
    decoded: int = setting(
        0,
        "decode this many likeliest categories of an example and one other drawn by chance, "
        "without bias; 0: all",
        least=0,
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "float32",
        "what the networks compute in while training, the bound always in float32; auto: whichever "
        "is faster on this machine",
    )
    compile: bool = setting(False, "compile the networks (torch.compile)")
    graph: bool = setting(
        True, "on a GPU, record a step as a CUDA graph and replay it; false: step by step"
    )
    starts: int = setting(
        1,
        "random restarts: train this many and continue the one with the largest objective",
        least=1,
        most=10_000,
    )
    start_epochs: int = setting(
        3,
        "epochs of each of --starts; auto: a third of the run",
        auto=True,
        least=1,
        most=1_000_000,
    )
    finer: int = setting(
        1,
        "before the run, learn so many times K categories from real examples alone and merge them "
        "to K by what views show, for training to begin near (--weights.nearness); 1: do not",
        least=1,
        most=100,
    )
    finer_steps: int = setting(
        300,
        "of each of the three times that --finer or --prior.categories auto learns fine "
        "categories; --finer takes no more than the run itself has",
        least=1,
        most=MOST,
    )
    twins: int = setting(
        0,
        "train so many further seeds of the run afterwards, to see whether they find the same "
        "categories; kept in OUT/twins",
        least=0,
        most=1000,
    )
    patience: int = setting(
        0,
        "stop after this many epochs without a better bound on the validation share, with the last "
        "parameters; 0: never",
        least=0,
    )
    validation: float = setting(
        0.1, "share of the training split held out for --patience", above=0, below=1
    )
    metrics: tuple[Part, ...] = parts(
        "pyro_infocat.evaluation.Metric", "further figures of metrics.json, by class"
    )
    figures: tuple[Part, ...] = parts(
        "pyro_infocat.evaluation.Plot", "further figures in figures/, by class"
    )
    nll_samples: int = setting(200, "importance samples for the nll", least=1, most=1_000_000)
    most_categories: int = setting(
        50,
        "the largest number of categories that --prior.categories auto tries: it finds one from "
        "the data before the run, without labels",
        least=2,
        most=MOST_CATEGORIES,
    )
    seed: int = setting(0, "of every random number", least=0, most=MOST_SEED)
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps")

    def held_out(self, examples: int) -> int:
        """How many of a number of training examples are the validation share."""
        return max(1, round(self.validation * examples)) if self.patience else 0

    def largest_weight(self, term: str) -> float:
        """The largest weight that a term has in some epoch, or 0 where none is given."""
        points = self.schedules.get(term, [[0, self.weights.get(term, 0.0)]])
        return float(max(value for _, value in points))

    def lines(self) -> dict[str, list[list[float]]]:
        """The schedules as [epoch, weight] pairs with epochs from 0; 100% is the last one."""
        last = self.epochs - 1
        return {
            name: [[_position(at, last), value] for at, value in points]  # type: ignore[list-item]
            for name, points in self.schedules.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as config.yaml holds them."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _position(at: float | str, last: int) -> float:
    return float(at[:-1]) / 100 * last if isinstance(at, str) else at


DECLARED: dict[str, Field] = {declared.name: declared for declared in fields(Settings)}
"""Every setting's declaration, by name."""

TYPES: dict[str, Any] = {
    name: kind | Literal["auto"] if DECLARED[name].metadata.get("auto") else kind
    for name, kind in get_type_hints(Settings).items()
}
"""What each may be."""

ROLES: dict[str, Role] = {
    name: declared.metadata["role"]
    for name, declared in DECLARED.items()
    if "role" in declared.metadata
}
"""The settings that are parts."""

SEVERAL = tuple(name for name in ROLES if DECLARED[name].default == ())
"""The roles that any number of parts may have."""

MAY_BE_AUTO = ("precision", "epochs", "start_epochs", "batch_size")
"""Settings that a run decides when it begins, and then keeps, where they are ``auto``."""

CATEGORIES = "prior.categories"
"""The argument that may be ``auto`` too."""

MACHINE = frozenset({"device", "data_root", "data_on"})
"""Settings about the machine, not the run."""

AFTERWARDS = frozenset({"nll_samples", "metrics", "figures", "twins"})
"""Settings that come into play when training is over."""

CONFIG, CHECKPOINT = "config.yaml", "checkpoint.pt"
HISTORY, METRICS = "history.jsonl", "metrics.json"
"""The files of a run's folder."""

TRIED = "categories.jsonl"
"""What ``--prior.categories auto`` has tried, in it."""

FINE = "fine.pt"
"""The categories in it that training begins near, where they were merged from finer ones."""

STARTS = "starts"
"""The folder in it of the random restarts."""

TWINS, TEST_CATEGORIES = "twins", "test_categories.npy"
"""The folder in it of the twins, and the file of the test examples' categories."""

MADE_BY = "made_by"
"""The key of config.yaml that says which version and commit wrote it. No setting."""


def default(declared: Field) -> Any:
    """A setting's default."""
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


def from_dict(values: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The settings of a config.yaml of this version or another, and its keys that are no settings.

    What an older version did not write gets the value that was in force then.

    :raises TypeError: where a part is not a class path with arguments.
    """
    known: dict[str, Any] = {}
    for name, declared in DECLARED.items():
        if name not in values:
            known[name] = declared.metadata.get("before", default(declared))
        elif name in SEVERAL:
            known[name] = tuple(_part(one) for one in values[name])
        elif name in ROLES and not (values[name] is None and declared.default is None):
            known[name] = _part(values[name])
        else:
            known[name] = values[name]
    return Settings(**known), [key for key in values if key not in DECLARED and key != MADE_BY]


def _part(held: Any) -> Part:
    made = Part(**held)
    if not (isinstance(made.class_path, str) and isinstance(made.init_args, dict)):
        raise TypeError("a part is a class path with arguments")
    return made
