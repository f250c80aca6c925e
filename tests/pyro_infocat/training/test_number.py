"""The number of categories from the data."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import pyro_infocat as pic
from pyro_infocat.data.table import Rows, data_set
from pyro_infocat.run import main
from pyro_infocat.settings import CONFIG, TRIED
from pyro_infocat.training import fine, number
from pyro_infocat.training.clusters import of_gaussians
from pyro_infocat.training.criteria import (
    Clusters,
    Tried,
    bic,
    chosen,
    enough,
    merged,
    search,
    silhouette,
)
from pyro_infocat.training.number import APART, apart, kept
from tests.brief import SMALL
from tests.runs import same_run

FLAGS = [
    *SMALL,
    "--finer_steps",
    "3",
    "--epochs",
    "1",
    "--prior.categories",
    "auto",
    "--most_categories",
    "4",
]


def some_q(examples: int = 30, categories: int = 4) -> torch.Tensor:
    return (3 * torch.randn(examples, categories, dtype=torch.float64)).softmax(1)


def blobs(categories: int, features: int, each: int = 60, seed: int = 0) -> np.ndarray:
    """Normal clusters whose centres are at least five standard deviations apart."""
    random = np.random.default_rng(seed)
    centres: list[np.ndarray] = []
    while len(centres) < categories:
        one = 8 * random.normal(size=features)
        if all(np.linalg.norm(one - other) > 5 for other in centres):
            centres.append(one)
    return np.concatenate([one + random.normal(size=(each, features)) for one in centres])


# The criteria.


def test_bic_is_the_density_written_out_less_what_was_estimated() -> None:
    torch.manual_seed(0)
    y = torch.randn(80, 2, dtype=torch.float64)
    y[:40] += 3
    found = of_gaussians(y, some_q(80, 3))
    covariance = torch.linalg.inv(found.whitening.mT @ found.whitening)
    centres = torch.linalg.solve(found.whitening, found.shift)
    log_weights = found.offset + covariance.logdet() / 2
    density = MixtureSameFamily(
        Categorical(logits=log_weights), MultivariateNormal(centres, covariance)
    )
    held = found.joint(y).softmax(1).sum(0)
    # Two centres and a weight for each of three, but for one weight; the common covariance's three
    # numbers, and of each cluster's own so much as it is not drawn to that: 3 X (X + 10) = 72.
    estimated = 3 * 2 + 2 + 3 + 3 * sum(float(one / (one + 72)) for one in held)
    each = density.log_prob(y) - estimated * math.log(80) / 160
    torch.testing.assert_close(bic(found.joint(y), 2), each)


def test_the_two_clusters_are_merged_that_share_most() -> None:
    shares = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0], [0.1, 0.2, 0.0, 0.7]])
    joined = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.2, 0.7]])
    torch.testing.assert_close(merged(shares), joined)
    assert merged(torch.eye(2)).tolist() == [[1.0], [1.0]]


def test_clusters_of_unequal_sizes_are_merged_by_the_share_that_they_share() -> None:
    # The large two share more, the small ones all that they have.
    shares = torch.zeros(120, 4)
    shares[:100, 0], shares[:100, 1] = 0.7, 0.3
    shares[:50, :2] = shares[:50, :2].flip(1)
    shares[100:, 2:] = 0.5
    assert merged(shares)[100:].tolist() == [[0, 0, 1]] * 20


def test_there_are_fewer_clusters_than_rows_that_differ() -> None:
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).repeat(4, 1)
    frame = pd.DataFrame(rows.numpy(), columns=["a", "b"])
    data = data_set(Rows(frame), "the rows", whole=True)
    assert Clusters(data, 0).most == 3


def test_silhouette_is_how_much_nearer_the_own_cluster_is() -> None:
    torch.manual_seed(0)
    y, clusters = torch.randn(20, 2, dtype=torch.float64), torch.arange(20) % 3
    far = torch.cdist(y, y)
    values = []
    for n in range(20):
        means = [far[n, (clusters == k) & (torch.arange(20) != n)].mean().item() for k in range(3)]
        own = means.pop(int(clusters[n]))
        values.append((min(means) - own) / max(own, min(means)))
    assert silhouette(y, clusters) == pytest.approx(np.mean(values))
    assert silhouette(y, torch.zeros(20)) == -1
    assert silhouette(y, torch.arange(20)) == -1
    assert silhouette(y, torch.arange(20) % 2) > -1


def test_a_smaller_number_is_preferred_where_chance_explains_the_difference() -> None:
    wide, narrow = torch.linspace(-1, 1, 100), torch.linspace(-1, 1, 100) / 100
    best = Tried(4, 0.05, each=torch.full((100,), 0.05))
    # The standard errors are 0.058 and 0.00058.
    assert chosen([Tried(3, 0.0, each=wide), best]).categories == 3
    assert chosen([Tried(3, 0.0, each=narrow), best]).categories == 4
    assert chosen([Tried(3, 0.049), Tried(4, 0.05), Tried(5, 0.04)]).categories == 4


def test_the_search_ends_when_nothing_was_better_for_long() -> None:
    def values(*rest: float) -> list[Tried]:
        return [Tried(k, value) for k, value in enumerate(rest, start=2)]

    assert not enough([], 50)
    assert not enough(values(0.1, 0.9, 0, 0, 0, 0, 0), 50)
    assert enough(values(0.1, 0.9, 0, 0, 0, 0, 0, 0), 50)
    assert enough(values(0.1, 0.9), 3)
    rising = list(np.linspace(0, 1, 19))
    assert not enough(values(*rising, *[0.0] * 9), 50)
    assert enough(values(*rising, *[0.0] * 10), 50)


# Tables.


@pytest.mark.parametrize(("categories", "features"), [(2, 2), (5, 3), (12, 4)])
def test_a_mixture_of_known_number_is_found(categories: int, features: int) -> None:
    settings = {"steps": 10, "encoder.hidden": [8], "decoder.hidden": [8]}
    model = pic.InfoCatVAE("auto", epochs=1, settings=settings)
    model.fit(blobs(categories, features))
    assert model.n_categories_ == model.run_.guide.categories == categories


def test_a_number_is_found_where_a_column_is_not_continuous() -> None:
    frame = pd.DataFrame(blobs(4, 2), columns=["a", "b"])
    frame["c"] = np.arange(240) // 60 % 2
    model = pic.InfoCatVAE("auto", epochs=1, most_categories=9).fit(frame)
    assert model.n_categories_ == 4


def test_a_loaded_estimator_knows_its_number(tmp_path: Path) -> None:
    pic.InfoCatVAE("auto", epochs=1).fit(blobs(3, 2)).save(tmp_path / "saved")
    assert pic.InfoCatVAE.load(tmp_path / "saved").n_categories_ == 3


def test_each_number_is_tried_once_and_in_order() -> None:
    asked = []

    def worth(categories: int) -> Tried:
        asked.append(categories)
        return Tried(categories, -abs(categories - 3))

    assert [one.categories for one in search(worth, 50)] == asked == list(range(2, 10))
    assert len(search(worth, 4)) == 3


# Images.


def blocks(kinds: int, each: int, mixed: float) -> torch.Tensor:
    """p(c, c') of kinds that have several fine categories each, which views mix evenly.

    :param mixed: the share of a kind's views that show another kind.
    """
    number = kinds * each
    of_kind = torch.arange(number) // each
    same = (of_kind[:, None] == of_kind).double() / (kinds * each**2)
    return (1 - mixed) * same + mixed / number**2


def test_kinds_are_apart_by_what_joining_two_of_them_loses() -> None:
    worth = apart([blocks(5, 3, 0.0)])
    assert list(worth) == list(range(2, 16))
    assert worth[5] == pytest.approx(1)
    assert all(worth[k] == pytest.approx(0, abs=1e-9) for k in range(6, 16))
    # Of two pairs joined and one left over, two are as large: 2/5 log 2 of 2 log 2 / 4 and so on.
    assert worth[4] == pytest.approx(4 / 5)
    assert kept(worth) == 5
    # What views mix is less apart, and starts count evenly.
    both = apart([blocks(5, 3, 0.0), blocks(5, 3, 0.2)])
    alone = apart([blocks(5, 3, 0.2)])
    assert alone[5] < 0.8
    assert both[5] == pytest.approx((1 + alone[5]) / 2)


def test_the_largest_number_is_kept_that_is_apart() -> None:
    assert kept({2: 0.9, 3: APART, 4: APART - 0.01, 5: 0.1}) == 3
    assert kept({2: 0.9, 3: 0.1, 4: 0.7, 5: 0.1}) == 4
    assert kept({2: 0.2, 3: 0.3, 4: 0.1}) == 3


def starts_of(kinds: int, asked: list[int]) -> Any:
    def starts(*given: Any) -> list[fine.Start]:
        number = given[5]
        asked.append(number)
        each = max(1, number // kinds)
        joint = torch.zeros(number, number, dtype=torch.float64)
        held = min(number, kinds * each)
        joint[:held, :held] = blocks(held // each, each, 0.0)
        learned: Any = None
        # Through the view alone everything is mixed.
        view = torch.full((number, number), 1 / number**2, dtype=torch.float64)
        return [fine.Start(0, learned, [view, joint])]

    return starts


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("kinds", "expected"), [(7, [30]), (20, [30, 60]), (40, [30, 60, 120])])
def test_more_fine_categories_are_learned_where_many_are_kept(
    kinds: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fine, "starts", starts_of(kinds, asked))
    flags = [*SMALL, "--epochs", "1", "--prior.categories", "auto"]
    assert main([*flags, "--out", "out"]) == 0
    assert asked == expected
    config = yaml.safe_load(Path("out", CONFIG).read_text())
    assert config["prior"]["init_args"]["categories"] == kinds


@pytest.mark.usefixtures("brief")
def test_a_run_goes_on_with_the_number_that_was_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*FLAGS, "--out", "found"]) == 0
    said = capsys.readouterr().out
    config = yaml.safe_load(Path("found", CONFIG).read_text())
    best = config["prior"]["init_args"]["categories"]
    head, *rows = [json.loads(line) for line in Path("found", TRIED).read_text().splitlines()]
    assert head == {"criterion": "apart"}
    worth = {row["categories"]: row["value"] for row in rows}
    assert kept({k: value for k, value in worth.items() if k <= 4}) == best
    # Half as many as there are fine categories, and the next.
    assert list(worth) == list(range(2, 17))
    near = [f"{worth[k]:.3f} with {k}" for k in (best - 1, best + 1) if k in worth]
    line = f"--prior.categories {best}: auto, apart {worth[best]:.3f}, {' and '.join(near)} ("
    guess = ", so no number stands out and this one is a guess" * (worth[best] < APART)
    assert re.search(f"^{re.escape(line)}\\d+ s\\); {APART} is enough{guess}$", said, re.M)
    assert Path("found", "figures", number.FIGURE).exists()
    # Neither is the search made again, nor does it leave a trace in what comes after it.
    monkeypatch.setattr(fine, "starts", None)
    more = ["--resume", "true", "--out", "found", "--epochs", "2"]
    assert main([*FLAGS, *more]) == 0
    flags = [*FLAGS, "--prior.categories", str(best), "--epochs", "2"]
    assert main([*flags, "--out", "given"]) == 0
    assert same_run("found", "given")


@pytest.mark.usefixtures("brief")
def test_training_begins_near_what_the_number_was_found_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    near = ["--finer", "3", "--weights.nearness", "50"]
    asked = []
    usual = fine.starts
    monkeypatch.setattr(fine, "starts", lambda *given: asked.append(given[5]) or usual(*given))
    assert main([*FLAGS, *near, "--out", "out"]) == 0
    assert asked == [30]
    said = capsys.readouterr().out
    assert said.index("--prior.categories ") < said.index("\n30 fine categories merged to ")
    assert pic.load("out").history[0]["nearness"] > 0


@pytest.mark.usefixtures("brief")
def test_all_of_few_fine_categories_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fine, "starts", starts_of(4, asked))
    monkeypatch.setattr(fine, "LEAST_EXAMPLES", 300)
    assert main([*SMALL, "--epochs", "1", "--prior.categories", "auto", "--out", "out"]) == 0
    assert asked == [4]
    config = yaml.safe_load(Path("out", CONFIG).read_text())
    assert config["prior"]["init_args"]["categories"] == 4


@pytest.mark.usefixtures("brief")
def test_each_class_of_known_labels_has_a_category(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine, "starts", starts_of(3, []))
    flags = [*SMALL, "--epochs", "1", "--prior.categories", "auto", "--known_labels", "20"]
    assert main([*flags, "--out", "out"]) == 0
    config = yaml.safe_load(Path("out", CONFIG).read_text())
    assert config["prior"]["init_args"]["categories"] >= 10


def test_numbers_are_tried_from_the_least_on() -> None:
    tried = search(lambda k: Tried(k, -float(k)), 50, 5)
    assert [one.categories for one in tried] == list(range(5, 12))


@pytest.mark.usefixtures("brief")
def test_the_search_is_not_shortened_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(fine, "learn", lambda *given: taken.append(given[6]))
    flags = [*SMALL, "--epochs", "1", "--prior.categories", "auto", "--finer_steps", "50"]
    assert main([*flags, "--out", "out"]) == 0
    assert taken == [50, 50, 50]


@pytest.mark.usefixtures("brief")
def test_a_folder_of_a_run_without_a_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [*SMALL, "--epochs", "1", "--out", "out"]
    assert main([*plain, "--prior", "models.priors.Gaussian"]) == 0
    assert main([*plain, "--prior.categories", "auto"]) == 2
    assert "'out' holds another run" in capsys.readouterr().err


def test_parts_are_tried_with_any_number() -> None:
    parts = pic.check_parts("digits", **{"prior.categories": "auto"})
    assert parts.model.prior.categories == 2


# Errors.


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (["--config", "mnist-paper", "--data", "digits"], "categories auto: needs terms on real"),
        (["--view", "pyro_infocat.views.Same"], "categories auto: needs terms on real examples"),
        (["--most_categories", "1"], "--most_categories 1: must be at least 2"),
        (["--most_categories", "2000"], "most_categories 2000: there are 1297 training examples"),
        (["--prior.categories", "some"], "--prior.categories: expected a whole number, not 'some'"),
        (["--prior.scale", "auto"], "--prior.scale: expected a number, not 'auto'"),
        (["--encoder.hidden", "[0]"], "--encoder guides.encoders.Convolutional: hidden"),
    ],
)
def test_what_is_refused(
    flags: list[str],
    wrong: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine, "starts", None)
    assert main([*SMALL[:6], "--prior.categories", "auto", "--out", "out", *flags]) == 2
    error = capsys.readouterr().err
    assert wrong in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number.processes, "world", lambda: 2)
    with pytest.raises(pic.UserError, match="is found by one process; run without torchrun"):
        pic.fit("digits", epochs=1, **{"prior.categories": "auto"})


def test_a_single_example_has_no_number() -> None:
    with pytest.raises(ValueError, match="n_samples=1; 2 are needed"):
        pic.InfoCatVAE("auto").fit(blobs(1, 2, each=1))
