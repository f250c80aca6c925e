"""Random numbers, devices and processes: what is set is put back, what is shared is fair."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_infocat.errors import UserError
from pyro_infocat.runtime import processes
from pyro_infocat.runtime.device import pick
from pyro_infocat.runtime.randomness import evaluating, random_states, restore_random

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forked() -> Any:
    with torch.random.fork_rng(devices=[]):
        yield


# Looking without a trace.


@pytest.mark.parametrize("fails", [False, True])
def test_modules_and_random_numbers_are_as_before(fails: bool) -> None:
    training, still = nn.Dropout(), nn.Dropout().eval()
    torch.manual_seed(1)
    torch.rand(7)
    before = torch.get_rng_state()
    drawn: list[Tensor] = []
    with contextlib.suppress(ValueError), evaluating(CPU, training, still, seed=3):
        assert not training.training
        assert not still.training
        assert not torch.is_grad_enabled()
        drawn.append(torch.rand(4))
        if fails:
            raise ValueError
    assert training.training
    assert not still.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(4))


def test_another_seed_gives_other_numbers_and_the_usual_one_is_0() -> None:
    drawn = []
    for seed in ({"seed": 0}, {}, {"seed": 1}):
        with evaluating(CPU, **seed):
            drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_states_put_back_repeat_what_was_drawn() -> None:
    states = random_states(CPU)
    assert list(states) == ["cpu"]
    first = torch.rand(5)
    restore_random({**states, "cuda": None}, CPU)
    assert torch.equal(torch.rand(5), first)


# Processes.


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("number", [3, 7, 8])
def test_the_shares_of_a_batch_are_the_batch_and_nearly_equal(
    number: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(processes.mine(torch.arange(number)).tolist())
    assert sorted(index for share in shares for index in share) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_shares_with_itself() -> None:
    tensor, module = torch.tensor([1.0]), nn.Linear(1, 1)
    assert processes.shared(tensor) is processes.total(tensor) is tensor
    assert processes.every(tensor) == [tensor]
    assert processes.wrap(module, True) is module
    assert (processes.rank(), processes.world()) == (0, 1)
    processes.join(CPU)
    assert not torch.distributed.is_initialized()
    processes.leave()


@pytest.mark.parametrize("unused", [True, False])
def test_several_processes_average_and_look_for_unused_parameters_where_told(
    unused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        processes, "DistributedDataParallel", lambda module, **named: asked.append(named) or module
    )
    processes.wrap(nn.Linear(1, 1), unused)
    assert asked == [{"find_unused_parameters": unused}]


def test_processes_part_after_they_have_met(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    distributed = processes.distributed
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", done.append)
    monkeypatch.setattr(distributed, "is_initialized", lambda: bool(done))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: done.append("parted"))
    processes.leave()
    assert not done
    for device in ("cpu", "cuda"):
        processes.join(torch.device(device))
    processes.leave()
    assert done == ["gloo", "nccl", "parted"]


# Devices.


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_for_each_process_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four processes on two machines two are here."""
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "3")
    assert pick("cuda") == pick("auto") == torch.device("cuda:1")
    with pytest.raises(UserError, match="is one GPU for 2 processes"):
        pick("cuda:1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="3 processes for 2 GPUs on this machine"):
        pick("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_by_its_number() -> None:
    assert pick("cuda:1") == torch.device("cuda:1")
    assert pick("cuda") == torch.device("cuda:0")
    assert pick("cpu") == CPU
    with pytest.raises(UserError, match="'cuda:2' is not on this machine"):
        pick("cuda:2")
