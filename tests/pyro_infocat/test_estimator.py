"""The scikit-learn estimator: its contract by scikit-learn's own checks, and what it adds."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_infocat
from pyro_infocat import InfoCatVAE, categorise
from pyro_infocat.evaluation.likelihood import importance_weights
from pyro_infocat.settings import CHECKPOINT, CONFIG

SMALL = {"encoder.hidden": [16], "decoder.hidden": [16], "device": "cpu"}


def small(**changes: Any) -> InfoCatVAE:
    given: dict[str, Any] = {"n_categories": 3, "epochs": 2, "settings": SMALL, "nll_samples": 5}
    return InfoCatVAE(**(given | changes))


@parametrize_with_checks([small(epochs=30)])
@pytest.mark.slow
def test_the_contract_of_scikit_learn(estimator: InfoCatVAE, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def iris() -> np.ndarray:
    return load_iris().data


@pytest.fixture(scope="module")
def fitted(iris: np.ndarray) -> InfoCatVAE:
    return small().fit(iris)


@pytest.mark.slow
def test_blobs_are_found() -> None:
    """Far apart, and of one size: any start finds them."""
    x, labels = make_blobs(300, 5, centers=3, cluster_std=0.5, random_state=0)
    model = InfoCatVAE(3, epochs=30).fit(x)
    assert adjusted_rand_score(labels, model.labels_) > 0.95
    assert adjusted_rand_score(labels, model.predict(x)) > 0.95
    far = np.full((1, 5), 40.0)
    assert model.score_samples(far)[0] < model.score_samples(x).min() - 10


def test_what_it_is_asked_agrees(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    q = fitted.predict_proba(iris)
    assert q.shape == (150, 3)
    np.testing.assert_allclose(q.sum(1), 1)
    assert np.array_equal(fitted.predict(iris), q.argmax(1))
    assert np.array_equal(fitted.labels_, fitted.predict(iris))
    z = fitted.transform(iris)
    latent = fitted.run_.model.prior.latent
    assert z.shape == (150, latent)
    assert fitted.get_feature_names_out().tolist() == [f"infocatvae{d}" for d in range(latent)]
    assert fitted.inverse_transform(z).shape == iris.shape
    assert fitted.score(iris) == pytest.approx(fitted.score_samples(iris).mean())
    assert len(fitted.history_) == 2


def test_all_examples_are_trained_on(iris: np.ndarray) -> None:
    """In the table's statistics, which are of the training split, every row counts."""
    columns = small().fit(iris).run_.facts.columns
    np.testing.assert_allclose([one.mean for one in columns], iris.mean(0), rtol=1e-5)


def test_log_p_is_the_importance_weighted_bound(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    """By other draws: 2,000 of them agree to a few hundredths of a nat."""
    model = clone(fitted).set_params(nll_samples=2000)
    model.__dict__ |= {k: v for k, v in vars(fitted).items() if k not in model.get_params()}
    run = fitted.run_
    x = run.examples(iris[:20]).double()
    torch.manual_seed(1)
    with torch.no_grad():
        weights = importance_weights(run.model, run.guide, x, 2000)
    theirs = weights.logsumexp(0) - np.log(2000)
    ours = model.score_samples(iris[:20])
    # The error of a mean of weights w is sd(w) / (sqrt(S) mean(w)), here of two such means.
    share = (weights - weights.logsumexp(0)).exp() * 2000
    errors = share.std(0) / np.sqrt(2000)
    assert (np.abs(ours - theirs.numpy()) < 5 * np.sqrt(2) * errors.numpy()).all()


def test_one_examples_log_p_does_not_depend_on_others(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    whole = fitted.score_samples(iris)
    np.testing.assert_allclose(whole[7:9], fitted.score_samples(iris[7:9]), rtol=1e-9)


def test_a_sample_is_of_the_category_asked_for(fitted: InfoCatVAE) -> None:
    x, c = fitted.sample(40)
    assert x.shape == (40, 4)
    assert set(c) <= {0, 1, 2}
    assert set(fitted.sample(10, category=2)[1]) == {2}
    assert np.array_equal(fitted.sample(5)[0], fitted.sample(5)[0])
    with pytest.raises(ValueError, match="category must be from 0 to 2, not 3"):
        fitted.sample(5, category=3)
    with pytest.raises(ValueError, match="n_samples must be at least 1, not 0"):
        fitted.sample(0)


def test_the_same_seed_gives_the_same_model(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    again, other = clone(fitted).fit(iris), small(random_state=1).fit(iris)
    assert np.array_equal(again.predict_proba(iris), fitted.predict_proba(iris))
    assert not np.allclose(other.predict_proba(iris), fitted.predict_proba(iris))
    one = small(random_state=np.random.RandomState(5)).fit(iris)
    two = small(random_state=np.random.RandomState(5)).fit(iris)
    assert np.array_equal(one.transform(iris), two.transform(iris))


def test_the_global_state_is_as_before(iris: np.ndarray) -> None:
    torch.manual_seed(3)
    before = torch.rand(2)
    torch.manual_seed(3)
    model = small().fit(iris)
    model.score(iris), model.sample(3)
    assert torch.equal(torch.rand(2), before)


def test_a_pickle_predicts_the_same(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(iris), fitted.predict_proba(iris))
    assert np.array_equal(copy.score_samples(iris), fitted.score_samples(iris))


def test_a_data_frame_keeps_its_names_and_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "height": random.normal(size=60),
            "colour": random.choice(["red", "green", "blue"], 60),
            "visits": random.poisson(2, 60),
        }
    )
    frame.loc[3, "height"] = np.nan
    model = small().fit(frame)
    assert model.feature_names_in_.tolist() == ["height", "colour", "visits"]
    assert model.n_features_in_ == 3
    shown, _ = model.sample(4)
    assert list(shown.columns) == ["height", "colour", "visits"]
    assert set(shown["colour"]) <= {"red", "green", "blue"}
    # Drawn, not the mean of what could be: a count is whole.
    many = model.sample(200)[0]
    assert (many["visits"] == many["visits"].round()).all()
    assert many["visits"].nunique() > 1
    assert np.isfinite(model.score_samples(frame)).all()
    model.save("frames")
    back = InfoCatVAE.load("frames")
    assert back.feature_names_in_.tolist() == ["height", "colour", "visits"]
    assert np.array_equal(back.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"height": "tall"}))


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 3, 6, 6)], ids=["grey", "colour"])
def test_images(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random(shape)
    model = small(settings={"device": "cpu"}).fit(images)
    assert model.predict(images).shape == (40,)
    assert model.sample(2)[0].shape == (2, *shape[1:])
    assert model.inverse_transform(model.transform(images)).shape == shape


@pytest.mark.slow
def test_in_a_pipeline_and_a_grid_search(iris: np.ndarray) -> None:
    line = make_pipeline(MinMaxScaler(), small()).fit(iris)
    assert line.predict(iris).shape == (150,)
    search = GridSearchCV(small(), {"n_categories": [2, 3]}, cv=2).fit(iris)
    assert search.best_params_["n_categories"] in (2, 3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_what_is_saved_is_a_run(
    fitted: InfoCatVAE, iris: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "kept")
    assert {CONFIG, CHECKPOINT} <= {path.name for path in (tmp_path / "kept").iterdir()}
    back = InfoCatVAE.load(tmp_path / "kept")
    assert np.array_equal(back.predict(iris), fitted.predict(iris))
    assert np.array_equal(back.score_samples(iris[:3]).shape, (3,))
    run = pyro_infocat.load(tmp_path / "kept")
    np.testing.assert_allclose(run.probabilities(iris), fitted.predict_proba(iris), atol=1e-5)
    np.save(tmp_path / "new.npy", iris)
    assert categorise.main([str(tmp_path / "kept"), str(tmp_path / "new.npy")]) == 0
    assert "150 examples" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds a run already; choose another folder"):
        fitted.save(tmp_path / "kept")
    with pytest.raises(ValueError, match="'none' is not the folder of a run"):
        InfoCatVAE.load("none")


def test_what_is_loaded_takes_the_columns_that_fit_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = np.column_stack([random.normal(size=40), np.full(40, 7.0), random.normal(size=40)])
    for name, table in ("array", x), ("frame", pd.DataFrame(x, columns=["a", "same", "b"])):
        model = small().fit(table)
        model.save(tmp_path / name)
        back = InfoCatVAE.load(tmp_path / name)
        assert np.array_equal(back.predict_proba(table), model.predict_proba(table))
        shown, again = (one.inverse_transform(one.transform(table)) for one in (model, back))
        assert type(shown) is type(again) is type(table)
        assert np.array_equal(shown, again)


def test_log_p_needs_samples(fitted: InfoCatVAE, iris: np.ndarray) -> None:
    none = InfoCatVAE(**fitted.get_params()).set_params(nll_samples=0, epochs=1)
    with pytest.raises(ValueError, match="nll_samples must be at least 1, not 0"):
        none.fit(iris).score(iris)


def test_a_table_of_real_columns_is_begun_several_times(iris: np.ndarray) -> None:
    """Its likelihood has parameters of no numbers, those of counts."""
    model = small(settings=SMALL | {"starts": 2, "start_epochs": 1}).fit(iris)
    assert len(model.history_) == 2


def test_it_is_quiet_unless_it_is_asked(
    iris: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    small().fit(iris)
    assert capsys.readouterr() == ("", "")
    small(verbose=True, settings=SMALL | {"precision": "auto"}).fit(iris)
    said = capsys.readouterr().out
    assert "computing in" in said
    assert "a table of 150 rows: 4 real columns" in said


WRONG = {
    "more categories than examples": (
        {"n_categories": 200},
        "n_samples=150; 200 are needed for 200 categories",
    ),
    "no categories": ({"n_categories": 0}, "categories must be at least 1, not 0"),
    "a preset that is not there": ({"preset": "none"}, "no preset 'none'"),
    "epochs": ({"epochs": 0}, "epochs 0: must be at least 1"),
    "a class": ({"settings": {"prior": "models.priors.None"}}, "models.priors.None"),
    "a setting of its own": ({"settings": {"data_label": "x"}}, "no such column"),
}


@pytest.mark.parametrize(("given", "text"), WRONG.values(), ids=WRONG)
def test_what_is_refused(given: dict[str, Any], text: str, iris: np.ndarray) -> None:
    with pytest.raises(ValueError, match=text) as found:
        small(**given).fit(iris)
    assert "\n" not in str(found.value)


def test_a_setting_that_is_none_is_a_programmers_error(iris: np.ndarray) -> None:
    with pytest.raises(TypeError, match="has no setting 'epoch'; did you mean epochs"):
        small(settings={"epoch": 1}).fit(iris)


def test_z_of_another_width(fitted: InfoCatVAE) -> None:
    with pytest.raises(ValueError, match=r"Z has shape \(1, 2\); give \(N, 6\)"):
        fitted.inverse_transform(np.zeros((1, 2)))


def test_digits_as_images_and_as_the_run_has_them() -> None:
    images = load_digits().images[:100] / 16
    model = small(settings={"device": "cpu"}).fit(images)
    np.testing.assert_allclose(
        model.predict_proba(images), model.run_.probabilities(images), atol=1e-6
    )
