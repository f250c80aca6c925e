"""The training loop.

Shapes: B batch, X features.
"""

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from guides.guide import Guide
from models import CatVAE
from pyro_infocat import build, processes
from pyro_infocat.aside import aside
from pyro_infocat.data import DataSet, Split
from pyro_infocat.evaluate import mean_terms
from pyro_infocat.ledger import Ledger
from pyro_infocat.networks import compiled, computing_in
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.randomness import random_states, restore_random
from pyro_infocat.record import Record
from pyro_infocat.schedules import scheduled
from pyro_infocat.settings import Facts, Settings
from pyro_infocat.step import Step
from pyro_infocat.terms import ELBO_TERMS, SIGNS, elbo, information_bound
from pyro_infocat.views import View
from pyro_infocat.watch import Watch

History = list[dict[str, float]]
"""A row an epoch: ``epoch``, ``seconds`` and every named term in nats per example.

A term of the paper that has no weight in an epoch is of its last batch alone.
"""


def train(
    settings: Settings,
    data: DataSet,
    model: CatVAE,
    guide: Guide,
    view: View,
    record: Record,
    checkpoint: Mapping[str, Any] | None = None,
    until: int | None = None,
) -> History:
    """Fit model and guide to the training split; a checkpoint after each epoch.

    :param checkpoint: where to go on from.
    :param until: the epoch to stop after, before the run's last one.
    :raises UserError: where a term of the objective is no longer finite.
    """
    seen = build.observation(settings, model.decoder.likelihood)
    fitted, rest = validation_split(data.train, settings)
    held_out = None if rest is None else rest.fixed(seen)
    watch = Watch(model, guide, fitted, seen, settings.epochs)
    bound = build.objective(settings)
    module = bound(model, guide).train()
    # The parameters of a term without weight have no gradient.
    unused = bool(settings.schedules) or not any(bound.weights[name] for name in ELBO_TERMS)
    parallel = processes.wrap(module, some_unused=unused)
    optimizer = adam(module.parameters(), settings.learning_rate)
    history: History = []
    if checkpoint is not None:
        history = restore(checkpoint, model, guide, optimizer)
    elif processes.rank() == 0:
        # From here on there is always something to resume.
        record.save(snapshot(0, model, guide, optimizer, data.facts), history)
    if processes.rank() > 0:
        # The first process keeps the run's own random numbers; the others need different noise.
        torch.manual_seed(hash((torch.initial_seed(), processes.rank(), len(history))) % 2**32)
    replayed = recordable(settings, fitted, bound.written_out(model, guide))
    step = Step(fitted, seen, view, guide, bound, parallel, optimizer, replayed)
    some = fitted.part(torch.arange(2, device=fitted.pixels.device))
    constants = dict(bound.weights)
    last = until or settings.epochs
    steps = math.ceil(len(fitted) / settings.batch_size)

    with (
        board_of(record, len(history)) as board,
        computing_in(settings.precision, module),
        compiled(settings.compile, module, lambda: bound.loss(model, guide, some.fixed(seen))),
        tqdm(
            total=last * steps,
            initial=len(history) * steps,
            unit="step",
            # No bar where there is no terminal: stderr is then for errors alone.
            disable=True if processes.rank() > 0 else None,
        ) as bar,
    ):
        for epoch in range(len(history), last):
            if settings.patience and waited(history) >= settings.patience:
                break
            began = time.perf_counter()
            now = scheduled(settings, epoch)
            if "temperature" in now:
                guide.temperature = now["temperature"]  # type: ignore[assignment]
            if "moves" in now:
                view.moves = now["moves"]  # type: ignore[attr-defined]
            for group in optimizer.param_groups:
                group["lr"] = now["learning_rate"]
            bound.weights = constants | {name: now[name] for name in now if name in SIGNS}

            ledger = Ledger(epoch)
            for index in batches(processes.shared(fitted.shuffled()), settings.batch_size):
                try:
                    terms = step(index)
                except (RuntimeError, ValueError) as error:
                    # The others may not have come as far as this.
                    ledger.close(module, alone=True)
                    reason = diagnose(bound, model, guide, step.x)
                    if reason is None:
                        raise
                    raise ledger.stop(reason, 1) from error
                ledger.enter(terms, len(index))
                bar.update()

            ledger.close(module)
            row = {"epoch": float(epoch + 1), **unweighted(bound, model, guide, step.x)}
            row |= ledger.means()
            row["objective"] = objective(row, bound.weights)
            # Patience begins with the bound.
            if held_out is not None and bound.weights["reconstruction"] > 0:
                bound_now = held_out_elbo(model, guide, held_out)
                # Statistics of batch normalisation differ; all must stop at the same epoch.
                bound_now = processes.shared(torch.tensor(bound_now, device=step.x.device)).item()
                row["validation_elbo"] = bound_now
            row["seconds"] = time.perf_counter() - began
            history.append(row)
            if board is not None:
                record.save(snapshot(epoch + 1, model, guide, optimizer, data.facts), history)
                for name, value in row.items():
                    if name != "epoch":
                        board.add_scalar(name, value, epoch + 1)
                watch.look(epoch + 1, bound.weights["reconstruction"] > 0, board)
            bar.set_postfix_str(brief(row))
    return history


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Indices in parts of a size; what is left over is a part too, or joins the last one.

    Batch normalisation needs two examples in each process.
    """
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) < 2 * processes.world():
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def objective(row: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """What training makes larger: the weighed terms of an epoch, in nats per example."""
    # What has no weight is looked at all the same, and may be no number.
    weighed = [name for name in SIGNS if weights[name] and name in row]
    return sum(SIGNS[name] * weights[name] * row[name] for name in weighed)


def board_of(record: Record, epochs: int) -> AbstractContextManager[SummaryWriter | None]:
    """TensorBoard's writer after so many epochs, in the one process that writes."""
    if processes.rank() > 0:
        return nullcontext()
    return SummaryWriter(record.folder, purge_step=epochs + 1)


def recordable(settings: Settings, split: Split, written_out: bool) -> bool:
    """Whether steps are to be replayed as CUDA graphs.

    :param written_out: whether the bound does without Pyro's enumeration, which asks the host.
    """
    return settings.graph and split.pixels.is_cuda and written_out and processes.world() == 1


def adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
    """Adam, as one kernel where the device has one."""
    parameters = list(parameters)
    device = parameters[0].device.type
    fused = device in ("cpu", "cuda")
    # A CUDA graph cannot ask the host how many steps there were.
    return torch.optim.Adam(parameters, lr=rate, fused=fused, capturable=device == "cuda")


def unweighted(bound: InfoCatELBO, model: CatVAE, guide: Guide, x: Tensor) -> dict[str, float]:
    """The paper's terms that training left out for want of weight, on x (B, X), nats an example."""
    left_out = {name for name in (*ELBO_TERMS, "information_bound") if name not in bound.terms}
    terms: dict[str, Tensor] = {}
    # What is only looked at must not move the batch normalisation's statistics.
    model.eval(), guide.eval()
    with torch.no_grad():
        if left_out & set(ELBO_TERMS):
            terms |= bound.bound_terms(model, guide, x)
            terms["elbo"] = elbo(terms)
        if "information_bound" in left_out:
            terms["information_bound"] = information_bound(model, guide, len(x))
    model.train(), guide.train()
    return {name: term.item() / len(x) for name, term in terms.items()}


def diagnose(bound: InfoCatELBO, model: CatVAE, guide: Guide, x: Tensor) -> str | None:
    """Which term is not finite on x (B, X); None where all are.

    A draw from NaN raises before its term can say so.
    """
    with suppress(RuntimeError, ValueError), torch.no_grad():
        for name, term in bound.bound_terms(model, guide, x).items():
            if not term.isfinite():
                return f"{name} is {term.item()}"
    return None


def validation_split(train: Split, settings: Settings) -> tuple[Split, Split | None]:
    """The training split, without the share that early stopping looks at, and that share."""
    held = settings.held_out(len(train))
    if not held:
        return train, None
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(settings.seed))
    order = order.to(train.pixels.device)
    return train.part(order[held:]), train.part(order[:held])


def held_out_elbo(model: CatVAE, guide: Guide, x: Tensor) -> float:
    """The ELBO of x (N, X) in nats per example, by draws that are the same at every call."""
    with aside(x.device, model, guide):
        return elbo(mean_terms(model, guide, x))


def waited(history: History) -> int:
    """Epochs since the best bound on the validation share."""
    bounds = [row["validation_elbo"] for row in history if "validation_elbo" in row]
    return len(bounds) - 1 - int(np.argmax(bounds)) if bounds else 0


def snapshot(
    epoch: int, model: CatVAE, guide: Guide, optimizer: torch.optim.Optimizer, facts: Facts
) -> dict[str, Any]:
    """All that going on from here needs, and what loading needs to know of the data."""
    return {
        "epoch": epoch,
        "model": model.state_dict(),
        "guide": guide.state_dict(),
        "optimizer": optimizer.state_dict(),
        "facts": asdict(facts),
        "rng": random_states(model.prior.logits.device),
    }


def restore(
    checkpoint: Mapping[str, Any],
    model: CatVAE,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
) -> History:
    """Put a snapshot back; returns the history up to it.

    :raises UserError: where it is of another model.
    """
    remedy = "it is of another model; choose another --out"
    with build.blame("--resume: the checkpoint does not fit the settings", remedy):
        model.load_state_dict(checkpoint["model"])
        guide.load_state_dict(checkpoint["guide"])
        # Its groups hold what suits this device, which may not be the checkpoint's.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})
        restore_random(checkpoint["rng"], model.prior.logits.device)
        return list(checkpoint["history"])


def brief(row: Mapping[str, float]) -> str:
    """The terms of an epoch for the progress bar."""
    return " ".join(f"{name}={row[name]:.2f}" for name in ("elbo", *SIGNS) if name in row)


def set_validation(on: bool) -> None:
    """Pyro's and PyTorch's checks of every value: on to try the parts, off in the loop."""
    pyro.enable_validation(on)
    torch.distributions.Distribution.set_default_validate_args(on)
