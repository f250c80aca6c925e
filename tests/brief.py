"""A run on the digits that takes a moment, and runs in a process of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

from pyro_infocat.settings import ROOT

SMALL = [
    *("--batch_size", "400", "--nll_samples", "2", "--device", "cpu"),
    *("--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--guide.hidden", "16"),
]
"""Four steps an epoch with small networks."""


def start(*flags: str) -> subprocess.Popen[str]:
    """``python -m pyro_infocat.run`` with these flags, here."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "pyro_infocat.run", *flags],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails where the process ends first or two minutes pass."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
