"""From settings to a model, a guide and an objective that fit together and fit the data.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import functools
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor

from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE
from models.likelihoods import Likelihood
from models.priors import Prior
from pyro_infocat.centre import centre
from pyro_infocat.data import Observation
from pyro_infocat.errors import UserError
from pyro_infocat.networks import BATCH_NORMALISATIONS
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.settings import ALSO_SCHEDULED, DATA_SETS, Component, Facts, Settings
from pyro_infocat.terms import SIGNS
from pyro_infocat.views import View

CHECKED = 4
"""Examples that the parts are tried on before training."""


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
    with blame(f"--prior {settings.prior.class_path}", "it must call super().__init__(K, D)"):
        given |= {"prior": prior, "categories": prior.categories, "latent": prior.latent}
    given["likelihood"] = create("likelihood", settings.likelihood, given)
    decoder = create("decoder", settings.decoder, given)
    guide: Guide = create("guide", settings.guide, given)
    model = CatVAE(prior, decoder, "sampled" if settings.kl == "sampled" else "analytic")
    return model.to(device), guide.to(device), create("view", settings.view, given)


def create(role: str, component: Component, given: dict[str, Any]) -> Any:
    """An instance of the component, handed those of ``given`` that its constructor names.

    :param role: the flag that chose it, for the error.
    :raises UserError: where the constructor refuses its arguments.
    """
    module, _, name = component.class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    wanted = inspect.signature(kind).parameters
    arguments = {key: value for key, value in given.items() if key in wanted}
    with blame(f"--{role} {component.class_path}"):
        return kind(**(arguments | component.init_args))


def objective(settings: Settings) -> InfoCatELBO:
    """The bound and its terms as the settings weigh them at the start.

    :raises UserError: for a term that does not exist or a negative weight.
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
    return "binary" if settings.observe == "binary" else "grey"


def check_fit(
    settings: Settings, model: CatVAE, guide: Guide, view: View, bound: InfoCatELBO, x: Tensor
) -> None:
    """Try the parts on a few examples x (B, X), with Pyro's validation on.

    :raises UserError: naming both sides of the first thing that does not fit.
    """
    if settings.batch_size == 1 and any(
        isinstance(layer, BATCH_NORMALISATIONS)
        for part in (model, guide)
        for layer in part.modules()
    ):
        raise UserError("--batch_size 1: batch normalisation needs at least 2 examples in a step")
    x = x[:CHECKED]
    categories, latent = model.prior.categories, model.prior.latent
    prior = f"--prior {settings.prior.class_path}"
    decoder = f"--decoder {settings.decoder.class_path}"
    guide_name = f"--guide {settings.guide.class_path}"
    view_name = f"--view {settings.view.class_path}"
    likelihood = f"--likelihood {settings.likelihood.class_path}"
    pyro.clear_param_store()
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled():
        with blame(prior, f"p(z|c) must have batch shape ({categories},) for all c"):
            components = model.prior.all_components()
            found = tuple(components.shape())
            z = components.sample().unsqueeze(1)
        if found != (categories, latent):
            raise UserError(
                f"{prior}: p(z|c) of all {categories} categories has shape {found}; "
                f"({categories}, {latent}) would fit its K and D"
            )
        _check_event(prior, "p(z|c)", components, latent)
        z = z.expand(-1, len(x), -1)
        with blame(
            f"{decoder}: cannot decode z of shape {tuple(z.shape)} from {prior}",
            f"it must accept (..., {latent})",
        ):
            pixels = model.decoder(z)
            found = tuple(pixels.shape())
        if found != (categories, *x.shape):
            raise UserError(
                f"{decoder}: describes x of shape {found} for z of shape {tuple(z.shape)}; the "
                f"data need {(categories, *x.shape)}"
            )
        _check_event(likelihood, "p(x|z)", pixels, x.shape[-1])
        if not centre(pixels).isfinite().all():
            raise UserError(
                f"{likelihood}: its mean is not finite, and generated images are shown by it; give "
                "a distribution that has one"
            )
        informed = settings.information_weight > 0 or "information_bound" in settings.schedules
        for part, distribution in ((prior, components), (likelihood, pixels)):
            if informed and not distribution.has_rsample:
                raise UserError(
                    f"{part}: has no rsample, which the information bound's gradient needs; "
                    "--information_weight 0 does without"
                )
        try:
            in_support = bool(pixels.support.check(x).all())
        except NotImplementedError:
            in_support = True
        if not in_support:
            raise UserError(
                f"{likelihood}: its support does not hold the "
                f"data, which lie between {x.min():g} and {x.max():g}; another --observe or a "
                "likelihood such as models.likelihoods.ContinuousBernoulli would fit"
            )
        with blame(guide_name, f"posterior must accept x of shape {tuple(x.shape)}"):
            posterior = guide.posterior(x)
            seen = posterior.category.logits.shape[-1]
        if seen != categories:
            raise UserError(
                f"{guide_name}: q(c|x) has {seen} categories and {prior} has {categories}; they "
                "must be the same"
            )
        c = torch.arange(categories, device=x.device).unsqueeze(-1)
        with blame(guide_name, f"q(z|x,c) must accept c of shape {tuple(c.shape)}"):
            component = posterior.latent(c)
            found = tuple(component.shape())
        if found != (categories, len(x), latent):
            raise UserError(
                f"{guide_name}: q(z|x,c) has shape {found} for c of shape {tuple(c.shape)}; "
                f"{(categories, len(x), latent)} would fit {prior}"
            )
        _check_event(guide_name, "q(z|x,c)", component, latent)
        if not component.has_rsample:
            raise UserError(f"{guide_name}: q(z|x,c) has no rsample, which its gradient needs")
        sites = {"z"}
        if not isinstance(guide, Relaxed):
            with blame(guide_name):
                trace = pyro.poutine.trace(guide).get_trace(x)
            sites = {
                name
                for name, site in trace.nodes.items()
                if site["type"] == "sample" and not site["is_observed"] and name != "batch"
            }
        if not {"z"} <= sites <= {"c", "z"}:
            raise UserError(
                f"{guide_name}: its sites are {', '.join(sorted(sites)) or 'none'}; the model's "
                "are c and z, and the guide must have z and may have c"
            )
        _check_schedule(settings, "temperature", guide, guide_name, "guides.Gumbel")
        _check_schedule(settings, "moves", view, view_name, "pyro_infocat.views.Affine", True)
        with blame(view_name, f"it must accept x of shape {tuple(x.shape)} and q(c|x)"):
            found = tuple(view(x, guide.category).shape)
        if found != x.shape:
            raise UserError(
                f"{view_name}: makes shape {found} of x of shape {tuple(x.shape)}; they must be "
                "the same"
            )
        with blame(f"{prior} with {guide_name}"):
            try:
                bound.loss(model, guide, x)
            except NotImplementedError as error:
                raise ValueError(f"no analytic KL ({error}); use --kl sampled") from error
        for name, term in bound.terms.items():
            if not term.isfinite():
                part = likelihood if name == "reconstruction" else f"{prior} with {guide_name}"
                raise UserError(
                    f"{part}: {name} is {term.item()} on the first examples; it must be finite on "
                    f"x between {x.min():g} and {x.max():g}"
                )
    kept = {id(p) for part in (model, guide) for p in part.parameters()}
    for name, parameter in pyro.get_param_store().named_parameters():
        if id(parameter) not in kept:
            raise UserError(
                f"pyro.param '{name}' of a part would be neither trained nor saved; make it a "
                "torch.nn.Parameter of the class"
            )
    pyro.clear_param_store()


def _check_event(part: str, what: str, found: Any, size: int) -> None:
    """Refuse a distribution that takes each number of an example for an example."""
    if tuple(found.event_shape) != (size,):
        raise UserError(
            f"{part}: {what} has event shape {tuple(found.event_shape)}; ({size},) would fit, "
            "which a distribution of independent numbers has after .to_event(1)"
        )


def _check_schedule(
    settings: Settings, name: str, part: Any, part_name: str, example: str, zero: bool = False
) -> None:
    """Refuse to schedule what a part does not have, or values that it cannot take.

    :param example: a class that has it.
    :param zero: whether zero is a value.
    """
    points = settings.schedules.get(name)
    if points is None:
        return
    if not hasattr(part, name):
        raise UserError(f"--schedules: {part_name} has no {name}; {example} has")
    least = min(value for _, value in points)
    if least < 0 or (least == 0 and not zero):
        limit = "at least 0" if zero else "above 0"
        raise UserError(f"--schedules: {name} is {points}; every value must be {limit}")


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
        said = " ".join(str(error).split())
        if not isinstance(error, TypeError | ValueError):
            said = f"{type(error).__name__}: {said}"
        raise UserError(f"{part}: {said}{remedy and '; '}{remedy}") from error
