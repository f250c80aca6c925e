"""How a step's time and memory grow with the number of categories.

    python -m benchmarks.growth [--device cuda] [--write]

The project's step (enumerated bound with the analytic KL, information bound, Adam) at B = 128,
X = 784, H = 400 and two latent dimensions for each category, with all categories decoded, and with
the two likeliest and one drawn by chance, an unbiased estimate. Each row is measured in a process
of its own. Its memory is the peak less what the process held before the first step, with everything
imported and the parameters made.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyro
import torch

from benchmarks.documents import write
from benchmarks.step_time import FEATURES, RESULTS, machine, parts, step
from guides import Enumerated
from pyro_infocat.objective import InfoCatELBO

BATCH, HIDDEN = 128, 400
ROWS = [(10, 0), (100, 0), (10, 2), (100, 2), (1000, 2)]
"""Categories, and how many are decoded for certain; 0: all."""


def measure(categories: int, decoded: int, device: str, steps: int) -> dict[str, float]:
    """Median milliseconds of a step, and the peak of memory in mebibytes."""
    pyro.enable_validation(False)
    model, guide = parts(categories, HIDDEN, Enumerated, device)
    model.kl = "analytic"
    module = InfoCatELBO(decoded=decoded)(model, guide)
    take = step("pyro_infocat", module, list(module.parameters()))
    x = torch.bernoulli(torch.full((BATCH, FEATURES), 0.3)).to(device)
    before = peak(device)
    times = []
    for _ in range(steps + 3):
        began = time.perf_counter()
        take(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return {"ms": statistics.median(times[3:]), "mebibytes": peak(device) - before}


def peak(device: str) -> float:
    """The most memory that this process has held so far, in mebibytes."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def table() -> str:
    """The committed results as Markdown."""
    lines = ["| machine | K | decoded | ms a step | over K = 10, all decoded | memory, MiB |"]
    lines.append("|" + " --- |" * 6)
    for file in sorted(RESULTS.glob("growth_*.json")):
        record = json.loads(file.read_text())
        first = record["rows"][0]["ms"]
        name = "{device}, {threads} threads, torch {torch}".format(**record["machine"])
        for row in record["rows"]:
            decoded = f"{row['decoded']} and one drawn" if row["decoded"] else "all"
            ratio, memory = f"{row['ms'] / first:.1f}", f"{row['mebibytes']:.0f}"
            cells = [name, str(row["categories"]), decoded, f"{row['ms']:.1f}", ratio, memory]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="the results and their table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--row", type=int, nargs=2, help="K and decoded: this row alone, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if torch.device(options.device).index is not None:
        torch.cuda.set_device(options.device)
    if options.row:
        print(json.dumps(measure(*options.row, options.device, options.steps)))
        return
    rows = []
    for categories, decoded in ROWS:
        command = [sys.executable, "-m", "benchmarks.growth", "--device", options.device]
        command += ["--threads", str(options.threads), "--steps", str(options.steps)]
        command += ["--row", str(categories), str(decoded)]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"categories": categories, "decoded": decoded, **json.loads(out)})
        print(rows[-1], flush=True)
    if options.write:
        record = {"machine": machine(options.device, options.threads), "rows": rows}
        file = options.results / f"growth_{torch.device(options.device).type}.json"
        file.write_text(json.dumps(record, indent=1) + "\n")
        if options.results == RESULTS:
            write("growth", lambda document: table())


if __name__ == "__main__":
    main()
