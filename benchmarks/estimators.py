"""Value, bias, gradient variance and time of each estimator at the same parameters.

    python -m benchmarks.estimators [--write]

The digits preset's parts are trained for a few epochs by the bound, the information bound and the
marginal entropy; then every estimator is evaluated many times on one batch with the same model and
guide. Variance is the trace of the gradient's covariance over the squared norm of the reference
gradient, which is the mean over many draws of the enumerated bound with the analytic KL; distance
is that of an estimator's own mean gradient from the reference, over the reference's norm. The
distance of an unbiased estimator falls with the number of draws; "by chance alone" is what it would
be for one.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from benchmarks.documents import write
from guides import Enumerated, Gumbel, SoftCode
from guides.guide import Guide
from models import CatVAE
from pyro_infocat.build import Builder
from pyro_infocat.cli import run_flags
from pyro_infocat.data.readers import digits
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.places import ROOT

BATCH, EPOCHS = 100, 15
RESULTS = ROOT / "benchmarks" / "results" / "estimators.json"


def estimators(model: CatVAE, guide: Guide) -> dict[str, tuple[InfoCatELBO, nn.Module, str]]:
    """Each estimator by name: the objective, its guide, and the KL that the model asks for."""
    enumerated = {
        "enumerated, analytic KL": (InfoCatELBO(0.0), guide, "analytic"),
        "enumerated, sampled KL": (InfoCatELBO(0.0), guide, "sampled"),
        "enumerated, analytic KL, through Pyro": (
            InfoCatELBO(0.0, direct=False),
            guide,
            "analytic",
        ),
        "5 particles": (InfoCatELBO(0.0, num_particles=5), guide, "analytic"),
        "5 particles, one by one through Pyro": (
            InfoCatELBO(0.0, num_particles=5, direct=False),
            guide,
            "analytic",
        ),
        "5 particles, vectorised through Pyro": (
            InfoCatELBO(0.0, num_particles=5, vectorize_particles=True, direct=False),
            guide,
            "analytic",
        ),
    }
    decoded = {
        f"{m} likeliest and one drawn": (InfoCatELBO(0.0, decoded=m), guide, "analytic")
        for m in (1, 2, 3, 5)
    }
    relaxed = {
        "soft code (no bound)": (InfoCatELBO(0.0), like(guide, SoftCode), "analytic"),
        "Gumbel-softmax at 1 (no bound)": (InfoCatELBO(0.0), like(guide, Gumbel, 1.0), "analytic"),
        "Gumbel-softmax at 0.3 (no bound)": (
            InfoCatELBO(0.0),
            like(guide, Gumbel, 0.3),
            "analytic",
        ),
    }
    return enumerated | decoded | relaxed


def like(guide: Guide, kind: type[Enumerated], temperature: float | None = None) -> Guide:
    """A guide of another kind with the same parameters."""
    made: Any = kind.__new__(kind)
    nn.Module.__init__(made)
    made.__dict__.update(guide.__dict__, quirks=False)
    if temperature is not None:
        made.temperature = temperature
    return made


def draws(loss: Callable[[], Tensor], parameters: list[Tensor], number: int) -> tuple:
    """Losses (N,), gradients (N, P) and median milliseconds of an evaluation."""
    losses, gradients, times = [], [], []
    for _ in range(number):
        began = time.perf_counter()
        value = loss()
        gradient = torch.autograd.grad(value, parameters, allow_unused=True)
        times.append(1e3 * (time.perf_counter() - began))
        flat = [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradient, strict=True)
        ]
        losses.append(value.detach())
        gradients.append(torch.cat(flat))
    return torch.stack(losses), torch.stack(gradients), sorted(times)[number // 2]


def table(rows: list[dict]) -> str:
    """The results as Markdown."""
    head = "| estimator | loss | gradient variance | distance of its mean | by chance alone | ms |"
    lines = [head, "|" + " --- |" * 6]
    for row in rows:
        cells = [row["name"], f"{row['loss']:.3f} ± {row['loss_spread']:.3f}"]
        cells += [f"{row[key]:.4f}" for key in ("variance", "distance", "chance")]
        lines.append("| " + " | ".join([*cells, f"{row['ms']:.1f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--write", action="store_true", help="the results and their tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    settings, _, _ = run_flags.parse(run_flags.read([]))
    torch.manual_seed(0)
    data = digits()
    model, guide = Builder(settings, data.facts).programs(torch.device("cpu"))
    bound = InfoCatELBO(weights={"marginal_entropy": 2.0})
    module = bound(model, guide)
    adam = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for index in data.train.shuffled().split(BATCH):
            x = data.train.grey(index)
            adam.zero_grad()
            (module(x) / len(x)).backward()
            adam.step()

    x = data.train.grey(slice(BATCH))
    parameters = list(model.parameters()) + list(guide.parameters())
    reference = None
    rows = []
    for name, (estimator, its_guide, kl) in estimators(model, guide).items():
        model.kl = kl  # type: ignore[assignment]

        def loss(estimator: InfoCatELBO = estimator, its_guide: nn.Module = its_guide) -> Tensor:
            return estimator.differentiable_loss(model, its_guide, x) / len(x)

        if reference is None:
            torch.manual_seed(0)
            reference = draws(loss, parameters, 10 * options.draws)[1].mean(0)
        # One seed for every row, but not the reference's, since the two must be independent.
        torch.manual_seed(1)
        losses, gradients, ms = draws(loss, parameters, options.draws)
        scale = reference.norm().item()
        variance = gradients.var(0).sum().item() / scale**2
        first = rows[0]["variance"] if rows else variance
        rows.append(
            {
                "name": name,
                "loss": losses.mean().item(),
                "loss_spread": losses.std().item(),
                "variance": variance,
                "distance": (gradients.mean(0) - reference).norm().item() / scale,
                # The reference has an error too: it is a mean of ten times the draws, of row one.
                "chance": math.sqrt((variance + first / 10) / options.draws),
                "ms": ms,
            }
        )
        print(table(rows[-1:]).split("\n")[-1], flush=True)
    if options.write:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
        write("estimators", lambda document: committed())


def committed() -> str:
    """The committed results as Markdown."""
    return table(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
