"""The bound and its terms, as a Pyro loss.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.poutine import Trace
from pyro.poutine.runtime import _PYRO_STACK, am_i_wrapped
from torch import Tensor, nn

from guides.guide import Guide
from guides.relaxed import Relaxed
from models import CatVAE
from pyro_infocat.enumeration import KLRequests, expectations, use_analytic_kl
from pyro_infocat.networks import statistics_kept
from pyro_infocat.terms import (
    ELBO_TERMS,
    REAL_TERMS,
    SIGNS,
    Terms,
    direct_terms,
    information_bound,
    real_terms,
    relaxed_terms,
)


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

    Model and guide may be any Pyro programs. With an information weight the model needs
    ``generate`` and ``prior`` as :class:`models.CatVAE` has them, and the guide ``critic``; with a
    weight of the three terms on real examples the guide needs ``category``.

    :ivar terms: the named terms of the last evaluation, detached, sums over the batch.
    :ivar weights: the weight of each term in the loss; change one to anneal it.
    :param information_weight: gamma, the weight of the information bound for each example.
    :param weights: weights of other terms, in place of 1 for the terms of the ELBO and 0 for the
        real-data terms. A term counts as ``SIGNS`` says: a weight is never negative.
    :param num_particles: draws of z for each category and example.
    :param vectorize_particles: evaluate the particles in one pass.
    :param direct: where model and guide are the programs of this project, write the enumerated
        sum out in PyTorch instead of tracing it: the same numbers without Pyro's bookkeeping.
        Under a Pyro handler, such as ``poutine.scale``, it is traced all the same: the terms of
        the ELBO heed the handler, the others are no sites and do not.
    :param decoded: with ``direct``, decode so many categories of each example for certain and one
        of the others by chance, without bias in value or gradient; 0 decodes all K.
    :param kwargs: of Pyro's loss. Its ``max_plate_nesting`` is 1 here: programs whose plates stand
        in one another say how many do.
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
        self,
        model: Any,
        guide: Any,
        *arguments: Any,
        view: Tensor | None = None,
        **named: Any,
    ) -> Terms:
        """The named terms, with gradients, as sums over the batch in nats.

        :param arguments: what model and guide take, as ``named``. All terms but those of the ELBO
            are of the first, x (B, X).
        :param view: another look at the same examples (B, X), which ``consistency`` needs: there
            is none without it. Model and guide do not get it.
        """
        if am_i_wrapped():
            # SVI is listening: it trains what it sees registered, and not every term runs the
            # programs that register themselves.
            for name, program in (("model", model), ("guide", guide)):
                if isinstance(program, nn.Module):
                    _claim_names(name, program)
                if isinstance(program, CatVAE | Guide):
                    pyro.module(name, program)
        terms: Terms = {}
        category = None
        if any(self.weights[name] for name in ELBO_TERMS):
            if self.written_out(model, guide) and len(arguments) == 1 and not named:
                (x,) = arguments
                posterior = guide.posterior(x)
                category = posterior.category
                if isinstance(guide, Relaxed):
                    terms |= relaxed_terms(model, guide, posterior, x)
                else:
                    terms |= direct_terms(model, posterior, x, self.num_particles, self.decoded)
            else:
                terms |= self._traced(model, guide, *arguments, **named)
        if self.weights["information_bound"]:
            with statistics_kept(model, guide):
                terms["information_bound"] = information_bound(model, guide, arguments[0].shape[0])
        if any(self.weights[name] for name in REAL_TERMS):
            category = category or guide.category(arguments[0])
            with statistics_kept(guide):
                terms |= real_terms(guide, category, view)
        self.terms = {name: term.detach() for name, term in terms.items()}
        return terms

    def bound_terms(self, model: Any, guide: Any, *arguments: Any, **named: Any) -> Terms:
        """The terms of the ELBO with every category decoded, as sums over the batch in nats."""
        if self.written_out(model, guide) and len(arguments) == 1 and not named:
            (x,) = arguments
            return direct_terms(model, guide.posterior(x), x, self.num_particles)
        return self._traced(model, guide, *arguments, **named)

    def _traced(self, model: Any, guide: Any, *arguments: Any, **named: Any) -> Terms:
        """The terms of the ELBO through Pyro."""
        terms: Terms = {}
        for model_trace, guide_trace in self._get_traces(model, guide, arguments, named):
            for name, term in expectations(model_trace, guide_trace).items():
                share = term / self.num_particles
                terms[name] = terms[name] + share if name in terms else share
        return terms

    def written_out(self, model: Any, guide: Any) -> bool:
        """Whether :mod:`pyro_infocat.terms` writes these programs out, of x alone."""
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
        requests = KLRequests()
        traces = super()._get_trace(requests(model), guide, args, kwargs)
        for name in requests.analytic:
            use_analytic_kl(name, *traces)
        return traces


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
