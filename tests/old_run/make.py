"""Makes the run beside this file by the code of commit e115f6e, the last without a version.

    git worktree add /tmp/before e115f6e
    python tests/old_run/make.py /tmp/before

Later code must load, sample and resume it: see tests/pyro_infocat/test_old_run.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "run"
FLAGS = [
    *("--epochs", "2", "--batch_size", "400", "--nll_samples", "2", "--device", "cpu"),
    *("--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--guide.hidden", "16"),
]


def main(checkout: str) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [sys.executable, "-m", "pyro_infocat.run", *FLAGS, "--out", str(FOLDER)]
    environment = os.environ | {"PYTHONPATH": checkout, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=checkout, env=environment, check=True)
    # Figures and TensorBoard's events are not read back.
    shutil.rmtree(FOLDER / "figures")
    for events in FOLDER.glob("events.*"):
        events.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
