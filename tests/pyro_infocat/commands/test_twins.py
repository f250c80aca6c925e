"""Twins: further seeds of a run, by which its categories are judged."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from pyro_infocat import InfoCatVAE, experiment, load
from pyro_infocat.evaluation.doubts import doubts_of_seeds
from pyro_infocat.evaluation.trust import kept_together
from pyro_infocat.run import main
from pyro_infocat.settings import CHECKPOINT, METRICS, TEST_CATEGORIES
from pyro_infocat.storage.folder import RunFolder
from tests.brief import SMALL
from tests.runs import history, metrics, timeless

pytestmark = pytest.mark.usefixtures("brief")

FLAGS = [*SMALL, "--epochs", "2"]


def categories(folder: str) -> np.ndarray:
    """What a run, read back, makes of the test split."""
    run = load(folder)
    split = experiment.read_data(run.settings).test
    return run.categorise(split.grey())


def test_twins_are_runs_of_the_seeds_that_follow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--seed", "3", "--twins", "2", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in Path("out/twins").iterdir()) == ["seed4", "seed5"]
    assert main([*FLAGS, "--seed", "4", "--out", "alone"]) == 0
    twin, alone = ([timeless(row) for row in history(f)] for f in ("out/twins/seed4", "alone"))
    assert twin == alone
    assert not Path("out/twins/seed4", METRICS).exists()
    one, first, second = map(categories, ("out", "out/twins/seed4", "out/twins/seed5"))
    found = metrics("out")
    pairs = [(one, first), (one, second), (first, second)]
    agreed = np.mean([adjusted_rand_score(*pair) for pair in pairs])
    assert found["agreement"] == pytest.approx(agreed)
    together = kept_together(one, [first, second], 10)
    assert found["agreement_of_categories"] == pytest.approx(together)
    doubts = doubts_of_seeds(found["agreement"], 3, together)
    assert found["doubts"][len(found["doubts"]) - len(doubts) :] == doubts
    # The last lines that a run prints.
    assert said.splitlines()[-len(found["doubts"]) :] == [
        f"doubt: {one}" for one in found["doubts"]
    ]
    assert np.load(Path("out", TEST_CATEGORIES)).tolist() == one.tolist()
    assert np.load(Path("out", TEST_CATEGORIES)).dtype == np.uint8


def test_a_run_without_twins_says_nothing_of_seeds() -> None:
    assert main([*FLAGS, "--out", "out"]) == 0
    assert not {"agreement", "agreement_of_categories"} & metrics("out").keys()
    assert not Path("out/twins").exists()


def test_several_processes_train_no_twins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*FLAGS, "--twins", "2", "--out", "out"]) == 2
    assert "--twins" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_stopped_twin_goes_on_and_a_finished_run_gets_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([*FLAGS, "--twins", "2", "--out", "whole"]) == 0
    train = experiment.train

    def stop(settings: object, *others: object, **named: object) -> object:
        if settings.seed == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return train(settings, *others, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", stop)
        assert main([*FLAGS, "--twins", "2", "--out", "out"]) == 130
    assert Path("out/twins/seed1", CHECKPOINT).exists()
    assert not Path("out", METRICS).exists()
    first = Path("out/twins/seed1", CHECKPOINT).read_bytes()
    assert main(["--out", "out", "--resume", "true"]) == 0
    assert Path("out/twins/seed1", CHECKPOINT).read_bytes() == first
    assert timeless(metrics("out")) == timeless(metrics("whole"))
    assert main([*FLAGS, "--out", "later"]) == 0
    assert main(["--out", "later", "--resume", "true", "--twins", "2"]) == 0
    assert timeless(metrics("later")) == timeless(metrics("whole"))


def test_twins_go_on_where_schedules_stand_at_shares(capsys: pytest.CaptureFixture[str]) -> None:
    """Each where its own run of before had them."""
    flags = [*SMALL, "--schedules", "{information_bound: [[0%, 0], [100%, 5]]}", "--out", "out"]
    assert main([*flags, "--epochs", "2", "--twins", "1"]) == 0
    assert main(["--out", "out", "--resume", "true", "--epochs", "4"]) == 0
    held = [RunFolder(Path(place)).settings()[0] for place in ("out", "out/twins/seed1")]
    assert [one.epochs for one in held] == [4, 4]
    assert [one.schedules for one in held] == [{"information_bound": [[0.0, 0.0], [1.0, 5.0]]}] * 2


def test_an_estimator_trains_no_twins() -> None:
    """It evaluates nothing that they could be compared by."""
    model = InfoCatVAE(3, epochs=1, settings={"twins": 1})
    with pytest.raises(ValueError, match=r"^twins: are of a run that is evaluated, and this is"):
        model.fit(np.random.default_rng(0).normal(size=(30, 3)))
