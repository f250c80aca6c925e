"""``python -m pyro_infocat.tune PRESET --trials 20``: a search for settings that asks no label.

A trial is a run without its evaluation: neither labels nor the test split are looked at. Trials
are compared by what keeps its scale when settings change, such as the bound on a validation share
of the training split; the objective does not, since its weights may be what is searched.
"""

import json
import multiprocessing
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pyro_infocat.cli import run_flags
from pyro_infocat.cli.command_line import parse, positional
from pyro_infocat.errors import UserError, reason
from pyro_infocat.resolve import Given, Resolver, config_path, nearest
from pyro_infocat.settings import AFTERWARDS, CHECKPOINT, DECLARED, MACHINE, Settings, setting
from pyro_infocat.storage.configuration import read_file, read_yaml, write_yaml
from pyro_infocat.storage.files import replace, trouble

MODULE = "pyro_infocat.tune"

GAINS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "elbo": lambda row: row["validation_elbo"],
    "information_bound": lambda row: row["information_bound"],
    "information": lambda row: row["marginal_entropy"] - row["conditional_entropy"],
}
"""What an epoch of the history is worth, in nats per example; trials with larger ones are better.

The bound is of the validation share. I(c; x) is of generated examples, or under q(c|x) of training
examples.
"""

FIXED = MACHINE | AFTERWARDS | {"data", "data_size", "data_label", "data_columns", "reader"}
FIXED |= {"seed", "validation", "patience"}
"""Settings that say what is trained on and what is held out: the same for every trial."""

USUAL = {"learning_rate": [3e-4, 3e-3], "prior.scale": [1.0, 10.0], "prior.delta": [1, 8]}
"""The space where none is given: of these what the run has and no flag gives."""

NEVER = 1_000_000
"""A patience that outlasts every run: a validation share is held out, and nothing stops early."""

POLL = 0.2
"""Seconds between two looks at a trial's history."""

INTERRUPTED = 130
"""A shell's exit code for what SIGINT ends."""

YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Options:
    """Search for settings by what needs no label. Further flags are those of the runs."""

    preset: str = positional("a preset by name or file, or data as --data of a run takes them")
    trials: int = setting(20, "of the study in all", least=1, most=1_000_000)
    storage: str = setting("sqlite:///tune.db", "the study's database, for all its workers")
    name: str | None = setting(None, "of the study; the preset's or the data's when not given")
    space: list[str] = setting(
        (),
        "what is searched: a YAML file, 'SETTING: [LOW, HIGH]' or 'SETTING: {choices: [A, B]}'; "
        f"{', '.join(USUAL)} when not given",
    )
    by: str = setting("elbo", f"what is made larger: {', '.join(GAINS)}")
    warmup: int = setting(5, "epochs before a trial below the median may be stopped", least=1)
    out: Path = setting(Path("best.yaml"), "the best trial's settings go here")
    runs: Path = setting(Path("runs") / "tune", "the trials' folders, for all the study's workers")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    # Before torch is loaded, as in run.main.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        others = {name: one for name, one in run_flags.flags().items() if name not in run_flags.OWN}
        options, flags = parse(Options, argv, MODULE, others)
        check_figure(options.by)
        space = read_space(options.space)
        # A data set's name is its preset's, and other files of data end in something else.
        path = config_path(options.preset)
        first = ("--config", str(path)) if path.suffix in YAML else ("--data", options.preset)
        request = run_flags.read([*first, *flags])
        with _storage(options.storage):
            search = Search(request.resolver, options.by, space)
            return run(options, search, options.name or request.name)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {trouble(error)}, or choose another --out or --runs", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 2


def check_figure(by: str) -> None:
    """Refuse what must not choose.

    :raises UserError: saying why.
    """
    if by in GAINS:
        return
    from pyro_infocat.evaluation.metrics import OF_LABELS, TAKEN

    why = "is no figure to choose by"
    if by in OF_LABELS:
        why = "needs labels, and labels must not choose"
    elif by in TAKEN:
        why = "is of the test split, which must not choose"
    elif by == "objective":
        why = "changes its scale with the weights"
    raise UserError(f"{why}; give {', '.join(GAINS)}", "by", by)


def read_space(words: Sequence[str]) -> dict[str, Any]:
    """Names of settings with what was given for them, in YAML files or on the command line.

    :raises UserError: for what cannot be read, or holds no names.
    """
    space: dict[str, Any] = {}
    for word in words:
        try:
            found = read_file(Path(word)) if word.endswith(YAML) else read_yaml(word)
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"cannot read '{word}' ({reason(error)})", "space") from error
        if not isinstance(found, dict):
            raise UserError(f"expected 'SETTING: [LOW, HIGH]', not '{word}'", "space")
        space |= {str(name): given for name, given in found.items()}
    return space


@contextmanager
def _storage(url: str) -> Iterator[None]:
    """Tell in one line that Optuna is missing, or that its storage cannot be used."""
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError as error:
        text = "install pyro_infocat[tune], as in pip install optuna"
        raise UserError(f"a search needs the package {error.name}; {text}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except (ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        text = f"cannot use '{url}' ({reason(error)}); give one such as sqlite:///tune.db"
        raise UserError(text, "storage") from error


class Search:
    """A run's settings, and how those that are searched are drawn.

    :ivar recipe: what all trials of a study share.
    :raises UserError: for the first thing given wrong.
    """

    def __init__(self, run: Resolver, by: str, space: Mapping[str, Any]) -> None:
        from pyro_infocat.api import check_parts
        from pyro_infocat.experiment import read_data
        from pyro_infocat.storage.folder import flat

        self.given, self.trust, self.by = list(run.given), run.trust, by
        if not run.plain()["patience"]:
            self.given.append(Given(("patience",), NEVER))
        base = flat(self.settings({}).as_dict())
        typed = {".".join(one.key) for one in run.given if one.replaces}
        space = space or {name: USUAL[name] for name in USUAL.keys() & base.keys() - typed}
        # The nats of two likelihoods do not compare, and log K is what information there can be.
        fixed = FIXED | ({"likelihood", "observe"} if by == "elbo" else {"prior.categories"})
        for name in space:
            role = name.partition(".")[0]
            if role not in DECLARED:
                raise UserError(f"no such setting; {nearest(role)}", f"space: {name}")
            if {name, role} & fixed:
                raise UserError(f"must be the same in all trials of --by {by}", f"space: {name}")
        self.space = {name: self._way(name, space[name]) for name in sorted(space)}
        data = read_data(self.settings({}))
        if data.said:
            # Columns are features unless a flag says otherwise.
            print(f"data: {data.said}")
        for end in (0, -1):
            corner = {name: _values(name, given)[end] for name, given in space.items()}
            try:
                check_parts(**self.settings(corner).as_dict() | {"data": data, "device": "cpu"})
            except UserError as error:
                raise UserError(f"a trial cannot begin: {error}") from error
        shared = {name: value for name, value in base.items() if name not in MACHINE}
        ways = {f"--space {name}": str(way) for name, way in self.space.items()}
        self.recipe = json.loads(json.dumps({"--by": by, **ways, **shared}))

    def _way(self, name: str, given: Any) -> Any:
        """How a setting is drawn: logarithmically where a range spans a factor of ten."""
        from optuna import distributions as ways

        values = _values(name, given)
        for value in values:
            self.settings({name: value})
        if isinstance(given, dict):
            # A storage holds words, and a choice may be a list.
            return ways.CategoricalDistribution([*map(json.dumps, values)])
        low, high = values
        log = low > 0 and high / low >= 10
        with suppress(UserError):
            if type(low) is type(high) is int:
                self.settings({name: low + 0.5})
            return ways.FloatDistribution(low, high, log=log)
        return ways.IntDistribution(low, high, log=log)

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """The settings of a run with these values by name.

        :raises UserError: for a value that does not fit.
        """
        drawn = [Given((*name.split("."),), value, "--space: ") for name, value in values.items()]
        # A class comes before its arguments.
        drawn.sort(key=lambda one: len(one.key))
        resolver = Resolver([*self.given, *drawn], trust=self.trust)
        try:
            return resolver.settings()
        except UserError as error:
            raise UserError(error.told(resolver.origin)) from error

    def gain(self, row: Mapping[str, float]) -> float | None:
        """What an epoch is worth; None where that was not measured."""
        with suppress(KeyError):
            return GAINS[self.by](row)
        return None


def _values(name: str, given: Any) -> list[Any]:
    """The choices, or the two ends of a range."""
    match given:
        case {"choices": [_, *_] as choices, **others} if not others:
            return choices
        case [int() | float() as low, int() | float() as high] if (
            bool not in (type(low), type(high)) and low < high
        ):
            return given
    text = f"expected [LOW, HIGH] or {{choices: [A, B]}}, not '{given}'"
    raise UserError(text, f"space: {name}")


def _drawn(trial: Any) -> dict[str, Any]:
    """A trial's value of each setting that is searched."""
    return {n: json.loads(v) if isinstance(v, str) else v for n, v in trial.params.items()}


def run(options: Options, search: Search, name: str) -> int:
    """Work on a study until it has its trials; returns 1 where none of them ended well."""
    if options.out.exists() and f" of '{name}':" not in options.out.read_text().split("\n")[0]:
        raise UserError(
            f"is there, and is not of the study '{name}'; give another file", "out", options.out
        )
    worker = Worker(options, search, name)
    while worker.work():
        pass
    best = worker.keep_best()
    if best is None:
        print(f"error: no trial ended well; the logs in '{worker.place}' say why", file=sys.stderr)
        return 1
    print(f"best: trial {best.number}, {search.by} {best.value:.2f}; on all training examples:")
    flags = ["--config", str(options.out), "--patience", "0"]
    print(f"python -m pyro_infocat.run {shlex.join(flags)}", flush=True)
    return 0


class Worker:
    """Works on the trials of a study, beside others with the same storage and folder.

    Who works on a trial holds its lock. By that a trial whose worker was killed is told from one
    that goes on: the storage says of both that they run.

    :ivar place: the folder of the trials' folders.
    """

    def __init__(self, options: Options, search: Search, name: str) -> None:
        from filelock import FileLock

        self.options, self.search, self.name = options, search, name
        self.place = options.runs / (re.sub(r"\W+", "-", name).strip("-") or "study")
        self.place.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.place / ".lock")
        with self.lock:
            self.study = self._study()

    def _study(self) -> Any:
        """The study, new or with trials of this very search.

        :raises UserError: where it is of another one.
        """
        import optuna

        study = optuna.create_study(
            storage=self.options.storage,
            study_name=self.name,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=self.options.warmup),
            load_if_exists=True,
        )
        now = self.search.recipe
        then = study.user_attrs.get("recipe", {} if study.get_trials(deepcopy=False) else now)
        for key in now | then:
            if then.get(key) != now.get(key):
                text = f"the study has {key} {then.get(key)}, not {now.get(key)}; give another name"
                raise UserError(text, "name", self.name)
        study.set_user_attr("recipe", now)
        return study

    @contextmanager
    def claimed(self) -> Iterator[Any]:
        """A trial whose worker was killed, else a new one; None where there are enough."""
        from filelock import FileLock, Timeout
        from optuna.samplers import TPESampler
        from optuna.trial import Trial, TrialState

        trial = None
        with self.lock:
            every = self.study.get_trials(deepcopy=False)
            left = [one.number for one in every if one.state == TrialState.RUNNING]
            for number in [*left, len(every)]:
                own = FileLock(self.place / f"trial{number}.lock", blocking=False)
                with suppress(Timeout):
                    own.acquire()
                    break
            if number < len(every):
                trial = Trial(self.study, every[number]._trial_id)
            elif number < self.options.trials:
                # By the number: no two workers draw alike, and a search can be repeated.
                seed = self.search.settings({}).seed + number
                self.study.sampler = TPESampler(seed=seed % 2**32)
                trial = self.study.ask(self.search.space)
        try:
            yield trial
        finally:
            own.release()

    def work(self) -> bool:
        """Train a trial, and tell the study and the user; False where none is left."""
        from optuna.trial import TrialState

        with self.claimed() as trial:
            if trial is None:
                return False
            folder, values = self.place / f"trial{trial.number}", _drawn(trial)
            log = folder.with_suffix(".log")
            log.touch()
            # What ends a process of its own, for want of memory too, does not end the search. It
            # is forked from one that has imported torch and done nothing else.
            forks = multiprocessing.get_context("forkserver")
            forks.set_forkserver_preload(["pyro_infocat.experiment"])
            given = (self.search.settings(values), folder, log, os.getcwd())
            process = forks.Process(target=_train, args=given)
            process.start()
            try:
                state, gain, said = self.follow(trial, process, folder)
            finally:
                process.kill()
                process.join()
            # Not while another worker looks for trials that nobody works on.
            with self.lock:
                self.study.tell(trial, gain if state == TrialState.COMPLETE else None, state)
            self.keep_best()
        shown = [f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in values.items()]
        print(f"trial {trial.number}: {said}; {', '.join(shown)}", flush=True)
        return True

    def follow(self, trial: Any, process: Any, folder: Path) -> tuple[Any, float | None, str]:
        """Report each epoch, until the process ends or should; the state, the gain and a line."""
        from optuna.trial import TrialState

        from pyro_infocat.storage.folder import RunFolder

        seen = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        ended, epoch, gain = False, 0, None
        while not ended:
            process.join(POLL)
            # Asked before the history is read, so that no epoch is missed.
            ended = not process.is_alive()
            for row in RunFolder(folder).history()[epoch:]:
                epoch, gain = epoch + 1, self.search.gain(row)
                if gain is None or epoch in seen:
                    continue
                trial.report(gain, epoch)
                if trial.should_prune() and not ended:
                    return TrialState.PRUNED, gain, f"stopped after epoch {epoch} at {gain:.2f}"
        if process.exitcode == 0 and gain is not None:
            return TrialState.COMPLETE, gain, f"{self.search.by} {gain:.2f} after epoch {epoch}"
        if process.exitcode == 0:
            return TrialState.FAIL, None, f"failed: {self.search.by} was not measured"
        lines = folder.with_suffix(".log").read_text().splitlines() or [""]
        why = lines[-1].partition(": ")[2] or f"its process ended with {process.exitcode}"
        return TrialState.FAIL, None, f"failed: {why}"

    def keep_best(self) -> Any:
        """Write the best trial's settings as a preset; the trial, None where none ended well."""
        with self.lock:
            try:
                best = self.study.best_trial
            except ValueError:
                return None
            settings = self.search.settings(_drawn(best)).as_dict()
            kept = {name: value for name, value in settings.items() if name not in MACHINE}
            head = f"# Trial {best.number} of '{self.name}': {self.search.by} {best.value:.4f}"
            self.options.out.parent.mkdir(parents=True, exist_ok=True)
            text = f"{head} nats per example.\n{write_yaml(kept)}"
            replace(self.options.out, text.encode())
        return best


def _train(settings: Settings, folder: Path, log: Path, here: str) -> None:
    """Train a trial, in a process of its own that ends with the search's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(here)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from tqdm import tqdm

    from pyro_infocat import experiment

    # The bar's own, a semaphore of all processes, would outlive a trial that is stopped.
    tqdm.set_lock(threading.RLock())
    resume = (folder / CHECKPOINT).exists()
    experiment.run(settings, folder, resume, progress=False, measured=False)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
