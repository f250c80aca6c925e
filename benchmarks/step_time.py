"""How long a training step takes: this project, plain Pyro, plain PyTorch, and the soft code.

    python -m benchmarks.step_time [--device cuda] [--write]

All four have the same networks with the same parameters, and Adam; the first three also the same
objective (the enumerated bound with a sampled KL, and the information bound). Before anything is
timed, these three must agree on the loss and on every gradient under the same noise. Steps are
interleaved, one of each in turn, so that a change of the machine's speed affects all of them;
figures are medians. The soft code decodes each example once and is no bound; it is for comparison.
"""

import argparse
import copy
import functools
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.documents import write
from guides import Enumerated, SoftCode, encoders
from guides.guide import LOG_SCALE_BOUND, Guide
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat.objective import InfoCatELBO, Terms
from pyro_infocat.objective.terms import information_bound
from pyro_infocat.places import ROOT
from pyro_infocat.training.loop import adam
from pyro_infocat.training.step import Recorder

RESULTS = ROOT / "benchmarks" / "results"
FEATURES, DELTA = 784, 2
CASES = {
    "K=10 B=128 H=400": (10, 128, 400),
    "K=10 B=16 H=64": (10, 16, 64),
    "K=100 B=128 H=400": (100, 128, 400),
}
Step = Callable[[Tensor], Tensor]


def parts(categories: int, hidden: int, guide: type[Guide], device: str) -> tuple[CatVAE, Guide]:
    torch.manual_seed(0)
    prior = priors.Orthogonal(categories, DELTA)
    encoder = functools.partial(encoders.MLP, FEATURES, [hidden])
    decoder = decoders.MLP(prior.latent, FEATURES, likelihoods.Bernoulli(), [hidden])
    made = guide(encoder, categories, prior.latent, hidden=hidden, shared=True)  # type: ignore[call-arg]
    return CatVAE(prior, decoder, "sampled").to(device), made.to(device)


def plain_pyro(model: CatVAE, guide: Guide) -> Step:
    """Pyro's own enumeration, with the information bound added to its loss."""
    bound = TraceEnum_ELBO(max_plate_nesting=1)(model, guide)
    return lambda x: bound(x) - information_bound(model, guide, len(x))


def plain_torch(model: CatVAE, guide: Enumerated) -> Step:
    """The same objective in PyTorch, written plainly and not for speed."""
    prior, network = model.prior, model.decoder.network
    modes: Tensor = prior.modes  # type: ignore[assignment]

    def log_normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        squares = ((z - mean) / log_scale.exp()) ** 2
        return (-0.5 * squares - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)

    def loss(x: Tensor) -> Tensor:
        features = guide.encoder(x)
        log_q = guide.classifier(features).log_softmax(-1).T
        c = torch.arange(prior.categories, device=x.device)[:, None]
        raw = guide.head(guide.from_x(features) + guide.from_c(c))
        mean, log_scale = raw.chunk(2, -1)
        log_scale = LOG_SCALE_BOUND * torch.tanh(log_scale / LOG_SCALE_BOUND)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        logits = network(z)
        target = x.expand_as(logits)
        fit = -binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        ratio = log_normal(z, modes[c], torch.zeros_like(modes[c])) - log_normal(z, mean, log_scale)
        bound = (log_q.exp() * (fit + ratio - log_q - math.log(prior.categories))).sum()
        return -bound - information(x)

    def information(x: Tensor) -> Tensor:
        steps = torch.arange(len(x), device=x.device)
        points = (steps + torch.rand((), device=x.device)) / len(x)
        c = torch.searchsorted(prior.category().probs.cumsum(-1), points)
        c = c.clamp_max(prior.categories - 1)
        mean = network(modes[c] + torch.randn_like(modes[c])).sigmoid()
        draw = (torch.rand_like(mean) < mean).to(mean.dtype) + (mean - mean.detach())
        log_q = guide.classifier(guide.encoder(draw)).log_softmax(-1)
        return log_q.gather(1, c[:, None]).sum() + len(x) * math.log(prior.categories)

    return loss


def contenders(categories: int, hidden: int, device: str) -> dict[str, tuple[Step, list]]:
    """Each contender's loss, and its own copy of the parameters."""
    model, guide = parts(categories, hidden, Enumerated, device)
    made: dict[str, tuple[Step, list]] = {}
    for name in ("pyro_infocat", "plain Pyro", "plain PyTorch"):
        pair = copy.deepcopy(torch.nn.ModuleList([model, guide]))
        loss: Step = {
            "pyro_infocat": lambda m, g: InfoCatELBO()(m, g),
            "plain Pyro": plain_pyro,
            "plain PyTorch": plain_torch,
        }[name](*pair)
        made[name] = (loss, list(pair.parameters()))
    soft = torch.nn.ModuleList(parts(categories, hidden, SoftCode, device))
    made["soft code"] = (InfoCatELBO()(*soft), list(soft.parameters()))
    return made


def check(made: dict[str, tuple[Step, list]], x: Tensor) -> None:
    """Stop unless the first three agree on the loss and on every gradient."""
    reference: tuple[Tensor, list[Tensor]] | None = None
    for name in ("plain PyTorch", "pyro_infocat", "plain Pyro"):
        loss, parameters = made[name]
        pyro.clear_param_store()
        torch.manual_seed(1)
        value = loss(x)
        gradients = list(torch.autograd.grad(value, parameters))
        if reference is None:
            reference = (value, gradients)
        close = torch.allclose(value, reference[0], rtol=1e-4)
        for ours, theirs in zip(gradients, reference[1], strict=True):
            close &= bool((ours - theirs).norm() <= 1e-3 * theirs.norm() + 1e-3)
        if not close:
            sys.exit(f"{name} does not agree with plain PyTorch; nothing was timed")


def measure(made: dict[str, tuple[Step, list]], x: Tensor, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step: loss, backward and Adam."""
    steps = {name: step(name, *contender) for name, contender in made.items()}
    if x.is_cuda:
        # As in training: recorded once as a CUDA graph, then replayed.
        recorder = Recorder(steps["pyro_infocat"])
        steps["pyro_infocat"] = lambda x: recorder(x, None)
    times: dict[str, list[float]] = {name: [] for name in made}
    for round_ in range(rounds + 5):
        for name, take in steps.items():
            began = time.perf_counter()
            take(x)
            if x.is_cuda:
                torch.cuda.synchronize()
            if round_ >= 5:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(series) for name, series in times.items()}


def step(name: str, loss: Step, parameters: list) -> Callable[[Tensor], Terms]:
    """A training step of a contender; ours has the fused Adam, the others PyTorch's default."""
    ours = name == "pyro_infocat"
    optimizer = adam(parameters, 1e-3) if ours else torch.optim.Adam(parameters)

    def take(x: Tensor) -> Terms:
        if name == "plain Pyro":
            pyro.clear_param_store()
        value = loss(x) / len(x)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return {"loss": value.detach()}

    return take


def busy(take: Callable[[Tensor], Terms], x: Tensor) -> float:
    """The share of a step's time in which the GPU runs kernels."""
    for _ in range(5):
        take(x)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        began = time.perf_counter()
        for _ in range(20):
            take(x)
        torch.cuda.synchronize()
        microseconds = 1e6 * (time.perf_counter() - began)
    return sum(event.self_device_time_total for event in profile.key_averages()) / microseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="the results and their table")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if torch.device(options.device).index is not None:
        torch.cuda.set_device(options.device)
    pyro.enable_validation(False)
    results: dict[str, dict[str, float]] = {}
    print(f"{'ms a step':24}" + "".join(f"{n:>16}" for n in ("ours", "Pyro", "PyTorch", "soft")))
    for case, (categories, batch, hidden) in CASES.items():
        x = torch.bernoulli(torch.full((batch, FEATURES), 0.3)).to(options.device)
        made = contenders(categories, hidden, options.device)
        check(made, x)
        results[case] = measure(made, x, options.rounds)
        print(f"{case:24}" + "".join(f"{value:16.2f}" for value in results[case].values()))
        ours = results[case]["pyro_infocat"]
        for name in ("plain PyTorch", "plain Pyro"):
            print(f"    ours over {name}: {ours / results[case][name]:.2f}")
        if x.is_cuda:
            recorder = Recorder(step("pyro_infocat", *made["pyro_infocat"]))
            share = busy(lambda x: recorder(x, None), x)  # noqa: B023
            print(f"    share of our step in which kernels run: {share:.0%}")
    if options.write:
        record = {"machine": machine(options.device, options.threads), "ms": results}
        file = options.results / f"step_time_{torch.device(options.device).type}.json"
        file.write_text(json.dumps(record, indent=1) + "\n")
        if options.results == RESULTS:
            write("steps", lambda document: table())


def machine(device: str, threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
    }


def table() -> str:
    """The committed results as Markdown."""
    names = ("pyro_infocat", "plain Pyro", "plain PyTorch", "soft code")
    lines = ["| machine | case | " + " | ".join(names) + " | over PyTorch | over Pyro |"]
    lines.append("|" + " --- |" * 8)
    for file in sorted(RESULTS.glob("step_time_*.json")):
        record = json.loads(file.read_text())
        machine = "{device}, {threads} threads, torch {torch}".format(**record["machine"])
        for case, times in record["ms"].items():
            cells = [machine, case, *(f"{times[name]:.2f}" for name in names)]
            cells += [f"{times[names[0]] / times[other]:.2f}" for other in (names[2], names[1])]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
