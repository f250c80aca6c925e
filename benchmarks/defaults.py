"""This project's default and other people's methods at theirs, on the same rows: a table of them.

    python -m benchmarks.defaults [--data iris usps] [--methods ours k-means] [--seeds 0 1 2]
    python -m benchmarks.defaults --table

The first runs what is not finished, the second writes docs/defaults.md from what is. Every method
is told K and sees no label. Of images it is fitted to the training split and judged on the test
split; of a table, which is small, it is fitted to all rows and judged on them. A run is a
process of its own with one thread and no GPU. What fails is told and kept in one line, the rest
goes on, and the same command tries it again.

Shapes: N examples, X features, K categories.
"""

import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from benchmarks.documents import write
from pyro_infocat import benchmark
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.cli import command_line
from pyro_infocat.cli.markdown import markdown_table
from pyro_infocat.errors import UserError, reason
from pyro_infocat.places import PRESETS, ROOT
from pyro_infocat.settings import METRICS, MOST_SEED, setting
from pyro_infocat.storage.files import read_json, replace, trouble
from pyro_infocat.version import made_by

MODULE = "benchmarks.defaults"

RESULTS = benchmark.RESULTS / "defaults"

SEEDS = (0, 1, 2, 3, 4)

LABEL = "label"
"""The column of labels in the tables that this writes."""

ONE_THREAD = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")},
    "CUDA_VISIBLE_DEVICES": "",
}
"""What a run's environment holds."""

NOISE = -1
"""What HDBSCAN calls points of no cluster."""


class Set(NamedTuple):
    """A data set.

    :ivar categories: K, the number of its classes.
    :ivar table: what scikit-learn loads it with, of a table.
    :ivar file: below the root of the data, of a file or folder of one's own.
    :ivar large: whether deep rivals take hours.
    """

    title: str
    categories: int
    table: Callable[..., Any] | None = None
    file: str = ""
    large: bool = False


SETS = {
    "iris": Set("iris", 3, datasets.load_iris),
    "wine": Set("wine", 3, datasets.load_wine),
    "breast-cancer": Set("breast cancer", 2, datasets.load_breast_cancer),
    "digits": Set("digits", 10),
    "usps": Set("USPS", 10, file="usps.npz"),
    "mnist": Set("MNIST", 10, large=True),
    "fashion-mnist": Set("Fashion-MNIST", 10, large=True),
    "cifar10": Set("CIFAR-10", 10, file="cifar10"),
}

Predict = Callable[[np.ndarray], np.ndarray]
"""The categories (N,) of examples (N, X)."""


# The methods: each is fitted to x (N, X) and returns what assigns new examples.


def k_means(x: np.ndarray, categories: int, seed: int, starts: int) -> Predict:
    return KMeans(categories, n_init=starts, random_state=seed).fit(x).predict


def mixture(
    x: np.ndarray, categories: int, seed: int, covariance: str, added: float, most: int
) -> Predict:
    """A Gaussian mixture, of principal components where there are more than ``most`` features."""
    model = GaussianMixture(
        categories, covariance_type=covariance, reg_covar=added, random_state=seed
    )
    reduced = PCA(most, random_state=seed) if x.shape[1] > most else "passthrough"
    return make_pipeline(FunctionTransformer(np.float64), reduced, model).fit(x).predict


def umap_k_means(
    x: np.ndarray, categories: int, seed: int, starts: int, **embedding: Any
) -> Predict:
    embedded = importlib.import_module("umap").UMAP(random_state=seed, **embedding).fit(x)
    predict = k_means(embedded.embedding_, categories, seed, starts)
    return lambda new: predict(embedded.transform(new))


def umap_hdbscan(
    x: np.ndarray, categories: int, seed: int, least: int, share: float, **embedding: Any
) -> Predict:
    """HDBSCAN of an embedding; it is not told K. Noise is one more category.

    :param least: neighbours of a core point, and the fewest points of a cluster.
    :param share: of all points that a cluster has at least.
    """
    embedded = importlib.import_module("umap").UMAP(random_state=seed, **embedding).fit(x)
    size = max(least, int(share * len(x)))
    model = HDBSCAN(min_cluster_size=size, min_samples=least, copy=True)
    found = model.fit_predict(embedded.embedding_)
    found[found == NOISE] = found.max() + 1
    # It has no way to assign what is new: each takes the category of its nearest neighbour.
    nearest = KNeighborsClassifier(1).fit(embedded.embedding_, found)
    return lambda new: nearest.predict(embedded.transform(new))


def clustpy(x: np.ndarray, categories: int, seed: int, name: str, unit: bool) -> Predict:
    """A deep method of ClustPy.

    :param unit: whether it takes numbers from 0 to 1 alone; columns are scaled to them.
    """
    kind = getattr(importlib.import_module("clustpy.deep"), name)
    model = kind(n_clusters=categories, random_state=seed)
    if not unit or (x.min() >= 0 and x.max() <= 1):
        return model.fit(x).predict
    return make_pipeline(MinMaxScaler(clip=True), model).fit(x).predict


@dataclass(frozen=True)
class Method:
    """A method.

    :ivar packages: the module and the package of what it needs beyond the requirements.
    :ivar fit: None of this project.
    :ivar settings: arguments of ``fit``. All else is the package's default.
    """

    title: str
    fit: Callable[..., Predict] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def deep(self) -> bool:
        """Whether it takes hours on a large data set."""
        return self.fit is clustpy


# A full covariance of 784 grey levels would be singular.
MIXTURE = {"added": 1e-3, "most": 50}

# What UMAP's own page on clustering says to take. There a cluster has 500 of 70,000 points.
UMAP = {"n_neighbors": 30, "min_dist": 0.0, "n_components": 2}

EMBEDDED, DEEP = {"umap": "umap-learn"}, {"clustpy.deep": "clustpy"}

OURS, OWN, PLAIN = "ours", "own", "k-means"

METHODS = {
    OURS: Method("InfoCatVAE"),
    OWN: Method("InfoCatVAE, images.yaml"),
    PLAIN: Method("k-means", k_means, {"starts": 10}),
    "mixture": Method("Gaussian mixture, full", mixture, {"covariance": "full", **MIXTURE}),
    "mixture-diagonal": Method(
        "Gaussian mixture, diagonal", mixture, {"covariance": "diag", **MIXTURE}
    ),
    "umap-k-means": Method("UMAP + k-means", umap_k_means, {"starts": 10, **UMAP}, EMBEDDED),
    "umap-hdbscan": Method(
        "UMAP + HDBSCAN", umap_hdbscan, {"least": 10, "share": 0.01, **UMAP}, EMBEDDED
    ),
    "vade": Method("VaDE", clustpy, {"name": "VaDE", "unit": True}, DEEP),
    "dec": Method("DEC", clustpy, {"name": "DEC", "unit": False}, DEEP),
    "idec": Method("IDEC", clustpy, {"name": "IDEC", "unit": False}, DEEP),
}


@dataclass(frozen=True)
class Options:
    """This project's default and other people's methods at theirs, on the same rows."""

    data: list[Literal[tuple(SETS)]] = setting(list(SETS), "data sets")
    methods: list[Literal[tuple(METHODS)]] = setting(list(METHODS), "methods")
    seeds: list[int] = setting(list(SEEDS), "of the runs", least=0, most=MOST_SEED)
    data_root: Path = setting(Path("data"), "where archives, usps.npz and the folder cifar10 are")
    all: bool = setting(False, "deep rivals on MNIST and Fashion-MNIST too, which takes hours")
    table: bool = setting(False, "run nothing; write docs/defaults.md from the results")
    results: Path = setting(RESULTS, "a JSON of each method and data set goes here")
    here: bool = setting(False, "run in this process and print a line of JSON for each run")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return command_line.answer(Options, argv, MODULE, act)
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --results", file=sys.stderr)
        return 2


def act(options: Options) -> None:
    if options.table:
        write("defaults", lambda document: table(options.results))
    elif options.here:
        for name in options.data:
            for method in options.methods:
                for seed in options.seeds:
                    print(json.dumps(one_line(name, method, seed, options.data_root)))
    else:
        run(options)
        print(table(options.results))


def one_line(name: str, method: str, seed: int, root: Path) -> dict[str, Any]:
    """:func:`measure`, whose errors are one line.

    :raises UserError: for any of them: a rival may raise what it likes.
    """
    try:
        return measure(name, method, seed, root)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{type(error).__name__}: {reason(error)}") from error


# A run.


def measure(name: str, method: str, seed: int, root: Path) -> dict[str, Any]:
    """A method's figures on the test split, its seconds of fitting, and what they were made by.

    :raises UserError: where the data cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = placed(name, root, Path(folder))
        made = METHODS[method]
        if made.fit is None:
            return ours(name, method, place, seed, root, Path(folder))
        # Torch is imported by what runs, and not by what asks for a table.
        from pyro_infocat.data import load
        from pyro_infocat.data.table import data_set, read_rows
        from pyro_infocat.evaluation.clustering import clustering

        if SETS[name].table:
            data = data_set(read_rows(Path(place)), name, LABEL, whole=True)
        else:
            data = load(place, root)
        x, new = data.train.grey().numpy(), data.test.grey().numpy()
        for module in made.packages:
            importlib.import_module(module)
        began = time.perf_counter()
        predict = made.fit(x, SETS[name].categories, seed, **made.settings)
        seconds = time.perf_counter() - began
        figures = clustering(data.test.labels.numpy(), predict(new), SETS[name].categories)
        packages = ["numpy", "scikit-learn", *made.packages.values()]
        versions = {"python": platform.python_version(), **{p: version(p) for p in packages}}
        of_the_run = {"seconds": seconds, "seed": seed, "versions": versions, "made_by": made_by()}
        return figures | of_the_run


def placed(name: str, root: Path, folder: Path) -> str:
    """What ``--data`` is given; a table is written into the folder.

    :raises UserError: where a file or a folder of one's own is not there.
    """
    chosen = SETS[name]
    if chosen.table:
        bunch = chosen.table(as_frame=True)
        file = folder / f"{name}.csv"
        bunch.data.assign(**{LABEL: bunch.target_names[bunch.target]}).to_csv(file, index=False)
        return str(file)
    if not chosen.file:
        return name
    path = root / chosen.file
    if not path.exists():
        raise UserError(
            f"there is no '{path}'; place it there, or give another folder", "data_root"
        )
    return str(path)


def flags(name: str, method: str) -> list[str]:
    """What this project is told of a data set."""
    told = ["--prior.categories", str(SETS[name].categories)]
    return ["--config", "images", *told] if method == OWN else told


def ours(name: str, method: str, place: str, seed: int, root: Path, folder: Path) -> dict[str, Any]:
    """The estimator fitted to a table, or ``python -m pyro_infocat.run --data PLACE``, as it is.

    :raises SystemExit: where the command fails: it has said why.
    """
    from pyro_infocat import run

    if SETS[name].table:
        return of_all_rows(name, place, seed)
    out = folder / "run"
    command = ["--data", place, "--data_root", str(root), *flags(name, method)]
    code = run.main([*command, "--seed", str(seed), "--out", str(out)])
    if code:
        raise SystemExit(code)
    found = read_json(out / METRICS, benchmark.DELETE)
    kept = ("accuracy", "purity", "nmi", "ari", "clusters_used", "seed", "versions", "made_by")
    return {key: found[key] for key in kept} | {"seconds": found["train_seconds"]}


def of_all_rows(name: str, place: str, seed: int) -> dict[str, Any]:
    """``pyro_infocat.InfoCatVAE(K).fit(table)`` as it is."""
    import pandas as pd

    from pyro_infocat import InfoCatVAE
    from pyro_infocat.evaluation.clustering import clustering

    table, categories = pd.read_csv(place), SETS[name].categories
    began = time.perf_counter()
    made = InfoCatVAE(categories, random_state=seed).fit(table.drop(columns=LABEL))
    seconds = time.perf_counter() - began
    figures = clustering(pd.factorize(table[LABEL])[0], made.labels_, categories)
    versions = {"python": platform.python_version(), "torch": version("torch")}
    of_the_run = {"seconds": seconds, "seed": seed, "versions": versions, "made_by": made_by()}
    return figures | of_the_run


# The runs.


def run(options: Options) -> None:
    """Run what is not finished, each in a process of its own."""
    options.results.mkdir(parents=True, exist_ok=True)
    methods = [method for method in options.methods if is_there(METHODS[method])]
    for name in options.data:
        for method in methods:
            if METHODS[method].deep and SETS[name].large and not options.all:
                continue
            if is_committed(name, method) or (method == OWN and name not in DATA_SETS):
                continue
            try:
                chosen = settings(name, method, options.data_root)
            except UserError as error:
                print(f"{SETS[name].title} is left out: {error}", file=sys.stderr)
                break
            record = kept(options.results, name, method, chosen)
            for seed in options.seeds:
                if seed not in [one["seed"] for one in record["runs"]]:
                    add(record, seed, apart(name, method, seed, options.data_root))
                    text = json.dumps(record, indent=1) + "\n"
                    replace(options.results / f"{name}-{method}.json", text.encode())


def is_committed(name: str, method: str) -> bool:
    """Whether the row is that of a preset, which ``pyro_infocat.benchmark`` makes."""
    return method == OURS and name in DATA_SETS


def is_there(method: Method) -> bool:
    """Whether a method's packages are; one line says which is not."""
    for module, package in method.packages.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            said = f"no package {package}; pip install -r requirements-rivals.txt"
            print(f"{method.title} is left out: {said}", file=sys.stderr)
            return False
    return True


def settings(name: str, method: str, root: Path) -> dict[str, Any]:
    """What a row's runs are made with: runs of anything else are made anew.

    :raises UserError: where the data are not there.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = placed(name, root, Path(folder))
        if METHODS[method].fit is None:
            from pyro_infocat.resolve import preset_of

            preset = PRESETS / "images.yaml" if method == OWN else preset_of(place)
            return {"recipe": benchmark.recipe(preset, flags(name, method))}
    return {**METHODS[method].settings, **({"rows": "all"} if SETS[name].table else {})}


def kept(results: Path, name: str, method: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a method and a data set: that of the same settings, or an empty one."""
    new = {"data": name, "method": method, "settings": chosen, "runs": [], "failures": []}
    file = results / f"{name}-{method}.json"
    record = read_json(file, benchmark.DELETE) if file.exists() else new
    return record if record["settings"] == chosen else new


def add(record: dict[str, Any], seed: int, found: dict[str, Any] | str) -> None:
    """Keep a run, or the line that says why it failed."""
    record["failures"] = [one for one in record["failures"] if one["seed"] != seed]
    if isinstance(found, str):
        record["failures"].append({"seed": seed, "said": found})
    else:
        record["runs"].append(found)
    for key in ("runs", "failures"):
        record[key].sort(key=lambda one: one["seed"])


def apart(name: str, method: str, seed: int, root: Path) -> dict[str, Any] | str:
    """A run in a process of its own: its figures, or the line that says why it failed."""
    command = [sys.executable, "-m", MODULE, "--here", "true", "--data_root", str(root)]
    command += ["--data", name, "--methods", method, "--seeds", str(seed)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # The last line: a rival may print what it likes before.
    last = (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]
    label = f"{METHODS[method].title} on {SETS[name].title}, seed {seed}"
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(last)
        told = f"accuracy {found['accuracy']:.3f}, {found['seconds']:.0f} s"
        print(f"{label}: {told}", flush=True)
        return found
    said = last.removeprefix("error: ") if done.returncode > 0 else f"signal {-done.returncode}"
    print(f"{label} failed: {said}", file=sys.stderr, flush=True)
    return said


# The table.


Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""The record of a data set and a method."""

METRIC_TITLES = {
    "accuracy": ("Accuracy", "{:.3f}"),
    "nmi": ("Normalised mutual information", "{:.3f}"),
    "clusters_used": ("Categories in use", "{:.1f}"),
    "seconds": ("Seconds of fitting on one core", "{:.0f}"),
}

JUDGED = ("accuracy", "nmi")
"""Metrics of which the largest is the best."""


def table(results: Path) -> str:
    """The committed results as Markdown: a table a metric, a row a data set, a column a method."""
    found = records(results)
    parts = []
    for metric, (title, form) in METRIC_TITLES.items():
        head = ["data", *(method.title for method in METHODS.values())]
        if metric in JUDGED:
            head += ["worst of ours", "ours minus the best rival", "ours minus k-means"]
        rows = [row(found, name, metric, form) for name in SETS]
        parts.append(f"**{title}**\n\n{markdown_table(head, rows)}")
    failed = list(failures(found))
    if failed:
        parts.append("Failed:\n\n" + "\n".join(f"- {line}" for line in failed))
    return "\n\n".join([*parts, made_with(found)])


def records(results: Path) -> Rows:
    """The results in a folder that are of a data set and a method known here."""
    known = [(name, method) for name in SETS for method in METHODS]
    files = {pair: results / f"{'-'.join(pair)}.json" for pair in known}
    found = {
        pair: read_json(file, benchmark.DELETE) for pair, file in files.items() if file.exists()
    }
    for name in SETS:
        preset = DATA_SETS[name].preset if is_committed(name, OURS) else ""
        if preset and (file := results.parent / f"{preset}.json").exists():
            runs = read_json(file, benchmark.DELETE)["runs"]
            runs = [one for one in runs if one["seed"] in SEEDS]
            timed = [one | {"seconds": one["train_seconds"]} for one in runs]
            found[name, OURS] = {"runs": timed, "failures": []}
    return found


def row(found: Rows, name: str, metric: str, form: str) -> list[str]:
    """The cells of a data set. The best mean is bold, as is one that is printed the same."""
    values = {
        method: [one[metric] for one in found.get((name, method), {"runs": []})["runs"]]
        for method in METHODS
    }
    means = {method: statistics.mean(those) for method, those in values.items() if those}
    cells = {method: cell(those, form) for method, those in values.items()}
    if metric not in JUDGED:
        return [SETS[name].title, *cells.values()]
    best = form.format(max(means.values(), default=0))
    for method, mean in means.items():
        if form.format(mean) == best:
            cells[method] = f"**{cells[method]}**"
    rivals = [mean for method, mean in means.items() if method not in (OURS, OWN)]
    others = [max(rivals, default=None), means.get(PLAIN)]
    worst = form.format(min(values[OURS])) if values[OURS] else benchmark.NOTHING
    return [
        *(SETS[name].title, *cells.values(), worst),
        *(difference(means.get(OURS), other, form) for other in others),
    ]


def cell(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, and how many there are where they are not as many as usual."""
    if not values:
        return benchmark.NOTHING
    text = form.format(statistics.mean(values))
    if len(values) > 1:
        text += f" ± {form.format(statistics.stdev(values))}"
    return text if len(values) == len(SEEDS) else f"{text} (of {len(values)})"


def difference(one: float | None, other: float | None, form: str) -> str:
    """One mean minus another, with its sign."""
    if one is None or other is None:
        return benchmark.NOTHING
    return form.replace(":", ":+").format(one - other)


def failures(found: Rows) -> Iterator[str]:
    """A line for each run that failed."""
    for (name, method), record in found.items():
        for one in record["failures"]:
            label = f"{METHODS[method].title} on {SETS[name].title}, seed {one['seed']}"
            yield f"{label}: {one['said']}"


def made_with(found: Rows) -> str:
    """Which versions the results are of, in a line."""
    versions: dict[str, set[str]] = {}
    own: list[dict[str, Any]] = []
    for (_, method), record in found.items():
        own += record["runs"] if method in (OURS, OWN) else []
        for one in record["runs"]:
            for package, number in one["versions"].items():
                versions.setdefault(package, set()).add(number)
    said = [f"{package} {' and '.join(sorted(versions[package]))}" for package in sorted(versions)]
    by = f"InfoCatVAE {' and '.join(benchmark.versions(own))}" if own else "no run of InfoCatVAE"
    return f"Made with {', '.join([by, *said])}."


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
