"""Whether the parts fit each other and the data: they are tried before training.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import warnings
from typing import Any

import pyro
import torch
from torch import Tensor

from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat import processes
from pyro_infocat.aside import aside
from pyro_infocat.build import blame
from pyro_infocat.centre import centre
from pyro_infocat.data import Observation, Split
from pyro_infocat.errors import UserError
from pyro_infocat.networks import BATCH_NORMALISATIONS, statistics_kept
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.settings import Settings
from pyro_infocat.views import View

CHECKED = 4
"""How many examples are enough to try the parts on."""


def check_fit(
    settings: Settings,
    model: CatVAE,
    guide: Guide,
    view: View,
    bound: InfoCatELBO,
    split: Split,
    seen: Observation,
) -> None:
    """Try the parts on a few examples, with Pyro's validation on.

    :param split: what there is to train on.
    :param seen: what the likelihood sees of it.
    :raises UserError: naming both sides of the first thing that does not fit.
    """
    _check_number(settings, len(split))
    _check_batch(settings, model, guide)
    shapes = _shapes(model, guide)
    some = torch.arange(min(CHECKED, len(split)), device=split.pixels.device)
    x = split.part(some).fixed(seen)
    pyro.clear_param_store()
    with (
        aside(x.device),
        statistics_kept(model, guide),
        pyro.validation_enabled(),
        warnings.catch_warnings(),
    ):
        # What is held fixed, such as a network trained before, is meant to be.
        warnings.filterwarnings("ignore", ".* because requires_grad=False")
        _check_model(settings, model, x)
        _check_guide(settings, model, guide, x)
        _check_view(settings, guide, view, x)
        _check_bound(settings, model, guide, bound, x)
    _check_parameters(model, guide)
    for name, shape in _shapes(model, guide).items():
        if shapes.get(name) != shape:
            raise UserError(
                f"{_flag(settings, name.split('.')[0])}: '{name}' has shape {shape} after its "
                f"first use and {shapes.get(name)} before; no checkpoint could be read back"
            )
    pyro.clear_param_store()


def _shapes(model: CatVAE, guide: Guide) -> dict[str, tuple[int, ...]]:
    """Of all that a checkpoint holds, by name, which begins with the part's."""
    held = model.state_dict() | guide.state_dict(prefix="guide.")
    return {name: tuple(getattr(value, "shape", ())) for name, value in held.items()}


def _check_number(settings: Settings, examples: int) -> None:
    """Refuse too few examples for a step."""
    held, least = settings.held_out(examples), 2 * processes.world()
    if examples - held < least:
        share = f"--validation {settings.validation}" if held else f"--data {settings.data}"
        raise UserError(
            f"{share}: leaves {examples - held} examples to train on; at least {least} are "
            "needed, 2 in each process"
        )


def _check_batch(settings: Settings, model: CatVAE, guide: Guide) -> None:
    """Refuse batches that do not go round the processes."""
    layers = [layer for part in (model, guide) for layer in part.modules()]
    least, why = processes.world(), "a step needs an example"
    if any(isinstance(layer, BATCH_NORMALISATIONS) for layer in layers):
        least, why = 2 * least, "batch normalisation needs 2 examples"
    if settings.batch_size < least:
        raise UserError(
            f"--batch_size {settings.batch_size}: must be at least {least}; {why} in each process"
        )


def _check_model(settings: Settings, model: CatVAE, x: Tensor) -> None:
    """Try p(z|c) of all c, and p(x|z) of what is drawn from it, on x (B, X)."""
    categories, latent = model.prior.categories, model.prior.latent
    prior, decoder = _flag(settings, "prior"), _flag(settings, "decoder")
    likelihood = _flag(settings, "likelihood")
    with blame(prior, f"p(c) must be a Categorical of {categories}"):
        category = model.prior.category()
        found = tuple(category.logits.shape)
    if found != (categories,):
        raise UserError(
            f"{prior}: p(c) has logits of shape {found}; ({categories},) would fit its K"
        )
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
    points = settings.schedules.get("information_bound", [[0, settings.information_weight]])
    informed = any(weight > 0 for _, weight in points)
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


def _check_guide(settings: Settings, model: CatVAE, guide: Guide, x: Tensor) -> None:
    """Try q(c|x) and q(z|x,c) of all c on x (B, X), and the guide's sites."""
    categories, latent = model.prior.categories, model.prior.latent
    prior, name = _flag(settings, "prior"), _flag(settings, "guide")
    with blame(name, f"posterior must accept x of shape {tuple(x.shape)}"):
        posterior = guide.posterior(x)
    with blame(name, "posterior must return guides.guide.Posterior(q(c|x), q(z|x,c) of c)"):
        seen = posterior.category.logits.shape[-1]
    if seen != categories:
        raise UserError(
            f"{name}: q(c|x) has {seen} categories and {prior} has {categories}; they "
            "must be the same"
        )
    every = torch.arange(categories, device=x.device).unsqueeze(-1)
    # Training asks for all categories of an example, a figure for one of each.
    for c in (every, every[0].expand(len(x))):
        with blame(name, f"q(z|x,c) must accept c of shape {tuple(c.shape)}"):
            component = posterior.latent(c)
            found = tuple(component.shape())
        wanted = (*torch.broadcast_shapes(c.shape, x.shape[:1]), latent)
        if found != wanted:
            raise UserError(
                f"{name}: q(z|x,c) has shape {found} for c of shape {tuple(c.shape)}; {wanted} "
                f"would fit {prior}"
            )
    _check_event(name, "q(z|x,c)", component, latent)
    if not component.has_rsample:
        raise UserError(f"{name}: q(z|x,c) has no rsample, which its gradient needs")
    if not isinstance(guide, Relaxed):
        with blame(name):
            trace = pyro.poutine.trace(guide).get_trace(x)
        sites = {
            site_name
            for site_name, site in trace.nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and site_name != "batch"
        }
        if not {"z"} <= sites <= {"c", "z"}:
            raise UserError(
                f"{name}: its sites are {', '.join(sorted(sites)) or 'none'}; the model's "
                "are c and z, and the guide must have z and may have c"
            )
    _check_schedule(settings, "temperature", guide, name, "guides.Gumbel")


def _check_view(settings: Settings, guide: Guide, view: View, x: Tensor) -> None:
    """Try a view of x (B, X)."""
    name = _flag(settings, "view")
    _check_schedule(settings, "moves", view, name, "pyro_infocat.views.Affine", True)
    with blame(name, f"it must accept x of shape {tuple(x.shape)} and q(c|x)"):
        seen = view(x, guide.category)
    if seen.shape != x.shape or seen.dtype != x.dtype:
        raise UserError(
            f"{name}: makes {seen.dtype} of shape {tuple(seen.shape)} of {x.dtype} of shape "
            f"{tuple(x.shape)}; they must be the same"
        )
    if not seen.isfinite().all():
        raise UserError(f"{name}: makes numbers that are not finite of x; it must make grey levels")


def _check_bound(
    settings: Settings, model: CatVAE, guide: Guide, bound: InfoCatELBO, x: Tensor
) -> None:
    """Try the objective on x (B, X); every term must be finite."""
    pair = f"{_flag(settings, 'prior')} with {_flag(settings, 'guide')}"
    with blame(pair):
        try:
            bound.loss(model, guide, x)
        except ValueError as error:
            raise ValueError(str(error).replace("use kl='sampled'", "use --kl sampled")) from error
    for name, term in bound.terms.items():
        if not term.isfinite():
            part = _flag(settings, "likelihood") if name == "reconstruction" else pair
            raise UserError(
                f"{part}: {name} is {term.item()} on the first examples; it must be finite on "
                f"x between {x.min():g} and {x.max():g}"
            )


def _check_parameters(model: CatVAE, guide: Guide) -> None:
    """Refuse what Pyro's store alone would hold."""
    kept = {id(p) for part in (model, guide) for p in part.parameters()}
    for name, parameter in pyro.get_param_store().named_parameters():
        if id(parameter) not in kept:
            raise UserError(
                f"pyro.param '{name}' of a part would be neither trained nor saved; make it a "
                "torch.nn.Parameter of the class"
            )


def _flag(settings: Settings, part: str) -> str:
    """How the user chose a part."""
    return f"--{part} {getattr(settings, part).class_path}"


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
