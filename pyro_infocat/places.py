"""Where things lie: the packages models and guides, the presets and the checkout.

In a checkout, ``models``, ``guides`` and the presets' folder ``runs`` lie beside this package. An
installed copy holds them within it, as ``bundled/models``, ``bundled/guides`` and ``presets``: at
the top of site-packages, pip would write names as common as these over another distribution's.
Their dotted paths, which configs and checkpoints hold, are ``models.*`` and ``guides.*`` in both;
:func:`make_importable` sees to that.

Only the standard library is imported here.
"""

import importlib.util
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_BUNDLED = _PACKAGE / "bundled"

CHECKOUT: Path | None = None if (_BUNDLED / "models" / "__init__.py").is_file() else _PACKAGE.parent
"""The checkout's folder; None in an installed copy."""

ROOT = CHECKOUT or _BUNDLED
"""The folder that holds the packages models and guides."""

PRESETS = CHECKOUT / "runs" if CHECKOUT else _PACKAGE / "presets"
"""The folder that holds the presets."""

NAMES = ("models", "guides")
"""Packages whose names are fixed: configs and checkpoints hold dotted paths that begin so."""


def make_importable() -> None:
    """Let ``import models`` and ``import guides`` find this project's packages.

    Where nothing else has the name, :data:`ROOT` goes to the end of ``sys.path``: there it hides
    nothing, and still wins over folders of the name without an ``__init__.py``, wherever those
    stand, since Python takes the first regular package of the whole path before any of them.

    :raises ImportError: another package or module has the name, or this project's is missing.
    """
    for name in NAMES:
        if not _is_taken(name):
            sys.path.append(str(ROOT))
        place = _place(name)
        if place is None:
            raise ImportError(
                f"no package '{name}' in '{ROOT}', where pyro_infocat expects it: install "
                "pyro_infocat anew, or take the whole checkout"
            )
        if not _is_ours(name, place):
            raise ImportError(
                f"another package '{name}' lies in front of pyro_infocat's on sys.path: '{place}'; "
                "pyro_infocat's dotted paths models.* and guides.* need that name: rename the "
                "other, or start where it is not on the path"
            )


def _is_taken(name: str) -> bool:
    """Whether the name is imported already, or is a module or a package with ``__init__.py``."""
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    # A folder without __init__.py has no origin.
    return spec is not None and spec.origin is not None


def _place(name: str) -> str | None:
    """The file that ``import name`` runs or has run, or the folder of one without any."""
    if name in sys.modules:
        # Not by find_spec, which refuses a module that was made by hand and has no __spec__.
        module = sys.modules[name]
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
        return file or next(iter(folders), "no file")
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "no file")


def _is_ours(name: str, place: str) -> bool:
    return Path(place).resolve() == (ROOT / name / "__init__.py").resolve()
