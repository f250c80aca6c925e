"""What fit says: in the words of Python code, in one line, and before training where it can."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_infocat as pic
from guides import Bayes, encoders
from models.priors import Mixture
from pyro_infocat import experiment
from pyro_infocat.catalogue import Facts
from pyro_infocat.evaluation.figures import check_names
from pyro_infocat.evaluation.metrics import OF_LABELS, TAKEN
from pyro_infocat.in_python import in_python
from pyro_infocat.settings import CHECKPOINT
from tests.brief import QUICK
from tests.runs import history
from tests.users_parts.labelled_term import Supervised
from tests.users_parts.measures import Fullest
from tests.users_parts.pictures import OfLabels, Shares

pytestmark = pytest.mark.usefixtures("brief")


def images(number: int = 60) -> np.ndarray:
    return np.random.default_rng(0).random((number, 6, 5))


def fit(*data: object, **settings: Any) -> pic.Run:
    return pic.fit(*data, **QUICK | settings)


LINES = {
    "'x' holds another run; continue it with --resume true, or choose another --out": (
        "'x' holds another run; continue it with resume=True, or choose another out"
    ),
    "--information_weight 0 does without": "information_weight=0 does without",
    "--device cpu, one (--device auto)": "device cpu, one (device auto)",
    "no key; See --help": "no key; See Settings in pyro_infocat/settings.py",
    "--config mnist-blind knows nothing": "preset mnist-blind knows nothing",
    "--anneal cosine; --schedules has a learning_rate": "anneal cosine; schedules has a "
    "learning_rate",
    "--prior.scale 0.5: is too small": "prior.scale=0.5: is too small",
    "no file 'my--out.npz'; '--outing' --epochsy --mine": (
        "no file 'my--out.npz'; '--outing' --epochsy --mine"
    ),
    "--epochs 3rd": "epochs 3rd",
}


@pytest.mark.parametrize(("flags", "keywords"), LINES.items())
def test_flags_become_keywords(flags: str, keywords: str) -> None:
    assert in_python(flags) == keywords


NOTED: dict[str, dict[str, Any]] = {
    "relaxed": {"guide": "guides.SoftCode", "decoded": 2, "kl": "sampled"},
    "anneal": {"anneal": "cosine", "schedules": {"learning_rate": [[0, 0.1], [1, 0.01]]}},
    "idle": {"schedules": {"consistency": [[5, 0], [9, 1]]}},
}


@pytest.mark.parametrize("given", NOTED.values(), ids=NOTED)
def test_notes_name_keywords(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    fit(images(), preset="digits", **given)
    said = capsys.readouterr()
    first = said.out.splitlines()[0]
    assert first.partition(":")[0].split()[0].split("=")[0] in {"guide", "anneal", "epochs"}
    assert "--" not in said.out + said.err


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "kl": ({"guide": "guides.bayes.Bayes", "kl": "analytic"}, "use kl sampled"),
    "folder": ({"out": "full"}, "continue it with resume=True, or choose another out"),
    "rate": ({"learning_rate": 1e30, "epochs": 3}, "A smaller learning_rate usually helps"),
    "grey": (
        {"observe": "grey", "likelihood": "models.likelihoods.Bernoulli"},
        "use observe binary, or a likelihood of grey levels",
    ),
    "batch": ({"batch_size": 10**23}, "batch_size 100000000000000000000000: must be at most"),
    "samples": ({"nll_samples": 10**12}, "nll_samples 1000000000000: must be at most 1000000"),
    "width": ({"decoder.hidden": [10**20]}, "hidden must be at most 2147483647, not 1000000000000"),
    "K": ({"prior.categories": 10**20}, "categories must be at most 2147483647, not 1000000000"),
}


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG)
def test_errors_name_keywords(given: dict[str, Any], said: str) -> None:
    if given.get("out") == "full":
        fit(images(), out="full")
    quick = QUICK | given
    if "guide" in given:
        # It takes no such argument.
        del quick["guide.hidden"]
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(images(), **quick)
    line = str(refusal.value)
    assert said in line
    assert "--" not in line
    assert "\n" not in line


def no_training(*_: object, **__: object) -> None:
    raise AssertionError("training began")


class Taken(Fullest):
    name = "elbo"


class OfTheRun(Fullest):
    name = "train_seconds"


class OfLabelsAlone(Fullest):
    """A name that only data with labels have taken."""

    name = "nmi"


class Drawn(Shares):
    name = "training"


class TwoWords(Shares):
    name = "two words"


NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "metric": ({"metrics": Taken()}, "Taken: there is a metric 'elbo' already"),
    "of the run": ({"metrics": [OfTheRun]}, "OfTheRun: there is a metric 'train_seconds' already"),
    "figure": ({"figures": Drawn()}, "Drawn: there is a figure 'training' already"),
    "twice": ({"figures": [Shares(), Shares()]}, "Shares: there is a figure 'shares' already"),
    "no word": ({"figures": TwoWords()}, "TwoWords: its name must be a word, not 'two words'"),
}


@pytest.mark.parametrize(("given", "said"), NAMES.values(), ids=NAMES)
def test_a_name_that_is_taken_is_told_before_training(
    given: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "train", no_training)
    with pytest.raises(pic.UserError) as refusal:
        fit(images(), out="mine", **given)
    assert str(refusal.value).endswith(said)
    assert not Path("mine").exists()


def test_what_labels_take_is_free_without_them() -> None:
    run = fit(images(), metrics=OfLabelsAlone())
    assert 0 < run.metrics["nmi"] <= 1
    with pytest.raises(pic.UserError, match="there is a metric 'nmi' already"):
        fit(images(), np.arange(60) % 3, metrics=OfLabelsAlone())
    confusion = type("Confusion", (OfLabels,), {"name": "confusion"})("red")
    check_names([confusion], Facts("digits", (6, 5), 256, ()))
    with pytest.raises(pic.UserError, match="there is a figure 'confusion' already"):
        check_names([confusion], Facts("digits", (6, 5), 256, ("a", "b")))


def test_every_key_of_metrics_json_is_taken() -> None:
    assert fit(images(), np.arange(60) % 3).metrics.keys() == TAKEN | OF_LABELS
    assert fit(images(), out="unlabelled").metrics.keys() == TAKEN


def encoder() -> encoders.MLP:
    return encoders.MLP(30, [16])


BAYES: dict[str, Callable[[Mixture], dict[str, Any]]] = {
    "alone": lambda prior: {},
    "beside another": lambda prior: {"prior": Mixture(4, 3)},
    "beside a copy": lambda prior: {"prior": pickle.loads(pickle.dumps(prior))},
}


@pytest.mark.parametrize("others", BAYES.values(), ids=BAYES)
def test_a_bayes_guide_of_another_prior_is_refused(
    others: Callable[[Mixture], dict[str, Any]],
) -> None:
    prior = Mixture(4, 3)
    given = {name: value for name, value in QUICK.items() if name != "guide.hidden"}
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(images(), guide=Bayes(encoder, prior, 3), kl="sampled", **given, **others(prior))
    assert str(refusal.value) == (
        "guide Bayes: was made of a prior that is not this run's; give that prior too: prior=..."
    )


# Labels that a term looks at.


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_run_goes_on_with_other_labels_where_none_looks_at_them(looked_at: bool) -> None:
    labels = np.arange(60) % 3
    given: dict[str, Any] = {"terms": Supervised} if looked_at else {}
    fit(images(), labels, out="mine", **given)
    other = labels.copy()
    other[:30] = 1 - other[:30].clip(0, 1)
    if looked_at:
        with pytest.raises(pic.UserError) as refusal:
            fit(images(), other, out="mine", epochs=2, resume=True, **given)
        assert str(refusal.value) == (
            "resume: 'mine' was trained with other labels, which supervised looks at; give the "
            "same ones, or choose another out"
        )
        assert len(history("mine")) == 1
        fit(images(), labels, out="mine", epochs=2, resume=True, **given)
    else:
        fit(images(), other, out="mine", epochs=2, resume=True, **given)
    assert len(history("mine")) == 2


def test_a_checkpoint_from_before_knows_no_labels() -> None:
    fit(images(), np.arange(60) % 3, out="mine", terms=Supervised)
    path = Path("mine", CHECKPOINT)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["labels"]
    torch.save(checkpoint, path)
    fit(images(), np.arange(60) % 2, out="mine", epochs=2, resume=True, terms=Supervised)
    assert len(history("mine")) == 2


@pytest.mark.usefixtures("brief")
def test_what_was_taken_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    small: Any = {"prior.categories": 3, "encoder.hidden": [8], "decoder.hidden": [8], "out": "out"}
    pic.fit(rows, epochs=1, progress=False, **small)
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "data: the data is a table of 40 rows: 3 real columns; preset table"
    pic.fit(rows, preset="table", epochs=1, progress=False, **small | {"out": "named"})
    said = capsys.readouterr().out.splitlines()[0]
    assert said == "data: the data is a table of 40 rows: 3 real columns"
