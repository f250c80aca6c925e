"""A run's folder: settings, checkpoint, history and metrics, each written whole or not at all."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from pyro_infocat.errors import UserError
from pyro_infocat.parts import conform, up_to_date
from pyro_infocat.settings import (
    AFTERWARDS,
    AUTO,
    CHECKPOINT,
    CONFIG,
    DECLARED,
    HISTORY,
    MACHINE,
    MADE_BY,
    MAY_BE_AUTO,
    METRICS,
    ROLES,
    STARTS,
    TYPES,
    Part,
    Settings,
    from_dict,
)
from pyro_infocat.storage import checkpoint as checkpoints
from pyro_infocat.storage.configuration import check_run, read_file, write_yaml
from pyro_infocat.storage.files import read_json, replace
from pyro_infocat.version import made_by

LOCK = ".lock"
"""A file that a process holds while it writes to the folder. It stays, empty."""

REMEDY = "go on with the run by --resume true, which writes it anew"
"""For a damaged history, which the checkpoint holds too, or damaged metrics."""


class RunFolder:
    """The folder of one run.

    :ivar path: where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, settings: Settings) -> None:
        """Start a new run here.

        :raises UserError: where the folder holds a run or cannot be written.
        """
        # These very settings alone are left by a run that was killed before its first checkpoint.
        taken = (self.path / CONFIG).exists() and not self._is_of(settings)
        begun = any((self.path / name).exists() for name in (CHECKPOINT, HISTORY, METRICS))
        if taken and not begun and (self.path / STARTS).exists():
            raise UserError(
                f"'{self.path}' holds starts of other settings; go on with "
                f"{self._how_to_go_on()}, or choose another --out",
                "out",
            )
        if begun:
            raise UserError(
                f"'{self.path}' holds another run; continue it with --resume true, or choose "
                "another --out",
                "out",
            )
        if taken:
            raise UserError(
                f"'{self.path}' holds the settings of another run, which never began; delete it, "
                "or choose another --out",
                "out",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        # Of a folder above as well, which is not the run's own.
        except OSError as error:
            raise UserError(
                f"cannot write to '{self.path}' ({error.strerror}); choose a folder that can be "
                "written",
                "out",
            ) from error
        self._replace(CONFIG, _text(settings))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here.

        :raises UserError: where one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"another process is writing to '{self.path}'; wait for it, or choose another "
                "--out",
                "out",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def reopen(self, settings: Settings) -> dict[str, Any]:
        """The checkpoint of the run that these settings continue.

        :raises UserError: where there is none, it cannot be read, it is of other settings, or it
            has had more epochs already.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            raise UserError(
                f"no checkpoint in '{self.path}'; start the run without --resume, or give the "
                "--out of a run that has one",
                "resume",
            )
        before = up_to_date(self.settings()[0], settings)
        for key, then, now in differences(before, settings):
            if key.partition(".")[0] not in MACHINE | AFTERWARDS | {"epochs"}:
                raise UserError(
                    f"'{self.path}' was trained with {key} {then}, not {now}; go on with "
                    f"--out {self.path} --resume true, or choose another --out",
                    "resume",
                )
        if spread(settings) and before.epochs != settings.epochs:
            raise UserError(
                f"the cosine learning rate of '{self.path}' was spread over {before.epochs}; "
                "choose another --out",
                "epochs",
                settings.epochs,
            )
        checkpoint = self.checkpoint()
        if checkpoint["epoch"] > settings.epochs:
            raise UserError(
                f"'{self.path}' has had {checkpoint['epoch']}; give at least as many, or choose "
                "another --out",
                "epochs",
                settings.epochs,
            )
        return checkpoint

    def go_on(self, settings: Settings, checkpoint: dict[str, Any]) -> None:
        """Keep the settings that a run goes on with from a checkpoint, and the history up to it.

        Metrics of a run that has more to come are no longer its own.
        """
        self._replace(CONFIG, _text(settings))
        self.write_history(checkpoint["history"])
        if checkpoint["epoch"] < settings.epochs:
            (self.path / METRICS).unlink(missing_ok=True)

    def settings(self) -> tuple[Settings, list[str]]:
        """The settings of the run, and the keys of its config that are no settings.

        What the run's version did not know yet has the value that was in force then.

        :raises UserError: where there are none that can be read.
        """
        path = self.path / CONFIG
        check_run(self.path)
        try:
            content = read_file(path)
            if not isinstance(content, dict) or "prior" not in content:
                raise TypeError
            found, unknown = from_dict(content)
        except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
            raise UserError(
                f"'{self.path}' is not the folder of a run: '{path}' cannot be read as one "
                f"({type(error).__name__}); give the --out of a run"
            ) from error
        try:
            for name, kind in TYPES.items():
                if name not in ROLES:
                    limits = DECLARED[name].metadata["limits"]
                    conform(getattr(found, name), kind, name, limits)
        except UserError as error:
            raise UserError(error.told(lambda setting: f"{path}: {setting}")) from error
        return found, unknown

    def _is_of(self, settings: Settings) -> bool:
        """Whether the folder's config has these settings."""
        try:
            return self.settings()[0] == settings
        except UserError:
            return False

    def checkpoint(self) -> dict[str, Any]:
        """The newest checkpoint, on the CPU.

        :raises UserError: as :func:`pyro_infocat.storage.checkpoint.read`.
        """
        return checkpoints.read(self.path / CHECKPOINT)

    def save(self, checkpoint: Mapping[str, Any], history: list[dict[str, float]]) -> None:
        """Write checkpoint and history; a kill at any moment leaves the last pair loadable."""
        # The history is in the checkpoint too, so that a kill between the two writes costs
        # nothing: going on writes the file from it.
        checkpoints.write(self.path / CHECKPOINT, {**checkpoint, "history": history})
        self.write_history(history)

    def history(self) -> list[dict[str, float]]:
        """A row an epoch; none before training."""
        path = self.path / HISTORY
        return read_json(path, REMEDY, lines=True) if path.exists() else []

    def metrics(self) -> dict[str, Any]:
        """What the finished run is worth; nothing before its end."""
        path = self.path / METRICS
        return read_json(path, REMEDY) if path.exists() else {}

    def write_history(self, history: list[dict[str, float]]) -> None:
        """A line an epoch."""
        lines = "".join(json.dumps(row) + "\n" for row in history)
        self._replace(HISTORY, lines.encode())

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """What the finished run is worth."""
        self._replace(METRICS, (json.dumps(metrics, indent=2) + "\n").encode())

    def _how_to_go_on(self) -> str:
        return f"--config {self.path / CONFIG} --out {self.path}"

    def _replace(self, name: str, content: bytes) -> None:
        replace(self.path / name, content)


def spread(settings: Settings) -> bool:
    """Whether the learning rate is spread over all epochs: more of them make another run."""
    return settings.anneal == "cosine" and "learning_rate" not in settings.schedules


def where_they_were(folder: RunFolder, settings: Settings) -> Settings:
    """Settings whose schedules stay where a run of another number of epochs had them.

    Those that stand at shares of the run would move with it.
    """
    before = folder.settings()[0]
    same = before.epochs == settings.epochs or before.schedules != settings.schedules
    schedules: dict[str, list[list[float | str]]] = {
        name: _rising(points) for name, points in before.lines().items()
    }
    return settings if same else dataclasses.replace(settings, schedules=schedules)


def _rising(points: list[list[float]]) -> list[list[float | str]]:
    """A schedule that says the same with one point at each epoch.

    In a run of one epoch all points are there, and the last one counts.
    """
    values: dict[float | str, float] = {}
    for at, value in points:
        values[at] = value
    return [[at, value] for at, value in values.items()]


def going_on(folder: RunFolder, settings: Settings) -> Settings:
    """Settings with what the run in a folder began with, where they are ``auto``.

    It goes on so on whatever machine.
    """
    if not (folder.path / CONFIG).exists():
        return settings
    before = folder.settings()[0]
    kept = {name: getattr(before, name) for name in MAY_BE_AUTO if getattr(settings, name) == AUTO}
    for name, value in kept.items():
        if value == AUTO:
            raise UserError(
                f"'{folder.path / CONFIG}' says so too, and a run's own has what it began with",
                name,
                AUTO,
            )
    if settings.prior.init_args.get("categories") == AUTO:
        number = before.prior.init_args.get("categories")
        prior = Part(settings.prior.class_path, settings.prior.init_args | {"categories": number})
        settings = dataclasses.replace(settings, prior=prior)
    return dataclasses.replace(settings, **kept)


def differences(before: Settings, now: Settings) -> Iterator[tuple[str, Any, Any]]:
    """Each setting that differs, as flags name it, with both values; None where there is none.

    What is ``auto`` in one of them stands for what the other has.
    """
    first, second = flat(before.as_dict()), flat(now.as_dict())
    for key in first | second:
        values = first.get(key), second.get(key)
        if values[0] != values[1] and not (AUTO in values and key in MAY_BE_AUTO):
            yield key, first.get(key), second.get(key)


def _text(settings: Settings) -> bytes:
    return write_yaml(settings.as_dict() | {MADE_BY: made_by()}).encode()


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: ``prior.scale`` for the prior's argument ``scale``."""
    level: dict[str, Any] = {}
    for key, value in settings.items():
        inner = prefix if key == "init_args" else f"{prefix}{key}."
        level |= flat(value, inner) if isinstance(value, dict) else {f"{prefix}{key}": value}
    return level
