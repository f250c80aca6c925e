"""Parts from Python: by path, class, instance or mapping, and what is wrong with any argument."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import pyro_infocat as pic
from guides import encoders
from models import CatVAE, decoders, likelihoods, priors
from models.priors import Orthogonal
from pyro_infocat.keywords import resolved
from pyro_infocat.run import main
from pyro_infocat.settings import CONFIG, Part
from pyro_infocat.views import AdversarialAffine, Affine, VirtualAdversarial
from tests.brief import QUICK, SMALL
from tests.runs import same_run
from tests.users_parts.endless_term import Endless
from tests.users_parts.guide_program import Mine
from tests.users_parts.labelled_term import Supervised
from tests.users_parts.measures import Fullest, PerLabel
from tests.users_parts.pictures import Shares
from tests.users_parts.small_prior import Square
from tests.users_parts.sources import Text

pytestmark = pytest.mark.usefixtures("brief")

SQUARE = "tests.users_parts.small_prior.Square"
SUPERVISED = "tests.users_parts.labelled_term.Supervised"


def fit(*data: object, **settings: Any) -> pic.Run:
    return pic.fit(*data, **QUICK | settings)


def images(number: int = 60) -> np.ndarray:
    return np.random.default_rng(0).random((number, 6, 5))


def slow_but_the_first(cases: Mapping[str, object]) -> list[object]:
    """Cases that are a run each."""
    marks = [(), *([pytest.mark.slow] * (len(cases) - 1))]
    return [
        pytest.param(case, id=name, marks=mark)
        for (name, case), mark in zip(cases.items(), marks, strict=True)
    ]


# Instances that no config describes.


class Scaled(Orthogonal):
    """A function is no argument that a config can hold."""

    def __init__(self, change: Callable[[float], float] = lambda height: height) -> None:
        super().__init__(4)
        self.change = change


def moved() -> Affine:
    view = Affine((6, 5), 0.1)
    view.stretch = 0.5
    return view


def frozen() -> priors.Mixture:
    prior = priors.Mixture(4, 3)
    prior.mean.requires_grad_(False)
    return prior


def decoder_of_another() -> decoders.MLP:
    return decoders.MLP(20, 30, likelihoods.GreyBernoulli(), [8])


UNDESCRIBED: dict[str, tuple[dict[str, Any], str]] = {
    "function": ({"prior": Scaled(lambda height: 2 * height)}, "prior Scaled: .* has change"),
    "changed": ({"view": moved()}, "view Affine: .* stretch 0.5, and would have 0.1"),
    "frozen": ({"prior": frozen()}, "prior Mixture: .* 'mean' is held fixed"),
    "likelihood": (
        {"decoder": decoder_of_another()},
        "decoder MLP: .*'likelihood' is a GreyBernoulli, and would be a Gaussian",
    ),
}


@pytest.mark.parametrize(("settings", "said"), UNDESCRIBED.values(), ids=UNDESCRIBED)
def test_an_instance_that_no_config_describes(settings: dict[str, Any], said: str) -> None:
    """It would be another one when the run is loaded."""
    quick = {name: value for name, value in QUICK.items() if "decoder" not in name}
    with pytest.raises(pic.UserError, match=said):
        pic.fit(images(), out="mine", **quick, **settings)
    with pytest.raises(pic.UserError, match=said):
        pic.check_parts(images(), **quick, **settings)
    assert not Path("mine").exists()


def test_a_decoder_with_its_likelihood_is_described() -> None:
    decoder = decoders.MLP(20, 30, likelihoods.Gaussian(0.5), [8])
    quick = {name: value for name, value in QUICK.items() if "decoder" not in name}
    run = pic.fit(images(), **quick, decoder=decoder)
    assert pic.load(run.folder).model.decoder.network[0].out_features == 8


# One part.

WAYS: dict[str, object] = {
    "instance": Square(),
    "path": SQUARE,
    "class": Square,
    "mapping": {"class_path": SQUARE, "init_args": {"side": 6.0}},
    "path alone": {"class_path": SQUARE},
    "settings' own": Part(SQUARE),
}


@pytest.mark.parametrize("way", slow_but_the_first(WAYS))
def test_a_part_in_each_way_is_the_same_run(way: object, tmp_path: Path) -> None:
    run = fit("digits", prior=way, out="python")
    assert type(run.model.prior).__name__ == "Square"
    written = yaml.safe_load(Path("python", CONFIG).read_text())["prior"]
    assert written == {"class_path": SQUARE, "init_args": {"side": 6.0}}
    flags = [*SMALL, "--epochs", "1", "--prior", SQUARE, "--out", "command"]
    assert main(flags) == 0
    assert same_run("python", "command")
    assert type(pic.load("python", trust=["tests"]).model.prior) is Square


ARGUMENTS: dict[str, dict[str, object]] = {
    "instance": {"prior": Square(2.0)},
    "mapping": {"prior": {"class_path": SQUARE, "init_args": {"side": 2.0}}},
    "dotted key": {"prior": Square, "prior.side": 2.0},
    "dotted key before": {"prior.side": 2.0, "prior": Square},
}


@pytest.mark.parametrize("way", ARGUMENTS.values(), ids=ARGUMENTS)
def test_an_argument_in_each_way(way: dict[str, object]) -> None:
    assert pic.check_parts("digits", **way).model.prior.modes.max() == 1.0


def test_an_argument_of_the_presets_part() -> None:
    run = fit("digits", **{"prior.categories": 3, "view.epsilon": 0.1})
    assert run.model.prior.categories == 3
    assert run.settings.prior.init_args["scale"] == 4.0
    assert run.settings.view.init_args["epsilon"] == 0.1
    assert run.settings.view.init_args["stretch"] == 0.1


def test_another_class_keeps_the_presets_arguments_that_it_has_too() -> None:
    """As on the command line; an instance has all of its own."""
    by_path = pic.check_parts("digits", view="pyro_infocat.views.VirtualAdversarial")
    assert by_path.view.epsilon == 0.3
    by_instance = pic.check_parts("digits", view=VirtualAdversarial())
    assert by_instance.view.epsilon == 0.25


def test_an_instance_of_the_presets_class_has_its_own_defaults_in_the_config() -> None:
    """Where the preset's view has others, which a class by its path keeps."""
    by_instance, _, _ = resolved("fit", "digits", None, {"view": AdversarialAffine((8, 8))})
    by_path, _, _ = resolved(
        "fit", "digits", None, {"view": "pyro_infocat.views.AdversarialAffine"}
    )
    assert (by_instance.view.init_args["shift"], by_path.view.init_args["shift"]) == (0.1, 0.06)


INSTANCES: dict[str, Callable[[], object]] = {
    "prior": lambda: Orthogonal(categories=4, delta=3),
    "likelihood": lambda: likelihoods.Gaussian(0.3),
    "encoder": lambda: encoders.MLP(64, [7], norm=True),
    "decoder": lambda: decoders.MLP(20, 64, likelihoods.Gaussian(), [5]),
    "view": lambda: Affine((8, 8), stretch=0.05),
}


@pytest.mark.parametrize("role", slow_but_the_first({role: role for role in INSTANCES}))
def test_an_instance_is_used_and_not_trained_itself(role: str) -> None:
    """Its copy is: the same instance may go into two runs, and gives the same."""
    part = INSTANCES[role]()
    before = str(vars(part)) if role == "view" else str(part.state_dict())
    settings = {name: value for name, value in QUICK.items() if not name.startswith(role)}
    # A decoder is made with its likelihood.
    first, second = (pic.fit("digits", **settings, **{role: part}, out=o) for o in ("a", "b"))
    assert before == (str(vars(part)) if role == "view" else str(part.state_dict()))
    assert same_run("a", "b")
    used = {
        "prior": lambda run: run.model.prior,
        "likelihood": lambda run: run.model.decoder.likelihood,
        "decoder": lambda run: run.model.decoder,
        "encoder": lambda run: run.guide.encoder,
    }
    for run in (first, second) if role in used else ():
        made = used[role](run)
        assert type(made) is type(part)
        assert made is not part
        shapes = [{k: v.shape for k, v in one.state_dict().items()} for one in (made, part)]
        assert shapes[0] == shapes[1]


def test_two_networks_of_one_encoder_are_two() -> None:
    """One would be trained by both q(c|x) and q(z|x,c), and be loaded as two."""
    guide = pic.check_parts("digits", encoder=encoders.MLP(64, [7], norm=True)).guide
    assert guide.encoder is not guide.latent_encoder
    first, second = guide.encoder.state_dict(), guide.latent_encoder.state_dict()
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}


def test_a_guide_and_a_model_of_ones_own() -> None:
    parts = pic.check_parts("digits", guide=Mine, model=CatVAE, **{"guide.shared": True})
    assert type(parts.guide) is Mine
    assert type(parts.model) is CatVAE
    assert parts.guide.latent_encoder is parts.guide.encoder


def test_a_model_as_an_instance_has_its_own_parts() -> None:
    prior = Orthogonal(3, 2)
    decoder = decoders.MLP(6, 64, likelihoods.Gaussian(), [5])
    model = CatVAE(prior, decoder)
    parts = pic.check_parts("digits", model=model, prior=prior, decoder=decoder)
    assert parts.model is not model
    assert parts.model.prior.categories == parts.guide.categories == 3


# Several parts.


FORMS: dict[str, Callable[[list[object]], object]] = {
    "list": list,
    "tuple": tuple,
    "one": lambda parts: parts[0],
}


@pytest.mark.parametrize("form", slow_but_the_first(FORMS))
def test_terms_metrics_and_figures_as_instances(
    form: Callable[[list[object]], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(
        "pyro_infocat.evaluation.figures.draw", lambda tested, out, extra: drawn.extend(extra)
    )
    run = fit(
        "digits",
        terms=form([Supervised()]),
        metrics=form([Fullest(3)]),
        figures=form([Shares("red")]),
    )
    assert run.history[0]["supervised"] < 0
    assert 0 < run.metrics["fullest"] <= 1
    (plot,) = drawn
    assert plot.colour == "red"
    assert run.settings.metrics == (Part("tests.users_parts.measures.Fullest", {"number": 3}),)
    written = yaml.safe_load((run.folder / CONFIG).read_text())
    assert written["figures"] == [
        {"class_path": "tests.users_parts.pictures.Shares", "init_args": {"colour": "red"}}
    ]


TERMS: dict[str, object] = {
    "class": [Supervised],
    "path": SUPERVISED,
    "list of a path": [SUPERVISED],
    "mapping": [{"class_path": SUPERVISED}],
    "part": [Part(SUPERVISED)],
}


@pytest.mark.parametrize("terms", slow_but_the_first(TERMS))
def test_terms_in_each_way(terms: object) -> None:
    fit("digits", terms=terms, out="python")
    flags = [*SMALL, "--epochs", "1", "--terms", SUPERVISED, "--out", "command"]
    assert main(flags) == 0
    assert same_run("python", "command")


def test_a_term_that_looks_at_labels() -> None:
    """It learns them, and is refused where there are none."""
    weights = {"supervised": 100.0}
    settings = {"epochs": 6, "batch_size": 100, "learning_rate": 0.01}
    run = fit("digits", terms=[Supervised()], weights=weights, **settings)
    # An untrained classifier has -log 10 and finds a tenth.
    assert run.history[-1]["supervised"] > -0.5
    assert run.metrics["accuracy"] > 0.9
    with pytest.raises(pic.UserError) as refusal:
        fit(images(), terms=[Supervised()])
    assert str(refusal.value) == "terms: supervised needs labels, and the data have none"


def test_a_term_without_weight_need_not_be_finite() -> None:
    """It is measured where it can be, and the run comes back."""
    run = fit("digits", terms=Endless, out="mine")
    assert "endless" not in run.history[0]
    assert pic.load("mine").history == run.history
    with pytest.raises(pic.UserError) as refusal:
        fit("digits", terms=Endless, weights={"endless": 1.0})
    assert "endless is inf on the first examples; it must be finite" in str(refusal.value)


def test_a_reader_from_python() -> None:
    Path("rows.txt").write_text("\n".join(f"{n:06d}" for n in range(0, 999999, 20011)))
    run = fit("rows.txt", reader=Text, data_root=".", **{"reader.height": 2})
    assert run.facts.shape == (2, 3)
    assert run.facts.levels == 10
    assert "accuracy" not in run.metrics


# What is wrong.

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "limit": ({"epochs": 0}, "epochs 0: must be at least 1"),
    "type": ({"epochs": "many"}, "epochs: expected a whole number or 'auto', not 'many'"),
    "text of a number": ({"epochs": "3"}, "epochs: expected a whole number or 'auto', not '3'"),
    "not finite": ({"learning_rate": float("inf")}, "learning_rate inf: must be a finite number"),
    "choice": ({"kl": "exact"}, "kl: expected one of 'analytic', 'sampled', not 'exact'"),
    "array": ({"epochs": np.ones(3)}, "epochs: config.yaml cannot hold a ndarray"),
    "device": ({"device": "gpu"}, "device: no device 'gpu'; choose auto, cpu"),
    "class": ({"prior": "models.priors.Gone"}, "prior: 'models.priors.Gone'"),
    "no class": ({"prior": 3}, "prior: a int is no Prior"),
    "argument": ({"prior.sale": 3}, "prior: models.priors.Orthogonal takes no 'sale'"),
    "argument's type": ({"prior.scale": "wide"}, "prior.scale: expected a number, not 'wide'"),
    "constructor": ({"prior.scale": -1.0}, "prior models.priors.Orthogonal: scale must be"),
    "weights": ({"weights": {"clarity": 1}}, "weights: no term 'clarity' to weigh"),
    "schedules": ({"schedules": {"kl_z": []}}, "schedules: kl_z is []"),
    "misfit": ({"guide.hidden": 0}, "guide guides.enumerated.Enumerated: "),
    "data": ({"data": "cifar"}, "data: no data set 'cifar'; choose from digits"),
    "archive": ({"data": "none.npz"}, "data: no file 'none.npz'; give an .npz"),
    "preset": ({"preset": "none"}, "no preset 'none' ("),
    "preset's file": ({"preset": "none.yaml"}, "preset: cannot read 'none.yaml' (No such file"),
    "shape": ({"data": np.ones(3)}, "data: the data: x_train has shape (3,); give (N, height"),
    "range": ({"data": 9 * images()}, "data: the data: x_train holds values from "),
    "labels' number": (
        {"data": images(), "labels": [0, 1]},
        "data: the data: y_train has shape (2,)",
    ),
    "labels of nothing": ({"labels": [0, 1]}, "data: labels, x_test and y_test belong to arrays"),
    "test labels alone": (
        {"data": images(), "x_test": images(), "y_test": [0] * 60},
        "data: the data has labels y_test for images x_train and x_test",
    ),
    "part's instance": ({"view": Square()}, "view: a Square is no View"),
    "several": ({"metrics": [Shares()]}, "metrics: a Shares is no Metric"),
    "mixed": ({"metrics": [Fullest(), PerLabel]}, "metrics: give instances alone, or none"),
    "argument of an instance": (
        {"prior": Square(), "prior.side": 3.0},
        "prior.side: prior is an instance; give it the argument",
    ),
    "setting": ({"epoch": 3}, "fit() has no setting 'epoch'; did you mean epochs? See Settings in"),
    "flag": ({"print_config": True}, "fit() has no setting 'print_config'"),
}


@pytest.mark.parametrize(("settings", "said"), WRONG.values(), ids=WRONG)
def test_an_error_names_the_setting_as_python_has_it(settings: dict[str, Any], said: str) -> None:
    kind = TypeError if " is no " in said or "instance" in said or "fit()" in said else None
    before = set(Path().iterdir())
    with pytest.raises(kind or pic.UserError) as refusal:
        pic.fit(**settings)
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)
    assert not str(refusal.value).startswith("-")
    assert set(Path().iterdir()) == before


def test_an_error_of_the_presets_file_names_it() -> None:
    Path("mine.yaml").write_text("epochs: many\n")
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(preset="mine.yaml")
    assert str(refusal.value) == "mine.yaml: epochs: expected a whole number or 'auto', not 'many'"
    Path("mine.yaml").write_text("epoch: 3\n")
    with pytest.raises(pic.UserError) as refusal:
        pic.fit(preset="mine.yaml")
    assert str(refusal.value) == (
        "mine.yaml: no such key 'epoch'; did you mean epochs? See Settings in "
        "pyro_infocat/settings.py"
    )


# Without training.


@pytest.mark.parametrize("data", ["digits", "images", "data set"])
def test_parts_are_checked_without_training(data: str) -> None:
    given = {"digits": "digits", "images": images(), "data set": None}[data]
    if data == "data set":
        from pyro_infocat.data.readers import digits

        given = digits()
    parts = pic.check_parts(given, prior=Square, **{"view.epsilon": 0.0})
    features = 30 if data == "images" else 64
    assert parts.model.prior.categories == parts.guide.categories == 4
    assert parts.view.adversary.epsilon == 0
    assert parts.bound.weights["consistency"] == 100
    x = torch.rand(3, features)
    assert parts.model.decoder(torch.zeros(3, 2)).mean.shape == x.shape
    assert parts.guide.category(x).probs.shape == (3, 4)
    assert not list(Path().iterdir())


def test_what_does_not_fit_is_said_without_training() -> None:
    with pytest.raises(pic.UserError) as refusal:
        pic.check_parts("digits", decoder=decoders.MLP(3, 64, likelihoods.Gaussian(), [5]))
    assert str(refusal.value).startswith("decoder models.decoders.MLP: ")
    assert "(..., 20)" in str(refusal.value)
    with pytest.raises(TypeError, match=r"^check_parts\(\) has no setting 'out'"):
        pic.check_parts("digits", out="mine")


def test_checked_parts_may_need_labels() -> None:
    x, y = images(), np.arange(60) % 3
    settings = {"terms": [Supervised()], "prior.categories": 3}
    assert pic.check_parts(x, y, **settings).bound.weights["supervised"] == 1
    with pytest.raises(pic.UserError, match=r"^terms: supervised needs labels"):
        pic.check_parts(x, **settings)
