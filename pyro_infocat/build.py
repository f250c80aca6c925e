"""From settings to a model, a guide and an objective that fit together and fit the data.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import functools
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from guides.guide import Guide
from models import CatVAE
from models.likelihoods import Likelihood
from models.priors import Prior
from pyro_infocat.data import Observation
from pyro_infocat.errors import UserError, reason
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.parts import named
from pyro_infocat.schedules import scheduled
from pyro_infocat.settings import ALSO_SCHEDULED, DATA_SETS, Component, Facts, Settings
from pyro_infocat.terms import SIGNS
from pyro_infocat.views import View
from pyro_infocat.wording import users_line, where

MADE_BY_SUPER = {
    "prior": ("categories", "latent", "_modules"),
    "likelihood": ("_modules",),
    "decoder": ("likelihood", "_modules"),
    "encoder": ("width", "_modules"),
    "guide": ("categories", "_modules"),
    "view": (),
}
"""What each part has once its base class was constructed, or, a width, has set itself."""


def build(
    settings: Settings, device: torch.device, facts: Facts | None = None
) -> tuple[CatVAE, Guide, View]:
    """The model, the guide and the view for the settings' data set.

    A part's constructor is handed whatever it names of ``features`` (X), ``shape`` (height,
    width), ``levels`` (grey levels), ``encoder`` (a factory), ``likelihood``, ``prior``,
    ``categories`` (K) and ``latent`` (D); the rest comes from the settings.

    :param facts: of the data, where the settings name a file and no data set.
    :raises UserError: where a part cannot be made or the parts do not fit.
    """
    facts = facts or DATA_SETS[settings.data]
    given: dict[str, Any] = {
        "features": facts.features,
        "shape": facts.shape,
        "levels": facts.levels,
    }
    given["encoder"] = functools.partial(create, "encoder", settings.encoder, dict(given))
    prior: Prior = create("prior", settings.prior, given)
    given |= {"prior": prior, "categories": prior.categories, "latent": prior.latent}
    given["likelihood"] = create("likelihood", settings.likelihood, given)
    decoder = create("decoder", settings.decoder, given)
    guide: Guide = create("guide", settings.guide, given)
    model = CatVAE(prior, decoder, settings.kl)
    return model.to(device), guide.to(device), create("view", settings.view, given)


def create(role: str, component: Component, given: dict[str, Any]) -> Any:
    """An instance of the component, handed those of ``given`` that its constructor names.

    :param role: the flag that chose it, for the error.
    :raises UserError: where the constructor refuses its arguments.
    """
    kind = named(component.class_path)
    wanted = inspect.signature(kind).parameters
    arguments = {key: value for key, value in given.items() if key in wanted}
    with blame(f"--{role} {component.class_path}"):
        part = kind(**(arguments | component.init_args))
    for name in MADE_BY_SUPER[role]:
        if not hasattr(part, name):
            raise UserError(
                f"--{role} {component.class_path}: has no '{name}'; its constructor must call "
                "super().__init__ with all that it takes"
            )
    return part


def objective(settings: Settings) -> InfoCatELBO:
    """The bound and its terms as the settings weigh them at the start.

    :raises UserError: for a term that does not exist, a negative weight, or an epoch without any.
    """
    if "information_bound" in settings.weights:
        raise UserError("--weights: information_bound has a flag of its own, --information_weight")
    with blame("--weights"):
        bound = InfoCatELBO(
            settings.information_weight,
            settings.particles,
            weights=settings.weights,
            decoded=settings.decoded,
        )
    with blame("--schedules"):
        for name, points in settings.schedules.items():
            if name in SIGNS:
                InfoCatELBO(weights={name: min(weight for _, weight in points)})
            elif name not in ALSO_SCHEDULED:
                there = ", ".join([*SIGNS, *ALSO_SCHEDULED])
                raise ValueError(f"nothing is called '{name}'; there are {there}")
    # From their last point on schedules are flat.
    points = [point for line in settings.schedules.values() for point in line]
    last = max((math.ceil(epoch) for epoch, _ in points), default=0)
    for epoch in range(min(settings.epochs, last + 1)):
        weights = bound.weights | scheduled(settings, epoch)
        if not any(weights[name] for name in SIGNS):
            raise UserError(
                f"--weights: no term of the objective has a weight in epoch {epoch + 1}; give one "
                "to some term, or let --schedules begin there"
            )
    return bound


def observation(settings: Settings, likelihood: Likelihood) -> Observation:
    """Whether the likelihood sees binarised pixels or grey levels.

    :raises UserError: where a likelihood of 0 and 1 is asked to see grey levels.
    """
    if settings.observe == "grey" and likelihood.binary:
        raise UserError(
            f"--observe grey: {settings.likelihood.class_path} holds 0 and 1 only; use --observe "
            "binary, or a likelihood of grey levels such as models.likelihoods.ContinuousBernoulli"
        )
    if settings.observe == "auto":
        return "binary" if likelihood.binary else "grey"
    return settings.observe


@contextmanager
def blame(part: str, remedy: str = "") -> Iterator[None]:
    """Lay whatever goes wrong at the door of a part, which may be the user's own.

    :param part: the flag that chose it, and the class.
    :param remedy: what would be right, where the error does not say so itself.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        known = isinstance(error, TypeError | ValueError)
        said = reason(error) + users_line(error) if known else where(error)
        raise UserError(f"{part}: {said}{remedy and '; '}{remedy}") from error
