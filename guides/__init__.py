"""The inference side: encoders and guides.

Shapes: B batch, K categories, D latent dimensions, X features, H hidden features.
"""

from guides.bayes import Bayes
from guides.enumerated import Enumerated
from guides.relaxed import Gumbel, SoftCode

__all__ = ["Bayes", "Enumerated", "Gumbel", "SoftCode"]
