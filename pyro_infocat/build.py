"""From settings to a model, a guide, a view and an objective.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from guides.encoders import Encoder
from guides.guide import Guide, built
from models import CatVAE
from models.likelihoods import Likelihood
from models.priors import Prior
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import Observation
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.objective.terms import Labels
from pyro_infocat.parts import create, find, own_parameters
from pyro_infocat.runtime.memory import TRAINED, Fitting
from pyro_infocat.settings import ROLES, Part, Settings
from pyro_infocat.views import View


@dataclass(frozen=True)
class Parts:
    """What is trained, and by what.

    :ivar model: the generative program, with prior, decoder and likelihood inside.
    :ivar bound: the objective; its weights are those of the start.
    """

    model: CatVAE
    guide: Guide
    view: View
    bound: InfoCatELBO

    def schedulable(self) -> dict[str, list[Any]]:
        """Every part that may declare attributes for ``schedules``, by its role or name.

        A guide may hold several encoders of one class.
        """
        decoder = self.model.decoder
        modules = [*self.model.modules(), *self.guide.modules()]
        return {
            "prior": [self.model.prior],
            "likelihood": [decoder.likelihood],
            "decoder": [decoder],
            "encoder": [module for module in modules if isinstance(module, Encoder)],
            "guide": [self.guide],
            "view": [self.view],
            "model": [self.model],
            **{term.name: [term] for term in self.bound.declared},
        }


class Builder:
    """Makes a run's parts from their classes.

    :param trust: modules outside this project that may be imported; None for any.
    :param instances: parts that the user made, by role: copies of them are used as they are.
    :param notes: where to add a line for each argument of an older version that is passed over;
        without it such an argument is an error.
    """

    def __init__(
        self,
        settings: Settings,
        facts: Facts,
        trust: Sequence[str] | None = None,
        instances: Mapping[str, Any] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.settings, self.facts, self.trust = settings, facts, trust
        self.instances, self.notes = instances or {}, notes

    def programs(self, device: torch.device, copies: int = 1) -> tuple[CatVAE, Guide]:
        """The model and the guide.

        :param copies: how many of each number memory must hold.
        :raises UserError: where a part cannot be made.
        """
        with Fitting(copies):
            model, guide = self._programs()
        return model.to(device), guide.to(device)

    def _programs(self) -> tuple[CatVAE, Guide]:
        # At once, so that a guide that reads the prior reads the copy of it.
        try:
            self._copies = copy.deepcopy(
                {r: self.instances[r] for r in ROLES if r in self.instances}
            )
        except TypeError as error:
            wanted = getattr(self.instances.get("guide"), "prior", None)
            if wanted is None or wanted is self.instances.get("prior"):
                raise
            raise UserError(
                "was made of a prior that is not this run's; give that prior too: prior=...",
                "guide",
                type(self.instances["guide"]).__name__,
            ) from error
        given: dict[str, Any] = {
            "features": self.facts.features,
            "shape": self.facts.shape,
            "levels": self.facts.levels,
            "columns": self.facts.columns,
            "kl": self.settings.kl,
        }
        given["encoder"] = functools.partial(self.make, "encoder", dict(given))
        prior: Prior = self.make("prior", given)
        given |= {"prior": prior, "categories": prior.categories, "latent": prior.latent}
        given["likelihood"] = self.make("likelihood", given)
        if self.facts.colour and given["likelihood"].binary and self.settings.observe == "auto":
            raise UserError(
                f"{self.settings.likelihood.class_path} holds 0 and 1 only, and the images are in "
                "colour; give models.likelihoods.Gaussian or DiscretisedLogistic, or --observe "
                "binary to draw each channel as 0 or 1",
                "likelihood",
            )
        given["decoder"] = self.make("decoder", given)
        guide: Guide = self.make("guide", given)
        model: CatVAE = self.make("model", given)
        self._given = given
        return model, guide

    def parts(self, device: torch.device) -> Parts:
        """All that training needs.

        :raises UserError: where a part cannot be made, or a weight is of no term.
        """
        model, guide = self.programs(device, TRAINED)
        view = self.make("view", self._given)
        return Parts(model, guide, view, self.objective())

    def encoder(self) -> Encoder:
        """A further network from x to hidden features, once there are programs."""
        made: Encoder = built(self._given["encoder"])
        return made

    def make(self, role: str, given: Mapping[str, Any]) -> Any:
        """A part of a role."""
        if role in self._copies:
            made = self._copies[role]
            # A guide may ask for several networks.
            return copy.deepcopy(made) if role == "encoder" else made
        return self.of(role, getattr(self.settings, role), given)

    def of(self, role: str, part: Part, given: Mapping[str, Any] | None = None) -> Any:
        """An instance of a part's class."""
        kind = find(role, part.class_path, role, self.trust)
        if self.notes is not None:
            wanted = own_parameters(role, kind)
            extra = [name for name in part.init_args if name not in wanted]
            self.notes += [
                f"{role}.{name}: {part.class_path} takes no '{name}' any more; it was passed over"
                for name in extra
            ]
            arguments = {name: value for name, value in part.init_args.items() if name in wanted}
            part = Part(part.class_path, arguments)
        return create(role, kind, part, given or {})

    def several(self, role: str) -> list[Any]:
        """The user's own parts of a role: terms, metrics or figures."""
        if role in self.instances:
            return list(copy.deepcopy(self.instances[role]))
        return [self.of(role, part) for part in getattr(self.settings, role)]

    def objective(self) -> InfoCatELBO:
        """The bound and its terms as the settings weigh them at the start.

        :raises UserError: for a term that does not exist, stands twice or has a negative weight.
        """
        settings, extra = self.settings, self.several("terms")
        if settings.known_labels:
            extra = [*extra, Labels()]
        if "information_bound" in settings.weights:
            raise UserError(
                "information_bound has a flag of its own, --information_weight", "weights"
            )
        with attributed("terms", ", ".join(part.class_path for part in settings.terms) or None):
            InfoCatELBO(extra=extra)
        with attributed("weights", None):
            return InfoCatELBO(
                settings.information_weight,
                settings.particles,
                weights=settings.weights,
                decoded=settings.decoded,
                extra=extra,
            )


def observation(settings: Settings, likelihood: Likelihood) -> Observation:
    """Whether the likelihood gets binarised pixels or grey levels.

    :raises UserError: where a likelihood of 0 and 1 is asked to take grey levels.
    """
    if settings.observe == "grey" and likelihood.binary:
        raise UserError(
            f"{settings.likelihood.class_path} holds 0 and 1 only; use --observe binary, or a "
            "likelihood of grey levels such as models.likelihoods.ContinuousBernoulli",
            "observe",
            "grey",
        )
    if settings.observe == "auto":
        return "binary" if likelihood.binary else "grey"
    return settings.observe
