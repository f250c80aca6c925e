"""How many seconds of training until the categories have an accuracy on the test split.

    python -m benchmarks.time_to_accuracy runs/mnist.yaml [--seeds 0 1] [--out FILE] [FLAGS]

Labels only watch: nothing is chosen by them. Looking costs an encoder pass an epoch, which is not
counted. Written to FILE as they come, an entry a seed, so that a run that is cut short keeps what
it has.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks.step_time import machine
from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.cli import run_flags
from pyro_infocat.data import DataSet
from pyro_infocat.evaluation import Tested
from pyro_infocat.evaluation.clustering import clustering
from pyro_infocat.experiment import precise, read_data
from pyro_infocat.runtime.device import pick
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import Settings
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.loop import train
from pyro_infocat.training.restarts import best_start

MARKS = (0.9, 0.95, 0.98, 0.99)


class Watched(RunFolder):
    """A run's folder in which each epoch's accuracy is noted.

    :ivar epochs: seconds of training so far, and accuracy, after each epoch.
    """

    def __init__(self, path: Path, parts: Parts, data: DataSet, settings: Settings) -> None:
        super().__init__(path)
        self.parts, self.data, self.settings = parts, data, settings
        self.epochs: list[tuple[float, float]] = []

    def save(self, checkpoint: Mapping[str, Any], history: list[dict[str, float]]) -> None:
        """Nothing is kept but the accuracy."""
        model, guide = self.parts.model, self.parts.guide
        seen = observation(self.settings, model.decoder.likelihood)
        with evaluating(model.prior.logits.device, model, guide):
            tested = Tested(model, guide, self.data, seen, history)
            found = clustering(
                tested.labels.cpu().numpy(), tested.category.cpu().numpy(), guide.categories
            )
        self.epochs.append((sum(row["seconds"] for row in history), found["accuracy"]))


def watch(settings: Settings, data: DataSet, device: torch.device) -> dict[str, Any]:
    """Train once; seconds to each mark, and to the end."""
    pyro.set_rng_seed(settings.seed)
    builder = Builder(settings, data.facts)
    parts = builder.parts(device)
    with tempfile.TemporaryDirectory() as place:
        folder = Watched(Path(place), parts, data, settings)
        began = time.perf_counter()
        checkpoint = None
        if settings.starts > 1:
            plain = RunFolder(Path(place))
            checkpoint = best_start(settings, data, device, builder, plain, False)
        starts = time.perf_counter() - began
        with pyro.validation_enabled(False):
            train(settings, data, parts, folder, checkpoint, progress=False)
    reached = {
        str(mark): next((seconds for seconds, accuracy in folder.epochs if accuracy >= mark), None)
        for mark in MARKS
    }
    seconds, accuracy = folder.epochs[-1]
    return {
        "seed": settings.seed,
        "accuracy": accuracy,
        "seconds": seconds,
        "starts_seconds": starts if settings.starts > 1 else 0.0,
        "seconds_to": reached,
        "epochs": folder.epochs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="a JSON file")
    options, flags = parser.parse_known_args()
    found: list[dict[str, Any]] = []
    for seed in options.seeds:
        argv = ["--config", options.preset, "--seed", str(seed), *flags]
        settings = run_flags.read(argv).resolver.settings()
        device = pick(settings.device)
        if settings.precision == "auto":
            settings, _ = precise(settings, None, device)
        if seed == options.seeds[0]:
            data = read_data(settings).to(device)
        found.append(watch(settings, data, device))
        one = found[-1]
        print(
            f"{options.preset} seed {seed}: accuracy {one['accuracy']:.4f} after "
            f"{one['seconds']:.1f} s; seconds to {one['seconds_to']}",
            flush=True,
        )
        if options.out:
            record = {
                "machine": machine(str(device), torch.get_num_threads()),
                "preset": options.preset,
                "flags": flags,
                "runs": found,
            }
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
