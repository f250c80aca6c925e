"""``python -m pyro_infocat.run``: data, model, guide, training, evaluation, figures."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pyro_infocat.arguments import as_given, parse
from pyro_infocat.errors import UserError
from pyro_infocat.settings import CHECKPOINT, CONFIG, STARTS, Settings

INTERRUPTED, UNHEARD = 130, 141
"""Exit codes of a shell for what SIGINT and SIGPIPE end."""

GRACE = 10.0
"""Seconds that other processes leave the first one to say what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    # Before torch is loaded: its threads would spin for milliseconds where one waits for another,
    # which takes ten times as long as the work where the machine has other things to do.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    out = before = None
    try:
        settings, out, resume = parse(argv)
        before = _written(out)
        run(settings, out, resume)
    except UserError as error:
        return _fail(as_given(str(error), sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter's own last flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        if out is None or not _of_writing(error, out):
            raise
        where = error.filename or out
        return _fail(
            f"--out: cannot write '{where}' ({error.strerror}); make room or choose another --out"
        )
    except KeyboardInterrupt:
        how = "nothing was written"
        if out is not None and _written(out) != before:
            how = "the same command begins again"
            if (out / CHECKPOINT).exists():
                flags = ["--config", str(out / CONFIG), "--out", str(out), "--resume", "true"]
                how = f"continue with: python -m pyro_infocat.run {shlex.join(flags)}"
            elif (out / STARTS).exists():
                how = "the same command goes on with the starts"
        _say(f"interrupted; {how}")
        return INTERRUPTED
    return 0


def run(settings: Settings, out: Path, resume: bool) -> None:
    """Train, evaluate and draw into ``out``.

    :raises UserError: for anything that the user gave wrong.
    """
    import platform

    import pyro
    import torch
    import torchvision

    from pyro_infocat import build, figures, processes
    from pyro_infocat.data import load
    from pyro_infocat.device import pick
    from pyro_infocat.evaluate import evaluate
    from pyro_infocat.fit import check_fit
    from pyro_infocat.record import Record
    from pyro_infocat.remarks import remarks
    from pyro_infocat.starts import best_start
    from pyro_infocat.train import set_validation, train

    device = pick(settings.device)
    if device.type == "cuda":
        # Streams and graphs are made on the current one.
        torch.cuda.set_device(device)
        # What is called float32 is: its default rounds convolutions' inputs to ten bits.
        for layers in ("conv", "rnn"):
            getattr(torch.backends.cudnn, layers).fp32_precision = "ieee"
    record = Record(out)
    checkpoint = record.reopen(settings) if resume else None
    data = load(settings.data, Path(settings.data_root)).to(device)
    pyro.set_rng_seed(settings.seed)
    model, guide, view = build.build(settings, device, data.facts)
    bound = build.objective(settings)
    seen = build.observation(settings, model.decoder.likelihood)
    check_fit(settings, model, guide, view, bound, data.train, seen)
    if processes.rank() == 0:
        for line in remarks(settings, guide, bound.written_out(model, guide)):
            print(line)
        if checkpoint is None:
            record.create(settings)
        else:
            record.go_on(settings, checkpoint)

    set_validation(False)
    processes.join(device)
    if checkpoint is None and settings.starts > 1:
        checkpoint = best_start(settings, data, device, record)
    history = train(settings, data, model, guide, view, record, checkpoint)
    processes.leave()
    if processes.rank() > 0:
        return
    if len(history) < settings.epochs:
        print(f"stopped after epoch {len(history)}: {settings.patience} without a better bound")
    seconds = sum(row["seconds"] for row in history)
    metrics = evaluate(model, guide, data, seen, settings.nll_samples, settings.seed)
    metrics |= {
        "epochs": len(history),
        "train_seconds": seconds,
        "examples_per_second": len(history) * len(data.train) / seconds,
        "device": str(device),
        "seed": settings.seed,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "pyro": pyro.__version__,
        },
    }
    record.write_metrics(metrics)
    figures.draw(model, guide, data, data.test.fixed(seen), history, out / "figures")
    accuracy = f"accuracy {metrics['accuracy']:.3f}, " if data.facts.classes else ""
    print(
        f"{out}: {accuracy}{metrics['clusters_used']} categories in use, "
        f"bound {metrics['elbo']:.2f} nats, {seconds:.0f} s of training",
        flush=True,
    )


def _of_writing(error: OSError, out: Path) -> bool:
    """Whether an error is of the disk that the run is written to: a full one names no file."""
    if error.errno is None or isinstance(error, ConnectionError):
        return False
    return error.filename is None or Path(error.filename).is_relative_to(out)


def _written(out: Path) -> tuple[int, int] | None:
    """What changes when a run begins or goes on in a folder: its settings are a new file."""
    try:
        found = (out / CONFIG).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _fail(message: str) -> int:
    _say(f"error: {message}")
    return 2


def _say(line: str) -> None:
    """A line on stderr, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)
    else:
        # As soon as one ends torchrun ends the others, and the first has yet to say it.
        time.sleep(GRACE)


if __name__ == "__main__":
    sys.exit(main())
