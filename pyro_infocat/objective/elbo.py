"""The bound and its terms, as a Pyro loss.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.params.param_store import param_with_module_name
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK, am_i_wrapped
from torch import Tensor, nn

from guides import Bayes
from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat.networks import autocast_in_networks_alone, statistics_kept
from pyro_infocat.objective.bound import ELBO_SIGNS, Terms, certain, direct_terms, relaxed_terms
from pyro_infocat.objective.enumeration import KLRequests, expectations, use_analytic_kl
from pyro_infocat.objective.terms import NEEDS, TERMS, Batch, Known, Term, classify, generate


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

    Four more terms look at real examples, the first three at the information between c and these
    (Krause et al. 2010; Hu et al. 2017), each without weight unless it is given one:

        marginal_entropy      H(mean_x q(c|x)), at most log K: no category may be empty
        conditional_entropy   mean_x H(q(c|x)); marginal less conditional is I(c; x) under q
        consistency           KL(q(c|x) || q(c|view of x)), the first held constant
        nearness              -log q(c = cluster of x | x), where ``clusters`` says which that is

    All but the terms of the ELBO are classes of :mod:`pyro_infocat.objective.terms`; ``extra``
    takes more of them, such as :class:`Labels` for a few labels that are known. Where the category
    of an example is known, its sum over c keeps that category alone.

    Where a latent site of the model says ``infer={"kl": "analytic"}``, -KL(guide || model) takes
    the place of its one-sample estimate.

    Model and guide may be any Pyro programs; their nn.Modules are trained by SVI whether or not
    the programs register them. With an information weight the model needs ``generate`` and
    ``prior`` as :class:`models.CatVAE` has them, and the guide ``critic``; with a weight of the
    four terms on real examples the guide needs ``category``. A latent site ``w`` of the user's own
    has a term ``kl_w`` of weight 1 unless ``weights`` says otherwise.

    :ivar terms: the named terms of the last evaluation, detached, sums over the batch.
    :ivar weights: the weight of each term in the loss; change one to anneal it.
    :ivar clusters: of x (B, X), as :class:`Batch` has them (B, K), for ``nearness``: there is none
        without it.
    :ivar signs: 1 for each term that the objective grows with, -1 for the others.
    :param information_weight: gamma, the weight of the information bound for each example.
    :param weights: weights of other terms, in place of 1 for the terms of the ELBO, 0 for the
        real-data terms and each extra term's own. Never negative: ``signs`` has the sign.
    :param num_particles: draws of z for each category and example.
    :param vectorize_particles: evaluate the particles in one pass.
    :param direct: where model and guide are the programs of this project, write the enumerated
        sum out in PyTorch instead of tracing it: the same numbers without Pyro's bookkeeping.
        Under a Pyro handler, such as ``poutine.scale``, it is traced all the same: the terms of
        the ELBO heed the handler, the others are no sites and do not.
    :param decoded: with ``direct``, decode so many categories of each example for certain and one
        of the others by chance, without bias in value or gradient; 0 decodes all K.
    :param extra: further terms.
    :param kwargs: of Pyro's loss. Its ``max_plate_nesting`` is 1 here: programs whose plates stand
        in one another say how many do.
    :raises ValueError: for a weight that is negative or not finite, a term that does not exist or
        stands twice, no particle, an analytic KL that does not hold, or parts that do not fit.
    """

    def __init__(
        self,
        information_weight: float = 1.0,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        weights: Mapping[str, float] | None = None,
        direct: bool = True,
        decoded: int = 0,
        extra: Sequence[Term] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            **{"max_plate_nesting": 1} | kwargs,
        )
        self.declared = (*(kind() for kind in TERMS), *extra)
        self.signs: dict[str, int] = dict(ELBO_SIGNS)
        for term in self.declared:
            _check_declared(term, self.signs)
            self.signs[term.name] = term.sign
        defaults = dict.fromkeys(ELBO_SIGNS, 1.0) | {one.name: one.weight for one in self.declared}
        self.weights = defaults | {"information_bound": information_weight} | dict(weights or {})
        for name, weight in self.weights.items():
            # A site of the user's own is a KL, and known by the programs alone.
            if name not in self.signs and not name.startswith("kl_"):
                raise ValueError(f"no term '{name}' to weigh; there are {', '.join(self.signs)}")
            if not 0 <= weight < math.inf:
                what = "be finite" if weight > 0 else "not be negative"
                raise ValueError(f"the weight of {name} must {what}, not {weight}")
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, not {num_particles}")
        if decoded < 0:
            raise ValueError(f"decoded must not be negative, not {decoded}")
        self.direct, self.decoded = direct, decoded
        self.terms: Terms = {}
        self.clusters: Callable[[Tensor], Tensor] | None = None
        self._probed: tuple[Any, Any, set[str]] = (None, None, set())

    def weighted(self, weights: Mapping[str, float] | None = None) -> list[Term]:
        """The terms beside the ELBO's that have a weight."""
        weights = self.weights if weights is None else weights
        return [term for term in self.declared if weights[term.name]]

    def needs(self, what: str) -> bool:
        """Whether a term with a weight looks at ``view``, ``generated``, ``labels``, ..."""
        return any(what in term.needs for term in self.weighted())

    def evaluate(
        self,
        model: Any,
        guide: Any,
        *arguments: Any,
        view: Tensor | None = None,
        labels: Tensor | None = None,
        known: Known | None = None,
        **named: Any,
    ) -> Terms:
        """The named terms, with gradients, as sums over the batch in nats.

        :param arguments: what model and guide take, as ``named``. All terms but those of the ELBO
            are of the first, x (B, X).
        :param view: another look at the same examples (B, X), which ``consistency`` needs: there
            is none without it. Model and guide do not get it.
        :param labels: of the examples (B,), for terms that need them. Model and guide do not get
            them.
        :param known: the categories of some of them, and other examples whose category is known.
        :raises ValueError: where the guide has no site c to observe a category at, and for terms in
            half precision, whose sums overflow or lose their digits. Under ``torch.autocast`` the
            networks compute in it, and nothing else.
        """
        first = arguments[0] if arguments and isinstance(arguments[0], Tensor) else torch.empty(0)
        with autocast_in_networks_alone(first.device.type, model, guide):
            terms = self._evaluate(model, guide, arguments, named, view, labels, known)
        for name, term in terms.items():
            if term.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"{name} is {term.dtype}, too coarse for a sum; keep the parameters in float32 "
                    "and let the networks compute in less, by torch.autocast around the loss"
                )
        self.terms = {name: term.detach() for name, term in terms.items()}
        return terms

    def _evaluate(
        self,
        model: Any,
        guide: Any,
        arguments: tuple,
        named: dict[str, Any],
        view: Tensor | None,
        labels: Tensor | None,
        known: Known | None,
    ) -> Terms:
        _check_programs(model, guide, arguments)
        if am_i_wrapped():
            _register(model, guide)
        terms: Terms = {}
        category = None
        if self._bounded(model, guide, arguments, named):
            if self._writes_out(model, guide, arguments, named):
                (x,) = arguments
                posterior = guide.posterior(x)
                category = posterior.category
                if known is not None:
                    posterior = posterior._replace(category=certain(category, known.category))
                if isinstance(guide, Relaxed):
                    terms |= relaxed_terms(model, guide, posterior, x)
                else:
                    terms |= direct_terms(model, posterior, x, self.num_particles, self.decoded)
            else:
                observed = None if known is None else _Observed(known.category)
                program = guide if observed is None else observed(guide)
                terms |= self._traced(model, program, *arguments, **named)
                if observed is not None and not observed.found:
                    raise ValueError(
                        f"{type(guide).__name__} has no site c, where known categories are "
                        "observed; give a guide that has one, such as guides.Enumerated"
                    )
            self._check_sites(terms)
        missing = {name for name, it in (("view", view), ("clusters", self.clusters)) if it is None}
        wanted = [term for term in self.weighted() if not term.needs & missing]
        if wanted:
            terms |= self.beside(model, guide, arguments[0], wanted, category, view, labels, known)
        return terms

    def beside(
        self,
        model: Any,
        guide: Any,
        x: Tensor,
        wanted: Iterable[Term],
        category: Any = None,
        view: Tensor | None = None,
        labels: Tensor | None = None,
        known: Any = None,
    ) -> Terms:
        """Some of the terms beside the ELBO's, as sums over x (B, X) in nats.

        :param category: q(c | x), where it is known.
        :param known: see :class:`Known`.
        """
        made: dict[str, Callable[[], Any]] = {
            "category": lambda: category,
            "view": lambda: view,
            "labels": lambda: labels,
            "known": lambda: known,
            "clusters": lambda: None if self.clusters is None else self.clusters(x),
            "generated": lambda: generate(model, guide, x.shape[0]),
        }
        batch = Batch(model, guide, x, **made)
        wanted = list(wanted)
        terms: Terms = {}
        for of_category in (False, True):
            here = [term for term in wanted if ("category" in term.needs) is of_category]
            if not here:
                continue
            if of_category and category is None:
                # Of the real examples, which are what normalising layers remember.
                category = classify(guide, x, ", ".join(term.name for term in here))
            with statistics_kept(model, guide):
                terms |= {term.name: term(batch.only(term.needs)) for term in here}
        return terms

    def bound_terms(
        self, model: Any, guide: Any, *arguments: Any, decoded: int = 0, **named: Any
    ) -> Terms:
        """The terms of the ELBO as sums over the batch in nats.

        :param decoded: as of the class; by default every category is decoded.
        """
        _check_programs(model, guide, arguments)
        if self._writes_out(model, guide, arguments, named):
            (x,) = arguments
            return direct_terms(model, guide.posterior(x), x, self.num_particles, decoded)
        return self._traced(model, guide, *arguments, **named)

    def _traced(self, model: Any, guide: Any, *arguments: Any, **named: Any) -> Terms:
        """The terms of the ELBO through Pyro."""
        terms: Terms = {}
        for model_trace, guide_trace in self._get_traces(model, guide, arguments, named):
            for name, term in expectations(model_trace, guide_trace).items():
                share = term / self.num_particles
                terms[name] = terms[name] + share if name in terms else share
        return terms

    def _bounded(self, model: Any, guide: Any, arguments: tuple, named: dict) -> bool:
        """Whether a term of the ELBO, or a site of the user's own, has a weight."""
        own = [term.name for term in self.declared]
        if any(weight for name, weight in self.weights.items() if name not in own):
            return True
        if self.written_out(model, guide):
            return False
        # The programs alone know their sites, which weigh 1 unless they are told otherwise.
        if self._probed[0] is not model or self._probed[1] is not guide:
            with torch.random.fork_rng(), torch.no_grad(), statistics_kept(model, guide):
                found = self._traced(model, guide, *arguments, **named)
            self._probed = (model, guide, found.keys() - self.signs.keys())
        return bool(self._probed[2] - self.weights.keys())

    def _check_sites(self, terms: Terms) -> None:
        """Refuse a weight of a site that the programs do not have."""
        for name in self.weights:
            if name not in self.signs and name not in terms:
                raise ValueError(
                    f"no term '{name}' to weigh; there are {', '.join(self.signs | terms)}"
                )

    def _writes_out(self, model: Any, guide: Any, arguments: tuple, named: dict) -> bool:
        return self.written_out(model, guide) and len(arguments) == 1 and not named

    def written_out(self, model: Any, guide: Any) -> bool:
        """Whether the bound of these programs, of x alone, is written out rather than traced."""
        return (
            self.direct
            # SVI's own handler asks for parameters alone; any other has a say in what is sampled.
            and all(getattr(handler, "param_only", False) for handler in _PYRO_STACK)
            and getattr(type(model), "forward", None) is CatVAE.forward
            and getattr(type(guide), "forward", None) in (Guide.forward, Relaxed.forward)
        )

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the objective, summed over the batch, in nats."""
        terms = self.evaluate(model, guide, *args, **kwargs)
        if not terms:
            raise ValueError("no term of the objective has a weight")
        weighted = [
            -self.signs.get(name, -1) * self.weights.get(name, 1.0) * term
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
        # As with Pyro's losses: where everything is held fixed there is nothing to add.
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _get_trace(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Trace, Trace]:
        requests = KLRequests()
        traces = super()._get_trace(requests(model), guide, args, kwargs)
        for name in requests.analytic:
            use_analytic_kl(name, *traces)
        return traces


class _Observed(Messenger):
    """Makes q(c | x), at the guide's site c, certain of the categories that are observed.

    :ivar found: whether there was one.
    :param known: see :func:`certain`.
    """

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known, self.found = known, False

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == "c":
            msg["fn"], self.found = certain(msg["fn"], self.known), True


RESERVED = ("elbo", "objective", "epoch", "seconds", "validation_elbo", "learning_rate")
"""Names that the history and the schedules use already."""


def _check_declared(term: Term, signs: Mapping[str, int]) -> None:
    """Refuse a term whose declaration cannot be used."""
    kind = type(term).__name__
    name = getattr(term, "name", None)
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("kl_"):
        raise ValueError(f"{kind}: its name must be a word and not begin with kl_, not {name!r}")
    if name in signs or name in RESERVED:
        raise ValueError(f"{kind}: there is a term '{name}' already")
    if getattr(term, "sign", None) not in (1, -1):
        raise ValueError(f"{kind}: its sign must be 1 or -1")
    if not isinstance(term.needs, set | frozenset) or not term.needs <= NEEDS:
        raise ValueError(f"{kind}: its needs must be a set of {', '.join(sorted(NEEDS))}")


def _check_programs(model: Any, guide: Any, arguments: tuple) -> None:
    """Refuse what would be broadcast, or read off another model, without a word."""
    if isinstance(guide, Bayes) and getattr(model, "prior", guide.prior) is not guide.prior:
        raise ValueError(
            f"{type(guide).__name__} reads p(c|z) off a prior that is not the model's; make it "
            "from model.prior, and copy or average both at once"
        )
    if not arguments or getattr(type(model), "forward", None) is not CatVAE.forward:
        return
    x, of_model = arguments[0], model.prior.logits.dtype
    # An axis more would be taken for that of the categories.
    if x.ndim != 2:
        raise ValueError(f"x must have shape (B, X), not {tuple(x.shape)}; flatten each example")
    parameters = guide.parameters() if isinstance(guide, nn.Module) else iter(())
    of_guide = next(parameters, model.prior.logits).dtype
    if x.is_floating_point() and not x.dtype == of_model == of_guide:
        raise ValueError(
            f"x is {x.dtype}, the model {of_model} and the guide {of_guide}; give all three the "
            "same"
        )


def _register(model: Any, guide: Any) -> None:
    """Register the programs' parameters: SVI is listening, and trains what it sees registered.

    Not every term runs the programs, and a program may register only the layers that it runs. A
    name that is another module's in Pyro's store is taken from it: SVI would train that module's
    parameter in the place of this one's.
    """
    store = pyro.get_param_store()
    for name, program in (("model", model), ("guide", guide)):
        # A method's parameters are those of its module.
        module = getattr(program, "__self__", program)
        if not isinstance(module, nn.Module):
            continue
        for key, parameter in module.named_parameters():
            full = param_with_module_name(name, key)
            if full in store and store._params[full] is not parameter:
                del store[full]
            # What is held fixed is not asked for: pyro.module warns of it.
            if parameter.requires_grad:
                pyro.param(full, parameter)
