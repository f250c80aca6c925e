"""Rivals from scikit-learn on the data of the presets: a row each of the same table.

    python -m benchmarks.rivals [--data mnist] [--seeds 0 1 2] [--only "k-means"]

k-means groups grey levels; a Gaussian mixture groups the codes of an autoencoder. Neither sees a
label. The autoencoder's activation was chosen by the squared error of a tenth of the training
images that it was not trained on. Finished seeds are kept, so the same command resumes.
"""

import argparse
import json
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import MLPRegressor
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_infocat.benchmark import RESULTS, table
from pyro_infocat.data import DataSet, load
from pyro_infocat.errors import UserError
from pyro_infocat.evaluate import clustering, generation
from pyro_infocat.files import replace, trouble
from pyro_infocat.parser import Parser
from pyro_infocat.settings import MOST_SEED

CATEGORIES = 10

SETTINGS: dict[str, dict[str, Any]] = {
    "k-means": {"starts": 10},
    "autoencoder + Gaussian mixture": {
        "hidden": (400, 10, 400),
        "batch": 256,
        "passes": 20,
        # A small data set takes more passes, until this many are seen.
        "examples": 1_200_000,
        "starts": 5,
    },
}
"""What each rival is made with. Of several random starts the best by the rival's own measure."""

TITLES = {"digits": "the digits", "mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


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
    # As much of a model as generation asks for.
    model: Any = SimpleNamespace(
        prior=SimpleNamespace(
            categories=CATEGORIES, component=lambda c: MultivariateNormal(means[c], covariances[c])
        ),
        decoder=lambda z: SimpleNamespace(mean=through(network, z.relu(), 2, 4)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generated = generation(model, data, found, seed)
    recovered = clustering(data.test.labels.numpy(), found, CATEGORIES)
    return recovered | generated | {"train_seconds": seconds}


def codes(network: MLPRegressor, x: Tensor) -> np.ndarray:
    """The narrow layer (N, D) for images x (N, X)."""
    return through(network, x.double(), 0, 2).relu().numpy()


def through(network: MLPRegressor, x: Tensor, begin: int, end: int) -> Tensor:
    """What layers of the network make of x (..., X): (..., Y), the last of them not activated."""
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
        run(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --results", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What this command was told.

    :raises UserError: for anything that the user gave wrong.
    """
    description = (__doc__ or "").split("\n")[0]
    parser = Parser(prog="python -m benchmarks.rivals", description=description)
    add = parser.add_argument
    add("--data", nargs="+", choices=TITLES, default=list(TITLES))
    add("--data_root", type=Path, default=Path("data"), help="where the archives are")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--only", nargs="+", choices=RIVALS, default=list(RIVALS))
    add("--results", type=Path, default=RESULTS, help="the JSON of each row goes here")
    options = parser.parse_args(argv)
    for seed in options.seeds:
        if not 0 <= seed <= MOST_SEED:
            raise UserError(f"--seeds {seed}: must lie in 0 to {MOST_SEED}")
    return options


def run(options: argparse.Namespace) -> None:
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
                "preset": "benchmarks.rivals",
                "flags": flags,
                "runs": [],
            }
            if file.exists():
                record = json.loads(file.read_text())
            if record["flags"] != flags:
                raise UserError(f"--results: '{file}' holds runs of other settings; delete it")
            for seed in options.seeds:
                if seed not in [run["seed"] for run in record["runs"]]:
                    record["runs"].append(measure(rival, data, seed))
                    record["runs"].sort(key=lambda run: run["seed"])
                    replace(file, (json.dumps(record, indent=1) + "\n").encode())
    print(table(options.results))


def measure(rival: str, data: DataSet, seed: int) -> dict[str, Any]:
    """A rival's figures of the test split."""
    with warnings.catch_warnings():
        # The number of passes is what ends them, which is no cause for alarm.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = RIVALS[rival](data, seed, **SETTINGS[rival])
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }
    return found | {"seed": seed, "versions": versions}


if __name__ == "__main__":
    sys.exit(main())
