"""The generative side: priors, decoders, likelihoods and the generative program.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

from models.generative import CatVAE

__all__ = ["CatVAE"]
