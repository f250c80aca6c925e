"""A run on the digits that takes a moment, and runs in a process of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyro_infocat import report
from pyro_infocat.evaluation import figures, generation, judge

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""

SMALL = [
    *("--batch_size", "400", "--nll_samples", "2", "--device", "cpu"),
    *("--encoder.hidden", "[16]", "--decoder.hidden", "[16]", "--guide.hidden", "16"),
    *("--starts", "1", "--schedules", "{}"),
]
"""Four steps an epoch with small networks, and every term of the preset in each."""

QUICK: dict[str, Any] = {
    **{"epochs": 1, "batch_size": 400, "nll_samples": 2, "device": "cpu"},
    **{"encoder.hidden": [16], "decoder.hidden": [16], "guide.hidden": 16},
    **{"starts": 1, "schedules": {}},
}
"""One epoch of that, as settings."""


def be_brief(patch: pytest.MonkeyPatch) -> None:
    """No figures, no report, and an independent classifier that learns and judges less."""
    patch.setattr(figures, "draw", lambda *_: None)
    patch.setattr(report, "write", lambda *_: None)
    judge_little(patch)


def judge_little(patch: pytest.MonkeyPatch) -> None:
    """An independent classifier that learns and judges less."""
    patch.setattr(judge, "PASSES", 1)
    patch.setattr(judge, "EXAMPLES", 1)
    patch.setattr(generation, "GENERATED", 100)


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
