"""Whether a run's parts fit each other and the data: they are tried on a few examples.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

from typing import Any

import pyro
import torch
from torch import Tensor

from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat.build import Parts
from pyro_infocat.data import Observation, Split
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation.means import mean_of
from pyro_infocat.networks import BATCH_NORMALISATIONS, statistics_kept
from pyro_infocat.objective import Term
from pyro_infocat.objective.terms import TERMS
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.randomness import evaluating
from pyro_infocat.settings import ROLES, Settings
from pyro_infocat.training.schedules import Schedule
from pyro_infocat.views import View

CHECKED = 4
"""How many examples are enough to try the parts on."""


def try_parts(settings: Settings, parts: Parts, split: Split, observation: Observation) -> None:
    """Try the parts on a few examples, with Pyro's validation on. Leaves no trace in them.

    :param split: what there is to train on.
    :param observation: what the likelihood gets of it.
    :raises UserError: naming both sides of the first thing that does not fit.
    """
    model, guide = parts.model, parts.guide
    _check_number(settings, len(split))
    # Images are not refused: there are runs on fewer of them than categories.
    if not split.levels and len(split) < model.prior.categories:
        raise UserError(
            f"has {model.prior.categories} categories for {len(split)} examples; give fewer",
            "prior",
            _path(settings, "prior"),
        )
    _check_batch(settings, model, guide)
    shapes = _shapes(model, guide)
    if not split.levels and observation == "binary":
        raise UserError(
            "holds 0 and 1 only, and the data are real numbers; models.tables.Mixed holds a table",
            "likelihood",
            _path(settings, "likelihood"),
        )
    some = split.part(torch.arange(min(CHECKED, len(split)), device=split.device))
    x = some.fixed(observation)
    schedule = Schedule(settings, parts)
    wanted = schedule.ever_weighted()
    if any("labels" in term.needs for term in wanted) and not split.labelled:
        names = ", ".join(term.name for term in wanted if "labels" in term.needs)
        raise UserError(f"{names} needs labels, and the data have none", "terms")
    pyro.clear_param_store()
    with (
        evaluating(x.device),
        statistics_kept(model, guide),
        pyro.validation_enabled(),
    ):
        _check_model(settings, model, x, any("generated" in t.needs for t in wanted))
        _check_guide(settings, model, guide, x)
        view = _check_view(settings, guide, parts.view, x, split.levels == 0)
        # Clusters are of all examples, and found when training begins.
        tried = [term for term in wanted if "clusters" not in term.needs]
        _check_bound(settings, parts, x, tried, {"view": view, "labels": some.labels})
    _check_parameters(model, guide)
    _check_tensors(settings, model, guide)
    for name, shape in _shapes(model, guide).items():
        if shapes.get(name) != shape:
            role = name.split(".")[0]
            raise UserError(
                f"'{name}' has shape {shape} after its first use and {shapes.get(name)} before; no "
                "checkpoint could be read back",
                role,
                _path(settings, role),
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
        share = ("validation", settings.validation) if held else ("data", settings.data)
        raise UserError(
            f"leaves {examples - held} examples to train on; at least {least} are needed, 2 in "
            "each process",
            *share,
        )


def _check_batch(settings: Settings, model: CatVAE, guide: Guide) -> None:
    """Refuse batches that do not go round the processes."""
    layers = [layer for part in (model, guide) for layer in part.modules()]
    least, why = processes.world(), "a step needs an example"
    if any(isinstance(layer, BATCH_NORMALISATIONS) for layer in layers):
        least, why = 2 * least, "batch normalisation needs 2 examples"
    if settings.batch_size < least:
        raise UserError(
            f"must be at least {least}; {why} in each process", "batch_size", settings.batch_size
        )


def _check_model(settings: Settings, model: CatVAE, x: Tensor, generated: bool) -> None:
    """Try p(z|c) of all c, and p(x|z) of what is drawn from it, on x (B, X).

    :param generated: whether a term differentiates generated examples.
    """
    categories, latent = model.prior.categories, model.prior.latent
    prior, decoder, likelihood = (
        (role, _path(settings, role)) for role in ("prior", "decoder", "likelihood")
    )
    with attributed(*prior, f"p(c) must be a Categorical of {categories}"):
        category = model.prior.category()
        found = tuple(category.logits.shape)
    if found != (categories,):
        raise UserError(
            f"p(c) has logits of shape {found}; ({categories},) would fit its K", *prior
        )
    with attributed(*prior, f"p(z|c) must have batch shape ({categories},) for all c"):
        components = model.prior.all_components()
        found = tuple(components.shape())
        z = components.sample().unsqueeze(1)
    if found != (categories, latent):
        raise UserError(
            f"p(z|c) of all {categories} categories has shape {found}; ({categories}, {latent}) "
            "would fit its K and D",
            *prior,
        )
    with attributed(*prior, "component must accept c of any shape"):
        each = tuple(
            model.prior.component(torch.arange(categories, device=x.device)[:, None]).shape()
        )
    if each != (categories, 1, latent):
        raise UserError(
            f"p(z|c) has shape {each} for c of shape ({categories}, 1); ({categories}, 1, "
            f"{latent}) would fit: c's shape and then D",
            *prior,
        )
    _check_event(prior, "p(z|c)", components, latent)
    z = z.expand(-1, len(x), -1)
    with attributed(
        *decoder,
        f"it cannot decode z of shape {tuple(z.shape)} from --prior {prior[1]}, and must accept "
        f"(..., {latent})",
    ):
        pixels = model.decoder(z)
        found = tuple(pixels.shape())
    if found != (categories, *x.shape):
        raise UserError(
            f"describes x of shape {found} for z of shape {tuple(z.shape)}; the data need "
            f"{(categories, *x.shape)}",
            *decoder,
        )
    _check_event(likelihood, "p(x|z)", pixels, x.shape[-1])
    if not mean_of(pixels).isfinite().all():
        raise UserError(
            "its mean is not finite, and generated images are shown by it; give a distribution "
            "that has one",
            *likelihood,
        )
    for part, distribution in ((prior, components), (likelihood, pixels)):
        if generated and not distribution.has_rsample:
            raise UserError(
                "has no rsample, which the information bound's gradient needs; "
                "--information_weight 0 does without",
                *part,
            )
    try:
        in_support = bool(pixels.support.check(x).all())
    except NotImplementedError:
        in_support = True
    if not in_support:
        raise UserError(
            f"its support does not hold the data, which lie between {x.min():g} and {x.max():g}; "
            "another --observe or a likelihood such as models.likelihoods.ContinuousBernoulli "
            "would fit",
            *likelihood,
        )


def _check_guide(settings: Settings, model: CatVAE, guide: Guide, x: Tensor) -> None:
    """Try q(c|x) and q(z|x,c) of all c on x (B, X), and the guide's sites."""
    categories, latent = model.prior.categories, model.prior.latent
    prior, name = f"--prior {_path(settings, 'prior')}", ("guide", _path(settings, "guide"))
    with attributed(*name, f"posterior must accept x of shape {tuple(x.shape)}"):
        posterior = guide.posterior(x)
    with attributed(*name, "posterior must return guides.guide.Posterior(q(c|x), q(z|x,c) of c)"):
        found_categories = posterior.category.logits.shape[-1]
    if found_categories != categories:
        raise UserError(
            f"q(c|x) has {found_categories} categories and {prior} has {categories}; they must be "
            "the same",
            *name,
        )
    every = torch.arange(categories, device=x.device).unsqueeze(-1)
    # Training asks for all categories of an example, a figure for one of each.
    for c in (every, every[0].expand(len(x))):
        with attributed(*name, f"q(z|x,c) must accept c of shape {tuple(c.shape)}"):
            component = posterior.latent(c)
            found = tuple(component.shape())
        wanted = (*torch.broadcast_shapes(c.shape, x.shape[:1]), latent)
        if found != wanted:
            raise UserError(
                f"q(z|x,c) has shape {found} for c of shape {tuple(c.shape)}; {wanted} would fit "
                f"{prior}",
                *name,
            )
    _check_event(name, "q(z|x,c)", component, latent)
    if not component.has_rsample:
        raise UserError("q(z|x,c) has no rsample, which its gradient needs", *name)
    if not isinstance(guide, Relaxed):
        with attributed(*name):
            own = _sites(guide, x)
        with attributed("model", _path(settings, "model")):
            of_model = _sites(model, x)
        if not {"z"} <= own <= of_model:
            raise UserError(
                f"its sites are {', '.join(sorted(own)) or 'none'}; the model's are "
                f"{', '.join(sorted(of_model)) or 'none'}, and the guide must have z and no other "
                "than these",
                *name,
            )


def _sites(program: Any, x: Tensor) -> set[str]:
    """The latent sites of a Pyro program."""
    trace = pyro.poutine.trace(program).get_trace(x)
    return {
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not _is_plate(site)
    }


def _is_plate(site: Any) -> bool:
    return type(site["fn"]).__name__ == "_Subsample"


def _check_view(
    settings: Settings, guide: Guide, view: View, x: Tensor, tabular: bool = False
) -> Tensor:
    """Try a view of x (B, X), and return it.

    :param tabular: whether NaN stands for a value that is missing.
    """
    name = ("view", _path(settings, "view"))
    with attributed(*name, f"it must accept x of shape {tuple(x.shape)} and q(c|x)"):
        made = view(x, guide.category)
    if made.shape != x.shape or made.dtype != x.dtype:
        raise UserError(
            f"makes {made.dtype} of shape {tuple(made.shape)} of {x.dtype} of shape "
            f"{tuple(x.shape)}; they must be the same",
            *name,
        )
    if (made.isinf() if tabular else ~made.isfinite()).any():
        raise UserError("makes numbers that are not finite of x; it must make grey levels", *name)
    return made


def _check_bound(
    settings: Settings, parts: Parts, x: Tensor, wanted: list[Term], others: dict[str, Tensor]
) -> None:
    """Try the bound and the wanted terms on x (B, X); each must be finite."""
    model, guide, bound = parts.model, parts.guide, parts.bound
    own_program = type(model).forward is not CatVAE.forward
    role = "model" if own_program else "guide"
    with attributed(role, _path(settings, role)):
        try:
            found = dict(bound.bound_terms(model, guide, x))
            if isinstance(guide, Relaxed):
                found |= bound.evaluate(model, guide, x)
        except ValueError as error:
            raise ValueError(str(error).replace("use kl='sampled'", "use --kl sampled")) from error
    for setting, names in (("weights", settings.weights), ("schedules", settings.schedules)):
        # The sites of a program of the user's own are known by now.
        for name in names:
            if name.startswith("kl_") and name not in bound.signs and name not in found:
                there = ", ".join(bound.signs | found)
                raise UserError(f"no term '{name}' to weigh; there are {there}", setting)
    blamed = dict.fromkeys(found, (role, _path(settings, role)))
    blamed["reconstruction"] = ("likelihood", _path(settings, "likelihood"))
    for term in wanted:
        kind = type(term)
        ours = kind in TERMS
        part = ("guide", _path(settings, "guide")) if ours else ("terms", _dotted(kind))
        blamed[term.name] = part
        with attributed(*part):
            found |= bound.beside(model, guide, x, [term], **others)
        value = found[term.name]
        if not isinstance(value, Tensor) or value.shape != ():
            shape = tuple(getattr(value, "shape", ())) or type(value).__name__
            raise UserError(
                f"{term.name} is of shape {shape}; it must be a sum over the batch, a tensor "
                "without dimensions",
                *part,
            )
    for name, value in found.items():
        if not value.isfinite():
            raise UserError(
                f"{name} is {value.item()} on the first examples; it must be finite on x between "
                f"{x.min():g} and {x.max():g}",
                *blamed[name],
            )


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _check_tensors(settings: Settings, model: CatVAE, guide: Guide) -> None:
    """Refuse tensors that are neither parameter nor buffer: no checkpoint would hold them."""
    for prefix, part in (("", model), ("guide.", guide)):
        for place, module in part.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    path = ".".join(filter(None, [f"{prefix}{place}".strip("."), name]))
                    role = path.partition(".")[0]
                    raise UserError(
                        f"'{path}' is a tensor that no checkpoint holds; register it by "
                        "self.register_buffer, or make it a torch.nn.Parameter",
                        role if role in ROLES else "model",
                        _path(settings, role),
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


def _path(settings: Settings, role: str) -> str:
    """The class of a part."""
    return getattr(getattr(settings, role, None), "class_path", "")


def _check_event(part: tuple[str, str], what: str, found: Any, size: int) -> None:
    """Refuse a distribution that takes each number of an example for an example."""
    if tuple(found.event_shape) != (size,):
        raise UserError(
            f"{what} has event shape {tuple(found.event_shape)}; ({size},) would fit, which a "
            "distribution of independent numbers has after .to_event(1)",
            *part,
        )
