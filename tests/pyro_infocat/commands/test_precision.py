"""The precision that a machine is fast in, and what becomes of the choice."""

from pathlib import Path

import pytest
import torch
import yaml

from pyro_infocat import benchmark, experiment
from pyro_infocat.run import main
from pyro_infocat.runtime import precision
from pyro_infocat.settings import CONFIG, Settings
from pyro_infocat.storage.folder import differences
from tests.brief import SMALL
from tests.runs import history, metrics

AUTO = [*SMALL, "--precision", "auto"]

pytestmark = pytest.mark.usefixtures("brief")


def machine_of(chosen: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(experiment, "fastest", lambda _: (chosen, "so it is here"))


@pytest.mark.parametrize("chosen", precision.PRECISIONS)
def test_a_run_trains_in_the_precision_that_it_says(
    chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_of(chosen, monkeypatch)
    assert main([*AUTO, "--epochs", "1", "--out", "auto"]) == 0
    assert f"computing in {chosen} (--precision auto): so it is here\n" in capsys.readouterr().out
    assert main([*SMALL, "--precision", chosen, "--epochs", "1", "--out", "told"]) == 0
    assert "computing in" not in capsys.readouterr().out
    assert Path("auto", CONFIG).read_bytes() == Path("told", CONFIG).read_bytes()
    assert history("auto")[0]["objective"] == history("told")[0]["objective"]
    assert metrics("auto")["precision"] == chosen


def test_a_run_goes_on_in_its_precision_on_a_machine_that_would_choose_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine_of("bfloat16", monkeypatch)
    assert main([*AUTO, "--epochs", "1", "--out", "kept"]) == 0
    machine_of("float32", monkeypatch)
    assert main([*AUTO, "--epochs", "2", "--out", "kept", "--resume", "true"]) == 0
    assert main([*SMALL, "--precision", "bfloat16", "--epochs", "2", "--out", "whole"]) == 0
    assert yaml.safe_load(Path("kept", CONFIG).read_text())["precision"] == "bfloat16"
    assert history("kept")[1]["objective"] == history("whole")[1]["objective"]


def test_another_precision_by_name_is_refused_on_resuming(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine_of("float32", monkeypatch)
    assert main([*AUTO, "--epochs", "1", "--out", "kept"]) == 0
    flags = ["--precision", "bfloat16", "--epochs", "2", "--out", "kept", "--resume", "true"]
    assert main([*SMALL, *flags]) == 2
    assert "'kept' was trained with precision float32, not bfloat16" in capsys.readouterr().err


def test_resuming_what_is_no_run_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*AUTO, "--epochs", "1", "--out", "none", "--resume", "true"]) == 2
    assert capsys.readouterr().err.startswith("error: --resume: no checkpoint in 'none'")


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bfloat16"), (1.5, "float32")])
def test_a_processor_is_timed(ratio: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 1e-4, torch.bfloat16: ratio * 1e-4}
    monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
    found, why = precision.fastest(torch.device("cpu"))
    said = f"here a product in bfloat16 takes {ratio} times as long as in float32"
    assert (found, why) == (chosen, said)


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_asked(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: there or including_emulation
    )
    found, why = precision.fastest(torch.device("cuda"))
    assert found == ("bfloat16" if there else "float32")
    assert why == f"this GPU has {'' if there else 'no '}units for bfloat16"


def test_other_devices_compute_in_float32() -> None:
    assert precision.fastest(torch.device("mps"))[0] == "float32"


def test_this_machine_has_a_time_for_either() -> None:
    assert all(precision._seconds(kind) > 0 for kind in (torch.float32, torch.bfloat16))


def test_a_row_is_of_its_preset_whatever_precision_the_machine_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "PRESETS", tmp_path)
    preset = tmp_path / "some.yaml"
    preset.write_text("data: digits\nprecision: bfloat16\nepochs: 3\n")
    row = {"name": "some", "preset": "some.yaml", "runs": [{}]}
    row["recipe"] = benchmark.recipe(preset, [])
    preset.write_text("data: digits\nprecision: auto\nepochs: 3\n")
    assert list(benchmark.marked(row)) == []
    preset.write_text("data: digits\nprecision: auto\nepochs: 4\n")
    assert list(benchmark.marked(row)) == [benchmark.CHANGED]
    assert list(benchmark.marked(row | {"recipe": None})) == [benchmark.CHANGED]


def test_whatever_a_finished_run_computed_in_is_what_auto_means() -> None:
    done = Settings(precision="bfloat16")
    assert list(differences(done, Settings(precision="auto"))) == []
    assert list(differences(done, Settings())) == [("precision", "bfloat16", "float32")]
