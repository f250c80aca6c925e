"""The scikit-learn estimator with a few labels: which y it looks at, and what categories mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs

from pyro_infocat import InfoCatVAE

SMALL = {"encoder.hidden": [16], "decoder.hidden": [16], "device": "cpu"}


def small(**changes: Any) -> InfoCatVAE:
    given: dict[str, Any] = {"n_categories": 3, "epochs": 2, "settings": SMALL}
    return InfoCatVAE(**(given | changes))


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Three, far apart, of one size."""
    return make_blobs(150, 4, centers=3, cluster_std=0.5, random_state=0)


def few(labels: np.ndarray, unknown: Any, kind: type = object, number: int = 12) -> np.ndarray:
    """The first labels alone."""
    y = labels.astype(kind)
    y[number:] = unknown
    return y


def accuracy(model: InfoCatVAE, x: Any, labels: np.ndarray) -> float:
    return float((model.classes_[model.predict(x)] == labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize("unknown", [-1, np.nan, None])
def test_a_category_is_the_label_of_its_number(
    unknown: Any, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    """Whichever way the clusters are numbered."""
    x, labels = blobs
    turned = (labels + 1) % 3
    for y in (labels, turned):
        kind = {-1: int, None: object}.get(unknown, float)
        model = small(epochs=60).fit(x, few(y, unknown, kind))
        assert model.classes_.tolist() == [0, 1, 2]
        assert accuracy(model, x, y) > 0.95
        assert (model.labels_ == y).mean() > 0.95
        assert model.history_[-1]["labels"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("unknown", ["", None, -1])
def test_words_are_labels(unknown: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = blobs
    words = np.array(["zebra", "ant", "mole"])[labels]
    model = small(epochs=60).fit(pd.DataFrame(x, columns=list("abcd")), few(words, unknown))
    assert model.classes_.tolist() == ["ant", "mole", "zebra"]
    assert accuracy(model, pd.DataFrame(x, columns=list("abcd")), words) > 0.95
    assert model.run_.facts.classes == ("ant", "mole", "zebra")


@pytest.mark.slow
def test_a_number_without_a_label_is_a_free_category(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    """Label 1 is never given: its category is what no label takes."""
    x, labels = blobs
    y = np.where(labels == 1, -1, few(labels, -1, int, 60))
    model = small(epochs=60).fit(x, y)
    assert model.classes_.tolist() == [0, 1, 2]
    assert (model.predict(x) == labels).mean() > 0.95


def test_large_numbers_are_in_their_order(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = blobs
    model = small().fit(x, few(labels * 100 + 5, -1, int))
    assert model.classes_.tolist() == [5, 105, 205]


def test_images_have_labels_too() -> None:
    bunch = load_digits()
    x, labels = bunch.images[:120] / 16, bunch.target[:120]
    model = small(n_categories=10).fit(x, few(labels, -1, int, 40))
    assert model.classes_.tolist() == list(range(10))
    assert model.run_.settings.known_labels == "all"
    assert "labels" in model.history_[0]


@pytest.mark.parametrize("y", [None, "all", "none"])
def test_other_y_are_not_looked_at(y: Any, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """Those of which each is known, or none."""
    x, labels = blobs
    given = {None: None, "all": labels, "none": np.full(150, -1)}[y]
    model = small().fit(x, few(labels, -1, int)).fit(x, given)
    assert not hasattr(model, "classes_")
    assert "labels" not in model.history_[0]
    assert np.array_equal(model.predict_proba(x), small().fit(x).predict_proba(x))


def test_a_clone_learns_the_same(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = blobs
    y = few(labels, -1, int)
    model = small().fit(x, y)
    assert np.array_equal(clone(model).fit(x, y).predict_proba(x), model.predict_proba(x))


WRONG = {
    "short": ([0, -1], r"y has shape \(2,\); give \(150,\)"),
    "fractions": ([0.5, np.nan] * 75, "y holds float64; give whole numbers or words, and -1 for"),
    "many": ([0, 1, 2, 3, -1] * 30, "y has labels of 4 classes; n_categories=3 is fewer"),
}


@pytest.mark.parametrize(("y", "said"), WRONG.values(), ids=WRONG)
def test_labels_that_do_not_fit(y: list, said: str, blobs: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=said):
        small().fit(blobs[0], y)


def test_labels_that_pandas_misses_and_labels_of_a_loaded_estimator(
    tmp_path: Path, blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    x, labels = blobs
    words = pd.Series(np.array(["zebra", "ant", "mole"])[labels], dtype="string")
    words[12:] = pd.NA
    for y, classes in ((words, ["ant", "mole", "zebra"]), (few(labels, -1, int), [0, 1, 2])):
        model = small().fit(x, y)
        assert model.classes_.tolist() == classes
        place = tmp_path / str(classes[0])
        model.save(place)
        assert InfoCatVAE.load(place).classes_.tolist() == classes


def test_an_infinite_label_is_none() -> None:
    with pytest.raises(ValueError, match="y holds float64; give whole numbers or words, and -1"):
        small().fit(np.random.default_rng(0).random((4, 3)), [0, 1, np.inf, np.nan])
