"""Numbers, metrics and figures in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"

NATS = "nats per example"


class Measure(NamedTuple):
    """A metric for people.

    :ivar unit: what follows the number; a share is told in per cent.
    """

    name: str
    meaning: str
    unit: str = ""


SHARE = "%"

MEASURES = {
    "accuracy": Measure(
        "accuracy",
        "test examples whose category stands for their label, each category for at most one label",
        SHARE,
    ),
    "purity": Measure(
        "purity", "the same, each category for the label that most of its examples have", SHARE
    ),
    "nmi": Measure("NMI", "normalised mutual information of categories and labels, at most 1"),
    "ari": Measure("ARI", "adjusted Rand index of categories and labels; chance is 0, at most 1"),
    "clusters_used": Measure(
        "categories in use", "with at least 1% of the test examples", "categories"
    ),
    "elbo": Measure("bound (ELBO)", "lower bound on log p(x); higher is better", NATS),
    "reconstruction": Measure("reconstruction", "log p(x|z) for z of the guide", NATS),
    "kl_z": Measure("KL of z", "what q(z|x,c) costs beside p(z|c)", NATS),
    "kl_c": Measure("KL of c", "what q(c|x) costs beside p(c)", NATS),
    "information_bound": Measure(
        "information bound",
        "how well q(c|x) recognises generated examples; at most the entropy of p(c)",
        NATS,
    ),
    "nll": Measure(
        "NLL",
        f"{MINUS}log p(x) by importance sampling; lower is better, same likelihood only",
        NATS,
    ),
    "nll_samples": Measure("samples of the NLL", "importance samples of each example", "samples"),
    "generation_accuracy": Measure(
        "generation accuracy",
        "generated examples that a classifier gives the label of their category",
        SHARE,
    ),
    "generation_samples": Measure(
        "generated examples", "that it judged, equally many of each category", "examples"
    ),
    "generation_accuracy_classifier": Measure(
        "that classifier's own accuracy", "on test examples", SHARE
    ),
    "gan_train": Measure(
        "GAN-train",
        "accuracy on test examples of a classifier that learned from generated ones alone",
        SHARE,
    ),
    "kid": Measure(
        "KID", "distance of generated and test examples in that classifier's features; 0 is right"
    ),
    "generation_precision": Measure(
        "precision of generated examples", "those near test examples, in the same features", SHARE
    ),
    "generation_recall": Measure(
        "recall of generated examples", "test examples near generated ones", SHARE
    ),
    "confidence": Measure("confidence", "the mean of the largest q(c|x) of test examples", SHARE),
    "calibration_error": Measure(
        "calibration error",
        "how far the largest q(c|x) of generated examples is from the share that is right; 0% is "
        "right",
        SHARE,
    ),
    "calibration_error_labels": Measure(
        "calibration error, by labels",
        "how far the largest q(c|x) of test examples is from the share whose category stands for "
        "their label",
        SHARE,
    ),
    "given_back": Measure(
        "least category given back",
        "of a category's generated means, those that q(c|x) takes for it",
        SHARE,
    ),
    "given_back_mean": Measure("given back", "the same, on average over categories", SHARE),
    "style_leak": Measure(
        "leak of style",
        "test examples whose category a linear classifier reads off z less the category's mean; "
        "chance is right",
        SHARE,
    ),
    "style_leak_chance": Measure("its chance", "the largest category's share", SHARE),
    "own_block_variance": Measure(
        "variance in the own block",
        "of a category's variance of z, the share in its own block, on average",
        SHARE,
    ),
    "style_kept": Measure(
        "style kept",
        "correlation of a style with itself read off another category's example, at most 1",
    ),
    "agreement": Measure(
        "agreement of seeds",
        "adjusted Rand index of the categories of every two seeds, on average; at most 1",
    ),
    "agreement_of_categories": Measure(
        "least category kept together",
        "pairs of a category's test examples that other seeds keep together",
        SHARE,
    ),
    "class_accuracy": Measure(
        "class accuracy",
        "test examples of classes with known labels that are in their class's own category",
        SHARE,
    ),
    "labelled_test_examples": Measure(
        "labelled test examples", "those that what compares with labels is of", "examples"
    ),
    "known_labels": Measure(
        "known labels", "labels of the training split that training saw", "labels"
    ),
    "epochs": Measure("epochs", "passes over the training split", "epochs"),
    "train_seconds": Measure("training", "with all starts", "s"),
    "examples_per_second": Measure("speed", "training examples times epochs", "examples/s"),
}
"""What metrics.json holds of every run; other keys are told by their own names."""

ELSEWHERE = frozenset(
    {
        *("device", "precision", "seed", "versions", "made_by", "doubts"),
        *("kid_of_categories", "generation_precision_of_categories"),
        "generation_recall_of_categories",
    }
)
"""Keys of metrics.json that are no metrics, or too many numbers for a page."""

FIGURES = {
    "categories": "What each number of categories was worth, from which the run's was chosen",
    "conditional_samples": "Samples of each category, a row each: the mean of p(x|z) at draws of z",
    "typical": "What sets each category apart from all examples, column by column",
    "confusion": "How many test examples of each label fell into each category",
    "latent": "Posterior means of test examples and the modes of the categories, along two axes",
    "reconstructions": "Test examples and their reconstructions",
    "style": "The style of some test examples, z less their category's mean, in every category",
    "blocks": "Decoded points along the two coordinates of each category's own block",
    "subspace_walk": "Decoded points from the origin out along each category's mean",
    "interpolation": "Decoded points from each category's centre to the next",
    "training": "Every term over the epochs of training, in nats per example",
}
"""Every run's figures, in the order of the page."""


def number(value: float, digits: int = 2) -> str:
    """A number with a real minus sign, with as many digits as say something."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    small = value != 0 and abs(value) < 10.0**-digits
    return (f"{value:.2g}" if small else f"{value:,.{digits}f}").replace("-", MINUS)


def percent(share: float) -> str:
    """A share as per cent."""
    return "100%" if share == 1 else f"{share:.1%}"


def told(key: str, value: Any) -> tuple[str, str, str, str]:
    """A metric's name, value, unit and meaning."""
    known = MEASURES.get(key, Measure(key, ""))
    if known.unit == SHARE and isinstance(value, list):
        shares = [(share, c) for c, share in enumerate(value) if share is not None]
        least = [f"{percent(share)} (category {c})" for share, c in sorted(shares)[:1]]
        return known.name, "".join(least) or DASH, "", known.meaning
    if isinstance(value, bool) or not isinstance(value, int | float):
        return known.name, str(value), known.unit, known.meaning
    if known.unit == SHARE:
        return known.name, percent(value), "", known.meaning
    digits = 0 if known.unit in ("s", "examples/s") and value >= 10 else 2
    return known.name, number(value, digits), known.unit, known.meaning


def metrics(result: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows of the table of metrics."""
    return [told(key, value) for key, value in result.items() if key not in ELSEWHERE]


def listed(words: Sequence[Any]) -> str:
    """``1, 2 and 3``."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def counted(count: int, noun: str) -> str:
    """``1 example``, ``2 examples``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
