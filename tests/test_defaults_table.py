"""The table of defaults: its arithmetic, its resumption, what it says, and a real run."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris

from benchmarks import defaults, documents
from benchmarks.defaults import METHODS, SETS
from pyro_infocat import benchmark, run
from pyro_infocat.data.table import Table
from pyro_infocat.resolve import preset_of

DASH = benchmark.NOTHING


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*arguments: str) -> int:
    return defaults.main(["--results", "results", *arguments])


def figures(seed: int, accuracy: float = 0.5, **others: Any) -> dict[str, Any]:
    """A run as its process prints it."""
    found = {"seed": seed, "accuracy": accuracy, "nmi": accuracy / 2, "clusters_used": 3}
    return found | {"seconds": 1.5, "versions": {"python": "3"}} | others


def keep(name: str, method: str, *runs: dict[str, Any], failures: tuple[Any, ...] = ()) -> None:
    """The record of runs that were made by the settings of now."""
    Path("results").mkdir(exist_ok=True)
    chosen = defaults.settings(name, method, Path("data"))
    record = {"data": name, "method": method, "settings": chosen}
    record |= {"runs": list(runs), "failures": list(failures)}
    Path("results", f"{name}-{method}.json").write_text(json.dumps(record))


def record(name: str, method: str) -> dict[str, Any]:
    return json.loads(Path("results", f"{name}-{method}.json").read_text())


def row(metric: str, name: str) -> dict[str, str]:
    """The cells of a data set in a metric's table, by the title of their column."""
    _, _, text = defaults.table(Path("results")).partition(f"**{metric}**\n\n")
    lines = text.split("\n\n")[0].splitlines()
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    (cells,) = [cells for cells in split if cells[0] == SETS[name].title]
    return dict(zip(split[0], cells, strict=True))


# The table.


def test_a_row_is_the_mean_the_spread_the_worst_and_what_ours_is_ahead() -> None:
    keep("iris", "ours", *[figures(seed, 0.8 + 0.02 * seed) for seed in range(5)])
    keep("iris", "k-means", *[figures(seed, 0.7) for seed in range(5)])
    keep("iris", "vade", *[figures(seed, (0.9, 0.95, 0.85, 0.9, 0.9)[seed]) for seed in range(5)])
    cells = row("Accuracy", "iris")
    # 0.80 to 0.88 in steps of 0.02: the variance is 0.02^2 * (4 + 1 + 0 + 1 + 4) / 4.
    assert cells["InfoCatVAE"] == "0.840 ± 0.032"
    assert cells["k-means"] == "0.700 ± 0.000"
    assert cells["VaDE"] == "**0.900 ± 0.035**"
    assert cells["DEC"] == DASH
    assert cells["worst of ours"] == "0.800"
    assert cells["ours minus the best rival"] == "-0.060"
    assert cells["ours minus k-means"] == "+0.140"
    shared = row("Normalised mutual information", "iris")
    assert shared["InfoCatVAE"] == "0.420 ± 0.016"
    assert shared["ours minus k-means"] == "+0.070"
    assert row("Categories in use", "iris")["VaDE"] == "3.0 ± 0.0"
    assert row("Seconds of fitting on one core", "iris")["VaDE"] == "2 ± 0"


def test_the_best_is_bold_and_so_is_its_equal() -> None:
    keep("wine", "ours", figures(0, 0.91234))
    keep("wine", "dec", figures(0, 0.91236))
    keep("wine", "idec", figures(0, 0.9119))
    cells = row("Accuracy", "wine")
    assert cells["InfoCatVAE"] == cells["DEC"] == "**0.912 (of 1)**"
    assert cells["IDEC"] == "**0.912 (of 1)**"
    keep("wine", "idec", figures(0, 0.9114))
    assert row("Accuracy", "wine")["IDEC"] == "0.911 (of 1)"
    keep("wine", "ours", figures(0, 0.95))
    assert row("Accuracy", "wine")["ours minus the best rival"] == "+0.038"


def test_what_was_not_run_is_a_dash() -> None:
    keep("iris", "k-means", *[figures(seed, 0.7) for seed in range(3)])
    cells = row("Accuracy", "iris")
    assert cells["k-means"] == "**0.700 ± 0.000 (of 3)**"
    others = {title: cell for title, cell in cells.items() if title not in ("data", "k-means")}
    assert set(others.values()) == {DASH}
    assert set(row("Accuracy", "mnist").values()) == {"MNIST", DASH}


def test_failures_and_versions_are_told_below() -> None:
    keep("iris", "dec", failures=({"seed": 3, "said": "ValueError: no"},))
    made = {"version": "0.2.0", "commit": "a" * 40, "clean": True}
    keep("iris", "ours", figures(0, made_by=made))
    keep("wine", "k-means", figures(0, versions={"python": "4", "numpy": "2"}))
    text = defaults.table(Path("results"))
    assert "\nFailed:\n\n- DEC on iris, seed 3: ValueError: no\n" in text
    last = text.splitlines()[-1]
    assert last == f"Made with InfoCatVAE 0.2.0 ({'a' * 12}), numpy 2, python 3 and 4."


def test_the_page_is_written_from_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path("page.md")
    page.write_text("before\n<!-- defaults: begin -->\n<!-- defaults: end -->\nafter\n")
    monkeypatch.setattr(documents, "documents", lambda: [page])
    monkeypatch.setattr(defaults, "apart", None)
    keep("iris", "k-means", figures(0))
    assert compare("--table") == 0
    table = defaults.table(Path("results"))
    expected = f"before\n<!-- defaults: begin -->\n{table}\n<!-- defaults: end -->\nafter\n"
    assert page.read_text() == expected


# The runs.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What was run, where nothing is: seed 2 fails."""
    those: list[tuple[str, str, int]] = []

    def apart(name: str, method: str, seed: int, root: Path) -> dict[str, Any] | str:
        those.append((name, method, seed))
        return "ValueError: no" if seed == 2 else figures(seed)

    monkeypatch.setattr(defaults, "apart", apart)
    return those


def test_finished_seeds_are_kept_and_failed_ones_tried_again(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--data", "iris", "--methods", "k-means")
    assert compare(*only, "--seeds", "3", "2", "1") == 0
    found = record("iris", "k-means")
    assert [one["seed"] for one in found["runs"]] == [1, 3]
    assert found["failures"] == [{"seed": 2, "said": "ValueError: no"}]
    assert compare(*only, "--seeds", "0", "1", "2", "3") == 0
    assert [seed for _, _, seed in asked] == [3, 2, 1, 0, 2]
    monkeypatch.setattr(defaults, "apart", lambda name, method, seed, root: figures(seed))
    assert compare(*only, "--seeds", "2") == 0
    found = record("iris", "k-means")
    assert [one["seed"] for one in found["runs"]] == [0, 1, 2, 3]
    assert found["failures"] == []


def test_a_run_that_is_stopped_loses_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str, method: str, seed: int, root: Path) -> dict[str, Any]:
        if seed == 1:
            raise KeyboardInterrupt
        return figures(seed)

    monkeypatch.setattr(defaults, "apart", stop)
    with pytest.raises(KeyboardInterrupt):
        compare("--data", "iris", "--methods", "k-means")
    assert [one["seed"] for one in record("iris", "k-means")["runs"]] == [0]


def test_runs_of_other_settings_are_made_anew(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--data", "iris", "--methods", "k-means", "--seeds")
    assert compare(*only, "0", "1") == 0
    fewer = defaults.Method("k-means", defaults.k_means, {"starts": 2})
    monkeypatch.setitem(METHODS, "k-means", fewer)
    assert compare(*only, "0") == 0
    found = record("iris", "k-means")
    assert found["settings"] == {"starts": 2, "rows": "all"}
    assert [one["seed"] for one in found["runs"]] == [0]


def test_our_settings_are_the_preset_and_the_flags() -> None:
    Path("iris.csv").write_text("a,b\n1,2\n")
    wanted = benchmark.recipe(preset_of("iris.csv"), ["--prior.categories", "3"])
    assert defaults.settings("iris", "ours", Path("data")) == {"recipe": wanted}
    assert "models.tables.Mixed" in wanted


def test_a_missing_package_is_one_line(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(defaults.importlib.util, "find_spec", lambda name: None)
    assert compare("--data", "iris", "wine", "--methods", "k-means", "umap-k-means") == 0
    assert {method for _, method, _ in asked} == {"k-means"}
    assert capsys.readouterr().err == (
        "UMAP + k-means is left out: no package umap-learn; "
        "pip install -r requirements-rivals.txt\n"
    )
    assert not Path("results", "iris-umap-k-means.json").exists()


def test_missing_data_are_one_line(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--data", "usps", "iris", "--methods", "k-means", "mixture") == 0
    assert {name for name, _, _ in asked} == {"iris"}
    there = Path("data", "usps.npz")
    assert capsys.readouterr().err == (
        f"USPS is left out: --data_root: there is no '{there}'; place it there, or give another "
        "folder\n"
    )


def test_deep_rivals_of_large_sets_wait_for_all(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults.importlib.util, "find_spec", lambda name: name)
    only = ("--data", "digits", "mnist", "--methods", "k-means", "dec", "--seeds", "0")
    assert compare(*only) == 0
    assert asked == [("digits", "k-means", 0), ("digits", "dec", 0), ("mnist", "k-means", 0)]
    assert compare(*only, "--all") == 0
    assert asked[3:] == [("mnist", "dec", 0)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "-1"], "--seeds -1: must be at least 0"),
        (["--methods", "DBSCAN"], "--methods: expected one of "),
        (["--data", "letters"], "--data: expected one of 'iris', 'wine', "),
        (["--epochs", "3"], "no such flag: --epochs 3; see --help"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


# A process of its own.


def test_a_process_has_one_thread_and_its_failure_is_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = SimpleNamespace(returncode=0, stdout="hello\n" + json.dumps(figures(4)) + "\n")
    given: dict[str, Any] = {}

    def stand_in(command: list[str], env: dict[str, str], **others: Any) -> SimpleNamespace:
        given.update(command=command, env=env)
        return done

    monkeypatch.setattr(subprocess, "run", stand_in)
    assert defaults.apart("iris", "dec", 4, Path("root")) == figures(4)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert given["env"][name] == "1"
    assert given["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert given["command"][:3] == [sys.executable, "-m", "benchmarks.defaults"]
    done.returncode, done.stderr = 2, "a bar\nerror: ValueError: no\n"
    assert defaults.apart("iris", "dec", 4, Path("root")) == "ValueError: no"
    assert capsys.readouterr().err == "DEC on iris, seed 4 failed: ValueError: no\n"
    done.returncode, done.stderr = -9, ""
    assert defaults.apart("iris", "dec", 4, Path("root")) == "signal 9"


def test_whatever_a_rival_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(x: np.ndarray, categories: int, seed: int) -> defaults.Predict:
        raise ZeroDivisionError("of\ntwo lines")

    monkeypatch.setitem(METHODS, "dec", defaults.Method("DEC", broken))
    assert compare("--here", "true", "--data", "iris", "--methods", "dec", "--seeds", "0") == 2
    assert capsys.readouterr().err == "error: ZeroDivisionError: of two lines\n"


@pytest.mark.slow
def test_k_means_on_iris_is_what_it_is_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    """A real run in a process of its own, against the rows and the accuracy written out."""
    assert compare("--data", "iris", "--methods", "k-means", "--seeds", "2") == 0
    (found,) = record("iris", "k-means")["runs"]
    x, labels = load_iris(return_X_y=True)
    x = np.float32((x - x.mean(0)) / x.std(0))
    categories = KMeans(3, n_init=10, random_state=2).fit(x).predict(x)
    accuracy = max(
        np.mean(np.array(names)[categories] == labels) for names in itertools.permutations(range(3))
    )
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["clusters_used"] == 3
    assert found["seed"] == 2
    assert found["seconds"] > 0
    assert set(found["versions"]) == {"python", "numpy", "scikit-learn"}
    assert capsys.readouterr().err == ""


# What the methods are given.


def test_a_table_that_is_written_is_the_one_that_was_loaded(folder: Path) -> None:
    for name in ("iris", "wine", "breast-cancer"):
        data = Table(defaults.placed(name, folder, folder), defaults.LABEL).read()
        assert len(data.facts.classes) == SETS[name].categories
        assert {column.kind for column in data.facts.columns} == {"real"}
        mean, spread = data.train.pixels.double().mean(0), data.train.pixels.double().std(0)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        np.testing.assert_allclose(spread, 1, rtol=0.01)


def test_ours_is_a_run_with_the_categories_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stand_in(argv: list[str]) -> int:
        out = Path(argv[argv.index("--out") + 1])
        out.mkdir()
        kept = dict.fromkeys(("accuracy", "purity", "nmi", "ari", "clusters_used"), 1)
        kept |= {"seed": 7, "versions": {}, "made_by": {}, "train_seconds": 2.5, "nll": 3}
        (out / "metrics.json").write_text(json.dumps(kept))
        given.extend(argv)
        return 0

    given: list[str] = []
    monkeypatch.setattr(run, "main", stand_in)
    found = defaults.measure("digits", "ours", 7, Path("root"))
    assert found["seconds"] == 2.5
    assert "nll" not in found
    assert given == [
        *("--data", "digits", "--data_root", "root", "--prior.categories", "10"),
        *("--seed", "7", "--out", given[-1]),
    ]
    monkeypatch.setattr(run, "main", lambda argv: 2)
    with pytest.raises(SystemExit) as stopped:
        defaults.measure("digits", "ours", 7, Path("root"))
    assert stopped.value.code == 2


def test_ours_on_a_table_is_the_estimator_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Right:
        """Finds the three kinds, in another order."""

        def __init__(self, categories: int, random_state: int) -> None:
            assert (categories, random_state) == (3, 7)

        def fit(self, frame: Any) -> "Right":
            assert frame.shape == (150, 4)
            self.labels_ = np.repeat([2, 0, 1], 50)
            return self

    monkeypatch.setattr("pyro_infocat.InfoCatVAE", Right)
    found = defaults.measure("iris", "ours", 7, Path("root"))
    assert found["accuracy"] == 1
    assert (found["clusters_used"], found["seed"]) == (3, 7)


class Plane:
    """Stands in for UMAP: an embedding that is the two features themselves."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def fit(self, x: np.ndarray) -> "Plane":
        self.embedding_ = x
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        return x


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Plane))


def clouds(random: np.random.Generator) -> np.ndarray:
    """Two far clouds of 100 points, and five points far from all."""
    both = [random.normal(centre, 0.1, (100, 2)) for centre in (0.0, 10.0)]
    return np.concatenate([*both, 100.0 * np.arange(1, 6)[:, None] * np.array([[1.0, -1.0]])])


@pytest.mark.usefixtures("plane")
def test_noise_is_one_more_category() -> None:
    x = clouds(np.random.default_rng(0))
    predict = defaults.umap_hdbscan(x, 9, 0, **METHODS["umap-hdbscan"].settings)
    found = predict(x)
    assert [set(found[:100]), set(found[100:200])] in ([{0}, {1}], [{1}, {0}])
    assert set(found[200:]) == {2}
    new = predict(np.array([[0.1, 0.0], [9.9, 10.0], [310.0, -290.0]]))
    assert list(new) == [found[0], found[100], 2]


@pytest.mark.usefixtures("plane")
def test_an_embedding_is_clustered_by_k_means() -> None:
    x = clouds(np.random.default_rng(1))[:200]
    predict = defaults.umap_k_means(x, 2, 0, **METHODS["umap-k-means"].settings)
    found = predict(x)
    assert set(found[:100]) != set(found[100:])
    assert len(set(found[:100])) == len(set(found[100:])) == 1


@pytest.mark.parametrize(
    ("name", "low", "high"), [("VaDE", 0.0, 1.0), ("DEC", -5.0, 5.0)], ids=["VaDE", "DEC"]
)
def test_only_who_must_gets_numbers_from_0_to_1(
    name: str, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deep(ClusterMixin, BaseEstimator):
        def __init__(self, n_clusters: int, random_state: int) -> None:
            self.n_clusters, self.random_state = n_clusters, random_state

        def fit(self, x: np.ndarray, y: None = None) -> "Deep":
            assert y is None
            seen.append(x)
            self.fitted_ = True
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            seen.append(x)
            return np.zeros(len(x), int)

    seen: list[np.ndarray] = []
    monkeypatch.setitem(sys.modules, "clustpy.deep", SimpleNamespace(**{name: Deep}))
    settings = METHODS[name.lower()].settings
    table = np.array([[-5.0, 0.0], [0.0, 0.25], [5.0, 0.5]], np.float32)
    defaults.clustpy(table, 2, 0, **settings)(np.float32([[9.0, 0.25]]))
    assert (seen[0][:, 0].min(), seen[0][:, 0].max()) == (low, high)
    assert seen[1][0, 0] == (1.0 if name == "VaDE" else 9.0)
    images = np.float32([[0.0, 0.2], [0.5, 0.3]])
    defaults.clustpy(images, 2, 0, **settings)
    np.testing.assert_array_equal(seen[2], images)


@pytest.mark.parametrize("features", [3, 80])
@pytest.mark.parametrize("method", ["mixture", "mixture-diagonal"])
def test_a_mixture_is_of_at_most_fifty_components(features: int, method: str) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, features)) + 20.0 * (np.arange(200) % 2)[:, None]
    predict = defaults.mixture(np.float32(x), 2, 0, **METHODS[method].settings)
    found = predict(np.float32(x))
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    assert found[0] != found[1]
    model = predict.__self__[-1]  # type: ignore[attr-defined]
    assert model.means_.shape == (2, min(features, 50))
    assert model.covariances_.ndim == (3 if method == "mixture" else 2)


def test_every_rival_beyond_the_requirements_is_pinned() -> None:
    pinned = (defaults.ROOT / "requirements-rivals.txt").read_text()
    needed = {package for method in METHODS.values() for package in method.packages.values()}
    assert needed == {"umap-learn", "clustpy"}
    for package in needed:
        assert f"\n{package}==" in pinned
