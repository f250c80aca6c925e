"""The version of this code, and the commit that it is of."""

import functools
import json
import subprocess
from importlib import metadata
from typing import Any

from pyro_infocat.places import CHECKOUT

__version__ = "0.2.0"

CODE = ("pyro_infocat", "models", "guides")


@functools.cache
def made_by() -> dict[str, Any]:
    """Version, commit and whether the code is as committed; None where nobody can tell.

    Written to config.yaml, metrics.json and the checkpoint of a run.
    """
    commit, clean = _checkout()
    return {"version": __version__, "commit": commit or _installed_from(), "clean": clean}


def _checkout() -> tuple[str | None, bool | None]:
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():
        return None, None
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--", *CODE)
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, not changed


def _git(*words: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _installed_from() -> str | None:
    """The commit that pip installed from a repository (PEP 610)."""
    try:
        origin = metadata.distribution("pyro-infocat").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
