"""The training loop.

Shapes: B batch, X features.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.build import Parts, observation
from pyro_infocat.data import DataSet, Split
from pyro_infocat.data.dataset import MOST_HELD_OUT
from pyro_infocat.errors import attributed
from pyro_infocat.evaluation.likelihood import mean_terms
from pyro_infocat.evaluation.part import History
from pyro_infocat.networks import compiled, computing_in, statistics_kept
from pyro_infocat.objective import ELBO_SIGNS, InfoCatELBO, elbo_of
from pyro_infocat.objective.terms import Known
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.randomness import evaluating, random_states, restore_random
from pyro_infocat.settings import CHECKPOINT, Settings
from pyro_infocat.storage.checkpoint import check_kinds, check_optimizer
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training.epoch_terms import EpochTerms
from pyro_infocat.training.feed import Feed
from pyro_infocat.training.known import Labelled, aligned, validation_order
from pyro_infocat.training.monitor import CollapseMonitor
from pyro_infocat.training.progress import Bar
from pyro_infocat.training.schedules import Schedule
from pyro_infocat.training.step import Step
from pyro_infocat.version import made_by


def train(
    settings: Settings,
    data: DataSet,
    parts: Parts,
    folder: RunFolder,
    checkpoint: Mapping[str, Any] | None = None,
    until: int | None = None,
    progress: bool | None = None,
    clusters: Callable[[Tensor], Tensor] | None = None,
    spent: float = 0.0,
) -> History:
    """Fit model and guide to the training split; a checkpoint after each epoch.

    A term of the paper that has no weight in an epoch is measured on its last batch alone.

    :param checkpoint: where to go on from.
    :param until: the epoch to stop after, before the run's last one.
    :param progress: whether to show a bar; None shows one in a terminal or a notebook.
    :param clusters: that training begins near, of x (B, X) as (B, K); they are looked for where
        there are none and a term needs them.
    :param spent: seconds before the first epoch, which count as its own.
    :raises UserError: where a term of the objective is no longer finite.
    """
    model, guide, bound = parts.model, parts.guide, parts.bound
    observed = observation(settings, model.decoder.likelihood)
    fitted, rest = validation_split(data.train, settings)
    held_out = None if rest is None else rest.some(MOST_HELD_OUT).fixed(observed)
    monitor = CollapseMonitor(model, guide, fitted, observed, settings.epochs)
    schedule = Schedule(settings, parts)
    bound.clusters = clusters
    if any("clusters" in term.needs for term in schedule.ever_weighted()):
        if clusters is None:
            # scikit-learn is imported for those who look for clusters alone.
            from pyro_infocat.training.clusters import find

            bound.clusters = find(fitted, data.facts.columns, model.prior.categories, settings.seed)
        if bound.clusters is not None and settings.known_labels:
            bound.clusters = aligned(bound.clusters, fitted, model.prior.categories)
        if bound.clusters is None and processes.rank() == 0:
            print(
                f"nearness has no weight: fewer than {model.prior.categories} examples differ, so "
                "there are no clusters to begin near"
            )
    module = bound(model, guide).train()
    some = fitted.part(torch.arange(2, device=fitted.device))
    unused = processes.world() > 1 and some_unused(settings, parts, module, some.fixed(observed))
    parallel = processes.wrap(module, unused)
    optimizer = adam(module.parameters(), settings.learning_rate)
    history: History = []
    if checkpoint is not None:
        history = restore(checkpoint, model, guide, optimizer, folder)
    elif processes.rank() == 0:
        # From here on there is always something to resume.
        folder.save(snapshot(0, model, guide, optimizer, data, []), history)
    if processes.rank() > 0 and not restored_own(checkpoint, model.prior.logits.device):
        # The first process keeps the run's own random numbers; the others need different noise.
        torch.manual_seed(hash((torch.initial_seed(), processes.rank(), len(history))) % 2**32)
    feed = Feed(fitted, settings.batch_size)
    replayed = recordable(settings, fitted.device, bound.written_out(model, guide))
    constants = (lambda: schedule.constants(optimizer)) if replayed else None
    labelled = Labelled(fitted) if settings.known_labels else None
    step = Step(feed.split, observed, parts, parallel, optimizer, constants, labelled)
    last = until or settings.epochs
    steps = math.ceil(len(fitted) / settings.batch_size)

    with (
        board_of(folder, len(history)) as board,
        computing_in(settings.precision, module),
        compiled(settings.compile, module, lambda: bound.loss(model, guide, some.fixed(observed))),
        Bar(last * steps, len(history) * steps, progress) as bar,
    ):
        for epoch in range(len(history), last):
            if settings.patience and waited(history) >= settings.patience:
                break
            began = time.perf_counter()
            schedule.set(epoch, optimizer)

            terms = EpochTerms(epoch)
            for index in feed(processes.shared(fitted.shuffled())):
                try:
                    now = step(index)
                except (RuntimeError, ValueError) as error:
                    # The others may not have come as far as this.
                    terms.check(module, alone=True)
                    reason = diagnose(bound, model, guide, step.x)
                    if reason is None:
                        raise
                    raise terms.stopped(reason, 1) from error
                terms.add(now, len(index))
                bar.update()

            terms.check(module)
            # The last step's update has been seen by no term yet.
            with evaluating(step.x.device, model, guide):
                reason = diverged(bound, model, guide, step.x)
            if reason is not None:
                raise terms.stopped(f"{reason} after it", 0)
            row = {"epoch": float(epoch + 1), **unweighted(bound, model, guide, step.x)}
            row |= terms.means()
            row["objective"] = objective(row, bound)
            # Patience begins with the bound.
            if held_out is not None and bound.weights["reconstruction"] > 0:
                bound_now = held_out_elbo(model, guide, held_out)
                # Statistics of batch normalisation differ; all must stop at the same epoch.
                bound_now = processes.shared(torch.tensor(bound_now, device=step.x.device)).item()
                if not math.isfinite(bound_now):
                    raise terms.stopped(f"the bound on the validation share is {bound_now}", 0)
                row["validation_elbo"] = bound_now
            row["seconds"] = time.perf_counter() - began + (0.0 if history else spent)
            history.append(row)
            others = others_random(model.prior.logits.device)
            if board is not None:
                folder.save(snapshot(epoch + 1, model, guide, optimizer, data, others), history)
                draw(row, board)
                monitor.look(epoch + 1, bound.weights["reconstruction"] > 0, board)
            bar.show(row, bound.signs)
    return history


def some_unused(settings: Settings, parts: Parts, module: nn.Module, x: Tensor) -> bool:
    """Whether a step may leave a parameter without a gradient: tried on x (B, X).

    Where terms come and go with the epochs it may at any time.
    """
    if settings.schedules:
        return True
    devices = [x.device] if x.is_cuda else []
    first = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    known = Known(first, x, x, first) if settings.known_labels else None
    with torch.random.fork_rng(devices), statistics_kept(parts.model, parts.guide):
        module(x, view=x, labels=first, known=known).backward()
    learned = [p for p in module.parameters() if p.requires_grad]
    unused = any(parameter.grad is None for parameter in learned)
    module.zero_grad()
    return unused


def objective(row: Mapping[str, float], bound: InfoCatELBO) -> float:
    """What training makes larger: the weighted terms of an epoch, in nats per example."""
    # A site of the user's own is a KL that weighs 1 unless it is told otherwise.
    own = [name for name in row if name.startswith("kl_") and name not in bound.signs]
    weights = {name: bound.weights.get(name, 1.0) for name in [*bound.signs, *own] if name in row}
    # A term without weight is measured all the same, and need not be finite.
    return sum(
        bound.signs.get(name, -1) * weight * row[name] for name, weight in weights.items() if weight
    )


@contextmanager
def board_of(folder: RunFolder, epochs: int) -> Iterator[SummaryWriter | None]:
    """TensorBoard's writer after so many epochs, in the one process that writes.

    :raises OSError: where the disk is full or the folder gone, at the next call or at the end.
    """
    if processes.rank() > 0:
        yield None
        return
    usual = threading.excepthook
    # The writer's thread would print what it hands on to this one.
    threading.excepthook = lambda given: (
        None if isinstance(given.exc_value, OSError) else usual(given)
    )
    try:
        with SummaryWriter(folder.path, purge_step=epochs + 1) as board:
            yield board
            board.flush()
    finally:
        threading.excepthook = usual


def draw(row: Mapping[str, float], board: SummaryWriter) -> None:
    """A row of the history as points of TensorBoard's curves."""
    for name, value in row.items():
        if name != "epoch":
            board.add_scalar(name, value, int(row["epoch"]))


def recordable(settings: Settings, device: torch.device, written_out: bool) -> bool:
    """Whether steps are to be replayed as CUDA graphs.

    :param written_out: whether the bound does without Pyro's enumeration, which asks the host.
    """
    return settings.graph and device.type == "cuda" and written_out and processes.world() == 1


def adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
    """Adam, as one kernel where the device has one."""
    parameters = list(parameters)
    device = parameters[0].device.type
    fused = device in ("cpu", "cuda")
    # A CUDA graph cannot ask the host how many steps there were.
    return torch.optim.Adam(parameters, lr=rate, fused=fused, capturable=device == "cuda")


def unweighted(bound: InfoCatELBO, model: CatVAE, guide: Guide, x: Tensor) -> dict[str, float]:
    """The terms that training left out for want of weight, on x (B, X), in nats per example.

    Those that need a view or labels, which the last batch no longer has, stay out, as do those of
    clusters where none were looked for. So does what is not finite, which no history holds.
    """
    gone = {"view", "labels", "known"} | (set() if bound.clusters else {"clusters"})
    beside = [
        term for term in bound.declared if term.name not in bound.terms and not term.needs & gone
    ]
    terms: dict[str, Tensor] = {}
    # What is only measured must not move the batch normalisation's statistics.
    model.eval(), guide.eval()
    with torch.no_grad():
        if not bound.terms.keys() >= ELBO_SIGNS.keys():
            terms |= bound.bound_terms(model, guide, x)
            terms["elbo"] = elbo_of(terms)
        if beside:
            terms |= bound.beside(model, guide, x, beside)
    model.train(), guide.train()
    return {name: term.item() / len(x) for name, term in terms.items() if term.isfinite()}


def diagnose(
    bound: InfoCatELBO,
    model: CatVAE,
    guide: Guide,
    x: Tensor,
    decoded: int = 0,
    ignored: Collection[str] = (),
) -> str | None:
    """Which term of the ELBO is not finite on x (B, X); None where all are.

    A draw from NaN raises before its term can say so.

    :param decoded: see :meth:`InfoCatELBO.bound_terms`.
    :param ignored: terms that may be anything.
    """
    with suppress(RuntimeError, ValueError), torch.no_grad():
        for name, term in bound.bound_terms(model, guide, x, decoded=decoded).items():
            if name not in ignored and not term.isfinite():
                return f"{name} is {term.item()}"
    return None


def diverged(bound: InfoCatELBO, model: CatVAE, guide: Guide, x: Tensor) -> str | None:
    """Which term of the ELBO that trains is not finite on x (B, X); None where all are.

    It takes no more time and memory than a step's forward pass.
    """
    ignored = [name for name in ELBO_SIGNS if not bound.weights[name]]
    if len(ignored) == len(ELBO_SIGNS) and bound.written_out(model, guide):
        return None
    return diagnose(bound, model, guide, x, bound.decoded, ignored)


def validation_split(train: Split, settings: Settings) -> tuple[Split, Split | None]:
    """The training split, without the share that early stopping looks at, and that share."""
    held = settings.held_out(len(train))
    if not held:
        return train, None
    order = validation_order(len(train), settings.seed).to(train.device)
    return train.part(order[held:]), train.part(order[:held])


def held_out_elbo(model: CatVAE, guide: Guide, x: Tensor) -> float:
    """The ELBO of x (N, X) in nats per example, by draws that are the same at every call."""
    with evaluating(x.device, model, guide):
        return elbo_of(mean_terms(model, guide, x))


def waited(history: History) -> int:
    """Epochs since the best bound on the validation share."""
    bounds = [row["validation_elbo"] for row in history if "validation_elbo" in row]
    return len(bounds) - 1 - int(np.argmax(bounds)) if bounds else 0


def others_random(device: torch.device) -> list[dict[str, Tensor]]:
    """The random states of the processes but the first, each by kind of device."""
    own = random_states(device)
    every = {kind: processes.every(state) for kind, state in own.items()}
    return [{kind: every[kind][rank] for kind in own} for rank in range(1, processes.world())]


def restored_own(checkpoint: Mapping[str, Any] | None, device: torch.device) -> bool:
    """Put this process's random state back, where the checkpoint has one of as many processes."""
    others = (checkpoint or {}).get("rng_of_others", [])
    if len(others) != processes.world() - 1:
        return False
    restore_random(others[processes.rank() - 1], device)
    return True


def snapshot(
    epoch: int,
    model: CatVAE,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    data: DataSet,
    others: list[dict[str, Tensor]],
) -> dict[str, Any]:
    """All that going on from here needs, and what loading needs to know of the data.

    :param others: random states of the processes but the first.
    """
    return {
        "epoch": epoch,
        "model": model.state_dict(),
        "guide": guide.state_dict(),
        "optimizer": optimizer.state_dict(),
        "facts": asdict(data.facts),
        "data": data.fingerprint,
        "labels": data.label_checksum,
        **({"names": dict(data.names)} if data.names else {}),
        "rng": random_states(model.prior.logits.device),
        "rng_of_others": others,
        "made_by": made_by(),
    }


def restore(
    checkpoint: Mapping[str, Any],
    model: CatVAE,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    folder: RunFolder,
) -> History:
    """Put a snapshot back; returns the history up to it.

    :raises UserError: where it is of another model.
    """
    remedy = (
        "the checkpoint does not fit the settings: it is of another model; choose another --out"
    )
    with attributed("resume", None, remedy):
        for field, program in (("model", model), ("guide", guide)):
            check_kinds(folder.path / CHECKPOINT, field, checkpoint[field], program)
            program.load_state_dict(checkpoint[field])
        check_optimizer(folder.path / CHECKPOINT, checkpoint["optimizer"], optimizer)
        # Its groups hold what suits this device, which may not be the checkpoint's.
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(checkpoint["optimizer"] | {"param_groups": groups})
        restore_random(checkpoint["rng"], model.prior.logits.device)
        return list(checkpoint["history"])
