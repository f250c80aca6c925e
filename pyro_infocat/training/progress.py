"""The progress bar, in a terminal or a notebook."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pyro_infocat.runtime import processes


class Bar(AbstractContextManager["Bar"]):
    """Steps done of all, and the last epoch's terms.

    :param total: steps of the run.
    :param done: steps of before a resume.
    :param on: whether to show it; None where someone can see it.
    """

    def __init__(self, total: int, done: int, on: bool | None = None) -> None:
        kind = _kind()
        # No bar where there is no terminal: stderr is then for errors alone.
        on = (sys.stderr.isatty() or kind is not tqdm) if on is None else on
        off = not on or processes.rank() > 0
        self.bar: Any = kind(total=total, initial=done, unit="step", disable=off)

    def update(self) -> None:
        """A step is done."""
        self.bar.update()

    def show(self, row: Mapping[str, float], terms: Iterable[str]) -> None:
        """Show the terms of an epoch."""
        named = [f"{name}={row[name]:.2f}" for name in ("elbo", *terms) if name in row]
        self.bar.set_postfix_str(" ".join(named))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()


def _kind() -> type:
    """A notebook's own bar in one that can show it, else the terminal's."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell else None
    if type(running).__name__ != "ZMQInteractiveShell":
        return tqdm
    try:
        import ipywidgets  # noqa: F401
        from tqdm.notebook import tqdm as in_notebook
    except ImportError:
        return tqdm
    return in_notebook
