"""The terms of the objective beside the ELBO, and the class that a term of your own extends.

Shapes: B batch, K categories, D latent dimensions, X features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, Literal, NamedTuple

import torch
from pyro.distributions import Categorical
from torch import Tensor

from models.recorded import Recorded

NEEDS = frozenset({"category", "view", "generated", "labels", "clusters", "known"})
"""What a term may need beside x, the model and the guide: see :class:`Batch`."""


class Known(NamedTuple):
    """What training sees of labels in a step. M examples are drawn beside the batch.

    :ivar category: of the batch's own examples (B,), int64; -1 where it is not known.
    :ivar x: examples whose category is known (M, X).
    :ivar view: another look at them (M, X); None where there is none.
    :ivar c: their categories (M,), int64.
    """

    category: Tensor
    x: Tensor
    view: Tensor | None
    c: Tensor


class Batch:
    """What a term may look at. It says what in its ``needs``; what none needs is not made.

    :ivar model: the generative program.
    :ivar guide: q(c, z | x).
    :ivar x: the real examples as the likelihood gets them (B, X).
    :ivar category: q(c | x), batch shape (B,).
    :ivar view: another look at the same examples (B, X); None where the caller gave none.
    :ivar generated: c (B,), z (B, D) and x (B, X) from the model, with gradients.
    :ivar labels: of the examples (B,), int64; None where there are none.
    :ivar clusters: that training begins near (B, K): how much an example counts in the place of
        its cluster, 0 elsewhere.
    :ivar known: see :class:`Known`; None where no label is known.
    """

    def __init__(self, model: Any, guide: Any, x: Tensor, **made: Callable[[], Any]) -> None:
        self.model, self.guide, self.x = model, guide, x
        self._made = made
        self._held: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in NEEDS:
            raise AttributeError(f"a batch has no '{name}'; it has {', '.join(sorted(NEEDS))}")
        if name not in self._made:
            raise AttributeError(f"'{name}' was not made; add it to the needs of the term")
        if name not in self._held:
            self._held[name] = self._made[name]()
        return self._held[name]

    def only(self, needs: Iterable[str]) -> "Batch":
        """The same batch, of which no more can be looked at than what a term needs."""
        narrower = Batch(self.model, self.guide, self.x, **{n: self._made[n] for n in needs})
        narrower._held = self._held
        return narrower

    def classify(self, x: Tensor) -> Categorical:
        """q(c | x) of other images than the batch's own (B, X)."""
        return classify(self.guide, x, "a term")


class Term(Recorded, ABC):
    """A term of the objective.

    :cvar name: in the history, in ``weights`` and in ``schedules``.
    :cvar sign: 1 where the objective grows with the term, -1 where it shrinks.
    :cvar needs: of ``NEEDS``, what the term looks at.
    :cvar weight: where nothing else says how much it counts.
    :cvar schedulable: names of float attributes that ``schedules`` may set between epochs.
    """

    name: str
    sign: Literal[1, -1]
    needs: frozenset[str] = frozenset()
    weight: float = 1.0
    schedulable: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """The term in nats, summed over the batch: a tensor without dimensions."""


class InformationBound(Term):
    """E_p(c,z,x)[log q(c|x)] + H(p(c)), InfoGAN's bound (Chen et al. 2016, equation 5).

    At most I(c; x), so at most log K an example under a uniform p(c). The critic is the guide's
    own; z and x carry their gradients to the decoder. Where p(c) is learned, a factor of value one
    carries those of the draws of c.
    """

    name, sign, needs, weight = "information_bound", 1, frozenset({"generated"}), 0.0

    def __call__(self, batch: Batch) -> Tensor:
        c, _, x = batch.generated
        category = batch.model.prior.category()
        log_p = category.log_prob(c)
        log_q = batch.guide.critic(x).log_prob(c)
        return ((log_p - log_p.detach()).exp() * log_q).sum() + len(c) * category.entropy()


class MarginalEntropy(Term):
    """H(mean over the batch of q(c|x)), at most log K: no category may be empty.

    Marginal less conditional entropy is I(c; x) under q (Krause et al. 2010, equation 3).
    """

    name, sign, needs, weight = "marginal_entropy", 1, frozenset({"category"}), 0.0

    def __call__(self, batch: Batch) -> Tensor:
        log_q = log_probabilities(batch.category)
        number = log_q.shape[0]
        log_marginal = log_q.logsumexp(0) - math.log(number)
        return -(log_marginal.exp() * log_marginal).sum() * number


class ConditionalEntropy(Term):
    """The mean of H(q(c|x)) (Krause et al. 2010, equation 3)."""

    name, sign, needs, weight = "conditional_entropy", -1, frozenset({"category"}), 0.0

    def __call__(self, batch: Batch) -> Tensor:
        log_q = log_probabilities(batch.category)
        return -(log_q.exp() * log_q).sum()


class Consistency(Term):
    """KL(q(c|x) || q(c|view of x)), the first held constant (Hu et al. 2017, equation 4)."""

    name, sign, needs, weight = "consistency", -1, frozenset({"category", "view"}), 0.0

    def __call__(self, batch: Batch) -> Tensor:
        fixed = log_probabilities(batch.category).detach()
        other = log_probabilities(batch.classify(batch.view))
        return (fixed.exp() * (fixed - other)).sum()


class Nearness(Term):
    """Cross-entropy from clusters that were found before training to q(c|x): begin near these.

    This is -log q(c = cluster of x | x), times what the example counts.
    """

    name, sign, needs, weight = "nearness", -1, frozenset({"category", "clusters"}), 0.0

    def __call__(self, batch: Batch) -> Tensor:
        log_q = log_probabilities(batch.category)
        return -(batch.clusters * log_q).sum()


class Labels(Term):
    """-log q'(y|x) of examples whose label y is known, on average; times the batch, as all terms.

        q'(y|x) = (1 - WRONG) q(c = y|x) + WRONG / K

    is how likely a label is that is right but for a share ``WRONG``, and else any one. So no
    example costs more than log(K / WRONG), and one of which all else says that its label is wrong
    hardly pulls. The views of the examples have their labels too.
    """

    name, sign, needs, weight = "labels", -1, frozenset({"known"}), 100.0

    def __call__(self, batch: Batch) -> Tensor:
        known: Known | None = batch.known
        if known is None:
            return batch.x.new_zeros(())
        looks = [known.x] if known.view is None else [known.x, known.view]
        # Beside the batch: layers that normalise would take the labelled alone for all there is.
        both = batch.classify(torch.cat([batch.x, *looks]))
        log_q = log_probabilities(both)[len(batch.x) :]
        c = known.c.repeat(len(looks)).unsqueeze(-1)
        right = log_q.gather(-1, c).squeeze(-1) + math.log1p(-WRONG)
        wrong = torch.full_like(right, math.log(WRONG / log_q.shape[-1]))
        return -torch.logaddexp(right, wrong).mean() * len(batch.x)


WRONG = 0.1
"""The share of known labels that may be wrong."""


TERMS: tuple[type[Term], ...] = (
    InformationBound,
    MarginalEntropy,
    ConditionalEntropy,
    Consistency,
    Nearness,
)
"""The terms that every objective has beside the ELBO, in the order in which they are evaluated."""


def log_probabilities(category: Categorical) -> Tensor:
    """log q(c | x) (B, K), finite: of what q rules out 0 log 0 is 0 then, and no NaN."""
    logits = category.logits
    return logits.clamp_min(torch.finfo(logits.dtype).min)


def classify(guide: Any, x: Tensor, who: str) -> Categorical:
    """q(c | x) of images (B, X).

    :param who: asks for it, for the error.
    :raises TypeError: where the guide has none.
    """
    if not hasattr(guide, "category"):
        raise TypeError(
            f"{who} needs guide.category(x), as guides.guide.Guide has it{_whole(guide)}"
        )
    return guide.category(x)


def _whole(*programs: Any) -> str:
    """What to give in the place of a method, or of a wrapper around a module."""
    if any(isinstance(program, MethodType) for program in programs):
        return "; give the module itself, not its method"
    if any(hasattr(program, "module") for program in programs):
        return "; give what is in the wrapper, its .module"
    return ""


def generate(model: Any, guide: Any, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """c (B,), z (B, D) and x (B, X) of ``number`` draws from the model.

    :raises TypeError: where the model cannot generate or the guide has no critic.
    """
    needed = ((model, "generate"), (model, "prior"), (guide, "critic"))
    if not all(hasattr(program, name) for program, name in needed):
        raise TypeError(
            "the information bound needs model.generate(number), model.prior and guide.critic(x), "
            "as models.CatVAE and guides.guide.Guide have them; information_weight=0 needs none"
            + _whole(model, guide)
        )
    return model.generate(number)


def information_bound(model: Any, guide: Any, number: int) -> Tensor:
    """The information bound of ``number`` generated examples, summed, in nats."""
    # No real example is looked at.
    nothing = torch.empty(0)
    batch = Batch(model, guide, nothing, generated=lambda: generate(model, guide, number))
    return InformationBound()(batch)
