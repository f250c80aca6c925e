"""What a run leaves behind."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import pyro
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pyro_infocat.report.board import PROJECTOR, PROJECTOR_CONFIG
from pyro_infocat.report.page import REPORT
from pyro_infocat.run import main
from pyro_infocat.settings import (
    CHECKPOINT,
    CONFIG,
    HISTORY,
    MADE_BY,
    METRICS,
    STARTS,
    TEST_CATEGORIES,
)
from pyro_infocat.storage.folder import LOCK
from pyro_infocat.version import made_by
from tests.runs import METRIC_KEYS, SHARES, history, metrics, parse

pytestmark = pytest.mark.usefixtures("alone")

FIGURES = {
    "conditional_samples",
    "interpolation",
    "subspace_walk",
    "reconstructions",
    "style",
    "blocks",
    "confusion",
    "latent",
    "training",
}
TERMS = {
    "elbo",
    "reconstruction",
    "kl_z",
    "kl_c",
    "information_bound",
    "marginal_entropy",
    "conditional_entropy",
    "consistency",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run: the default in two epochs, of which its starts have the first."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    flags = ["--epochs", "2", "--start_epochs", "1"]
    flags += ["--nll_samples", "3", "--device", "cpu", "--out", str(folder)]
    assert main(flags) == 0
    return folder


def test_the_folder_is_complete(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    # The curves of the start that went on and of training, and what was seen at its end.
    assert len(events) == 3
    # The last is an empty one, which a second command would wait at.
    assert names - events == {
        *(CONFIG, METRICS, HISTORY, CHECKPOINT, TEST_CATEGORIES, "figures", REPORT),
        *(PROJECTOR, PROJECTOR_CONFIG, LOCK, STARTS),
    }
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"{name}.png" for name in FIGURES
    }
    for path in (finished / "figures").iterdir():
        with Image.open(path) as image:
            image.verify()


def test_the_report_is_of_this_run(finished: Path) -> None:
    text = (finished / REPORT).read_text()
    assert f"{metrics(finished)['accuracy']:.1%}" in text
    assert text.count("<article") == 10
    # Every figure and 10 categories of 15 examples at most with what is drawn at their centres.
    assert len(FIGURES) + 10 < text.count("<img") <= len(FIGURES) + 10 * 16


def test_metrics_hold_the_contract(finished: Path) -> None:
    found = metrics(finished)
    assert set(found) == METRIC_KEYS
    for name in SHARES:
        assert isinstance(found[name], float)
        assert 0 <= found[name] <= 1
    assert -0.5 <= found["ari"] <= 1
    assert found["accuracy"] <= found["purity"]
    assert isinstance(found["clusters_used"], int)
    assert 1 <= found["clusters_used"] <= 10
    # A multilayer perceptron on the digits; an untrained one has 0.1.
    assert found["generation_accuracy_classifier"] > 0.9
    assert found["elbo"] == pytest.approx(
        found["reconstruction"] - found["kl_z"] - found["kl_c"], abs=1e-9
    )
    # The bound with three samples is the tighter one, by far more than its noise here.
    assert -found["nll"] > found["elbo"]
    assert found["kl_z"] > 0
    assert 0 <= found["kl_c"] <= 2.31
    assert found["information_bound"] <= 2.31
    assert found["nll_samples"] == 3
    assert found["epochs"] == 2
    assert found["seed"] == 0
    assert found["device"] == "cpu"
    assert found["train_seconds"] > 0
    assert found["examples_per_second"] == pytest.approx(2 * 1297 / found["train_seconds"])
    assert found["versions"] == {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "pyro": pyro.__version__,
    }
    assert found[MADE_BY] == made_by()


def test_history_has_a_line_an_epoch_with_every_term(finished: Path) -> None:
    rows = history(finished)
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert set(row) == TERMS | {"epoch", "seconds", "objective"}
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl_z"] - row["kl_c"])
    assert rows[1]["elbo"] > rows[0]["elbo"]
    total = sum(row["seconds"] for row in rows)
    assert metrics(finished)["train_seconds"] == pytest.approx(total)


def test_tensorboard_reads_the_terms(finished: Path) -> None:
    events = EventAccumulator(str(finished))
    events.Reload()
    watched = {f"categories/{name}" for name in ("used", "least_share", "merged")}
    curves = {name for name in events.Tags()["scalars"] if not name.startswith("metrics/")}
    assert curves == TERMS | {"seconds", "objective"} | watched
    (accuracy,) = events.Scalars("metrics/accuracy")
    assert (accuracy.step, accuracy.value) == (2, pytest.approx(metrics(finished)["accuracy"]))
    rows = history(finished)
    for name in TERMS:
        points = events.Scalars(name)
        assert [point.step for point in points] == [1, 2]
        assert [point.value for point in points] == pytest.approx([row[name] for row in rows])


def test_the_checkpoint_loads_without_pickles(finished: Path) -> None:
    checkpoint = torch.load(finished / CHECKPOINT, weights_only=True)
    assert set(checkpoint) == {
        *("epoch", "model", "guide", "optimizer", "rng", "history"),
        *("facts", "data", "labels", MADE_BY, "rng_of_others"),
    }
    assert checkpoint["epoch"] == 2
    assert checkpoint["history"] == history(finished)
    assert all(isinstance(value, Tensor) for value in checkpoint["model"].values())


def test_the_config_says_everything_and_reads_back(finished: Path) -> None:
    settings, out, resume = parse(["--config", str(finished / CONFIG)])
    written = yaml.safe_load((finished / CONFIG).read_text())
    assert settings.as_dict() | {MADE_BY: made_by()} == written
    assert settings.epochs == 2
    assert settings.prior.init_args["categories"] == 10
    assert settings.guide.init_args == {"hidden": 128, "shared": False}
    assert out == Path("runs/config/seed0")
    assert not resume


@pytest.mark.slow
def test_a_finished_run_resumes_into_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    (again / METRICS).unlink()
    flags = ["--config", str(again / CONFIG), "--out", str(again), "--resume", "true"]
    assert main(flags) == 0
    assert metrics(again) == metrics(finished)
    assert history(again) == history(finished)
