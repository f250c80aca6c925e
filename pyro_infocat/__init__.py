"""InfoCatVAE as a modular probabilistic program in Pyro.

``pyro_infocat.load(folder)`` brings a finished run back; see :mod:`pyro_infocat.loading`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_infocat.loading import Run, load

__all__ = ["Run", "load"]


def __getattr__(name: str) -> Any:
    # torch and Pyro take seconds to import, which --help and bad input need not wait for.
    if name in __all__:
        from pyro_infocat import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'pyro_infocat' has no attribute '{name}'")
