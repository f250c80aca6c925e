"""A run from its settings to its metrics and figures.

The command line (:mod:`pyro_infocat.run`) and :func:`pyro_infocat.fit` both end here.
"""

import io
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from guides.guide import Guide
from models import CatVAE
from pyro_infocat import report
from pyro_infocat.build import Builder, Parts, observation
from pyro_infocat.checks import try_parts
from pyro_infocat.data import DataSet, Observation, Reader
from pyro_infocat.data.disk import OnDisk
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation import Tested, figures
from pyro_infocat.evaluation.doubts import doubts_of_seeds
from pyro_infocat.evaluation.known import class_accuracy, evaluated, few_to_judge_by
from pyro_infocat.evaluation.metrics import check_names, evaluate
from pyro_infocat.evaluation.part import History, Metric
from pyro_infocat.evaluation.trust import agreement, kept_together
from pyro_infocat.instances import check_instances
from pyro_infocat.kinds import kind_of
from pyro_infocat.loading import Run
from pyro_infocat.parts import create, find, parameters
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.device import compute_on, pick
from pyro_infocat.runtime.memory import on_device
from pyro_infocat.runtime.precision import PRECISIONS, fastest
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import (
    AUTO,
    CHECKPOINT,
    MOST_SEED,
    TEST_CATEGORIES,
    TWINS,
    Part,
    Settings,
)
from pyro_infocat.storage.files import replace as replace_file
from pyro_infocat.storage.folder import RunFolder, going_on, where_they_were
from pyro_infocat.training import fine
from pyro_infocat.training.known import check_known, counted, fading, see
from pyro_infocat.training.loop import train
from pyro_infocat.training.notes import notes
from pyro_infocat.training.number import find_number, left_to_the_data
from pyro_infocat.training.restarts import best_start
from pyro_infocat.training.sizes import sized
from pyro_infocat.version import made_by


def run(
    settings: Settings,
    out: Path,
    resume: bool = False,
    data: DataSet | None = None,
    instances: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    told: Callable[[str], str] = str,
    preset: str = "",
    measured: bool = True,
) -> Run:
    """Train, evaluate and draw into a folder.

    :param data: in the place of what the settings name.
    :param instances: parts that the user made, by role.
    :param told: how a line about settings is written where no flags were given.
    :param preset: the one that was chosen by what the data are.
    :param measured: whether to evaluate and draw; else the last thing is the checkpoint.
    :raises UserError: for anything that the user gave wrong.
    """
    settings = fading(settings)
    device = pick(settings.device)
    compute_on(device)
    folder, first = RunFolder(out), processes.rank() == 0
    if settings.twins and processes.world() > 1:
        raise UserError(
            "are trained by one process; leave it out under torchrun, and resume the run by one "
            "process with it",
            "twins",
            settings.twins,
        )
    if settings.twins and not measured:
        raise UserError("are of a run that is evaluated, and this is none; leave it out", "twins")
    said: list[str] = []
    with ExitStack() as stack:
        if resume and first and out.is_dir():
            stack.enter_context(folder.locked())
        if resume:
            settings = going_on(folder, settings)
        if settings.precision == AUTO:
            settings, said = precise(settings, device)
        checkpoint = folder.reopen(settings) if resume else None
        # Where those of a twin were is for its own folder to say.
        schedules = settings.schedules
        if checkpoint is not None:
            settings = where_they_were(folder, settings)
            if settings.schedules != schedules:
                said.append("--schedules stay where they were, as if the run had not become longer")
        data = (read_data(settings) if data is None else data).checked()
        _check_on_disk(settings, data)
        data = data.to(device, on_device(settings.data_on, data.train.bytes, device))
        if checkpoint is not None:
            _check_data(checkpoint, data, out)
        settings, lines = sized(settings, len(data.train))
        said += lines
        if left_to_the_data(settings):
            settings, lines = find_number(settings, data, device, folder, instances, progress)
            said += lines
        trained_on = data
        if settings.known_labels:
            trained_on = see(data, settings)
            said.append(f"--known_labels {settings.known_labels}: {counted(trained_on)}")
        # A user's own programs in this process have theirs.
        stack.enter_context(pyro.get_param_store().scope())
        pyro.set_rng_seed(settings.seed)
        builder = Builder(settings, data.facts, instances=instances)
        parts = builder.parts(device)
        metrics, plots = builder.several("metrics"), builder.several("figures")
        check_names(metrics, data.facts)
        figures.check_names(plots, data.facts)
        observed = observation(settings, parts.model.decoder.likelihood)
        try_parts(settings, parts, data.train, observed)
        check_instances(settings, data.facts, parts, instances or {})
        if settings.known_labels:
            check_known(settings, parts, trained_on, observed)
        if checkpoint is not None:
            _check_labels(checkpoint, trained_on, parts, out)
        if first:
            if data.said:
                print(f"data: {trained_on.said}{f'; preset {preset}' if preset else ''}")
            for line in [*said, *notes(settings, parts, data.facts)]:
                print(told(line))
            if checkpoint is None:
                folder.create(settings)
                stack.enter_context(folder.locked())
            else:
                folder.go_on(settings, checkpoint)

        stack.enter_context(pyro.validation_enabled(False))
        stack.enter_context(torch.enable_grad())
        processes.join(device)
        # The first process's machine may be another than this one.
        chosen = torch.tensor(PRECISIONS.index(settings.precision), device=device)
        chosen = processes.shared(chosen)
        settings = replace(settings, precision=PRECISIONS[int(chosen)])
        clusters, spent = None, 0.0
        if fine.wanting(settings, parts.model.prior.categories) is None:
            clusters, spent = fine.find(
                settings, trained_on, builder, parts, observed, out, progress
            )
            if checkpoint is None:
                # Whether they were found now or earlier, the run is the same.
                pyro.set_rng_seed(settings.seed)
        if checkpoint is None and settings.starts > 1:

            def check(of_a_start: Mapping[str, Any], place: Path) -> None:
                _check_data(of_a_start, data, place)
                _check_labels(of_a_start, trained_on, parts, place)

            checkpoint = best_start(
                settings, trained_on, device, builder, folder, progress, check, clusters
            )
        history = train(
            settings,
            trained_on,
            parts,
            folder,
            checkpoint,
            progress=progress,
            clusters=clusters,
            spent=spent,
        )
        processes.leave()
        model, guide = parts.model.eval(), parts.guide.eval()
        if first and len(history) < settings.epochs:
            waited = f"{settings.patience} without a better bound"
            print(f"stopped after epoch {len(history)}: {waited}")
        asked = replace(settings, schedules=schedules)
        twins = _twins(asked, out, data, instances, progress, told) if measured else []
        if first and measured:
            of_the_run = _of_the_run(settings, trained_on, history, device)
            shown = replace(data, names=trained_on.names)
            tested, result = _measured(
                model, guide, shown, observed, history, settings, metrics, of_the_run
            )
            if twins:
                result |= _agreement(tested, twins, result.get("doubts", []))
            result |= of_the_run
            figures.draw(tested, out / "figures", plots)
            report.write(tested, result, settings, folder)
            _write_categories(tested, out)
            # Last: a benchmark takes a run that has its metrics for finished.
            folder.write_metrics(result)
            _say(out, result)
    for parameter in [*model.parameters(), *guide.parameters()]:
        # Pyro's store, which is left, hangs a weak reference on each, which no pickle takes.
        vars(parameter).pop("unconstrained", None)
    return Run(model, guide, settings, data.facts, observed, out)


def precise(settings: Settings, device: torch.device) -> tuple[Settings, list[str]]:
    """The settings with the precision that ``auto`` stands for, and a line that says so."""
    chosen, why = fastest(device)
    return replace(settings, precision=chosen), [f"computing in {chosen} (--precision auto): {why}"]


def _measured(
    model: CatVAE,
    guide: Guide,
    data: DataSet,
    observed: Observation,
    history: History,
    settings: Settings,
    metrics: Sequence[Metric],
    of_the_run: Mapping[str, Any],
) -> tuple[Tested, dict[str, Any]]:
    """What is tested and drawn, and what metrics.json says of it."""
    shown, judged = evaluated(data)
    samples, seed = settings.nll_samples, settings.seed
    tested = Tested(model, guide, shown, observed, history, samples, seed)
    result = evaluate(tested, metrics, of_the_run)
    if judged is not None:
        labelled = replace(tested, data=judged)
        further = [metric for metric in metrics if metric.needs_labels]
        few = few_to_judge_by(judged)
        if few:
            print("too few known labels for a classifier of them, which judges what is generated")
        result = evaluate(labelled, further, of_the_run, not few) | result
        result |= class_accuracy(labelled)
        result["labelled_test_examples"] = len(judged.test)
    return tested, result | class_accuracy(tested)


def _twins(
    settings: Settings,
    out: Path,
    data: DataSet,
    instances: Mapping[str, Any] | None,
    progress: bool | None,
    told: Callable[[str], str],
) -> list[Run]:
    """Runs of the same settings with the seeds that follow; a stopped one goes on."""
    found = []
    for number in range(1, settings.twins + 1):
        seed = (settings.seed + number) % (MOST_SEED + 1)
        place = out / TWINS / f"seed{seed}"
        # What is said from here on is of this twin.
        print(f"twin {number} of {settings.twins}, seed {seed}", flush=True)
        again, twin = (place / CHECKPOINT).exists(), replace(settings, seed=seed, twins=0)
        found.append(run(twin, place, again, data, instances, progress, told, measured=False))
    return found


def _agreement(tested: Tested, twins: Sequence[Run], doubts: Sequence[str]) -> dict[str, Any]:
    """What metrics.json says of a run and its twins, with the doubts that follow."""
    of_each = [tested.category.cpu().numpy()]
    for twin in twins:
        of_twin = Tested(twin.model, twin.guide, tested.data, tested.observation, [])
        with evaluating(tested.x.device, twin.guide):
            of_each.append(of_twin.category.cpu().numpy())
    agreed = agreement(of_each)
    together = kept_together(of_each[0], of_each[1:], tested.guide.categories)
    return {
        "agreement": agreed,
        "agreement_of_categories": together,
        "doubts": [*doubts, *doubts_of_seeds(agreed, len(of_each), together)],
    }


def _write_categories(tested: Tested, out: Path) -> None:
    """The likeliest category of each test example, by which runs of other seeds are compared."""
    small = np.min_scalar_type(tested.guide.categories - 1)
    content = io.BytesIO()
    np.save(content, tested.category.cpu().numpy().astype(small))
    replace_file(out / TEST_CATEGORIES, content.getvalue())


def _say(out: Path, result: Mapping[str, Any]) -> None:
    """The last lines of a run."""
    accuracy = f"accuracy {result['accuracy']:.3f}, " if "accuracy" in result else ""
    used = result["clusters_used"]
    print(
        f"{out}: {accuracy}{used} {'category' if used == 1 else 'categories'} in use, "
        f"bound {result['elbo']:.2f} nats, {result['train_seconds']:.0f} s of training; see "
        f"{out / report.page.REPORT}",
        flush=True,
    )
    for doubt in result.get("doubts", []):
        print(f"doubt: {doubt}", flush=True)


def read_data(settings: Settings, trust: Sequence[str] | None = None) -> DataSet:
    """The data that settings name.

    :param trust: modules outside this project that a reader may be of; None for any.
    :raises UserError: where they cannot be read.
    """
    reader = reader_of(settings, trust)
    for name in ("data_label", "data_columns"):
        if getattr(settings, name) is not None and name not in parameters(type(reader)):
            raise UserError(
                f"is of tables, and --data is '{settings.data}'; give a table there, as FILE.csv, "
                "or leave it out",
                name,
            )
    if settings.reader is None:
        return reader.read()
    path = settings.reader.class_path
    with attributed("reader", path):
        data = reader.read()
        if not isinstance(data, DataSet):
            raise TypeError(f"read must return a DataSet, not {type(data).__name__}")
        return data.checked("reader", path)


def reader_of(settings: Settings, trust: Sequence[str] | None = None) -> Reader:
    """What reads the data that settings name: the user's reader, or that of their kind.

    :param trust: see :func:`read_data`.
    :raises UserError: where there is none.
    """
    part = settings.reader or Part(kind_of(settings.data).reader)
    kind = find("reader", part.class_path, "reader", trust)
    given = {
        "data": settings.data,
        "data_root": Path(settings.data_root),
        "data_size": settings.data_size,
        "data_label": settings.data_label,
        "data_columns": settings.data_columns,
        "data_on": settings.data_on,
    }
    reader: Reader = create("reader", kind, part, given)
    return reader


def _of_the_run(
    settings: Settings, data: DataSet, history: list[dict[str, float]], device: torch.device
) -> dict[str, Any]:
    """What metrics.json says of the run itself."""
    seconds = sum(row["seconds"] for row in history)
    return {
        "epochs": len(history),
        "train_seconds": seconds,
        "examples_per_second": len(history) * len(data.train) / seconds,
        "device": str(device),
        "precision": settings.precision,
        "seed": settings.seed,
        **({"known_labels": int((data.train.labels >= 0).sum())} if settings.known_labels else {}),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            # Of its own import, which takes a second, only data sets have need.
            "torchvision": version("torchvision"),
            "pyro": pyro.__version__,
        },
        "made_by": made_by(),
    }


def _check_on_disk(settings: Settings, data: DataSet) -> None:
    if settings.data_on == "disk" and not isinstance(data.train.pixels, OnDisk):
        raise UserError(
            "is of folders of pictures, .npy and .parquet files, and the data are "
            f"'{settings.data}'; give one of those, or leave it out",
            "data_on",
            settings.data_on,
        )


def _check_data(checkpoint: Mapping[str, Any], data: DataSet, out: Path) -> None:
    """Refuse to go on with other images than the run's. Older checkpoints do not know theirs."""
    before, now = checkpoint.get("data"), data.fingerprint
    these = "images" if data.facts.images else "rows"
    shape = tuple(checkpoint.get("facts", {}).get("shape", data.facts.shape))
    if shape != data.facts.shape:
        raise UserError(
            f"'{out}' was trained on examples of shape {shape}, and these are of "
            f"{data.facts.shape}; give the same ones, or choose another --out",
            "resume",
        )
    if checkpoint.get("facts", {}).get("classes") and not data.facts.classes:
        print(f"the run in '{out}' had labels, and these {these} have none: no accuracy is given")
    if before is not None and before != now:
        raise UserError(
            f"'{out}' was trained on other {these}: {_images(before)}, and these are "
            f"{_images(now)}; give the same ones, or choose another --out",
            "resume",
        )


def _check_labels(checkpoint: Mapping[str, Any], data: DataSet, parts: Parts, out: Path) -> None:
    """Refuse to go on with other labels than the run's, where a term looks at them."""
    looking = [term.name for term in parts.bound.declared if term.needs & {"labels", "known"}]
    # Older checkpoints do not know theirs.
    if looking and checkpoint.get("labels") not in (None, data.label_checksum):
        raise UserError(
            f"'{out}' was trained with other labels, which {', '.join(looking)} looks at; give the "
            "same ones, or choose another --out",
            "resume",
        )


def _images(fingerprint: Mapping[str, Sequence[int]]) -> str:
    return " and ".join(f"{n} {name} ({crc:08x})" for name, (n, crc) in fingerprint.items())
