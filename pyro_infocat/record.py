"""A run's folder: settings, checkpoint, history and metrics, each written whole or not at all."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from pyro_infocat.errors import UserError
from pyro_infocat.files import replace
from pyro_infocat.settings import CHECKPOINT, CONFIG, HISTORY, METRICS, STARTS, Settings

MAY_DIFFER = {"device", "data_root"}
"""Settings that are about the machine, not the run."""


class Record:
    """The folder of one run.

    :ivar folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, settings: Settings) -> None:
        """Start a new run here.

        :raises UserError: where the folder holds a run or cannot be written.
        """
        text = _text(settings)
        config = self.folder / CONFIG
        # These very settings alone are left by a run that was killed before its first checkpoint.
        taken = config.exists() and config.read_bytes() != text
        begun = any((self.folder / name).exists() for name in (CHECKPOINT, HISTORY, METRICS))
        if taken and not begun and (self.folder / STARTS).exists():
            raise UserError(
                f"--out: '{self.folder}' holds starts of other settings; go on with "
                f"{self._how_to_go_on()}, or choose another --out"
            )
        if begun:
            raise UserError(
                f"--out: '{self.folder}' holds another run; continue it with --resume true, "
                "or choose another --out"
            )
        if taken:
            raise UserError(
                f"--out: '{self.folder}' holds the settings of another run, which never began; "
                "delete it, or choose another --out"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        # Of a folder above as well, which is not the run's own.
        except OSError as error:
            raise UserError(
                f"--out: cannot write to '{self.folder}' ({error.strerror}); choose a folder that "
                "can be written"
            ) from error
        self._replace(CONFIG, text)

    def reopen(self, settings: Settings) -> dict[str, Any]:
        """The checkpoint of the run that these settings continue.

        :raises UserError: where there is none, it cannot be read, it is of other settings, or it
            has had more epochs already.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise UserError(
                f"--resume: no checkpoint in '{self.folder}'; start the run without --resume, or "
                "give the --out of a run that has one"
            )
        before = self.settings()
        for key, then, now in differences(before, settings):
            if key not in MAY_DIFFER | {"epochs"}:
                raise UserError(
                    f"--resume: '{self.folder}' was trained with {key} {then}, not {now}; go on "
                    f"with {self._how_to_go_on()}, or choose another --out"
                )
        spread = settings.anneal == "cosine" and "learning_rate" not in settings.schedules
        if spread and before.epochs != settings.epochs:
            raise UserError(
                f"--epochs {settings.epochs}: the cosine learning rate of '{self.folder}' was "
                f"spread over {before.epochs}; choose another --out"
            )
        checkpoint = self.checkpoint()
        if checkpoint["epoch"] > settings.epochs:
            raise UserError(
                f"--epochs {settings.epochs}: '{self.folder}' has had {checkpoint['epoch']}; give "
                "at least as many, or choose another --out"
            )
        return checkpoint

    def go_on(self, settings: Settings, checkpoint: dict[str, Any]) -> None:
        """Keep the settings that a run goes on with from a checkpoint, and the history up to it.

        Metrics of a run that has more to come are no longer its own.
        """
        self._replace(CONFIG, _text(settings))
        self.write_history(checkpoint["history"])
        if checkpoint["epoch"] < settings.epochs:
            (self.folder / METRICS).unlink(missing_ok=True)

    def settings(self) -> Settings:
        """The settings of the run.

        :raises UserError: where there are none that can be read.
        """
        path = self.folder / CONFIG
        try:
            return Settings.from_dict(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
            raise UserError(
                f"'{self.folder}' is not the folder of a run: '{path}' cannot be read as one "
                f"({type(error).__name__}); give the --out of a run"
            ) from error

    def checkpoint(self) -> dict[str, Any]:
        """The newest checkpoint, on the CPU, loaded without executing any pickle.

        :raises UserError: where it cannot be read or is corrupt.
        """
        path = self.folder / CHECKPOINT
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            checkpoint["epoch"], checkpoint["model"], checkpoint["guide"], checkpoint["history"]
        # Of half a file torch says an OSError too.
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(
                f"cannot read '{path}' ({error.strerror}); a run has it once training begins: go "
                "on by the command that began it, or let the file be read"
            ) from error
        except Exception as error:
            raise UserError(
                f"'{path}' is corrupt or no checkpoint of this project "
                f"({type(error).__name__}); delete '{self.folder}' and train again"
            ) from error
        return checkpoint

    def save(self, checkpoint: dict[str, Any], history: list[dict[str, float]]) -> None:
        """Write checkpoint and history; a kill at any moment leaves the last pair loadable."""
        # The history travels in the checkpoint too, so that a kill between the two writes costs
        # nothing: going on writes the file from it.
        # Through memory: torch turns a full disk into a RuntimeError, Python into an OSError.
        buffer = io.BytesIO()
        torch.save(checkpoint | {"history": history}, buffer)
        self._replace(CHECKPOINT, buffer.getvalue())
        self.write_history(history)

    def write_history(self, history: list[dict[str, float]]) -> None:
        """A line an epoch."""
        lines = "".join(json.dumps(row) + "\n" for row in history)
        self._replace(HISTORY, lines.encode())

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """What the finished run is worth."""
        self._replace(METRICS, (json.dumps(metrics, indent=2) + "\n").encode())

    def _how_to_go_on(self) -> str:
        return f"--config {self.folder / CONFIG} --out {self.folder}"

    def _replace(self, name: str, content: bytes) -> None:
        replace(self.folder / name, content)


def differences(before: Settings, now: Settings) -> Iterator[tuple[str, Any, Any]]:
    """Each setting that differs, as flags name it, with both values; None where there is none."""
    first, second = flat(before.as_dict()), flat(now.as_dict())
    for key in first | second:
        if first.get(key) != second.get(key):
            yield key, first.get(key), second.get(key)


def _text(settings: Settings) -> bytes:
    return yaml.safe_dump(settings.as_dict(), sort_keys=False).encode()


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: ``prior.scale`` for the prior's argument ``scale``."""
    level: dict[str, Any] = {}
    for key, value in settings.items():
        inner = prefix if key == "init_args" else f"{prefix}{key}."
        level |= flat(value, inner) if isinstance(value, dict) else {f"{prefix}{key}": value}
    return level
