"""Rivals as rows of the benchmark's table."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from benchmarks import rivals
from pyro_infocat import benchmark
from pyro_infocat.data import DataSet, load
from pyro_infocat.data.readers import digits
from pyro_infocat.evaluation import judge
from pyro_infocat.evaluation.clustering import clustering
from pyro_infocat.version import made_by
from tests.brief import judge_little
from tests.tiny import write_tiny_mnist

K_MEANS, MIXTURE = "k-means", "autoencoder + Gaussian mixture"
FILES = {K_MEANS: "rival-k-means-mnist", MIXTURE: "rival-autoencoder-Gaussian-mixture-mnist"}


@pytest.fixture(autouse=True)
def brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with small archives, small settings and a classifier that learns less."""
    monkeypatch.chdir(tmp_path)
    write_tiny_mnist(tmp_path / "data")
    small = {"hidden": (32, 8, 32), "passes": 2, "examples": 1, "starts": 1}
    monkeypatch.setitem(rivals.SETTINGS, MIXTURE, rivals.SETTINGS[MIXTURE] | small)
    judge_little(monkeypatch)


@pytest.fixture
def tiny() -> DataSet:
    return load("mnist", Path("data"))


def compare(*arguments: str) -> int:
    return rivals.main(["--data", "mnist", "--results", "results", *arguments])


def record(rival: str) -> dict[str, Any]:
    return json.loads(Path("results", f"{FILES[rival]}.json").read_text())


# Rows.


@pytest.mark.slow
def test_rivals_become_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--seeds", "1", "0") == 0
    table = capsys.readouterr().out
    assert table == benchmark.table(Path("results")) + "\n"
    assert sorted(path.stem for path in Path("results").iterdir()) == sorted(FILES.values())
    for rival, line in zip((MIXTURE, K_MEANS), table.splitlines()[2:], strict=True):
        found = record(rival)
        assert list(found) == ["name", "preset", "flags", "runs"]
        assert found["name"] == f"{rival} on MNIST"
        assert [run["seed"] for run in found["runs"]] == [0, 1]
        for run in found["runs"]:
            assert 0.1 <= run["accuracy"] <= run["purity"] <= 1
            assert run["train_seconds"] > 0
            assert set(run["versions"]) == {"python", "numpy", "sklearn"}
            assert run["made_by"] == made_by()
            assert set(run["made_by"]) == {"version", "commit", "clean"}
        row = dict(zip(benchmark.COLUMNS, line.strip("| ").split(" | ")[2:], strict=True))
        absent = {name for name, cell in row.items() if cell == benchmark.NOTHING}
        of_generated = {"generation_accuracy", "gan_train", "kid"}
        assert absent == {"elbo", "nll"} | (of_generated if rival == K_MEANS else set())


def test_finished_seeds_are_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(rival: str, data: DataSet, seed: int) -> dict[str, Any]:
        asked.append(seed)
        if seed == 2:
            raise KeyboardInterrupt
        return {"seed": seed} | dict.fromkeys(benchmark.COLUMNS, 0.5)

    monkeypatch.setattr(rivals, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        compare("--only", K_MEANS, "--seeds", "3", "2", "1")
    assert [run["seed"] for run in record(K_MEANS)["runs"]] == [3]
    assert compare("--only", K_MEANS, "--seeds", "3", "1", "0") == 0
    assert asked == [3, 2, 1, 0]
    assert [run["seed"] for run in record(K_MEANS)["runs"]] == [0, 1, 3]
    assert not Path("results", f"{FILES[MIXTURE]}.json").exists()


@pytest.mark.parametrize("rival", [K_MEANS, pytest.param(MIXTURE, marks=pytest.mark.slow)])
def test_a_seed_repeats_and_no_label_trains(rival: str, tiny: DataSet) -> None:
    first = rivals.measure(rival, tiny, 0)
    torch.rand(1)
    again = rivals.measure(rival, tiny, 0)
    assert first | {"train_seconds": 0} == again | {"train_seconds": 0}
    blind = replace(tiny, train=replace(tiny.train, labels=tiny.train.labels.flip(0)))
    untaught = rivals.measure(rival, blind, 0)
    for name in ("accuracy", "purity", "nmi", "ari"):
        assert untaught[name] == first[name]


@pytest.mark.slow
def test_seeds_differ(tiny: DataSet) -> None:
    assert rivals.measure(MIXTURE, tiny, 0)["nmi"] != rivals.measure(MIXTURE, tiny, 1)["nmi"]


# What they find.


def test_k_means_is_that_of_scikit_learn() -> None:
    data = digits()
    found = rivals.measure(K_MEANS, data, 3)
    train, test = (np.float32(split.pixels.numpy() / 16) for split in (data.train, data.test))
    categories = KMeans(10, n_init=10, random_state=3).fit(train).predict(test)
    theirs = clustering(data.test.labels.numpy(), categories, 10)
    assert {name: found[name] for name in theirs} == theirs
    assert found["accuracy"] > 0.7


@pytest.mark.slow
def test_a_mixture_finds_digits_and_generates_them(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden": (64, 10, 64), "passes": 200, "starts": 2}
    monkeypatch.setitem(rivals.SETTINGS, MIXTURE, rivals.SETTINGS[MIXTURE] | small)
    monkeypatch.setattr(judge, "EXAMPLES", 10_000)
    found = rivals.measure(MIXTURE, digits(), 0)
    assert found["accuracy"] > 0.6
    assert found["generation_accuracy"] > 0.6
    assert found["generation_accuracy_classifier"] > 0.8


def test_layers_one_after_the_other_are_the_network(tiny: DataSet) -> None:
    x = tiny.train.grey()
    network = MLPRegressor(hidden_layer_sizes=(9, 4, 9), max_iter=2)
    with pytest.warns(ConvergenceWarning):
        network.fit(x.numpy(), x.numpy())
    code = rivals.codes(network, x)
    assert code.shape == (len(x), 4)
    images = rivals.through(network, torch.from_numpy(code), 2, 4)
    np.testing.assert_allclose(images.numpy(), network.predict(x.numpy()), atol=1e-5)


# The command line.


def test_help_shows_what_is_run_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        rivals.main(["--help"])
    assert stopped.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--data digits|mnist|fashion-mnist ... data sets (default: ['digits', 'mnist'," in told
    assert "--seeds N ... of the runs (default: [0, 1, 2, 3, 4])" in told


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Give the command what it must refuse; returns the error without ``error:``."""

    def refuse(*arguments: str) -> str:
        assert compare(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error.removeprefix("error: ").strip()

    return refuse


DATA = "'digits', 'mnist', 'fashion-mnist'"
NAMES = "'k-means', 'autoencoder + Gaussian mixture'"

WRONG = {
    "negative seed": (["--seeds", "0", "-1"], "--seeds -1: must be at least 0"),
    "large seed": (["--seeds", str(2**32)], "--seeds 4294967296: must be at most 4294967295"),
    "seed in words": (["--seeds", "x"], "--seeds: expected a whole number, not 'x'"),
    "no data": (["--data"], "--data: a value is missing; see --help"),
    "other data": (["--data", "letters"], f"--data: expected one of {DATA}, not 'letters'"),
    "other rival": (["--only", "DBSCAN"], f"--only: expected one of {NAMES}, not 'DBSCAN'"),
    "unknown flag": (["--epochs", "3"], "no such flag: --epochs 3; see --help"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument(arguments: list[str], said: str, refuse: Refuse) -> None:
    assert refuse(*arguments) == said
    assert not Path("results").exists()


def test_a_place_that_cannot_be_written(refuse: Refuse) -> None:
    Path("file").write_text("mine")
    error = refuse("--seeds", "0", "--results", "file")
    assert error == (
        "cannot read or write 'file' (File exists); make room, or choose another --results"
    )


def test_runs_of_other_settings_are_not_counted(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare("--only", K_MEANS, "--seeds", "0") == 0
    before = record(K_MEANS)
    monkeypatch.setitem(rivals.SETTINGS, K_MEANS, {"starts": 2})
    error = refuse("--only", K_MEANS, "--seeds", "1")
    file = Path("results", f"{FILES[K_MEANS]}.json")
    assert error == f"--results: '{file}' holds runs of other settings; delete it"
    assert record(K_MEANS) == before
