"""What a benchmark says of whether its seeds agree; no run is started here."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from pyro_infocat import benchmark
from pyro_infocat.places import PRESETS
from pyro_infocat.seeds import Workers
from pyro_infocat.settings import METRICS, TEST_CATEGORIES

pytestmark = pytest.mark.usefixtures("alone")

FOUND = {
    0: [0, 0, 0, 1, 1, 1, 2, 2],
    1: [2, 2, 2, 0, 0, 0, 1, 1],
    2: [0, 0, 0, 1, 1, 2, 2, 2],
    3: None,
}
"""The categories of eight examples by seed; one of a run of before has none."""


def place(seed: int) -> Path:
    return Path("runs", "digits", f"seed{seed}")


@pytest.fixture(autouse=True)
def finished(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write metrics and categories at once."""

    def run(_: Workers, jobs: Any) -> list[str]:
        for folder, flags in jobs:
            seed = int(flags[flags.index("--seed") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / METRICS).write_text(json.dumps({"seed": seed, "accuracy": 0.5}))
            if FOUND[seed] is not None:
                np.save(folder / TEST_CATEGORIES, np.array(FOUND[seed], np.uint8))
        return [""] * len(jobs)

    monkeypatch.setattr(Workers, "run", run)


def measure(*seeds: int) -> dict[str, Any]:
    flags = ["--out", "runs", "--results", "results", "--seeds", *map(str, seeds)]
    assert benchmark.main([str(PRESETS / "digits.yaml"), *flags]) == 0
    return json.loads(Path("results/digits.json").read_text())


def test_the_agreement_of_the_seeds_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(0, 1, 2, 3)["agreement"]
    assert found["seeds"] == [0, 1, 2]
    pairs = [(0, 1), (0, 2), (1, 2)]
    agreed = np.mean([adjusted_rand_score(FOUND[a], FOUND[b]) for a, b in pairs])
    assert found["ari"] == pytest.approx(agreed)
    # Of category 1 of seed 0, one pair of three is together in seed 2, and all are in seed 1.
    assert found["of_categories"]["0"] == pytest.approx([1, (1 + 1 / 3) / 2, 1])
    assert found["of_categories"]["2"] == pytest.approx([1, 1, 1 / 3])
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        f"digits: 3 seeds agree by {agreed:.3f} (adjusted Rand index, on average)",
        "digits: least kept together is category 2 of seed 2, 33% of its pairs of test examples",
    ]


def test_one_seed_agrees_with_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert "agreement" not in measure(0, 3)
    assert "agree" not in capsys.readouterr().out


def test_what_was_found_of_more_seeds_is_kept() -> None:
    """The runs themselves may lie on another machine, or be deleted."""
    before = measure(0, 1, 2)
    shutil.rmtree(place(2))
    assert measure(0, 1, 2)["agreement"] == before["agreement"]
    # Of another recipe it would say nothing.
    changed = before | {"recipe": "another"}
    shutil.rmtree("runs")
    Path("results/digits.json").write_text(json.dumps(changed))
    assert measure(0, 1)["agreement"]["seeds"] == [0, 1]


def test_runs_of_other_test_splits_are_not_compared() -> None:
    assert "agreement" in measure(0, 1)
    np.save(place(1) / TEST_CATEGORIES, np.zeros(5, np.uint8))
    assert "agreement" not in measure(0, 1)


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_damaged_file_is_named(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    measure(0, 1)
    file = place(1) / TEST_CATEGORIES
    file.write_bytes(content)
    with pytest.raises(AssertionError):
        measure(0, 1)
    assert capsys.readouterr().err == (
        f"error: '{file}' cannot be read; delete it, and seeds are compared without it\n"
    )
