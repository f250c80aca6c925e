"""Decoding all categories of an example, or a few and one drawn: what MNIST's bound makes of it.

    python -m benchmarks.decoded [--jobs 2] [--seeds 0 1]

The paper's preset with one start and a few epochs, from the first step on, when q(c|x) is not yet
decided. Finished rows are kept, so the same command resumes. docs/cost.md holds the table.
"""

import argparse
from pathlib import Path

from pyro_infocat import benchmark
from pyro_infocat.settings import ROOT

PRESET = ROOT / "runs" / "mnist-paper.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "decoded"
DOCUMENT = ROOT / "docs" / "cost.md"
BRIEF = ["--starts", "1", "--epochs", "4", "--nll_samples", "10"]
BRIEF += ["--schedules", "{kl_z: [[0, 2], [1, 2], [3, 1]]}"]
ROWS = {
    "1 likeliest and one drawn": "1",
    "2 likeliest and one drawn": "2",
    "3 likeliest and one drawn": "3",
    "all ten categories": "0",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", default=["0", "1"])
    parser.add_argument("--out", type=Path, default=Path("runs/decoded"))
    options = parser.parse_args()
    for name, decoded in ROWS.items():
        command = [str(PRESET), "--name", name, "--seeds", *options.seeds]
        command += ["--jobs", str(options.jobs), "--out", str(options.out)]
        benchmark.main([*command, "--results", str(RESULTS), *BRIEF, "--decoded", decoded])
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(benchmark.with_table(text, benchmark.table(RESULTS), "decoded"))


if __name__ == "__main__":
    main()
