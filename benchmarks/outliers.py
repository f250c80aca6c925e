"""How well log p(x) tells a run's own test images from those of another data set.

    python -m benchmarks.outliers RUN OTHER [--samples 100] [--number 2000]

RUN is the folder of a finished run, OTHER data of the same shape as --data takes them. Prints the
area under the ROC curve of two scores, the larger the likelier an outlier: -log p(x) by importance
sampling, and the entropy of q(c|x). No label is looked at.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import pyro_infocat as pic
from pyro_infocat.assignment import assign
from pyro_infocat.cli.markdown import markdown_table
from pyro_infocat.data import Split
from pyro_infocat.experiment import read_data
from pyro_infocat.loading import Run


def scores(run: Run, split: Split, number: int, samples: int) -> dict[str, np.ndarray]:
    """Scores of at most so many examples (N,), by name."""
    assigned = list(assign(run, split.some(number), samples))
    q = np.concatenate([one.probabilities for one in assigned])
    log_p = np.concatenate([one.log_p for one in assigned if one.log_p is not None])
    entropy = -(q * np.log(np.maximum(q, np.finfo(q.dtype).tiny))).sum(1)
    return {"-log p(x)": -log_p, "H(q(c|x))": entropy}


def areas(run: Run, other: str, number: int, samples: int) -> dict[str, float]:
    """The area under the ROC curve of each score."""
    own = scores(run, read_data(run.settings).test, number, samples)
    away = read_data(replace(run.settings, data=other, reader=None)).test
    others = scores(run, away, number, samples)
    which = [False] * len(own["-log p(x)"]) + [True] * len(others["-log p(x)"])
    return {
        name: float(roc_auc_score(which, np.concatenate([score, others[name]])))
        for name, score in own.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("other")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--number", type=int, default=2000)
    given = parser.parse_args()
    found = areas(pic.load(given.run), given.other, given.number, given.samples)
    rows = [[name, f"{area:.3f}"] for name, area in found.items()]
    print(markdown_table(["score", "area under the ROC curve"], rows))


if __name__ == "__main__":
    main()
