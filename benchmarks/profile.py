"""What the kernels of a preset's steps take: a trace of some of them, and the longest.

python -m benchmarks.profile runs/mnist.yaml [--device cuda] [--out FILE]
"""

import argparse
import time
from pathlib import Path

import pyro
import torch
from torch.profiler import ProfilerActivity, profile

from pyro_infocat.build import Builder, observation
from pyro_infocat.cli import run_flags
from pyro_infocat.experiment import precise, read_data
from pyro_infocat.networks import computing_in
from pyro_infocat.runtime.device import pick
from pyro_infocat.training.loop import adam, recordable
from pyro_infocat.training.schedules import Schedule
from pyro_infocat.training.step import Step

WARM_UP, STEPS = 8, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("--out", type=Path, help="a trace for chrome://tracing")
    options, flags = parser.parse_known_args()
    settings = run_flags.read(["--config", options.preset, *flags]).resolver.settings()
    device = pick(settings.device)
    settings, _ = precise(settings, None, device)
    data = read_data(settings).to(device)
    pyro.set_rng_seed(settings.seed)
    pyro.enable_validation(False)
    parts = Builder(settings, data.facts).parts(device)
    module = parts.bound(parts.model, parts.guide).train()
    optimizer = adam(module.parameters(), settings.learning_rate)
    schedule = Schedule(settings, parts)
    # All terms have their weight in the last epoch.
    schedule.set(settings.epochs - 1, optimizer)
    observed = observation(settings, parts.model.decoder.likelihood)
    recorded = recordable(settings, data.train, parts.bound.written_out(parts.model, parts.guide))
    constants = (lambda: schedule.constants(optimizer)) if recorded else None
    step = Step(data.train, observed, parts, module, optimizer, constants)
    index = data.train.shuffled()[: settings.batch_size]
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with computing_in(settings.precision, module):
        for _ in range(WARM_UP):
            step(index)
        _wait(device)
        began = time.perf_counter()
        with profile(activities=kinds) as seen:
            for _ in range(STEPS):
                step(index)
            _wait(device)
    milliseconds = 1e3 * (time.perf_counter() - began) / STEPS
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(f"{options.preset} on {device}: {milliseconds:.2f} ms a step while it is watched")
    print(seen.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60))
    if options.out:
        seen.export_chrome_trace(str(options.out))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
