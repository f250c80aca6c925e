"""The figures of metrics.json: on the test split, likelihoods and terms in nats per example."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from pyro_infocat.catalogue import Facts
from pyro_infocat.errors import UserError, attributed
from pyro_infocat.evaluation.clustering import clustering, in_use
from pyro_infocat.evaluation.generation import generation
from pyro_infocat.evaluation.likelihood import knows_its_density, mean_terms
from pyro_infocat.evaluation.part import CHUNK, Metric, Tested
from pyro_infocat.evaluation.style import Style
from pyro_infocat.evaluation.trust import Trust
from pyro_infocat.objective import elbo_of
from pyro_infocat.runtime.randomness import evaluating


class Clustering(Metric):
    """Accuracy, purity, NMI and ARI of the categories, and how many are in use."""

    name = "clustering"

    def __call__(self, tested: Tested) -> dict[str, Any]:
        categories, number = tested.category.cpu().numpy(), tested.model.prior.categories
        if tested.data.facts.classes:
            return clustering(tested.labels.cpu().numpy(), categories, number)
        return {"clusters_used": in_use(categories, number)}


class Bound(Metric):
    """The ELBO and its terms with every category decoded, and the information bound."""

    name = "elbo"

    def __call__(self, tested: Tested) -> dict[str, float]:
        terms = mean_terms(tested.model, tested.guide, tested.x)
        # A model that sums c out has no kl_c of its own.
        named = {name: terms.get(name, 0.0) for name in ("reconstruction", "kl_z", "kl_c")}
        return {"elbo": elbo_of(terms), **named, **terms}


class Likelihood(Metric):
    """-log p(x), importance-weighted; left out for a program whose density is not known."""

    name = "nll"

    def __call__(self, tested: Tested) -> dict[str, float]:
        if not knows_its_density(tested.model):
            return {}
        return {"nll": -tested.log_p.mean().item(), "nll_samples": tested.nll_samples}


class Generation(Metric):
    """What an independent classifier makes of generated examples."""

    name, needs_labels = "generation_accuracy", True

    def __call__(self, tested: Tested) -> dict[str, Any]:
        categories = tested.category.cpu().numpy()
        return generation(tested.model, tested.data, categories, tested.seed)


METRICS: tuple[type[Metric], ...] = (Clustering, Bound, Likelihood, Generation, Trust, Style)
"""What every run is measured by, in this order."""


TAKEN = frozenset(
    {
        *("elbo", "reconstruction", "kl_z", "kl_c", "information_bound", "nll", "nll_samples"),
        *("epochs", "train_seconds", "examples_per_second", "device", "seed", "versions"),
        *("clusters_used", "precision", "made_by"),
        *("confidence", "calibration_error", "given_back", "given_back_mean", "doubts"),
        *("style_leak", "style_leak_chance", "own_block_variance", "style_kept"),
    }
)
"""The keys that metrics.json has for every run."""

OF_JUDGE = frozenset(
    {
        *("generation_accuracy", "generation_samples", "generation_accuracy_classifier"),
        *("gan_train", "kid", "generation_precision", "generation_recall"),
        *("kid_of_categories", "generation_precision_of_categories"),
        "generation_recall_of_categories",
    }
)
"""The keys of what a classifier says that has learned the labels."""

OF_LABELS = OF_JUDGE | {
    *("accuracy", "purity", "nmi", "ari"),
    "calibration_error_labels",
}
"""The keys that it has besides where there are labels."""

OF_TWINS = frozenset({"agreement", "agreement_of_categories"})
"""The keys that it has besides where there are twins."""


def evaluate(
    tested: Tested,
    extra: Sequence[Metric] = (),
    taken: Collection[str] = (),
    judged: bool = True,
) -> dict[str, Any]:
    """Every figure of the test split.

    Deterministic given the seed. Leaves the global random state as it was. Without labels there is
    nothing that compares with labels.

    :param extra: further metrics.
    :param taken: further names that they must not have.
    :param judged: whether there are labels enough for a classifier that judges what is generated.
    :raises UserError: where one of them fails, or its name is taken.
    """
    found: dict[str, Any] = {}
    device = tested.data.test.device
    with evaluating(device, tested.model, tested.guide, seed=tested.seed):
        for kind in METRICS:
            if kind is Generation and not judged:
                continue
            if tested.data.facts.classes or not kind.needs_labels:
                metric = kind()
                try:
                    # What an earlier one left computed draws nothing a second time.
                    with evaluating(device, seed=tested.seed):
                        found |= _named(metric, metric(tested))
                except (RuntimeError, ValueError) as error:
                    if _is_finite(tested):
                        raise
                    raise UserError(
                        f"{metric.name} cannot be measured: q(c|x) of the test split is not "
                        "finite. Training diverged; a smaller --learning_rate usually helps"
                    ) from error
        for metric in extra:
            if metric.needs_labels and not tested.data.facts.classes:
                continue
            with attributed("metrics", f"{type(metric).__module__}.{type(metric).__qualname__}"):
                named = _named(metric, metric(tested))
                twice = named.keys() & {*found, *taken}
                if twice:
                    raise ValueError(f"there is a metric '{min(twice)}' already")
                # metrics.json holds finite numbers and words, and no tensors.
                json.dumps(named, allow_nan=False)
            found |= named
    return found


def _is_finite(tested: Tested) -> bool:
    """Whether q(c | x) is, of every test example."""
    logits = [tested.guide.category(x).logits for x in tested.x.split(CHUNK)]
    # What q rules out is no trouble.
    return not any((part.isnan() | part.isposinf()).any() for part in logits)


def check_names(metrics: Sequence[Metric], facts: Facts) -> None:
    """Refuse metrics whose names metrics.json has for others, before any training.

    :param facts: of the data.
    :raises UserError: naming the first.
    """
    taken = TAKEN | OF_TWINS | (OF_LABELS if facts.classes else frozenset())
    for metric in metrics:
        if metric.name in taken:
            kind = f"{type(metric).__module__}.{type(metric).__qualname__}"
            raise UserError(f"there is a metric '{metric.name}' already", "metrics", kind)


def _named(metric: Metric, value: float | Mapping[str, Any]) -> dict[str, Any]:
    named = value if isinstance(value, Mapping) else {metric.name: value}
    return {name: one.item() if isinstance(one, Tensor) else one for name, one in named.items()}
