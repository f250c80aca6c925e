"""How often ``--prior.categories auto`` finds the number of clusters of mixtures that are known.

    python -m benchmarks.number [--seeds 0 1] [--spread 1]

K normal clusters of 100 rows in D columns, each round with a standard deviation of its own, uniform
from 0.7 to 1.3. Their centres are normal, and no two lie nearer than 4: with two clusters at that
distance some 2% of the rows are nearer to the other's centre. Beside them scikit-learn's tables.
Labels are looked at by nobody. ``--spread`` multiplies the standard deviations.
"""

import argparse
import time
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from sklearn import datasets

from pyro_infocat.cli.markdown import markdown_table
from pyro_infocat.data import DataSet
from pyro_infocat.data.table import Rows, data_set
from pyro_infocat.keywords import resolved
from pyro_infocat.training.number import of_tables

CATEGORIES = (2, 3, 5, 8, 12, 20, 30)
COLUMNS = (2, 4, 8, 16)
EACH = 100
APART = 4.0

TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
}


def mixture(categories: int, columns: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """Rows (N, X) of K = ``categories`` clusters, ``EACH`` of each."""
    random = np.random.default_rng([categories, columns, seed])
    size = APART
    while len(centres := list(_apart(random, categories, columns, size))) < categories:
        size *= 1.1
    deviations = spread * random.uniform(0.7, 1.3, categories)
    clusters = [
        centre + deviation * random.normal(size=(EACH, columns))
        for centre, deviation in zip(centres, deviations, strict=True)
    ]
    return np.concatenate(clusters)


def _apart(
    random: np.random.Generator, categories: int, columns: int, size: float
) -> Iterator[np.ndarray]:
    """Centres of which no two are too near, as many as there is room for."""
    held: list[np.ndarray] = []
    for _ in range(2000):
        one = size * random.normal(size=columns)
        if len(held) < categories and all(np.linalg.norm(one - o) >= APART for o in held):
            held.append(one)
            yield one


def found(rows: np.ndarray, most: int = 50) -> int:
    """The number of categories that a run on these rows would have."""
    frame = pd.DataFrame(rows, columns=[f"x{n}" for n in range(rows.shape[1])])
    data: DataSet = data_set(Rows(frame), "the rows", whole=True)
    settings, _, _ = resolved("fit", None, "table", {"prior.categories": "auto"})
    return of_tables(settings, data, min(most, len(rows))).categories


def series(seeds: Iterable[int], spread: float) -> Iterator[tuple[int, int, int, int]]:
    """K, D, the seed, and the number found."""
    for categories in CATEGORIES:
        for columns in COLUMNS:
            for seed in seeds:
                rows = mixture(categories, columns, seed, spread)
                yield categories, columns, seed, found(rows)


def table(results: list[tuple[int, int, int, int]]) -> str:
    """How many of each K were found, by the number of columns."""
    head = ("K", *(f"{columns} columns" for columns in COLUMNS))
    lines = []
    for categories in CATEGORIES:
        cells = []
        for columns in COLUMNS:
            those = [k for c, d, _, k in results if (c, d) == (categories, columns)]
            wrong = [str(k) for k in those if k != categories]
            right = f"{len(those) - len(wrong)} of {len(those)}"
            cells.append(right + (f" (also {', '.join(wrong)})" if wrong else ""))
        lines.append((str(categories), *cells))
    return markdown_table(head, lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=1.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, load in TABLES.items():
        rows = load().data
        began = time.perf_counter()
        print(f"{name}: {found(rows)} ({time.perf_counter() - began:.1f} s)", flush=True)
    began = time.perf_counter()
    results = list(series(given.seeds, given.spread))
    right = sum(categories == k for categories, _, _, k in results)
    seconds = time.perf_counter() - began
    print(f"{table(results)}\n{right} of {len(results)} right ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
