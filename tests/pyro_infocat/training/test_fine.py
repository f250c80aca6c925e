"""Fine categories that are merged before training begins."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pyro.distributions import Categorical
from torch import Tensor, nn

import pyro_infocat as pic
from pyro_infocat import InfoCatELBO
from pyro_infocat.catalogue import Column
from pyro_infocat.data import Split
from pyro_infocat.objective import ELBO_SIGNS
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, FINE, MOST_SEED, Settings
from pyro_infocat.training import fine
from pyro_infocat.training.fine import Candidate, Fine, Merged, agreements
from pyro_infocat.training.merging import agreement
from pyro_infocat.training.progress import Bar
from pyro_infocat.views import AdversarialAffine, AdversarialHidden, Affine, Hidden, Same, View
from tests.brief import SMALL
from tests.runs import same_run

FLAGS = [
    *SMALL,
    "--finer",
    "2",
    "--finer_steps",
    "3",
    "--weights.nearness",
    "50",
    "--prior.categories",
    "4",
]


# Merged categories.


class Told(nn.Module):
    """q(c|x) that reads its logits off x."""

    def category(self, x: Tensor) -> Categorical:
        return Categorical(logits=x)


def test_merged_categories_are_sums_of_fine_ones() -> None:
    x = torch.randn(8, 5)
    told: Any = Told()
    q = Merged(told, torch.tensor([0, 2, 0, 1, 2]), 3)(x)
    p = x.softmax(1)
    expected = torch.stack([p[:, 0] + p[:, 2], p[:, 3], p[:, 1] + p[:, 4]], 1)
    torch.testing.assert_close(q, expected)


def test_no_start_agrees_with_itself() -> None:
    told: Any = None
    right, wrong = torch.eye(4).repeat(6, 1), torch.eye(4)[torch.arange(24) // 6]
    q = [(0, right), (0, right), (1, right[:, [1, 0, 3, 2]]), (2, wrong)]
    found = agreements([Candidate(start, told, one) for start, one in q])
    # 24 examples of four kinds, each once with each of the four others but for two.
    between = float(agreement(right, wrong))
    assert 0 < between < 0.1
    expected = [(1 + between) / 2, (1 + between) / 2, (2 + between) / 3, between]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


# What a view shows.


def images(number: int = 40) -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number, 16), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.zeros(number, dtype=torch.int64), 256)


class Linear(nn.Module):
    """No encoder at all."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def fine_of(categories: int) -> Fine:
    torch.manual_seed(1)
    made = Fine(Linear(), categories)
    nn.init.normal_(made.classifier.weight, std=3.0)
    return made.eval()


def test_the_joint_is_the_mean_over_examples_and_their_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split, made = images(), fine_of(3)
    monkeypatch.setattr(fine, "LOOKS", 80)
    turned: Callable[[Tensor, Any], Tensor] = lambda grey, _: grey.flip(1)  # noqa: E731
    found = fine.joint_of_views(made, split, "grey", turned)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for grey in split.grey():
        before = made.category(grey).probs.double()
        after = made.category(grey.flip(0)).probs.double()
        expected += torch.outer(before, after).detach() / 40
    torch.testing.assert_close(found, expected)


def test_few_examples_are_looked_at_several_times_and_alike_at_each_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split, made = images(10), fine_of(3)
    monkeypatch.setattr(fine, "LOOKS", 100)
    seen = []

    def noisy(grey: Tensor, classifier: Any) -> Tensor:
        seen.append(len(grey))
        return grey + torch.randn_like(grey)

    state = torch.get_rng_state()
    first = fine.joint_of_views(made, split, "grey", noisy)
    assert seen == [10] * 5
    monkeypatch.setattr(fine, "MOST_TIMES", 2)
    assert seen[5:] == []
    fine.joint_of_views(made, split, "grey", noisy)
    assert seen[5:] == [10] * 2
    monkeypatch.undo()
    monkeypatch.setattr(fine, "LOOKS", 100)
    assert torch.equal(state, torch.get_rng_state())
    assert float(first.sum()) == pytest.approx(1)
    assert torch.equal(first, fine.joint_of_views(made, split, "grey", noisy))


def test_a_view_that_asks_is_looked_through_without_that_too() -> None:
    grey = torch.rand(6, 16)
    asking = AdversarialAffine((4, 4), stretch=0.2, epsilon=0.5)
    view, moved = fine.looks(asking)
    assert view is asking
    torch.manual_seed(0)
    found = moved(grey, None)
    torch.manual_seed(0)
    told: Any = None
    torch.testing.assert_close(found, Affine((4, 4), stretch=0.2)(grey, told))
    rows = torch.rand(6, 3)
    columns = [Column(name, "real") for name in "abc"]
    view, hiding = fine.looks(AdversarialHidden(columns, share=0.5))
    torch.manual_seed(0)
    found = hiding(rows, None)
    torch.manual_seed(0)
    assert found.isnan().any()
    torch.testing.assert_close(found, Hidden(columns, 0.5)(rows, told), equal_nan=True)
    for plain in (Affine((4, 4)), Same(), Hidden(columns)):
        assert fine.looks(plain) == [plain]


def test_the_joint_is_of_layers_as_they_are_at_test_time() -> None:
    split, made = images(), fine_of(3)
    made.encoder = nn.BatchNorm1d(16)
    made.encoder(3 * split.grey())
    made.train()
    kept: Callable[[Tensor, Any], Tensor] = lambda grey, _: grey  # noqa: E731
    found = fine.joint_of_views(made, split, "grey", kept)
    assert made.training
    torch.testing.assert_close(found, fine.joint_of_views(made.eval(), split, "grey", kept))


# Learning.


def test_the_loss_is_minus_the_weighted_terms() -> None:
    made, x, seen = fine_of(3), images().grey(), images().grey().flip(1)
    weights = {"consistency": 5.0, "marginal_entropy": 3.0, "conditional_entropy": 2.0}
    bound = InfoCatELBO(0.0, weights=dict.fromkeys(ELBO_SIGNS, 0.0) | weights)
    found = fine.Alone(bound, made)(x, seen)
    q, other = made.category(x), made.category(seen)
    guard = Categorical(probs=q.probs.mean(0)).entropy() * len(x)
    moved = torch.distributions.kl_divergence(q, other).sum()
    expected = 5 * moved - 3 * guard + 2 * q.entropy().sum()
    torch.testing.assert_close(found, expected)
    assert set(bound.terms) == set(weights)


def test_no_two_starts_of_any_runs_share_their_random_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(fine.pyro, "set_rng_seed", seeds.append)
    monkeypatch.setattr(fine, "learn", lambda *_: None)
    run = pic.check_parts("digits", **{"encoder.hidden": [16], "encoder.width": 4})
    split = images(20)

    class Builds:
        def encoder(self) -> nn.Module:
            return Linear()

    builder: Any = Builds()
    parts: Any = replace(run, view=Same())
    for seed in (0, 1, MOST_SEED):
        settings = Settings(seed=seed, weights={"consistency": 1.0})
        found = fine.starts(settings, split, builder, parts, "grey", 3, 1, False)
        assert [one.number for one in found] == [0, 1, 2]
    assert len(set(seeds)) == 9
    assert all(0 <= seed <= MOST_SEED for seed in seeds)


class Spy:
    """In the place of a step: what the terms weighed."""

    def __init__(self, *given: Any) -> None:
        self.parts = given[2]
        self.weights: list[dict[str, float]] = []
        Spy.last = self

    last: "Spy"

    def __call__(self, index: Tensor) -> None:
        self.weights.append(dict(self.parts.bound.weights))


def test_the_conditional_entropy_weighs_more_towards_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine, "Step", Spy)
    weights = {"consistency": 5.0, "marginal_entropy": 3.0, "conditional_entropy": 2.0}
    settings = Settings(batch_size=16)
    fine.learn(fine_of(3), settings, images(), "grey", Same(), weights, 20, Bar(20, 0, False))
    taken = Spy.last.weights
    assert [one["conditional_entropy"] for one in taken] == [2] * 12 + [4] * 3 + [6] * 3 + [8] * 2
    others = {"consistency": 5.0, "marginal_entropy": 3.0, "nearness": 0.0, "kl_z": 0.0}
    assert all(one[name] == value for one in taken for name, value in others.items())


def test_fine_categories_are_learned_by_the_terms_of_real_examples() -> None:
    torch.manual_seed(0)
    kinds = torch.arange(60) % 3
    pixels = (torch.eye(3).repeat_interleave(5, 1)[kinds] * 200 + 20 * torch.rand(60, 15)).byte()
    split = Split(pixels, kinds, 256)
    made = Fine(Linear(15), 3)
    weights = {"consistency": 10.0, "marginal_entropy": 5.0, "conditional_entropy": 1.0}
    settings = Settings(batch_size=30, learning_rate=0.01)
    view = Noisy()
    fine.learn(made, settings, split, "grey", view, weights, 300, Bar(300, 0, False))
    assert not made.training
    c = made.category(split.grey()).probs.argmax(1)
    assert len({(int(a), int(b)) for a, b in zip(c, kinds, strict=True)}) == 3


class Noisy(View):
    def __call__(self, grey: Tensor, classifier: Any) -> Tensor:
        return (grey + 0.1 * torch.randn_like(grey)).clamp(0, 1)


def test_what_diverges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fine_of(3)

    class Breaks(Spy):
        def __call__(self, index: Tensor) -> None:
            with torch.no_grad():
                made.classifier.weight[0, 0] = math.inf

    monkeypatch.setattr(fine, "Step", Breaks)
    weights = dict.fromkeys(fine.REAL, 1.0)
    with pytest.raises(pic.UserError, match="fine categories are not finite after 7 steps"):
        fine.learn(made, Settings(), images(), "grey", Same(), weights, 7, Bar(1, 0, False))


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("flags", [[], ["--prior.categories", "auto"]])
def test_a_rate_that_is_too_large_is_told_before_anything_is_merged(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FLAGS, "--learning_rate", "1e9", "--out", "out", *flags]) == 2
    told = capsys.readouterr()
    assert "fine categories are not finite after 3 steps. A smaller --learning_rate" in told.err
    assert "merged" not in told.out
    assert not Path("out", FINE).exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"finer_steps": 7}, 7),
        ({"epochs": 2, "finer_steps": 7}, 6),
        ({"epochs": 1, "batch_size": 40}, 1),
    ],
)
def test_fine_categories_are_learned_no_longer_than_the_run(
    changes: dict[str, int], expected: int
) -> None:
    assert fine.steps_of(Settings(**{"batch_size": 16} | changes), 40) == expected


@pytest.mark.parametrize(
    ("wanted", "categories", "examples", "expected"),
    [
        (30, 10, 5000, 30),
        (30, 10, 200, 20),
        (30, 10, 50, 10),
        (300, 99, 5000, 150),
        (9, 200, 9, 200),
    ],
)
def test_fine_categories_are_fewer_for_few_examples_and_not_too_many(
    wanted: int, categories: int, examples: int, expected: int
) -> None:
    assert fine.number_of(wanted, categories, examples) == expected


# Runs.


@pytest.mark.usefixtures("brief")
def test_a_run_begins_near_merged_categories(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--epochs", "1", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "8 fine categories merged to 4: start " in said
    assert " of 0 to 2 agrees best with the others, by 0." in said
    run = pic.load("out")
    assert run.history[0]["nearness"] > 0
    held = torch.load(Path("out", FINE), weights_only=True)
    assert held["merged"]["group"].unique().tolist() == [0, 1, 2, 3]
    # The time that they took is the run's.
    assert run.history[0]["seconds"] > held["seconds"] > 0


@pytest.mark.usefixtures("brief")
def test_a_run_goes_on_as_if_it_had_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*FLAGS, "--schedules", "{nearness: [[0, 50], [1, 10]]}"]
    assert main([*flags, "--epochs", "2", "--out", "whole"]) == 0
    assert main([*flags, "--epochs", "1", "--out", "parts"]) == 0
    monkeypatch.setattr(fine, "learn", None)
    assert main(["--resume", "true", "--epochs", "2", "--out", "parts"]) == 0
    assert same_run("whole", "parts")


@pytest.mark.usefixtures("brief")
def test_what_was_found_before_a_kill_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*FLAGS, "--epochs", "1"]
    assert main([*flags, "--out", "whole"]) == 0
    usual = fine.write

    def killed(*given: Any) -> None:
        usual(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(fine, "write", killed)
    assert main([*flags, "--out", "parts"]) == 130
    assert not Path("parts", CHECKPOINT).exists()
    monkeypatch.setattr(fine, "learn", None)
    assert main([*flags, "--out", "parts"]) == 0
    assert same_run("whole", "parts")


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    "flags",
    [["--seed", "1"], ["--prior.categories", "3"], ["--finer", "3"], ["--view.stretch", "0.2"]],
)
def test_categories_of_another_run_are_not_taken_over(flags: list[str]) -> None:
    assert main([*FLAGS, "--epochs", "1", "--out", "whole"]) == 0
    assert main([*FLAGS, "--epochs", "1", "--out", "other", *flags]) == 0
    Path("mixed").mkdir()
    Path("mixed", FINE).write_bytes(Path("other", FINE).read_bytes())
    assert main([*FLAGS, "--epochs", "1", "--out", "mixed"]) == 0
    assert same_run("whole", "mixed")


def test_what_was_found_is_of_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, data = Settings(), pic.experiment.read_data(Settings())
    of = fine.origin(settings, data, 4)
    assert of == fine.origin(replace(settings, epochs=7), data, 4)
    pixels = data.train.pixels[:].clone()
    pixels[0, 0] += 1
    other = replace(data, train=replace(data.train, pixels=pixels))
    assert fine.origin(settings, other, 4) != of != fine.origin(settings, data, 5)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("damage", ["bytes", "group", "weights", "shape", "seconds"])
def test_a_damaged_file_is_refused(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--epochs", "1", "--out", "out"]) == 0
    path = Path("out", FINE)
    held = torch.load(path, weights_only=True)
    weight = held["merged"]["fine.classifier.weight"]
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "group":
        # A category that no fine one is of.
        held["merged"]["group"].clamp_(max=2)
    elif damage == "weights":
        weight[0, 0] = math.nan
    elif damage == "shape":
        held["merged"]["fine.classifier.weight"] = weight[:, 1:]
    else:
        held["seconds"] = -1.0
    if damage != "bytes":
        torch.save(held, path)
    capsys.readouterr()
    assert main(["--resume", "true", "--epochs", "2", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "fine.pt' is damaged (" in error
    assert "delete it to have its categories found anew" in error


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        (["--weights.nearness", "0"], "nearness has no weight"),
        (["--weights.consistency", "0"], "consistency has no weight"),
        (["--weights.marginal_entropy", "0"], "marginal_entropy has no weight"),
        (["--view", "pyro_infocat.views.Same"], "there is no view"),
        (["--prior.categories", "1"], "there is one category"),
    ],
)
def test_fine_categories_that_nothing_would_learn_are_left_out(
    flags: list[str],
    missing: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine, "starts", None)
    assert main([*FLAGS, "--epochs", "1", "--out", "out", *flags]) == 0
    assert f"--finer 2: does not apply, since {missing}\n" in capsys.readouterr().out
