"""Fixtures that several test files share."""

import os
import signal

# Each of the test processes computes on one thread: read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import pyro
import pytest
import torch
from hypothesis import HealthCheck, settings

# Fixtures are not made anew for each example: those of these tests hold nothing that one leaves
# to the next. The same examples each time, so that the suite does not fail by chance.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", settings.get_profile("suite"), derandomize=False, max_examples=1000
)
settings.load_profile("suite")


@pytest.fixture
def double() -> Iterator[None]:
    """Float64, a fixed seed and an empty parameter store; all three put back afterwards."""
    precision = torch.get_default_dtype()
    # No device but the CPU is forked: these tests are on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        pyro.clear_param_store()
        try:
            yield
        finally:
            torch.set_default_dtype(precision)
            pyro.clear_param_store()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked gpu is skipped where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process started now hears Ctrl-C, even where a shell had this one ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
