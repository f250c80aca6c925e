"""Histories, metrics and results of benchmarks that are damaged: one line names file and line."""

from pathlib import Path

import pytest

import pyro_infocat
from pyro_infocat import benchmark
from pyro_infocat.errors import UserError
from pyro_infocat.settings import HISTORY, METRICS
from tests.pyro_infocat.errors.refusals import OUT

pytestmark = pytest.mark.usefixtures("alone")

DAMAGE = {
    "half a row": ('{"epoch": 1.0}\n{"epoch": 2.0, "elb', "line 2, is damaged (Unterminated"),
    "no JSON": ("epochs", "line 1, is damaged (Expecting value)"),
    "no row": ('{"epoch": 1.0}\n3\n', "line 2, is damaged (it holds a int)"),
    "other bytes": (b'{"epoch": 1.0}\n{"\xff": 2}', "line 2, is damaged ('utf-8' codec"),
    "nested without end": ("[" * 100_000, "line 1, is damaged (maximum recursion"),
    "too long a number": ("9" * 10_000, "line 1, is damaged (Exceeds the limit"),
}


@pytest.mark.parametrize(("content", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_history(content: str | bytes, said: str, trained: Path) -> None:
    run = pyro_infocat.load(OUT)
    assert [row["epoch"] for row in run.history] == [1]
    Path(OUT, HISTORY).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        _ = run.history
    assert str(caught.value).startswith(f"'{OUT}/{HISTORY}', {said}")
    assert str(caught.value).endswith("; go on with the run by --resume true, which writes it anew")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{\n "elbo": 3,\n "nll"', "line 3, is damaged (Expecting ':' delimiter)"),
        ("[]", "line 1, is damaged (it holds a list)"),
        ("", "line 1, is damaged (Expecting value)"),
    ],
)
def test_damaged_metrics(content: str, said: str, trained: Path) -> None:
    run = pyro_infocat.load(OUT)
    assert run.metrics == {}
    Path(OUT, METRICS).write_text('{"elbo": -50.5}\n')
    assert run.metrics == {"elbo": -50.5}
    Path(OUT, METRICS).write_text(content)
    with pytest.raises(UserError) as caught:
        _ = run.metrics
    assert str(caught.value).startswith(f"'{OUT}/{METRICS}', {said}")


def test_damaged_results_of_a_benchmark() -> None:
    Path("row.json").write_text('{"name": "row",\n "runs": [')
    with pytest.raises(UserError, match=r"'row\.json', line 2, is damaged \(.*\); delete it"):
        benchmark.table(Path("."))
