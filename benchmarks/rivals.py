"""Rivals from scikit-learn on the data of the presets: a row each of the same table.

    python -m benchmarks.rivals [--data mnist] [--seeds 0 1 2] [--only "k-means"]

k-means clusters grey levels; a Gaussian mixture clusters the codes of an autoencoder. Neither sees
a label. The autoencoder's activation was chosen by its squared error on a tenth of the training
images, held out for that. Finished seeds are kept, so the same command resumes.
"""

import json
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPRegressor
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal

from pyro_infocat.benchmark import RESULTS, table
from pyro_infocat.cli import command_line
from pyro_infocat.data import DataSet, load
from pyro_infocat.errors import UserError
from pyro_infocat.evaluation.clustering import clustering
from pyro_infocat.evaluation.generation import generation
from pyro_infocat.settings import MOST_SEED, setting
from pyro_infocat.storage.files import replace, trouble
from pyro_infocat.version import made_by

MODULE = "benchmarks.rivals"

CATEGORIES = 10

SETTINGS: dict[str, dict[str, Any]] = {
    "k-means": {"starts": 10},
    "autoencoder + Gaussian mixture": {
        "hidden": (400, 10, 400),
        "batch": 256,
        "passes": 20,
        # More passes over a small data set, until the network was shown this many.
        "examples": 1_200_000,
        "starts": 5,
    },
}
"""Each rival's settings. Of its random starts the best by its own objective is taken."""

TITLES = {"digits": "the digits", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


@dataclass(frozen=True)
class Options:
    """Rivals from scikit-learn on the data of the presets: a row each of the same table."""

    data: list[Literal[tuple(TITLES)]] = setting(list(TITLES), "data sets")
    data_root: Path = setting(Path("data"), "where the archives are")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "of the runs", least=0, most=MOST_SEED)
    only: list[Literal[tuple(SETTINGS)]] = setting(list(SETTINGS), "which rivals")
    results: Path = setting(RESULTS, "the JSON of each row goes here")


def k_means(data: DataSet, seed: int, starts: int) -> dict[str, Any]:
    began = time.perf_counter()
    model = KMeans(CATEGORIES, n_init=starts, random_state=seed)
    model.fit(data.train.grey().numpy())
    seconds = time.perf_counter() - began
    found = model.predict(data.test.grey().numpy())
    return clustering(data.test.labels.numpy(), found, CATEGORIES) | {"train_seconds": seconds}


def autoencoder_mixture(
    data: DataSet,
    seed: int,
    hidden: tuple[int, ...],
    batch: int,
    passes: int,
    examples: int,
    starts: int,
) -> dict[str, Any]:
    began = time.perf_counter()
    x = data.train.grey()
    network = MLPRegressor(
        hidden_layer_sizes=hidden,
        batch_size=min(batch, len(x)),
        max_iter=max(passes, examples // len(x)),
        # The usual tolerance is large beside the error of a pixel.
        tol=0,
        random_state=seed,
    ).fit(x.numpy(), x.numpy())
    mixture = GaussianMixture(CATEGORIES, n_init=starts, random_state=seed)
    mixture.fit(codes(network, x))
    seconds = time.perf_counter() - began

    found = mixture.predict(codes(network, data.test.grey()))
    means, covariances = torch.from_numpy(mixture.means_), torch.from_numpy(mixture.covariances_)
    weights = torch.from_numpy(mixture.weights_)
    # What generation uses of a model.
    model: Any = SimpleNamespace(
        prior=SimpleNamespace(
            categories=CATEGORIES,
            category=lambda: Categorical(weights),
            component=lambda c: MultivariateNormal(means[c], covariances[c]),
        ),
        decoder=lambda z: SimpleNamespace(mean=through(network, z.relu(), 2, 4)),
    )
    generated = generation(model, data, found, seed)
    recovered = clustering(data.test.labels.numpy(), found, CATEGORIES)
    return recovered | generated | {"train_seconds": seconds}


def codes(network: MLPRegressor, x: Tensor) -> np.ndarray:
    """The narrow layer (N, D) for images x (N, X)."""
    return through(network, x.double(), 0, 2).relu().numpy()


def through(network: MLPRegressor, x: Tensor, begin: int, end: int) -> Tensor:
    """The output of some of the network's layers for x (..., X): (..., Y), the last one linear."""
    for layer in range(begin, end):
        weight, shift = network.coefs_[layer], network.intercepts_[layer]
        x = x if layer == begin else x.relu()
        x = x @ torch.from_numpy(weight).to(x.dtype) + torch.from_numpy(shift)
    return x


RIVALS: dict[str, Callable[..., dict[str, Any]]] = {
    "k-means": k_means,
    "autoencoder + Gaussian mixture": autoencoder_mixture,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options, _ = command_line.parse(Options, argv, MODULE)
        run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --results", file=sys.stderr)
        return 2
    return 0


def run(options: Options) -> None:
    """Run what is not finished and print the table."""
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.data:
        data = load(name, options.data_root)
        for rival in options.only:
            stem = re.sub(r"\W+", "-", f"rival {rival} {name}")
            file = options.results / f"{stem}.json"
            flags = [f"{key}={value}" for key, value in SETTINGS[rival].items()]
            record: dict[str, Any] = {
                "name": f"{rival} on {TITLES[name]}",
                "preset": MODULE,
                "flags": flags,
                "runs": [],
            }
            if file.exists():
                record = json.loads(file.read_text())
            if record["flags"] != flags:
                raise UserError(f"'{file}' holds runs of other settings; delete it", "results")
            for seed in options.seeds:
                if seed not in [run["seed"] for run in record["runs"]]:
                    record["runs"].append(measure(rival, data, seed))
                    record["runs"].sort(key=lambda run: run["seed"])
                    replace(file, (json.dumps(record, indent=1) + "\n").encode())
    print(table(options.results))


def measure(rival: str, data: DataSet, seed: int) -> dict[str, Any]:
    """A rival's figures on the test split, and what they were made by."""
    with warnings.catch_warnings():
        # It is the number of passes that ends the training, as intended.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = RIVALS[rival](data, seed, **SETTINGS[rival])
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }
    return found | {"seed": seed, "versions": versions, "made_by": made_by()}


if __name__ == "__main__":
    sys.exit(main())
