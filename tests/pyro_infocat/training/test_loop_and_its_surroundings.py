"""What the loop tells the bar, the clock, the other processes and the checkpoint."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pyro_infocat import DataSet, UserError
from pyro_infocat.build import Parts
from pyro_infocat.data.readers import digits
from pyro_infocat.objective import Terms
from pyro_infocat.objective.terms import InformationBound
from pyro_infocat.runtime import processes
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training import loop, progress, step
from pyro_infocat.training.epoch_terms import EpochTerms
from pyro_infocat.training.loop import adam, others_random, snapshot, some_unused, train
from pyro_infocat.training.monitor import CollapseMonitor
from pyro_infocat.training.progress import Bar
from tests.pyro_infocat.training.pieces import CPU, fit, make_parts, make_step, settings

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def data() -> DataSet:
    """1,297 examples: at 500 a step, three steps an epoch."""
    return digits()


# The bar.


class Counted:
    """Stands for the bar."""

    made: list["Counted"] = []

    def __init__(self, total: int, done: int, on: bool | None = None) -> None:
        self.total, self.done, self.on = total, done, on
        self.shown: list[tuple[Mapping[str, float], list[str]]] = []
        Counted.made.append(self)

    def __enter__(self) -> "Counted":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        self.done += 1

    def show(self, row: Mapping[str, float], terms: Iterable[str]) -> None:
        self.shown.append((row, list(terms)))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    monkeypatch.setattr(loop, "Bar", Counted)
    monkeypatch.setattr(Counted, "made", [])
    return Counted.made


def test_the_bar_is_full_at_the_end_of_a_run_and_of_a_resumed_one(
    counted: list[Counted], data: DataSet
) -> None:
    chosen = settings(epochs=2, batch_size=500)
    history, _ = fit(chosen, data)
    (bar,) = counted
    assert bar.total == bar.done == 2 * 3
    assert bar.on is False
    assert [row for row, _ in bar.shown] == history
    place = RunFolder(Path("out"))
    train(replace(chosen, epochs=3), data, make_parts(chosen), place, place.checkpoint())
    again = counted[1]
    assert again.total == again.done == 3 * 3
    assert len(again.shown) == 1
    assert again.on is None


def test_the_bar_begins_where_the_run_was_stopped_and_is_closed() -> None:
    with Bar(10, 4, on=True) as bar:
        assert (bar.bar.total, bar.bar.n) == (10, 4)
        bar.update()
        assert bar.bar.n == 5
        assert not bar.bar.disable
    # A closed bar of tqdm's is one that is disabled.
    assert bar.bar.disable


def test_the_bar_names_the_terms_that_there_are() -> None:
    with Bar(1, 0, on=True) as bar:
        bar.show({"elbo": -3.14159, "mine": 2.0, "seconds": 9.0}, ["kl_z", "mine"])
        assert bar.bar.postfix == "elbo=-3.14 mine=2.00"


@pytest.mark.parametrize(("terminal", "rank", "off"), [(True, 0, 0), (False, 0, 1), (True, 1, 1)])
def test_a_bar_is_for_whoever_sees_it_once(
    terminal: bool, rank: int, off: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("RANK", str(rank))
    with Bar(1, 0) as bar:
        assert bool(bar.bar.disable) is bool(off)


# The clock.


def test_seconds_are_of_each_epoch(data: DataSet) -> None:
    began = time.perf_counter()
    history, _ = fit(settings(epochs=2), data)
    whole = time.perf_counter() - began
    assert all(row["seconds"] > 0 for row in history)
    assert sum(row["seconds"] for row in history) < whole


# Sums.


def test_an_epochs_sums_lose_no_small_step_to_a_large_one() -> None:
    """In float32 a hundred million has no room for one."""
    terms = EpochTerms(0)
    terms.add({"mine": torch.tensor(1e8)}, 1)
    for _ in range(99):
        terms.add({"mine": torch.tensor(1.0)}, 1)
    terms.add({"mine": torch.tensor(-1e8)}, 1)
    terms.check()
    assert terms.means() == {"mine": pytest.approx(99 / 101, rel=1e-9)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_term_that_is_only_measured_may_be_no_number(
    value: float, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays out of the history, which holds finite numbers alone."""
    monkeypatch.setattr(InformationBound, "__call__", lambda *_: torch.tensor(value))
    history, _ = fit(settings(epochs=1, information_weight=0.0, weights={}), data)
    assert "information_bound" not in history[0]
    assert all(math.isfinite(number) for number in history[0].values())


def test_after_an_error_a_process_waits_for_no_other(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be at another step."""
    asked: list[dict[str, bool]] = []

    class Fails:
        def __init__(self, *_: object) -> None:
            self.x = data.train.grey(slice(4))

        def __call__(self, index: Tensor) -> None:
            raise ValueError("mine")

    monkeypatch.setattr(loop, "Step", Fails)
    monkeypatch.setattr(EpochTerms, "check", lambda self, *_, **named: asked.append(named))
    with pytest.raises(ValueError, match="mine"):
        fit(settings(epochs=1), data)
    assert asked == [{"alone": True}]


def test_no_checkpoint_is_kept_of_a_parameter_that_is_no_number(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its terms were finite before the last step of the epoch."""

    class Breaks(loop.Step):
        def __call__(self, index: Tensor) -> Terms:
            found = super().__call__(index)
            next(self.module.parameters()).data.fill_(math.inf)
            return found

    monkeypatch.setattr(loop, "Step", Breaks)
    with pytest.raises(UserError, match=r"the parameter .* is not finite"):
        fit(settings(epochs=1, batch_size=2000), data)
    assert RunFolder(Path("out")).checkpoint()["epoch"] == 0


# The checkpoint.


def test_a_snapshot_knows_its_data_and_its_random_numbers(data: DataSet) -> None:
    parts = make_parts(settings())
    optimizer = adam(parts.guide.parameters(), 1e-3)
    others = [{"cpu": torch.zeros(3, dtype=torch.uint8)}]
    found = snapshot(4, parts.model, parts.guide, optimizer, data, others)
    assert found["epoch"] == 4
    assert found["data"] == data.fingerprint
    assert found["facts"]["shape"] == (8, 8)
    assert torch.equal(found["rng"]["cpu"], torch.get_rng_state())
    assert found["rng_of_others"] is others


# TensorBoard.


def test_tensorboard_is_told_which_epochs_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    right = loop.SummaryWriter

    def look(folder: Path, purge_step: int) -> SummaryWriter:
        asked.append(purge_step)
        return right(folder, purge_step=purge_step)

    monkeypatch.setattr(loop, "SummaryWriter", look)
    for rank, writes in ((0, True), (1, False)):
        monkeypatch.setenv("RANK", str(rank))
        with loop.board_of(RunFolder(Path("out")), 4) as board:
            assert (board is not None) is writes
    assert asked == [5]


# What layers remember.


@pytest.mark.parametrize("view", ["VirtualAdversarial", "AdversarialAffine"])
def test_the_statistics_of_a_step_are_those_of_its_examples_alone(view: str) -> None:
    """Not of what a view asks q(c|x) of, nor of the view itself."""
    flags = ["--encoder.norm", "true", "--weights", "{consistency: 1}"]
    chosen = settings(*flags, "--view", f"pyro_infocat.views.{view}")
    parts = make_parts(chosen)
    take = make_step(chosen, parts)
    layers = [one for one in parts.guide.modules() if isinstance(one, torch.nn.BatchNorm1d)]
    assert layers
    take(torch.arange(20))
    assert [layer.num_batches_tracked.item() for layer in layers] == [1] * len(layers)


# The monitor.


def test_every_look_has_the_same_draws(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what it says changes with the model alone."""
    looks: list[list[Tensor]] = []
    looking, right = [False], CollapseMonitor.look

    def look(self: CollapseMonitor, *given: Any) -> None:
        looks.append([])
        looking[0] = True
        right(self, *given)
        looking[0] = False

    def watched(parts: Parts) -> None:
        component = parts.model.prior.component

        def ask(c: Tensor) -> Any:
            if looking[0]:
                looks[-1].append(torch.get_rng_state())
            return component(c)

        monkeypatch.setattr(parts.model.prior, "component", ask)

    monkeypatch.setattr(CollapseMonitor, "look", look)
    fit(settings(epochs=3), data, before=watched)
    assert len(looks) == 3
    assert looks[0]
    for later in looks[1:]:
        assert all(map(torch.equal, looks[0], later))


# A GPU's streams.


class Stream:
    """Stands for one; all of them keep one list of what was done, in order."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self.done = name, done

    def wait_stream(self, other: "Stream") -> None:
        self.done.append(f"{self.name} waits for {other.name}")


def test_a_step_on_the_side_begins_after_what_is_before_it_and_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    here, side = Stream("here", done), Stream("side", done)

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        done.append(f"on {stream.name}")
        yield
        done.append(f"off {stream.name}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: here)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(step, "side_stream", lambda device: side)

    def take(index: Tensor) -> Terms:
        done.append("step")
        return {"kl_z": index.sum()}

    assert step.on_the_side(take, torch.tensor([2, 3]))["kl_z"] == 5
    assert done == ["side waits for here", "on side", "step", "off side", "here waits for side"]


# The other processes.


def test_trying_a_step_leaves_no_gradient(data: DataSet) -> None:
    chosen = settings()
    parts = make_parts(chosen)
    module = parts.bound(parts.model, parts.guide).train()
    before = torch.get_rng_state()
    assert not some_unused(chosen, parts, module, data.train.grey(slice(4)))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    # An idle parameter is found; what is held fixed is none.
    module.idle = torch.nn.Parameter(torch.zeros(1))
    assert some_unused(chosen, parts, module, data.train.grey(slice(4)))
    module.idle.requires_grad_(False)
    assert not some_unused(chosen, parts, module, data.train.grey(slice(4)))
    scheduled = replace(chosen, schedules={"kl_z": [[0, 1]]})
    assert some_unused(scheduled, parts, module, data.train.grey(slice(4)))


def test_each_process_has_noise_of_its_own(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    # None of them has been here before.
    monkeypatch.setattr(loop, "restored_own", lambda *_: False)
    seeds: list[int] = []

    class Begun(loop.Step):
        def __init__(self, *given: Any) -> None:
            seeds.append(torch.initial_seed())
            super().__init__(*given)

    monkeypatch.setattr(loop, "Step", Begun)
    for rank in (0, 1, 2):
        monkeypatch.setenv("RANK", str(rank))
        torch.manual_seed(0)
        fit(settings(epochs=1, batch_size=2000), data, f"out{rank}")
        # The first one alone writes.
        assert Path(f"out{rank}", "checkpoint.pt").exists() == (rank == 0)
    # It keeps the run's own numbers.
    assert seeds[0] == 0
    assert len(set(seeds)) == 3


def test_the_states_of_all_processes_but_the_first_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "every", lambda state: [state, state[:5], state[:7]])
    assert [len(one["cpu"]) for one in others_random(CPU)] == [5, 7]
