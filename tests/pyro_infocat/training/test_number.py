"""The number of categories from the data."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import pyro_infocat as pic
from pyro_infocat.run import main
from pyro_infocat.settings import CONFIG, TRIED
from pyro_infocat.training import criteria, number
from pyro_infocat.training.clusters import of_gaussians
from pyro_infocat.training.criteria import Tried, agreement, bic, merged, of_starts, silhouette
from pyro_infocat.training.number import chosen, enough
from tests.brief import SMALL
from tests.runs import same_run

FLAGS = [*SMALL, "--epochs", "1", "--prior.categories", "auto", "--most_categories", "4"]


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


def test_agreement_is_mutual_information_over_log_k_summed_out() -> None:
    torch.manual_seed(0)
    first, second = some_q(), some_q()
    nats = 0.0
    for k in range(4):
        for other in range(4):
            both = sum(first[n, k] * second[n, other] for n in range(30)) / 30
            alone = first[:, k].mean() * second[:, other].mean()
            nats += float(both * (both / alone).log())
    assert agreement(first, second) == pytest.approx(nats / math.log(4))


def test_agreement_is_of_categories_whatever_their_numbers() -> None:
    torch.manual_seed(0)
    first, second = some_q(), some_q()
    order = torch.tensor([2, 0, 3, 1])
    assert agreement(first, second[:, order]) == pytest.approx(agreement(first, second))
    decided = torch.eye(4).repeat(5, 1)
    assert agreement(decided, decided[:, order]) == pytest.approx(1)
    assert agreement(decided, torch.full((20, 4), 0.25)) == pytest.approx(0)
    # A category that no example has is a loss.
    three = torch.eye(4)[:3].repeat(5, 1)
    assert agreement(three, three) == pytest.approx(math.log(3) / math.log(4))


def test_the_half_of_the_pairs_counts_that_agree_most() -> None:
    torch.manual_seed(0)
    q = [some_q() for _ in range(4)]
    pairs = [agreement(q[a], q[b]) for a in range(4) for b in range(a)]
    above = [value for value in pairs if value > np.median(pairs)]
    assert len(above) == 3
    assert of_starts(q) == pytest.approx(np.mean(above))
    assert of_starts(q[:2]) == pytest.approx(agreement(q[0], q[1]))


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


# Images.


@pytest.mark.usefixtures("brief")
def test_a_search_that_was_stopped_goes_on_and_is_then_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FLAGS, "--out", "whole"]) == 0
    capsys.readouterr()
    usual = criteria.Agreement.__call__

    def stopped(self: criteria.Agreement, categories: int, starts: int) -> Tried:
        if categories == 3:
            raise KeyboardInterrupt
        return usual(self, categories, starts)

    monkeypatch.setattr(criteria.Agreement, "__call__", stopped)
    assert main([*FLAGS, "--out", "parts"]) == 130
    assert not Path("parts", CONFIG).exists()
    assert "the same command goes on with the numbers" in capsys.readouterr().err
    monkeypatch.setattr(criteria.Agreement, "__call__", usual)
    capsys.readouterr()
    assert main([*FLAGS, "--out", "parts"]) == 0
    said = capsys.readouterr().out
    assert "goes on after K = 2" in said
    assert "\nK = 3: " in said
    rows = [
        [json.loads(line) for line in Path(folder, TRIED).read_text().splitlines()[1:]]
        for folder in ("whole", "parts")
    ]
    assert [row["categories"] for row in rows[1]][:3] == [2, 3, 4]
    assert [row["value"] for row in rows[0]] == [row["value"] for row in rows[1]]
    # After more starts nothing is left in doubt.
    worth = {row["categories"]: row for row in rows[0]}
    top = max(row["value"] for row in worth.values())
    for row in worth.values():
        assert row["value"] <= top - number.NEAR.get(row["starts"], 0)
    best = max(worth.values(), key=lambda row: row["value"])["categories"]
    config = yaml.safe_load(Path("whole", CONFIG).read_text())
    assert config["prior"]["init_args"]["categories"] == best
    assert Path("whole", "figures", number.FIGURE).exists()
    # Neither is the search made again, nor does it leave a trace in what comes after it.
    monkeypatch.setattr(criteria.Agreement, "__call__", None)
    more = ["--resume", "true", "--out", "parts", "--epochs", "2"]
    assert main([*FLAGS, *more]) == main(more) == 0
    assert main([*FLAGS, "--prior.categories", str(best), "--out", "given"]) == 0
    assert same_run("whole", "given")


@pytest.mark.usefixtures("brief")
def test_a_table_of_another_search_is_not_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    row = {"categories": 2, "value": 1.0, "seconds": 1.0}
    text = json.dumps({"of": "0", "criterion": "agreement"})
    Path("out", TRIED).write_text(f"{text}\n{json.dumps(row)}\n")
    assert main([*FLAGS, "--most_categories", "2", "--out", "out"]) == 0
    assert "goes on" not in capsys.readouterr().out
    assert json.loads(Path("out", TRIED).read_text().splitlines()[1])["value"] < 1


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
    monkeypatch.setattr(number, "search", None)
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
