"""The objective: the ELBO with c enumerated exactly, and the terms beside it."""

from pyro_infocat.objective.bound import ELBO_SIGNS, Terms, elbo_of
from pyro_infocat.objective.elbo import InfoCatELBO
from pyro_infocat.objective.terms import Batch, Term

__all__ = ["ELBO_SIGNS", "Batch", "InfoCatELBO", "Term", "Terms", "elbo_of"]
