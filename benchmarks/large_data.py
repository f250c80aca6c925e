"""Examples a second and peak memory of training, from memory and from disk, at two sizes.

    python -m benchmarks.large_data [--rows 1000000] [--images 100000] [--write]

Makes a table of 64 columns as .npy and as Parquet, and a folder of 32 x 32 JPEG files in colour,
each at the size that was asked for and at a quarter of it, in a folder that is removed afterwards.
Each is read, trained for one epoch by its kind's default and evaluated in a process of its own.
Examples a second are those of that epoch; what reading, evaluation and figures take stands beside
it. Memory is the peak less what the process held with everything imported.
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.documents import write
from benchmarks.step_time import machine
from pyro_infocat.places import ROOT

COLUMNS, SIDE, GROUPS = 64, 32, 10
RESULTS = ROOT / "benchmarks" / "results" / "large_data_cpu.json"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def table_blocks(rows: int) -> Iterator[np.ndarray]:
    """Points around ten centres, some thousands at a time."""
    random = np.random.default_rng(0)
    centres = 2 * random.standard_normal((GROUPS, COLUMNS), np.float32)
    for first in range(0, rows, 50_000):
        number = min(50_000, rows - first)
        noise = random.standard_normal((number, COLUMNS), np.float32)
        yield centres[random.integers(GROUPS, size=number)] + noise


def make_npy(path: Path, rows: int) -> None:
    """A table as an .npy."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, COLUMNS))
    first = 0
    for block in table_blocks(rows):
        array[first : first + len(block)] = block
        first += len(block)


def make_parquet(path: Path, rows: int) -> None:
    """The same as Parquet."""
    import pyarrow
    import pyarrow.parquet

    names = [f"x{number}" for number in range(COLUMNS)]
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for block in table_blocks(rows):
            columns = [pyarrow.array(column) for column in block.T]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def make_folder(path: Path, images: int) -> None:
    """Pictures of one disc each, a folder for each of ten colours."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(images):
        group = number % GROUPS
        folder = path / f"{group}"
        folder.mkdir(parents=True, exist_ok=True)
        row, column, radius = random.uniform((8, 8, 4), (24, 24, 8))
        disc = (y - row) ** 2 + (x - column) ** 2 < radius**2
        colour = np.array([25 * group, 255 - 25 * group, 128])
        picture = np.where(disc[..., None], colour, random.integers(256)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=85)


def peak() -> float:
    """The most memory that this process has held since it was last reset, in mebibytes."""
    found = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text())
    assert found, "VmHWM is in the status of every process of Linux"
    return int(found[1]) / 2**10


def measure(data: str, data_on: str) -> dict[str, float]:
    """One epoch, in this process."""
    import pyro_infocat

    # The peak so far was that of the imports.
    RESET.write_text("5")
    before, began = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        run = pyro_infocat.fit(
            data, out=f"{out}/run", epochs=1, data_on=data_on, nll_samples=1, device="cpu"
        )
        row, whole = run.history[0], time.perf_counter() - began
        examples = run.metrics["examples_per_second"]
    return {
        "examples_per_second": examples,
        "seconds": row["seconds"],
        "other_seconds": whole - row["seconds"],
        "mebibytes": peak() - before,
    }


def in_a_process(data: Path, data_on: str) -> dict[str, float]:
    """The same, in one of its own."""
    call = [sys.executable, "-m", "benchmarks.large_data", "--measure", str(data), data_on]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table() -> str:
    """The results as a table."""
    held = json.loads(RESULTS.read_text())
    lines = [
        "| data | N | from | examples/s | epoch, s | all else, s | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in held["rows"]:
        lines.append(
            f"| {one['kind']} | {one['number']:,} | {one['data_on']} | "
            f"{one['examples_per_second']:,.0f} | {one['seconds']:.0f} | "
            f"{one['other_seconds']:.0f} | {one['mebibytes']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the data, measure, print; with --write keep the results and their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(*given.measure)))
        return
    kinds = [
        ("table, .npy", "t.npy", make_npy, given.rows),
        ("table, Parquet", "t.parquet", make_parquet, given.rows),
        (f"{SIDE} x {SIDE} JPEG files", "pictures", make_folder, given.images),
    ]
    measured: list[dict[str, Any]] = []
    for kind, name, make, most in kinds:
        for number in (most // 4, most):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
                data = Path(folder) / name
                make(data, number)
                for data_on in ("memory", "disk"):
                    found = in_a_process(data, data_on)
                    named = {"kind": kind, "number": number, "data_on": data_on}
                    measured.append(named | found)
                    print(json.dumps(measured[-1]), flush=True)
    if given.write:
        held = {"machine": machine("cpu", torch.get_num_threads()), "rows": measured}
        RESULTS.write_text(json.dumps(held, indent=1) + "\n")
        write("large-data", lambda document: table())


if __name__ == "__main__":
    main()
