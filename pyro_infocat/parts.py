"""The parts of a run that are chosen by class, without importing any of them."""

import importlib
from typing import Any

COMPONENTS = ("prior", "likelihood", "decoder", "encoder", "guide", "view")
"""The parts that are chosen by class, in the order in which they are built."""

DEFAULTS = {
    "prior": "models.priors.Orthogonal",
    "likelihood": "models.likelihoods.Bernoulli",
    "decoder": "models.decoders.MLP",
    "encoder": "guides.encoders.MLP",
    "guide": "guides.enumerated.Enumerated",
    "view": "pyro_infocat.views.Same",
}

BASES = {
    "prior": "models.priors.Prior",
    "likelihood": "models.likelihoods.Likelihood",
    "decoder": "models.decoders.Decoder",
    "encoder": "guides.encoders.Encoder",
    "guide": "guides.guide.Guide",
    "view": "pyro_infocat.views.View",
}
"""What each part must be a subclass of, by path: importing them takes torch's seconds."""

_DATA = {"features", "shape", "levels"}
_LIKELIHOOD = _DATA | {"encoder", "prior", "categories", "latent"}

GIVEN_TO = {
    "encoder": _DATA,
    "prior": _DATA | {"encoder"},
    "likelihood": _LIKELIHOOD,
    **dict.fromkeys(("decoder", "guide", "view"), _LIKELIHOOD | {"likelihood"}),
}
"""Constructor arguments of each part that the run supplies from the data and from other parts."""

HELP = {
    "prior": "p(c) and p(z|c)",
    "likelihood": "p(x | the decoder's output)",
    "decoder": "the network from z to x",
    "encoder": "the guide's network from x to hidden features",
    "guide": "q(c|x) and q(z|x,c)",
    "view": "a change of an example that keeps its category, for the weight of consistency",
}


def named(path: str) -> Any:
    """The class of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
