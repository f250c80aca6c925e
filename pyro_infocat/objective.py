"""The bound and its terms.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from opt_einsum import shared_intermediates
from pyro.infer import TraceEnum_ELBO
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import SampleRing
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import kl_divergence

from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE

Terms = dict[str, Tensor]
"""Named terms, each a sum over the batch in nats."""

SIGNS = {
    "reconstruction": 1,
    "kl_z": -1,
    "kl_c": -1,
    "information_bound": 1,
    "marginal_entropy": 1,
    "conditional_entropy": -1,
    "consistency": -1,
}
"""Each term, and whether the objective grows (1) or shrinks (-1) with it."""

ELBO_TERMS = ("reconstruction", "kl_z", "kl_c")
REAL_TERMS = ("marginal_entropy", "conditional_entropy", "consistency")


class InfoCatELBO(TraceEnum_ELBO):
    """The InfoCatVAE objective (Pineau and Lelarge 2018, equations 4 and 8).

        loss = - reconstruction + kl_z + kl_c - information_weight * information_bound

        reconstruction     sum_c q(c|x) E_q(z|x,c)[log p(x|z)]
        kl_z               sum_c q(c|x) KL(q(z|x,c) || p(z|c))
        kl_c               KL(q(c|x) || p(c))
        information_bound  E_p(c,z,x)[log q(c|x)] + H(p(c))  <=  I(c; x)

    The first three are Pyro's own enumerated bound, with every category weighed exactly; the
    fourth is InfoGAN's bound with the guide's own classifier as its critic (Chen et al. 2016,
    equation 5), on as many generated examples as the batch holds. ``information_weight=0`` is
    CatVAE. Like every Pyro loss this one is a sum over the batch, in nats.

    Three more terms look at the information between c and the real examples (Krause et al. 2010;
    Hu et al. 2017), each without weight unless it is given one:

        marginal_entropy      H(mean_x q(c|x)), at most log K: no category may be empty
        conditional_entropy   mean_x H(q(c|x)); marginal less conditional is I(c; x) under q
        consistency           KL(q(c|x) || q(c|view of x)), the first held constant

    Where a latent site of the model says ``infer={"kl": "analytic"}``, -KL(guide || model) takes
    the place of its one-sample estimate.

    The model may be any Pyro program. With an information weight it needs ``generate`` as
    :class:`models.CatVAE` has it, and the guide needs ``critic``.

    :ivar terms: the named terms of the last evaluation, detached, sums over the batch.
    :ivar weights: the weight of each term in the loss; change one to anneal it.
    :param information_weight: gamma, the weight of the information bound for each example.
    :param weights: weights of other terms, in place of 1 for the terms of the ELBO and 0 for the
        real-data terms. A term counts as ``SIGNS`` says: a weight is never negative.
    :param num_particles: draws of z for each category and example.
    :param vectorize_particles: evaluate the particles in one pass.
    :param direct: where model and guide are the programs of this project, write the enumerated
        sum out in PyTorch instead of tracing it: the same numbers without Pyro's bookkeeping.
    :param decoded: with ``direct``, decode so many categories of each example for certain and one
        of the others by chance, without bias in value or gradient; 0 decodes all K.
    :raises ValueError: for a negative weight, a term that does not exist, or an analytic KL that
        does not hold.
    """

    def __init__(
        self,
        information_weight: float = 1.0,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        weights: Mapping[str, float] | None = None,
        direct: bool = True,
        decoded: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            **{"max_plate_nesting": 1, "strict_enumeration_warning": False} | kwargs,
        )
        defaults = dict.fromkeys(SIGNS, 0.0) | dict.fromkeys(ELBO_TERMS, 1.0)
        self.weights = defaults | {"information_bound": information_weight} | dict(weights or {})
        for name, weight in self.weights.items():
            if name not in SIGNS:
                raise ValueError(f"no term '{name}' to weigh; there are {', '.join(SIGNS)}")
            if not weight >= 0:
                raise ValueError(f"the weight of {name} must not be negative, not {weight}")
        if decoded < 0:
            raise ValueError(f"decoded must not be negative, not {decoded}")
        self.direct, self.decoded = direct, decoded
        self.terms: Terms = {}

    def evaluate(
        self, model: Callable, guide: Callable, x: Tensor, view: Tensor | None = None
    ) -> Terms:
        """The named terms for x (B, X), with gradients, as sums over the batch in nats.

        :param view: another look at the same examples (B, X), for ``consistency``.
        """
        for name, program in (("model", model), ("guide", guide)):
            if isinstance(program, nn.Module):
                _claim_names(name, program)
            if isinstance(program, CatVAE | Guide):
                # SVI trains what it sees registered, and not every term runs the programs.
                pyro.module(name, program)
        terms: Terms = {}
        if any(self.weights[name] for name in ELBO_TERMS):
            if isinstance(guide, Relaxed):
                terms |= relaxed_terms(model, guide, x)  # type: ignore[arg-type]
            else:
                terms |= self.bound_terms(model, guide, x)
        if self.weights["information_bound"]:
            terms["information_bound"] = information_bound(model, guide, x.shape[0])
        if any(self.weights[name] for name in REAL_TERMS):
            terms |= real_terms(guide, x, view)
        self.terms = {name: term.detach() for name, term in terms.items()}
        return terms

    def bound_terms(self, model: Callable, guide: Callable, x: Tensor) -> Terms:
        """The terms of the ELBO: written out where the programs are known, else through Pyro."""
        if self.direct and _written_out(model) and _written_out(guide):
            return direct_terms(model, guide, x, self.num_particles, self.decoded)  # type: ignore[arg-type]
        terms: Terms = defaultdict(lambda: x.new_zeros(()))
        for model_trace, guide_trace in self._get_traces(model, guide, (x,), {}):
            for name, term in _expectations(model_trace, guide_trace).items():
                terms[name] = terms[name] + term / self.num_particles
        return dict(terms)

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the objective, summed over the batch, in nats."""
        terms = self.evaluate(model, guide, *args, **kwargs)
        weighted = [
            # A site of the user's own is a KL too, and weighs 1.
            -SIGNS.get(name, -1) * self.weights.get(name, 1.0) * term
            for name, term in terms.items()
        ]
        return torch.stack(weighted).sum()

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """As :meth:`differentiable_loss`, as a number; needs no gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, its gradients added to the parameters: what SVI calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        requests = _KLRequests()
        traces = super()._get_trace(requests(model), guide, args, kwargs)
        for name in requests.analytic:
            _use_analytic_kl(name, *traces)
        return traces


class _KLRequests(Messenger):
    """Reads ``infer["kl"]`` at the model's sites before replay puts the guide's infer there."""

    def __init__(self) -> None:
        super().__init__()
        self.analytic: list[str] = []

    def _pyro_sample(self, msg: Any) -> None:
        estimator = msg["infer"].get("kl", "sampled")
        if estimator not in ("analytic", "sampled"):
            raise ValueError(
                f"site '{msg['name']}': infer kl must be 'analytic' or 'sampled', not {estimator!r}"
            )
        if estimator == "analytic" and not msg["is_observed"]:
            self.analytic.append(msg["name"])


def _written_out(program: Any) -> bool:
    """Whether :func:`direct_terms` writes out this model or guide."""
    return getattr(type(program), "forward", None) in (
        CatVAE.forward,
        Guide.forward,
        Relaxed.forward,
    )


def direct_terms(
    model: CatVAE, guide: Guide, x: Tensor, particles: int = 1, decoded: int = 0
) -> Terms:
    """The terms of the ELBO for x (B, X), as sums over the batch in nats.

    :param particles: draws of z for each category and example.
    :param decoded: how many categories of each example to decode for certain; 0 decodes all.
    """
    category, latent = guide.posterior(x)
    log_q = category.logits.mT
    if 0 < decoded < guide.categories - 1:
        c, q = likeliest_and_one(log_q, decoded)
    else:
        c, q = torch.arange(guide.categories, device=x.device).unsqueeze(-1), log_q.exp()
    posterior, component = latent(c), model.prior.component(c)
    z = posterior.rsample((particles,))
    log_likelihood = model.decoder(z).log_prob(x).mean(0)
    if model.kl == "analytic":
        kl_z = kl_divergence(posterior, component)
    else:
        kl_z = (posterior.log_prob(z) - component.log_prob(z)).mean(0)
    log_p = model.prior.category().logits.unsqueeze(-1)
    return {
        "reconstruction": _expectation(q, log_likelihood),
        "kl_z": _expectation(q, kl_z),
        "kl_c": (log_q.exp() * (log_q - log_p)).sum(),
    }


def likeliest_and_one(log_q: Tensor, decoded: int) -> tuple[Tensor, Tensor]:
    """Categories and weights that stand for all K without bias (Liu et al. 2019, equation 8).

    The ``decoded`` likeliest categories weigh q(c | x). One more, drawn from the rest in
    proportion to q(c | x), weighs all that the rest holds; a factor of value one carries the
    score function's gradient. So weighted sums and their gradients are right on average.

    :param log_q: log q(c | x), (K, B).
    :returns: c (decoded + 1, B) and weights of the same shape.
    """
    top = log_q.detach().topk(decoded, dim=0).indices
    rest = log_q.detach().scatter(0, top, -math.inf)
    # The Gumbel trick draws from the rest without a multinomial, which no CUDA graph can hold.
    gumbel = -torch.empty_like(rest).exponential_().log()
    drawn = (rest + gumbel).argmax(0, keepdim=True)
    c = torch.cat([top, drawn])
    chosen = log_q.gather(0, c)
    held = torch.cat([chosen[:decoded].detach(), rest.logsumexp(0, keepdim=True)])
    return c, (held + chosen - chosen.detach()).exp()


def _expectation(weights: Tensor, values: Tensor) -> Tensor:
    """sum_c,b w_cb v_cb for weights that add up to one over c.

    The likeliest category's value is taken off every other and put back: with drawn categories
    that is a control variate for the weights' gradient, and with all of them it changes nothing.
    """
    base = values[:1].detach()
    return (weights * (values - base)).sum() + base.sum()


def relaxed_terms(model: CatVAE, guide: Relaxed, x: Tensor) -> Terms:
    """The terms where one mixture of the K codes is decoded. No bound: see :class:`Relaxed`."""
    category, latent = guide.posterior(x)
    c = torch.arange(guide.categories, device=x.device).unsqueeze(-1)
    posterior, component = latent(c), model.prior.component(c)
    z = torch.einsum("bk,kbd->bd", guide.mix(category.logits), posterior.rsample())
    log_q = category.logits.mT
    log_p = model.prior.category().logits.unsqueeze(-1)
    q = log_q.exp()
    return {
        "reconstruction": model.decoder(z).log_prob(x).sum(),
        "kl_z": (q * kl_divergence(posterior, component)).sum(),
        "kl_c": (q * (log_q - log_p)).sum(),
    }


def elbo(terms: Mapping[str, Any]) -> Any:
    """The evidence lower bound: ``terms`` without the information bound and without weights."""
    return terms["reconstruction"] - sum(v for k, v in terms.items() if k.startswith("kl_"))


def information_bound(model: Any, guide: Any, number: int) -> Tensor:
    """E_p(c,z,x)[log q(c|x)] + H(p(c)), times ``number``, in nats.

    At most I(c; x), so at most log K an example under a uniform p(c). z and x carry their
    gradients to the decoder; where p(c) is learned, a factor of value one carries the draws'.

    :param number: how many examples to generate.
    :raises TypeError: where the model cannot generate or the guide has no classifier.
    """
    if not hasattr(model, "generate") or not hasattr(guide, "critic"):
        raise TypeError(
            "the information bound needs model.generate(number) and guide.critic(x), as "
            "models.CatVAE and guides.guide.Guide have them; information_weight=0 needs neither"
        )
    c, _, x = model.generate(number)
    category = model.prior.category()
    log_p = category.log_prob(c)
    log_q = guide.critic(x).log_prob(c)
    return ((log_p - log_p.detach()).exp() * log_q).sum() + number * category.entropy()


def real_terms(guide: Any, x: Tensor, view: Tensor | None) -> Terms:
    """What q(c | x) says of real examples x (B, X), as sums over the batch in nats.

    :param view: another look at the same examples (B, X).
    """
    log_q = guide.category(x).logits
    log_marginal = log_q.logsumexp(0) - math.log(x.shape[0])
    terms = {
        "marginal_entropy": -(log_marginal.exp() * log_marginal).sum() * x.shape[0],
        "conditional_entropy": -(log_q.exp() * log_q).sum(),
    }
    if view is not None:
        fixed = log_q.detach()
        terms["consistency"] = (fixed.exp() * (fixed - guide.category(view).logits)).sum()
    return terms


def _claim_names(name: str, module: nn.Module) -> None:
    """Drop a stale owner of this module's names from Pyro's parameter store.

    ``pyro.module`` hands SVI the parameters that first took the names, so a second model of the
    same name would silently not train.
    """
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters():
        full = f"{name}$$${key}"
        if full in store and store._params[full] is not parameter:
            del store[full]


def _use_analytic_kl(name: str, model_trace: Trace, guide_trace: Trace) -> None:
    """Put -KL(guide || model) at a latent site in the place of its one-sample estimate.

    It holds where the site is reparameterised and no parent of it in the model is summed out in
    the model or drawn after it in the guide: then the other draws do not depend on this one.
    """
    model_site, guide_site = model_trace.nodes[name], guide_trace.nodes.get(name)
    if guide_site is None:
        raise ValueError(f"site '{name}': an analytic KL needs the site in the guide too")
    if not guide_site["fn"].has_rsample:
        raise ValueError(
            f"site '{name}': an analytic KL needs a reparameterised guide, "
            f"not {type(guide_site['fn']).__name__}"
        )
    order = [key for key, site in guide_trace.nodes.items() if site["type"] == "sample"]
    later = set(order[order.index(name) + 1 :])
    for parent, site in model_trace.nodes.items():
        if parent == name:
            break
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if parent not in guide_trace.nodes and site["infer"].get("_enumerate_dim") is not None:
            raise ValueError(
                f"site '{name}': no analytic KL while the model sums out '{parent}'; "
                "use kl='sampled', or a guide that samples it"
            )
        if parent in later:
            raise ValueError(
                f"site '{name}': no analytic KL while the guide draws '{parent}' after it; "
                "use kl='sampled', or draw it first"
            )
    try:
        kl = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError as error:
        pair = [
            type(getattr(site["fn"], "base_dist", site["fn"])).__name__
            for site in (guide_site, model_site)
        ]
        raise ValueError(
            f"site '{name}': no analytic KL between {pair[0]} and {pair[1]}; use kl='sampled'"
        ) from error
    value = packed.pack(kl, model_site["infer"]["_dim_to_symbol"])
    value = packed.scale_and_mask(value, model_site["scale"], model_site["packed"]["mask"])
    model_site["packed"]["log_prob"] = packed.neg(value)
    nothing: Any = torch.zeros_like(value)
    nothing._pyro_dims = value._pyro_dims
    guide_site["packed"]["log_prob"] = nothing


def _expectations(model_trace: Trace, guide_trace: Trace) -> Terms:
    """Each site's share of the bound, as TraceEnum_ELBO weighs it: the terms add up to its ELBO.

    What the model sums out itself has no site of its own and counts to ``kl_z``'s side: it is
    the log p(z) in the place of log p(z | c).
    """
    costs, log_factors, ordering, sum_dims, scale = _compute_model_factors(model_trace, guide_trace)
    names = {
        id(site["packed"]["log_prob"]): "reconstruction" if site["is_observed"] else f"kl_{name}"
        for name, site in model_trace.nodes.items()
        if site["type"] == "sample"
    }
    named: dict[str, dict[frozenset, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for ordinal, costs_here in costs.items():
        for cost in costs_here:
            named[names[id(cost)]][ordinal].append(cost)
    if log_factors:
        sizes = {
            dim: size
            for factors in log_factors.values()
            for factor in factors
            for dim, size in zip(factor._pyro_dims, factor.shape, strict=True)
        }
        with shared_intermediates() as cache:
            ring = SampleRing(cache=cache, dim_to_size=sizes)
            summed = contract_tensor_tree(log_factors, sum_dims, ring=ring)
        for ordinal, factors in summed.items():
            named["kl_z"][ordinal] += [packed.scale_and_mask(f, scale=scale) for f in factors]
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample":
            named[f"kl_{name}"][ordering[name]].append(packed.neg(site["packed"]["log_prob"]))
    dice = Dice(guide_trace, ordering)
    return {
        name: dice.compute_expectation(here) * (1 if name == "reconstruction" else -1)
        for name, here in named.items()
    }
