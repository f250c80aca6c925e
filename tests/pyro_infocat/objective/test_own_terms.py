"""Terms of a user's own: what they look at, how they count, and what is refused.

Shapes: B batch, K categories, X features.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_infocat import Batch, InfoCatELBO, Term
from tests.pyro_infocat.objective.programs import B, K, X, make_programs, plain_guide, plain_model
from tests.pyro_infocat.objective.ways import expect

pytestmark = pytest.mark.usefixtures("double")

NO_BOUND = dict.fromkeys(["reconstruction", "kl_z", "kl_c"], 0.0)
THINGS = ["category", "generated", "labels", "view"]
LABELS = torch.tensor([0, 1, 2, 1, 0])

Work = Callable[[Batch], Any]


def make_term(work: Work, **declared: Any) -> Term:
    """A term that does some work with its batch and counts its examples."""

    def call(self: Term, batch: Batch) -> Tensor:
        work(batch)
        return torch.tensor(float(len(batch.x)))

    members = {"name": "mine", "sign": 1, "__call__": call} | declared
    return type("Mine", (Term,), members)()


def look(*things: str) -> Work:
    return lambda batch: [getattr(batch, thing) for thing in things]


def evaluate(*terms: Term, bound: float = 0.0, **named: Any) -> InfoCatELBO:
    objective = InfoCatELBO(0, weights=dict.fromkeys(NO_BOUND, bound), extra=terms)
    objective.loss(*make_programs(), **named)
    return objective


# What a term looks at.


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_what_a_term_gets(bound: float) -> None:
    """x, model and guide as given; q(c | x) of the examples; c, z and x of as many draws."""
    model, guide, x = make_programs()
    view, got = 1 - x, {}
    term = make_term(
        lambda batch: got.update({thing: getattr(batch, thing) for thing in ("x", *THINGS)}),
        needs=frozenset(THINGS),
    )
    weights = dict.fromkeys(NO_BOUND, bound)
    InfoCatELBO(0, weights=weights, extra=[term]).loss(model, guide, x, view=view, labels=LABELS)
    assert got["x"] is x
    assert got["view"] is view
    assert got["labels"] is LABELS
    torch.testing.assert_close(got["category"].logits, guide.category(x).logits)
    assert [tuple(drawn.shape) for drawn in got["generated"]] == [(B,), (B, K), (B, X)]


def test_a_term_gets_the_programs() -> None:
    model, guide, x = make_programs()
    got: list[Any] = []
    term = make_term(lambda batch: got.extend([batch.model, batch.guide, batch.classify(1 - x)]))
    InfoCatELBO(0, extra=[term]).loss(model, guide, x)
    assert got[0] is model
    assert got[1] is guide
    torch.testing.assert_close(got[2].logits, guide.category(1 - x).logits)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("thing", THINGS)
def test_what_a_term_does_not_declare_it_does_not_get(thing: str, beside: bool) -> None:
    """Not even beside a term that does declare it, or the number would depend on the others."""
    terms = [make_term(look(thing))]
    if beside:
        terms.insert(0, make_term(look(thing), name="other", needs=frozenset({thing})))
    message = f"'{thing}' was not made; add it to the needs of the term"
    with expect(AttributeError, message):
        evaluate(*terms, view=torch.rand(B, X).round(), labels=LABELS)


def test_what_no_batch_has() -> None:
    with expect(
        AttributeError,
        "a batch has no 'z'; it has category, clusters, generated, known, labels, view",
    ):
        evaluate(make_term(look("z")))


def test_labels_reach_the_term_that_needs_them_and_no_other() -> None:
    """Not the programs either, which would refuse them."""
    found: dict[str, set[str]] = {}

    def note(name: str) -> Work:
        return lambda batch: found.update({name: {one for one in THINGS if hasattr(batch, one)}})

    model, guide, x = make_programs()
    arguments: list[tuple] = []
    for program in (model, guide):
        program.register_forward_pre_hook(lambda _, given: arguments.append(given))
    terms = [
        make_term(note("labelled"), name="labelled", needs=frozenset({"labels"})),
        make_term(note("other"), name="other", needs=frozenset({"category"})),
    ]
    for direct in (True, False):
        objective = InfoCatELBO(extra=terms, direct=direct)
        objective.loss(model, guide, x, labels=LABELS)
        assert found == {"labelled": {"labels"}, "other": {"category"}}
    # Through Pyro the programs are called.
    assert len(arguments) == 2
    assert all(len(given) == 1 and given[0] is x for given in arguments)


def test_a_term_that_needs_a_view_waits_for_one() -> None:
    term = make_term(look("view"), needs=frozenset({"view"}))
    assert "mine" not in evaluate(term, bound=1.0).terms
    assert "mine" in evaluate(term, bound=1.0, view=torch.rand(B, X).round()).terms


def test_draws_are_made_once_for_all_and_not_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, x = make_programs()
    made: list[int] = []
    generate = type(model).generate

    def count(self: Any, number: int) -> Any:
        made.append(number)
        return generate(self, number)

    monkeypatch.setattr(type(model), "generate", count)
    got: list[Any] = []
    terms = [
        make_term(lambda b: got.append(b.generated), name=name, needs=frozenset({"generated"}))
        for name in ("one", "two")
    ]
    weights = NO_BOUND | {"information_bound": 1.0}
    InfoCatELBO(weights=weights, extra=terms).loss(model, guide, x)
    assert made == [B]
    assert got[0] is got[1]
    InfoCatELBO(0, extra=[make_term(look())]).loss(model, guide, x)
    InfoCatELBO(weights=NO_BOUND | {"one": 0.0, "two": 0.0}, extra=terms).loss(model, guide, x)
    assert made == [B, B]


def test_q_of_the_examples_is_computed_once() -> None:
    model, guide, x = make_programs()
    passes: list[Tensor] = []
    guide.classifier.register_forward_pre_hook(lambda _, given: passes.append(given[0]))
    term = make_term(look("category"), needs=frozenset({"category"}))
    for weights in ({}, NO_BOUND):
        passes.clear()
        weights = {"marginal_entropy": 1.0, "conditional_entropy": 1.0} | weights
        InfoCatELBO(0, weights=weights, extra=[term]).loss(model, guide, x)
        assert len(passes) == 1


def test_the_examples_alone_are_what_normalising_layers_remember() -> None:
    """Whatever a term asks the guide's classifier."""
    model, guide, x = make_programs()
    guide.classifier = nn.Sequential(nn.BatchNorm1d(4), guide.classifier)
    term = make_term(lambda b: b.classify(1 - b.x), needs=frozenset({"category"}))
    InfoCatELBO(0, weights=NO_BOUND, extra=[term]).loss(model, guide.train(), x)
    assert guide.classifier[0].num_batches_tracked == 1
    torch.testing.assert_close(guide.classifier[0].running_mean, 0.1 * guide.encoder(x).mean(0))


# How it counts.


class Distance(Term):
    """The mean squared parameter of the classifier, B times."""

    name, sign = "distance", -1

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, batch: Batch) -> Tensor:
        return self.factor * len(batch.x) * batch.guide.classifier.weight.square().mean()


class Closeness(Distance):
    name, sign, weight = "closeness", 1, 0.25


@pytest.mark.parametrize(("kind", "sign", "weight"), [(Distance, 1, 1.0), (Closeness, -1, 0.25)])
@pytest.mark.parametrize("direct", [False, True])
def test_sign_and_weight(direct: bool, kind: type[Term], sign: int, weight: float) -> None:
    """The loss grows with a term of sign -1, by its own weight unless it is given another."""
    model, guide, x = make_programs()
    value = B * guide.classifier.weight.detach().square().mean().item()
    options = {"direct": direct, "extra": [kind()]}
    torch.manual_seed(1)
    without = InfoCatELBO(0, direct=direct).loss(model, guide, x)
    for given, factor in (({}, weight), ({kind.name: 3.0}, 3.0), ({kind.name: 0.0}, 0.0)):
        objective = InfoCatELBO(0, weights=given, **options)
        torch.manual_seed(1)
        loss = objective.loss(model, guide, x)
        assert loss - without == pytest.approx(sign * factor * value, rel=1e-9)
        assert (kind.name in objective.terms) == (factor > 0)
    objective.weights[kind.name] = 2.0
    torch.manual_seed(1)
    loss = objective.loss(model, guide, x)
    assert loss - without == pytest.approx(sign * 2 * value, rel=1e-9)
    assert objective.terms[kind.name].item() == pytest.approx(value)


@pytest.mark.parametrize("plain", [False, True])
def test_svi_trains_by_it_alone(plain: bool) -> None:
    """Also of programs that are functions: gradient descent on a square shrinks each by a share."""

    class Square(Term):
        name, sign = "square", -1

        def __call__(self, batch: Batch) -> Tensor:
            weight = pyro.param("odds") if plain else batch.guide.classifier.weight
            return weight.square().sum() / 2

    model, guide, x = make_programs()
    if plain:
        model, guide, x = plain_model("sampled"), plain_guide, torch.randn(B, X)
        InfoCatELBO(0).loss(model, guide, x)
        # The bound's sites have no weight, but for what the user calls his own.
        weights = NO_BOUND | {"kl_kind": 0.0, "kl_code": 0.0}
    else:
        weights = NO_BOUND
    weight = pyro.param("odds") if plain else guide.classifier.weight
    before = weight.detach().clone()
    objective = InfoCatELBO(0, weights=weights, extra=[Square()])
    loss = SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), objective).step(x)
    assert loss == pytest.approx(float(before.square().sum() / 2))
    torch.testing.assert_close(weight.detach(), 0.9 * before)


def test_it_is_no_part_of_the_elbo() -> None:
    objective = evaluate(make_term(look()), bound=1.0)
    assert set(objective.terms) == {"reconstruction", "kl_z", "kl_c", "mine"}
    assert objective.signs["mine"] == 1
    assert [term.name for term in objective.weighted()] == ["mine"]


def test_what_the_weighted_terms_need() -> None:
    term = make_term(look(), needs=frozenset({"labels"}), weight=0.0)
    objective = InfoCatELBO(0, extra=[term])
    assert not any(objective.needs(thing) for thing in THINGS)
    objective.weights |= {"mine": 0.1, "consistency": 0.1}
    assert {thing for thing in THINGS if objective.needs(thing)} == {"category", "labels", "view"}


# What is refused.

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a site's": ({"name": "kl_mine"}, "its name must be a word and not begin with kl_, not 'kl_"),
    "no word": ({"name": "my term"}, "its name must be a word and not begin with kl_, not 'my"),
    "empty": ({"name": ""}, "its name must be a word and not begin with kl_, not ''"),
    "no name": ({"name": None}, "its name must be a word and not begin with kl_, not None"),
    "no sign": ({"sign": None}, "its sign must be 1 or -1"),
    "another sign": ({"sign": 2}, "its sign must be 1 or -1"),
    "unknown need": (
        {"needs": frozenset({"images"})},
        "its needs must be a set of category, clusters, generated, known, labels, view",
    ),
    "one need as a word": (
        {"needs": "labels"},
        "its needs must be a set of category, clusters, generated, known, labels, view",
    ),
    "needs as a list": (
        {"needs": ["labels"]},
        "its needs must be a set of category, clusters, generated, known, labels, view",
    ),
}


@pytest.mark.parametrize(("declared", "message"), BAD.values(), ids=BAD)
def test_declarations_that_cannot_be_used(declared: dict[str, Any], message: str) -> None:
    with expect(ValueError, f"Mine: {message}"):
        InfoCatELBO(extra=[make_term(look(), **declared)])


TAKEN = ["reconstruction", "information_bound", "marginal_entropy", "conditional_entropy"]
TAKEN += ["consistency", "nearness", "elbo", "objective", "epoch", "seconds", "validation_elbo"]


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_are_taken(name: str) -> None:
    """By the terms that are always there, and by what else a row of the history holds."""
    with expect(ValueError, f"Mine: there is a term '{name}' already"):
        InfoCatELBO(extra=[make_term(look(), name=name)])


def test_one_name_twice() -> None:
    with expect(ValueError, "Mine: there is a term 'mine' already"):
        InfoCatELBO(extra=[make_term(look()), make_term(look())])


@pytest.mark.parametrize("names", [["mine"], ["mine", "yours"]])
def test_an_unknown_weight_is_told_of_all_terms(names: Iterable[str]) -> None:
    terms = [make_term(look(), name=name) for name in names]
    there = ["reconstruction", "kl_z", "kl_c", "information_bound", "marginal_entropy"]
    there += ["conditional_entropy", "consistency", "nearness", *names]
    with expect(ValueError, f"no term 'their' to weigh; there are {', '.join(there)}"):
        InfoCatELBO(extra=terms, weights={"their": 1.0})


@pytest.mark.parametrize("weight", [-0.5, math.nan])
def test_its_own_weight_is_not_negative(weight: float) -> None:
    with expect(ValueError, f"the weight of mine must not be negative, not {weight}"):
        InfoCatELBO(extra=[make_term(look(), weight=weight)])


def test_a_term_defines_its_value() -> None:
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (Term,), {"name": "empty", "sign": 1})()
