"""Ways to train: terms without weight, programs, early stopping, small last batches, data."""

import os
from pathlib import Path

import pytest
import torch

from pyro_infocat.run import main
from pyro_infocat.training.feed import batches
from tests.brief import SMALL
from tests.runs import METRIC_KEYS, history, metrics
from tests.tiny import write_tiny_mnist

pytestmark = pytest.mark.usefixtures("brief")


def test_without_the_information_layer() -> None:
    assert main([*SMALL, "--epochs", "1", "--information_weight", "0", "--out", "out"]) == 0
    (row,) = history("out")
    # It is measured all the same.
    assert row["information_bound"] <= 2.31
    assert metrics("out")["information_bound"] <= 2.31


@pytest.mark.slow
@pytest.mark.parametrize("decoded", [["--decoded", "0"], ["--decoded", "2"]])
def test_a_program_of_ones_own_is_said_to_go_through_pyro(
    decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = "tests.users_parts.guide_program.Mine"
    flags = [*SMALL, "--epochs", "1", *decoded]
    assert main([*flags, "--guide", path, "--out", "mine"]) == 0
    said = f"--guide {path}: a Pyro program of its own, so the bound goes through Pyro, more slowly"
    if decoded[1] != "0":
        said += "; --decoded does not apply"
    assert capsys.readouterr().out.splitlines().count(said) == 1
    assert main([*flags, "--out", "ours"]) == 0
    assert "through Pyro" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_last_batch_of_one_joins_the_one_before() -> None:
    """Batch normalisation has no variance of one example: 1,297 are 81 batches of 16 and one."""
    flags = ["--encoder.norm", "true", "--batch_size", "16", "--epochs", "1", "--nll_samples", "2"]
    assert main([*flags, "--device", "cpu", "--out", "out"]) == 0


@pytest.mark.parametrize(("number", "sizes"), [(6, [3, 3]), (7, [3, 4]), (8, [3, 3, 2]), (2, [2])])
def test_batches(number: int, sizes: list[int]) -> None:
    parts = batches(torch.arange(number), 3)
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(number))


@pytest.mark.slow
def test_patience_begins_with_the_bound() -> None:
    late = "reconstruction: [[3, 0], [4, 1]], kl_z: [[3, 0], [4, 1]], kl_c: [[3, 0], [4, 1]]"
    flags = ["--epochs", "7", "--patience", "1", "--schedules", f"{{{late}}}"]
    assert main([*SMALL, *flags, "--out", "out"]) == 0
    rows = history(Path("out"))
    assert len(rows) > 4
    assert ["validation_elbo" in row for row in rows[:5]] == [False] * 4 + [True]


def test_early_stopping_stops(capsys: pytest.CaptureFixture[str]) -> None:
    # So small a rate changes no parameter: no epoch is better than the first. Batch normalisation
    # would learn all the same.
    flags = ["--encoder.norm", "false"]
    flags += ["--learning_rate", "1e-30", "--patience", "2", "--epochs", "9"]
    assert main([*SMALL, *flags, "--out", "out"]) == 0
    assert metrics("out")["epochs"] == 3
    assert "stopped after epoch 3: 2 without a better bound" in capsys.readouterr().out
    bounds = [row["validation_elbo"] for row in history("out")]
    assert len(bounds) == 3
    assert len(set(bounds)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_images_of_the_real_format(name: str, tmp_path: Path) -> None:
    write_tiny_mnist(tmp_path / "archives")
    flags = ["--data", name, "--data_root", "archives", "--epochs", "1", "--nll_samples", "2"]
    # The preset's own networks are for more than 200 images.
    small = ["--encoder", "guides.encoders.MLP", "--decoder", "models.decoders.MLP"]
    assert main([*flags, *small, "--device", "cpu"]) == 0
    assert set(metrics(f"runs/{name}/seed0")) == METRIC_KEYS


def test_threads_that_wait_spin_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody has said how long."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert main(["--epochs", "0"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == "5"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert main(["--epochs", "0"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
