"""What tests of whole runs read of a run's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_infocat.cli import run_flags
from pyro_infocat.settings import HISTORY, METRICS, Settings

SHARES = {
    "accuracy",
    "purity",
    "nmi",
    "generation_accuracy",
    "generation_accuracy_classifier",
    "confidence",
    "calibration_error",
    "calibration_error_labels",
    "given_back_mean",
    "style_leak",
    "style_leak_chance",
    "own_block_variance",
}
METRIC_KEYS = SHARES | {
    "ari",
    "clusters_used",
    "elbo",
    "nll",
    "nll_samples",
    "generation_samples",
    "gan_train",
    "kid",
    "kid_of_categories",
    "generation_precision",
    "generation_precision_of_categories",
    "generation_recall",
    "generation_recall_of_categories",
    "reconstruction",
    "kl_z",
    "kl_c",
    "information_bound",
    "given_back",
    "doubts",
    "style_kept",
    "epochs",
    "train_seconds",
    "examples_per_second",
    "device",
    "precision",
    "seed",
    "versions",
    "made_by",
}
"""What metrics.json holds of data with labels."""

TIMES = {"seconds", "train_seconds", "examples_per_second"}


def parse(argv: Sequence[str]) -> tuple[Settings, Path, bool]:
    """The settings, the folder and whether to resume, as the command line says."""
    return run_flags.parse(run_flags.read(argv))


def metrics(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / METRICS).read_text())


def history(folder: str | Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / HISTORY).read_text().splitlines()]


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def same_run(one: str | Path, other: str | Path) -> bool:
    """Whether two runs agree to the last bit in everything but their times."""
    histories = [[timeless(row) for row in history(folder)] for folder in (one, other)]
    return timeless(metrics(one)) == timeless(metrics(other)) and histories[0] == histories[1]
