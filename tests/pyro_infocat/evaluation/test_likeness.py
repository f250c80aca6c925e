"""How features of generated examples differ from those of real ones, against sums written out."""

import math

import pytest
import torch
from torch import Tensor

from pyro_infocat.evaluation import generation as module
from pyro_infocat.evaluation.generation import covered, kernel_distance, likeness

pytestmark = pytest.mark.usefixtures("double")


def k(x: Tensor, y: Tensor) -> float:
    return (sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True)) / len(x) + 1) ** 3


def written_out(x: Tensor, y: Tensor) -> float:
    """Binkowski et al. 2018, equation 4, pair by pair."""
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


# The kernel distance.


@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 7), (9, 4), (3, 11)])
def test_one_block_is_the_sum_over_all_pairs(n: int, m: int) -> None:
    x, y = torch.randn(n, 5), torch.randn(m, 5) + 0.5
    assert kernel_distance(x, y) == pytest.approx(written_out(x, y), rel=1e-12)


def test_several_blocks_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    x, y = torch.randn(11, 3), torch.randn(30, 3)
    # 4, 4 and 3; of the others no more than as many blocks hold.
    of_x, of_y = x.split([4, 4, 3]), y[:12].split(4)
    mean = sum(map(written_out, of_x, of_y)) / 3
    assert kernel_distance(x, y) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5])
def test_a_block_has_two_of_each_at_least(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    assert math.isfinite(kernel_distance(torch.randn(40, 3), torch.randn(m, 3)))


def test_its_mean_is_the_squared_distance_of_the_distributions() -> None:
    """Of two points each, by the exact expectation: 2,000 estimates of 5 and 7 draws.

    The standard error is 0.021 of a distance of 2.63, so that four of them, which a right estimator
    leaves once in 16,000 seeds, find a bias of 0.17 every other time. One with the diagonal in its
    sums has a bias of 1.3.
    """
    points, p, q = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), (0.3, 0.7), (0.8, 0.2)
    exact = sum(
        (p[i] - q[i]) * (p[j] - q[j]) * k(points[i], points[j]) for i in range(2) for j in range(2)
    )
    found = []
    for _ in range(2000):
        x, y = (points[torch.tensor(w).multinomial(n, True)] for w, n in ((p, 5), (q, 7)))
        found.append(kernel_distance(x, y))
    estimates = torch.tensor(found)
    error = estimates.std().item() / math.sqrt(len(found))
    assert abs(estimates.mean().item() - exact) < 4 * error
    assert estimates.min() < 0
    assert error < exact / 20


# Precision and recall.


def by_pairs(points: Tensor, others: Tensor) -> float:
    """Kynkaanniemi et al. 2019, equations 1 and 2, pair by pair."""
    inside = 0
    for point in points:
        for i, centre in enumerate(others):
            away = sorted(math.dist(centre, o) for j, o in enumerate(others) if j != i)
            if math.dist(point, centre) <= away[2]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize(("n", "m", "shift"), [(4, 4, 0.5), (30, 20, 0.3), (40, 50, 1.0)])
def test_a_point_is_covered_where_a_ball_has_it(n: int, m: int, shift: float) -> None:
    points, others = torch.randn(n, 4) + shift, torch.randn(m, 4)
    assert covered(points, others) == pytest.approx(by_pairs(points, others))


def test_precision_and_recall_of_points_on_a_line() -> None:
    real = torch.arange(10.0).unsqueeze(-1)
    # Balls of the ends reach 3 and the others' 2: from -3 to 12. All between 3.4 and 3.6.
    narrow = torch.linspace(3.4, 3.6, 10).unsqueeze(-1)
    found = likeness(real, narrow)
    assert (found["generation_precision"], found["generation_recall"]) == (1, 0)
    # As wide as the real ones, and two of ten beyond them.
    wide = torch.cat([real[:8], torch.tensor([[20.0], [-15.0]])])
    found = likeness(real, wide)
    assert (found["generation_precision"], found["generation_recall"]) == (0.8, 1)
    assert covered(torch.tensor([[12.0], [12.1], [-3.0], [-3.1]]), real) == 0.5


def test_as_many_of_both_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BALLS", 6)
    x, y = torch.randn(9, 2), torch.randn(30, 2) + 0.5
    found = likeness(x, y)
    assert found["generation_precision"] == pytest.approx(by_pairs(y[:6], x[:6]))
    assert found["generation_recall"] == pytest.approx(by_pairs(x[:6], y[:6]))
    monkeypatch.setattr(module, "MOST_BALLS", 2000)
    assert likeness(x, y)["generation_recall"] == pytest.approx(by_pairs(x, y[:9]))


@pytest.mark.parametrize(
    ("n", "there"), [(0, set()), (1, set()), (2, {"kid"}), (3, {"kid"}), (4, {"kid", "both"})]
)
def test_too_few_examples_have_no_figure(n: int, there: set[str]) -> None:
    for found in (
        likeness(torch.randn(n, 3), torch.randn(9, 3)),
        likeness(torch.randn(9, 3), torch.randn(n, 3)),
    ):
        assert (found["kid"] is not None) == ("kid" in there)
        for name in ("generation_precision", "generation_recall"):
            assert (found[name] is not None) == ("both" in there)
