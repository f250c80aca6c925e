"""The terms of the ELBO through Pyro's own enumeration, for any model and guide.

Shapes: B batch, K categories, D latent dimensions.
"""

from collections import defaultdict
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.distributions.util import scale_and_mask
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import SampleRing
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_infocat.objective.bound import Terms, analytic_kl


class KLRequests(Messenger):
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


def use_analytic_kl(name: str, model_trace: Trace, guide_trace: Trace) -> None:
    """Put -KL(guide || model) at a latent site in the place of its one-sample estimate.

    It holds where the site is reparameterised, counts as much in the guide as in the model, and no
    latent site before it in the model is summed out in the model or drawn after it in the guide:
    then the other draws do not depend on this one.

    :raises ValueError: naming the site, where it does not hold or has no closed form.
    """
    model_site, guide_site = model_trace.nodes[name], guide_trace.nodes.get(name)
    if guide_site is None:
        raise ValueError(f"site '{name}': an analytic KL needs the site in the guide too")
    if not guide_site["fn"].has_rsample:
        raise ValueError(
            f"site '{name}': an analytic KL needs a reparameterised guide, "
            f"not {type(guide_site['fn']).__name__}"
        )
    for kind in ("scale", "mask"):
        if not _same(model_site[kind], guide_site[kind]):
            raise ValueError(
                f"site '{name}': no analytic KL while its {kind} in the guide is not the model's; "
                "use kl='sampled', or give both the same"
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
        kl = analytic_kl(guide_site["fn"], model_site["fn"])
    except ValueError as error:
        raise ValueError(f"site '{name}': {error}") from error
    # Before it is packed: Pyro forgets the scale of what is packed and masked.
    kl = scale_and_mask(kl, model_site["scale"], model_site["mask"])
    value = packed.pack(kl, model_site["infer"]["_dim_to_symbol"])
    model_site["packed"]["log_prob"] = packed.neg(value)
    nothing: Any = torch.zeros_like(value)
    nothing._pyro_dims = value._pyro_dims
    guide_site["packed"]["log_prob"] = nothing


def _same(one: Any, other: Any) -> bool:
    """Whether two scales or masks, each a number, a tensor or None, are the same."""
    if one is other:
        return True
    if one is None or other is None:
        return False
    return bool((torch.as_tensor(one) == torch.as_tensor(other)).all())


def expectations(model_trace: Trace, guide_trace: Trace) -> Terms:
    """Each site's share of the bound, as TraceEnum_ELBO weighs it: the terms add up to its ELBO.

    What the model sums out itself has no term of its own. It is part of ``reconstruction`` where
    an observed site depends on it, and of ``kl_z`` elsewhere, where it is log p(z) in the place of
    log p(z | c).
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
        # Where it depends on what is summed out, a site's log-probability is masked before and
        # scaled after the sum.
        observed = [
            site["packed"].get("masked_log_prob")
            for site in model_trace.nodes.values()
            if site["type"] == "sample" and site["is_observed"]
        ]
        factors = [factor for here in log_factors.values() for factor in here]
        seen = any(factor is one for factor in factors for one in observed)
        sizes = {
            dim: size
            for factor in factors
            for dim, size in zip(factor._pyro_dims, factor.shape, strict=True)
        }
        with shared_intermediates() as cache:
            ring = SampleRing(cache=cache, dim_to_size=sizes)
            summed = contract_tensor_tree(log_factors, sum_dims, ring=ring)
        term = named["reconstruction" if seen else "kl_z"]
        for ordinal, here in summed.items():
            term[ordinal] += [packed.scale_and_mask(factor, scale=scale) for factor in here]
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample":
            named[f"kl_{name}"][ordering[name]].append(packed.neg(site["packed"]["log_prob"]))
    dice = Dice(guide_trace, ordering)
    return {
        name: dice.compute_expectation(here) * (1 if name == "reconstruction" else -1)
        for name, here in named.items()
    }
