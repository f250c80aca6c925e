"""``python tests/campaigns/run.py [PART] [--minutes N] [--seed S]``: many tries at random.

    kills      kill -9 at random moments of runs, starts, benchmarks and several processes
    disk       a disk that is full at the n-th write, for every n
    files      files that are damaged, cut short, extended or others
    commands   command lines made from the declared settings

A part prints each try that did not end as it should, with a number: ``--first NUMBER --number 1``
does that one again. The counts go to RESULT.md beside this file. A failure ends with exit code 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"  # Read when torch is imported; a fork must have no threads.

from tests.campaigns import children, commands, disk, files, kills  # noqa: E402
from tests.campaigns.tally import Tally  # noqa: E402

PARTS = {"kills": kills, "disk": disk, "files": files, "commands": commands}
RESULT = Path(__file__).with_name("RESULT.md")
HEAD = """\
# The last campaign

`python tests/campaigns/run.py all` writes this page; a part that is run alone writes its row.

| part | commit | day | seed | minutes | tries | failures | ends |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> int:
    """Run the parts that are asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--number", type=int, help="of tries; default the part's own")
    asked = parser.parse_args()
    children.imported()
    failed = 0
    for name in PARTS if asked.part == "all" else [asked.part]:
        part, began = PARTS[name], time.monotonic()
        numbers = range(asked.first, asked.first + (asked.number or part.USUAL))
        place = Path(tempfile.mkdtemp(prefix=f"campaign-{name}-"))
        try:
            tally = part.campaign(
                place,
                numbers,
                lambda number, name=name: Random(f"{asked.seed} {name} {number}"),
                began + 60 * asked.minutes,
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        failed += len(tally.failures)
        row = told(name, tally, asked.seed, (time.monotonic() - began) / 60)
        print(row, flush=True)
        if asked.number is None and not asked.first:
            write(name, row)
    return 1 if failed else 0


def told(name: str, tally: Tally, seed: int, minutes: float) -> str:
    """A part's row of the table."""
    counts = [f"{count} {end}" for end, count in sorted(tally.ends.items())]
    ends = "; ".join([*counts, *tally.completed])
    tries = sum(tally.ends.values()) + len(tally.failures)
    day = datetime.now(UTC).date()
    cells = [name, commit(), day, seed, f"{minutes:.0f}", tries, len(tally.failures), ends]
    return "| " + " | ".join(map(str, cells)) + " |"


def commit() -> str:
    """The commit of the code, and whether it was changed since."""
    code = ["pyro_infocat", "models", "guides"]
    changed = git("status", "--porcelain", "--", *code)
    return git("rev-parse", "--short=10", "HEAD") + (" with changes" if changed else "")


def git(*words: str) -> str:
    """What git says."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(name: str, row: str) -> None:
    """Put a part's row in the place of its last one."""
    text = RESULT.read_text() if RESULT.exists() else HEAD
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()[6:] if line}
    rows[name] = row
    RESULT.write_text(HEAD + "".join(f"{rows[part]}\n" for part in PARTS if part in rows))


if __name__ == "__main__":
    sys.exit(main())
