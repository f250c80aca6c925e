"""The worked example of counts: its maths against SciPy and theory, its reader, and a whole run.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-5 each.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy.stats import nbinom
from torch import Tensor

import pyro_infocat as pic
from examples.counts import Counts, CountsOfTotal, NegativeBinomial, Scaled, Thinned, usual_counts
from pyro_infocat.catalogue import Column
from pyro_infocat.evaluation import figures
from tests.brief import ROOT, judge_little, start
from tests.test_documents import blocks, execute

CELLS = ROOT / "examples/data/pancreas.npz"
COLUMNS = [Column(f"gene{n}", "count", (), 0.5 * n, 0.3 + 0.2 * n) for n in range(4)]
FAR = 5.0
"""Standard errors: a normal variable is beyond them with a chance of 6e-7."""


def described(batch: int = 3, features: int = 5) -> CountsOfTotal:
    log_share = torch.randn(batch, features).log_softmax(-1)
    return CountsOfTotal(log_share, torch.randn(features), torch.tensor(40.0).log())


# The likelihood.


@pytest.mark.usefixtures("double")
def test_the_log_probability_is_scipys() -> None:
    p, x = described(), torch.poisson(torch.full((3, 5), 9.0))
    mean = x.sum(-1, keepdim=True) * p.log_share.exp()
    r = p.log_shape.exp().numpy()
    wanted = nbinom.logpmf(x.numpy(), r, r / (r + mean.numpy())).sum(-1)
    np.testing.assert_allclose(p.log_prob(x).numpy(), wanted, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_for_a_total_that_is_given_the_masses_of_all_counts_sum_to_one() -> None:
    """Over all pairs of counts below 400, beyond which less than 1e-12 is left; and moments."""
    shares, shapes = torch.tensor([0.3, 0.7]), torch.tensor([2.0, 5.0])
    p = CountsOfTotal(shares.log(), shapes.log(), torch.tensor(0.0))
    x = torch.cartesian_prod(*[torch.arange(400.0)] * 2)
    for total in (1.0, 20.0):
        mass = p.given(x, torch.tensor(total).log()).exp()
        mean = total * shares
        torch.testing.assert_close(mass.sum(), torch.tensor(1.0), rtol=0, atol=1e-10)
        torch.testing.assert_close(mass @ x, mean, rtol=1e-8, atol=0)
        wanted = mean + mean.square() / shapes
        torch.testing.assert_close(mass @ x.square() - mean.square(), wanted, rtol=1e-8, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("logit", [-1e30, -1e4, -30.0, 0.0, 30.0, 1e4, 1e30])
def test_extreme_counts_and_logits_have_finite_gradients(
    count: float, logit: float, dtype: torch.dtype
) -> None:
    likelihood = NegativeBinomial(COLUMNS).to(dtype)
    raw = torch.zeros(1, 4, 1, dtype=dtype)
    raw[0, 1, 0] = logit
    raw.requires_grad_()
    for extreme in (-100.0, 0.0, 100.0):
        with torch.no_grad():
            likelihood.log_shape.fill_(extreme)
        x = torch.tensor([[count, 1.0, count, 0.0]], dtype=dtype)
        log_p = likelihood(raw).log_prob(x).sum()
        assert log_p.isfinite()
        assert log_p <= 0
        for gradient in torch.autograd.grad(log_p, [raw, likelihood.log_shape]):
            assert gradient.isfinite().all()


@pytest.mark.usefixtures("double")
def test_raw_output_changes_the_usual_counts_by_a_bounded_factor() -> None:
    likelihood, usual, raw = NegativeBinomial(COLUMNS), usual_counts(COLUMNS), torch.zeros(4, 1)
    torch.testing.assert_close(likelihood(raw).mean, usual)
    for given, factor in [(0.01, math.exp(0.01)), (1e30, math.exp(10)), (-1e30, math.exp(-10))]:
        raw[2] = given
        change = likelihood(raw).mean / usual
        torch.testing.assert_close(
            change[2] / change[:2], torch.full((2,), factor), rtol=1e-6, atol=0
        )


@pytest.mark.usefixtures("double")
def test_gradients_are_those_of_finite_differences() -> None:
    likelihood, x = NegativeBinomial(COLUMNS), torch.tensor([[0.0, 3.0, 40.0, 1.0]])
    raw = torch.randn(1, 4, 1, requires_grad=True)
    parameter = likelihood.log_shape

    def log_p(raw: Tensor, _: Tensor) -> Tensor:
        return likelihood(raw).log_prob(x)

    assert torch.autograd.gradcheck(log_p, (raw, parameter))


@pytest.mark.usefixtures("double")
def test_draws_have_the_mean_and_the_variance_of_the_theory() -> None:
    likelihood, number = NegativeBinomial(COLUMNS, total=50.0), 40_000
    with torch.no_grad():
        likelihood.log_shape.copy_(torch.tensor([0.0, 0.7, 1.4, 2.0]))
        p = likelihood(torch.randn(4, 1))
        x = p.rsample((number,))
        mean, r = p.mean, p.log_shape.exp()
    assert mean.sum().item() == pytest.approx(50)
    assert (x == x.round()).all()
    assert_moments(x, mean, mean + mean.square() / r)


def assert_moments(x: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Of draws (N, X): within ``FAR`` standard errors, that of the variance as the draws tell."""
    number = len(x)
    assert ((x.mean(0) - mean).abs() < FAR * (variance / number).sqrt()).all()
    squares = (x - mean).square()
    assert ((squares.mean(0) - variance).abs() < FAR * squares.std(0) / math.sqrt(number)).all()


@pytest.mark.usefixtures("double")
def test_a_draws_gradient_is_its_means() -> None:
    raw = torch.randn(4, 1, requires_grad=True)
    p, weights = NegativeBinomial(COLUMNS)(raw), torch.randn(4)
    (drawn,) = torch.autograd.grad((p.rsample() * weights).sum(), raw, retain_graph=True)
    (wanted,) = torch.autograd.grad((p.mean * weights).sum(), raw)
    torch.testing.assert_close(drawn, wanted)


@pytest.mark.usefixtures("double")
def test_an_expanded_distribution_is_the_same_for_each() -> None:
    p, x = described(1), torch.poisson(torch.full((3, 5), 4.0))
    expanded = p.expand(torch.Size([3]))
    assert expanded.shape() == (3, 5)
    torch.testing.assert_close(expanded.log_prob(x), p.log_prob(x))


def test_what_is_no_count_is_not_in_the_support() -> None:
    p = described()
    for value in (-1.0, 0.5, math.nan):
        assert not p.support.check(torch.full((5,), value))
    with pyro.validation_enabled(), pytest.raises(ValueError, match="support"):
        described().log_prob(torch.full((3, 5), 0.5))


@pytest.mark.usefixtures("double")
def test_the_usual_total_is_the_mean_of_the_training_split() -> None:
    """Of log-normal columns exactly; of real cells, whose zeros are more, within 2 per cent."""
    normal = np.random.default_rng(0).normal([1.0, 3.0], [0.5, 0.8], (1_000_000, 2))
    columns = [Column(str(n), "count", (), normal[:, n].mean(), normal[:, n].std()) for n in (0, 1)]
    np.testing.assert_allclose(usual_counts(columns), np.expm1(normal).mean(0), rtol=1e-2)
    data = Counts(str(CELLS)).read()
    total = NegativeBinomial(data.facts.columns)(torch.zeros(200, 1)).mean.sum()
    assert total.item() == pytest.approx(data.train.pixels.sum(1).mean().item(), rel=0.02)


@pytest.mark.parametrize("make", [NegativeBinomial, Scaled])
@pytest.mark.parametrize("columns", [[], [*COLUMNS, Column("age", "real")]])
def test_columns_that_are_no_counts_are_refused(make: Any, columns: list[Column]) -> None:
    with pytest.raises(ValueError, match=r"needs columns of counts, which --reader examples"):
        make(columns)


# The encoder and the view.


@pytest.mark.usefixtures("double")
def test_the_encoder_sees_shares_alone() -> None:
    encoder = Scaled(COLUMNS, hidden=[6]).eval()
    x = torch.poisson(torch.full((7, 4), 5.0)) + 1
    torch.testing.assert_close(encoder(3 * x), encoder(x))
    assert not torch.allclose(encoder(x.flip(-1)), encoder(x))
    odd = torch.tensor([[0.0, 0.0, 0.0, 0.0], [-2.0, math.nan, 3.0, 1e6]])
    assert encoder(odd).isfinite().all()


@pytest.mark.usefixtures("double")
def test_thinned_counts_are_binomial() -> None:
    counts = torch.tensor([0.0, 1.0, 40.0, 1e6])
    view = Thinned(0.3)(counts.expand(20_000, 4), None)
    assert (view == view.round()).all()
    assert ((view >= 0) & (view <= counts)).all()
    assert_moments(view[:, 1:], 0.3 * counts[1:], 0.3 * 0.7 * counts[1:])


@pytest.mark.usefixtures("double")
def test_a_thinned_draw_is_a_draw_of_the_thinned_total() -> None:
    p = described(batch=1)
    mean, r = 0.25 * p.mean.squeeze(0), p.log_shape.exp()
    thinned = Thinned(0.25)(p.rsample((40_000,)).squeeze(1), None)
    assert_moments(thinned, mean, mean + mean.square() / r)


def test_shares_of_all_and_nothing() -> None:
    x = torch.poisson(torch.full((5, 4), 7.0))
    assert torch.equal(Thinned(1.0)(x, None), x)
    assert not Thinned(0.0)(x, None).any()
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share must be a share from 0 to 1"):
            Thinned(share)


# The reader.


def test_the_cells_that_come_with_the_example() -> None:
    data = Counts(str(CELLS)).read()
    assert (len(data.train), len(data.test), data.facts.features) == (1550, 387, 200)
    assert len(data.facts.classes) == 14
    assert {"INS", "GCG", "SST"} <= {column.name for column in data.facts.columns}
    beta = data.train.labels == data.facts.classes.index("beta")
    insulin = data.train.pixels[:, [column.name for column in data.facts.columns].index("INS")]
    assert insulin[beta].median() > 10 * insulin[~beta].median()


def table(tmp_path: Path, name: str = "counts.csv", **columns: Any) -> str:
    """A table of 30 rows in which b varies more than a, and d not at all."""
    n = np.arange(30)
    given = {"kind": np.where(n % 2, "odd", "even"), "a": 5 + n % 2, "b": 1 + n % 2 * 40}
    frame = pd.DataFrame(given | {"c": 60 - n % 3, "d": n * 0} | columns)
    path = tmp_path / name
    frame.to_csv(path, sep="\t" if name.endswith("tsv") else ",", index=name.endswith("tsv"))
    return str(path)


@pytest.mark.parametrize("name", ["counts.csv", "counts.tsv"])
def test_a_table_with_labels(tmp_path: Path, name: str) -> None:
    path = table(tmp_path, name)
    data = Counts(path, data_label="kind").read()
    assert [column.name for column in data.facts.columns] == ["a", "b", "c"]
    assert data.facts.classes == ("even", "odd")
    assert (data.train.labels.numpy() == (data.train.pixels[:, 0] == 6).numpy()).all()
    assert [len(data.train), len(data.test)] == [24, 6]
    again = Counts(path, data_label="kind").again(data.facts).split.pixels
    assert torch.equal(again[:2], torch.tensor([[5.0, 1.0, 60.0], [6.0, 41.0, 59.0]]))


def test_the_features_that_vary_most_in_the_training_split_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    draw = np.random.default_rng(0).poisson
    x, names = draw([30, 30, 30, 1000], (50, 4)), np.array(["still", "moves", "leaps", "most"])
    x[::2, 1] += 60
    x[::3, 2] += 300
    test = x[:9].copy()
    test[::2, 0] += 10_000  # varies in the test split alone
    np.savez(path, x_train=x, x_test=test, names=names)
    for number, kept in [(1, ["leaps"]), (2, ["moves", "leaps"]), (0, list(names))]:
        data = Counts(str(path), n_features=number).read()
        assert [column.name for column in data.facts.columns] == kept
        assert (len(data.train), len(data.test), data.test.labelled) == (50, 9, False)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"b": -1}, "holds -1 in row 0, column 'b'; give raw counts, whole numbers up to 16,777"),
        ({"b": 0.5}, "holds 0.5 in row 0, column 'b'; give raw counts"),
        ({"b": 1e9}, "holds 1000000000.0 in row 0, column 'b'; give raw counts"),
        ({"b": np.nan}, "holds nan in row 0, column 'b'; give raw counts"),
        ({"e": "many"}, "holds many in row 0, column 'e'; give raw counts"),
        ({"a": 0, "b": 0, "c": np.arange(30)}, "counts nothing in row 0; leave it out"),
    ],
)
def test_what_are_no_counts_is_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    path = table(tmp_path, **columns)
    with pytest.raises(pic.UserError) as caught:
        Counts(path, data_label="kind").read()
    assert str(caught.value).startswith(f"--data: '{path}' ")
    assert said in str(caught.value)


def test_labels_that_are_not_said_or_not_there_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path)
    with pytest.raises(pic.UserError, match=r"holds even in row 0, column 'kind'.*--data_label"):
        Counts(path).read()
    Path(path).write_text(Path(path).read_text().replace("kind", "0").replace("even", "2"))
    Path(path).write_text(Path(path).read_text().replace("odd", "3"))
    with pytest.raises(pic.UserError, match=r"sort: '.*' has no such column; there are 0, a, b"):
        Counts(path, data_label="sort").read()
    with pytest.raises(ValueError, match="n_features must be at least 0, not -1"):
        Counts(path, n_features=-1)


# anndata asks pandas for what it deprecates.
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")
@pytest.mark.parametrize("sparse", [True, False])
def test_annotated_data(tmp_path: Path, sparse: bool) -> None:
    anndata = pytest.importorskip("anndata")
    from scipy.sparse import csr_matrix

    x = np.random.default_rng(0).poisson(2.0, (30, 5)).astype(np.float32) + np.eye(30, 5)
    held = anndata.AnnData(csr_matrix(x) if sparse else x)
    held.obs["kind"] = pd.Categorical(["b", "a"] * 15)
    held.obs_names, path = [f"cell{n}" for n in range(30)], tmp_path / "cells.h5ad"
    # Of pandas 3 every word is what anndata writes only where it is told to.
    with anndata.settings.override(allow_write_nullable_strings=True):
        held.write_h5ad(path)
        halves = tmp_path / "halves.h5ad"
        held.X = held.X * 0.5
        held.write_h5ad(halves)
    data = Counts(str(path), data_label="kind").read()
    assert data.facts.classes == ("a", "b")
    again = Counts(str(path), data_label="kind").again(data.facts)
    assert again.names[:2] == ["cell0", "cell1"]
    np.testing.assert_array_equal(again.split.pixels, x)
    with pytest.raises(pic.UserError, match="give raw counts"):
        Counts(str(halves)).read()


def test_annotated_data_without_anndata_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    (tmp_path / "cells.h5ad").touch()
    with pytest.raises(pic.UserError, match="import of anndata halted") as caught:
        pic.check_parts(str(tmp_path / "cells.h5ad"), preset=ROOT / "examples/counts.yaml")
    assert "\n" not in str(caught.value)


# Whole runs.


@pytest.mark.slow
def test_a_run_of_which_flags_name_every_part(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--reader", "examples.counts.Counts", "--data", str(CELLS), "--reader.n_features"]
    flags += ["50", "--likelihood", "examples.counts.NegativeBinomial", "--encoder.hidden", "[32]"]
    flags += ["--encoder", "examples.counts.Scaled", "--view", "examples.counts.Thinned"]
    flags += ["--prior.categories", "6", "--epochs", "3", "--nll_samples", "2", "--out", str(out)]
    process = start(*flags, "--device", "cpu")
    said, error = process.communicate()
    assert process.returncode == 0, error
    assert "200 columns" not in said
    assert json.loads((out / "metrics.json").read_text())["clusters_used"] >= 2


@pytest.mark.slow
def test_what_the_document_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    judge_little(monkeypatch)
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    with torch.random.fork_rng(devices=[]):
        for language, code in blocks("docs/counts.md"):
            if language == "python":
                exec(compile(code, "docs/counts.md", "exec"), {})
            for line in code.splitlines() if language == "bash" else ():
                assert execute(line, tmp_path) == 0, line
    pyro.enable_validation(True)
    pyro.clear_param_store()
    metrics = json.loads((tmp_path / "runs/cells/metrics.json").read_text())
    assert metrics["clusters_used"] >= 2
