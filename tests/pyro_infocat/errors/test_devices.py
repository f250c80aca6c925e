"""Devices that are not there, and processes that do not fit on them or on a batch."""

import pytest
import torch

from pyro_infocat.errors import UserError
from pyro_infocat.runtime.device import pick
from tests.pyro_infocat.errors.refusals import Refuse

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch says that there are two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_device_that_is_not_there(
    name: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    error = refuse("--device", name)
    assert f"--device: '{name}' is not on this machine, which has cpu" in error


@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_for_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick("cuda") == torch.device("cuda:1")
    message = r"^--device cuda:0: is one GPU for 2 processes; give --device cuda, one for each$"
    with pytest.raises(UserError, match=message):
        pick("cuda:0")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_beyond_the_last() -> None:
    assert pick("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"'cuda:7' is not .* cpu, cuda, cuda:0, cuda:1"):
        pick("cuda:7")
    assert pick("auto") == pick("cuda") == torch.device("cuda:0")


@pytest.mark.usefixtures("two_gpus")
def test_more_processes_than_gpus_are_refused_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (2, 3):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
        for rank in range(world):
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            if world == 2:
                assert pick("cuda") == torch.device(f"cuda:{rank}")
                continue
            with pytest.raises(UserError, match=r"3 processes for 2 GPUs .* --device cpu"):
                pick("auto")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--batch_size", "1", "--encoder.norm", "false"],
            "at least 2; a step needs an example",
        ),
        (
            ["--batch_size", "3", "--encoder.norm", "true"],
            "at least 4; batch normalisation needs",
        ),
    ],
)
def test_a_batch_that_does_not_go_round(
    flags: list[str], said: str, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert said in refuse("--device", "cpu", *flags)
