"""InfoCatVAE as a modular probabilistic program in Pyro.

    import pyro_infocat as pic

    run = pic.fit("digits", epochs=20)      # or arrays of your own: pic.fit(images)
    run = pic.load("runs/digits/seed0")     # what fit returned, from its folder

:func:`fit` trains, :func:`load` brings a finished run back, :func:`check_parts` tries parts without
training, and :class:`InfoCatELBO` is the objective as a Pyro loss.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_infocat import places
from pyro_infocat.version import __version__

if TYPE_CHECKING:
    from pyro_infocat.api import check_parts, fit
    from pyro_infocat.data import DataSet, Reader
    from pyro_infocat.errors import UserError
    from pyro_infocat.estimator import InfoCatVAE
    from pyro_infocat.evaluation import Metric, Plot, Tested
    from pyro_infocat.loading import Run, load
    from pyro_infocat.objective import Batch, InfoCatELBO, Term
    from pyro_infocat.views import View

PUBLIC = {
    "Batch": "pyro_infocat.objective",
    "DataSet": "pyro_infocat.data",
    "InfoCatELBO": "pyro_infocat.objective",
    "InfoCatVAE": "pyro_infocat.estimator",
    "Metric": "pyro_infocat.evaluation",
    "Plot": "pyro_infocat.evaluation",
    "Reader": "pyro_infocat.data",
    "Run": "pyro_infocat.loading",
    "Term": "pyro_infocat.objective",
    "Tested": "pyro_infocat.evaluation",
    "UserError": "pyro_infocat.errors",
    "View": "pyro_infocat.views",
    "check_parts": "pyro_infocat.api",
    "fit": "pyro_infocat.api",
    "load": "pyro_infocat.loading",
}
"""What users of Python import from here, and where it is."""

__all__ = [
    "Batch",
    "DataSet",
    "InfoCatELBO",
    "InfoCatVAE",
    "Metric",
    "Plot",
    "Reader",
    "Run",
    "Term",
    "Tested",
    "UserError",
    "View",
    "__version__",
    "check_parts",
    "fit",
    "load",
]

try:
    places.make_importable()
except ImportError as error:
    # A command says it in one line; Python code gets the exception.
    if Path((sys.argv or [""])[0]).name in ("-m", "pyro-infocat"):
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise


def __getattr__(name: str) -> Any:
    # torch and Pyro take seconds to import, which --help and bad input need not wait for.
    if name in PUBLIC:
        import importlib

        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module 'pyro_infocat' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
