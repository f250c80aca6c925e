"""The developers' measurements measure what they say. How fast anything is is asserted nowhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import pyro_infocat as pic
from benchmarks import estimators, growth, outliers, step_time
from guides import Enumerated, Gumbel, SoftCode
from tests.brief import QUICK, be_brief


@pytest.fixture(autouse=True)
def as_measured() -> Iterator[None]:
    """Without Pyro's checks of every value; the global state is put back."""
    pyro.enable_validation(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    pyro.enable_validation(True)
    pyro.clear_param_store()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_guide_like_another_has_its_parameters(temperature: float) -> None:
    _, guide = step_time.parts(3, 8, Enumerated, "cpu")
    gumbel = estimators.like(guide, Gumbel, temperature)
    assert gumbel.temperature == temperature
    soft = estimators.like(guide, SoftCode)
    for made in (gumbel, soft):
        pairs = zip(made.named_parameters(), guide.named_parameters(), strict=True)
        assert all(name == other and mine is theirs for (name, mine), (other, theirs) in pairs)
    x = torch.rand(4, step_time.FEATURES)
    assert torch.equal(soft.category(x).logits, guide.category(x).logits)
    assert torch.equal(soft.mix(guide.category(x).logits), guide.category(x).logits.exp())


def test_estimators_of_one_quantity_agree_on_it() -> None:
    """Written out and through Pyro, by the same draws; decoding all but one leaves no chance."""
    model, guide = step_time.parts(3, 8, Enumerated, "cpu")
    x = torch.bernoulli(torch.full((4, step_time.FEATURES), 0.3))
    model.kl = "analytic"
    made = estimators.estimators(model, guide)
    committed = json.loads(estimators.RESULTS.read_text())
    assert [row["name"] for row in committed] == list(made)

    def loss(name: str) -> torch.Tensor:
        torch.manual_seed(0)
        estimator, its_guide, _ = made[name]
        return estimator.differentiable_loss(model, its_guide, x)

    whole = loss("enumerated, analytic KL")
    for name in ("enumerated, analytic KL, through Pyro", "2 likeliest and one drawn"):
        torch.testing.assert_close(loss(name), whole)
    assert not torch.isclose(loss("soft code (no bound)"), whole, rtol=1e-4)


def test_draws_of_a_known_gradient() -> None:
    """d/dp of p (3 + noise) is 3 + noise, the noise standard normal.

    Of 1,000 draws, the mean has a standard deviation of 0.032 and the variance one of 0.045. Five
    of each are allowed: one seed in a million would fail, and fewer would miss an error of 0.5.
    """
    p, unused = torch.tensor([2.0], requires_grad=True), torch.zeros(2, requires_grad=True)
    losses, gradients, ms = estimators.draws(
        lambda: (p * (3 + torch.randn(1))).sum(), [p, unused], 1000
    )
    assert losses.shape == (1000,)
    assert gradients.shape == (1000, 3)
    assert abs(gradients[:, 0].mean() - 3) < 0.16
    assert abs(gradients[:, 0].var() - 1) < 0.23
    assert not gradients[:, 1:].any()
    assert ms > 0


def test_what_is_timed_is_the_same_maths(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.bernoulli(torch.full((4, step_time.FEATURES), 0.3))
    made = step_time.contenders(3, 8, "cpu")
    step_time.check(made, x)
    assert set(step_time.measure(made, x, 2)) == set(made)

    made = step_time.contenders(3, 8, "cpu")
    loss, parameters = made["plain Pyro"]
    made["plain Pyro"] = (lambda x: loss(x) * 1.01, parameters)
    with pytest.raises(SystemExit, match="plain Pyro does not agree with plain PyTorch"):
        step_time.check(made, x)


def test_growth_measures_steps_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "HIDDEN", 8)
    found = growth.measure(3, 0, "cpu", 2)
    assert found["ms"] > 0
    assert found["mebibytes"] >= 0


def test_outliers_are_told_by_their_density(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_brief(monkeypatch)
    run = pic.fit("digits", out=tmp_path / "run", **QUICK)
    noise = np.random.default_rng(0).integers(0, 2, (80, 8, 8)).astype(float)
    np.savez(tmp_path / "noise.npz", x_train=noise[:40], x_test=noise[40:])
    found = outliers.areas(run, str(tmp_path / "noise.npz"), 100, 5)
    assert found["-log p(x)"] > 0.98
    assert 0 <= found["H(q(c|x))"] <= 1
    # Nothing tells examples from themselves.
    assert set(outliers.areas(run, "digits", 100, 5).values()) == {0.5}
