"""What fit leaves as it was on GPUs: generators, the current one, and how cuDNN rounds.

No GPU is needed: what PyTorch would ask the driver is answered here.
"""

from typing import Any

import numpy as np
import pytest
import torch

import pyro_infocat as pic
from pyro_infocat import experiment
from pyro_infocat.runtime.device import ROUNDED, compute_on, cuda_kept
from pyro_infocat.runtime.randomness import evaluating
from tests.brief import QUICK


class Cuda:
    """Two GPUs, each with a generator whose state is its seed.

    :ivar begun: whether PyTorch has asked the driver yet.
    """

    def __init__(self, begun: bool) -> None:
        self.begun, self.seeds, self.current = begun, [11, 12], 1 if begun else 0

    def put_in(self, patch: pytest.MonkeyPatch) -> None:
        def states() -> list[int]:
            assert self.begun, "the driver was asked"
            return list(self.seeds)

        def current() -> int:
            assert self.begun, "the driver was asked"
            return self.current

        def set_device(number: Any) -> None:
            self.begun, self.current = True, getattr(number, "index", number)

        answers = {
            "is_initialized": lambda: self.begun,
            "get_rng_state_all": states,
            "set_rng_state_all": lambda held: self.seeds.__setitem__(slice(None), held),
            "manual_seed_all": lambda seed: self.seeds.__setitem__(slice(None), [seed] * 2),
            "current_device": current,
            "set_device": set_device,
        }
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, answer)


@pytest.fixture(autouse=True)
def rounding() -> Any:
    """Put back, whatever a test does."""
    before = [layers.fp32_precision for layers in ROUNDED]
    yield
    for layers, precision in zip(ROUNDED, before, strict=True):
        layers.fp32_precision = precision


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("begun", [True, False])
def test_a_run_on_a_gpu_leaves_the_gpus_as_they_were(
    begun: bool, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(begun)
    cuda.put_in(monkeypatch)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        before = [layers.fp32_precision for layers in ROUNDED]
        try:
            with cuda_kept():
                compute_on(torch.device("cuda:0"))
                assert [layers.fp32_precision for layers in ROUNDED] == ["ieee"] * 2
                assert (cuda.begun, cuda.current) == (True, 0)
                cuda.seeds[:] = [7, 7]
                if failing:
                    raise pic.UserError("stopped")
        except pic.UserError:
            assert failing
    assert [layers.fp32_precision for layers in ROUNDED] == before
    # What had not begun is seeded as the CPU was: torch.manual_seed seeds both.
    assert cuda.seeds == ([11, 12] if begun else [3, 3])
    assert cuda.current == (1 if begun else 0)


def test_a_gpu_is_not_begun_for_a_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(begun=False)
    cuda.put_in(monkeypatch)
    with cuda_kept():
        compute_on(torch.device("cpu"))
    assert not cuda.begun


@pytest.mark.usefixtures("brief")
def test_fit_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the way out of errors too. On the CPU, beside GPUs that are in use."""
    cuda = Cuda(begun=True)
    cuda.put_in(monkeypatch)
    given: dict[str, Any] = QUICK | {"device": "cpu"}
    before = [layers.fp32_precision for layers in ROUNDED]
    monkeypatch.setattr(experiment, "compute_on", lambda _: compute_on(torch.device("cuda:0")))
    images = np.random.default_rng(0).random((40, 4, 4))
    pic.fit(images, **given)
    with pytest.raises(pic.UserError):
        pic.fit(images, **given | {"prior.scale": -1.0})
    assert cuda.seeds == [11, 12]
    assert cuda.current == 1
    assert [layers.fp32_precision for layers in ROUNDED] == before


def test_looking_at_a_model_on_the_cpu_seeds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise AssertionError("a GPU was seeded")

    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    draws = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]), evaluating(torch.device("cpu"), seed=5):
            draws.append(torch.rand(3))
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], expected)


def test_looking_at_a_model_on_a_gpu_seeds_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same seed as the CPU."""
    generators = [torch.Generator(), torch.Generator()]
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda at: generators[at.index].get_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, at: generators[at.index].set_state(state)
    )
    before = [one.get_state() for one in generators]
    with evaluating(torch.device("cuda:1"), seed=5):
        assert [one.initial_seed() for one in generators][1] == 5
        assert torch.equal(generators[0].get_state(), before[0])
        torch.rand(3, generator=generators[1])
    assert all(
        torch.equal(one.get_state(), was) for one, was in zip(generators, before, strict=True)
    )
