"""A step taken, recorded and replayed. The tests without a GPU put a stand-in for the graph.

What PyTorch does where a recording fails is in the stand-in as its source has it (2.11 and 2.14:
``torch.cuda.graph.__exit__``, ``CUDAGraph::capture_end``, ``CUDAGeneratorState::increase``); that a
GPU does the same the tests marked gpu say.
"""

import gc
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_infocat.build import Builder
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.data.readers import digits
from pyro_infocat.objective import Terms
from pyro_infocat.storage.folder import RunFolder
from pyro_infocat.training import step
from pyro_infocat.training.loop import train
from pyro_infocat.training.step import WARM_UP, Recorder
from tests.pyro_infocat.training.pieces import fit, settings, timeless

TAKEN = "CUDA graph: steps are taken one by one, not replayed "


class Worker:
    """Stands for a step: it notes which indices it worked on."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, index: Tensor) -> Terms:
        self.seen.append(index.tolist())
        return {"reconstruction": index.sum().float()}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The stand-in: recording does no work, replaying does it; the list grows by recordings."""
    made: list[int] = []

    def capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        made.append(len(made))
        terms: Terms = {}
        return lambda: terms.update(work()), terms

    monkeypatch.setattr(step, "capture", capture)
    monkeypatch.setattr(step, "on_the_side", lambda take, index: take(index))
    return made


def batches(number: int, size: int = 2) -> list[Tensor]:
    return list(torch.arange(number * size).split(size))


def test_every_batch_is_worked_on_once_and_in_order(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for index in batches(8):
        terms = recorder(index, "constants")
        assert terms["reconstruction"] == index.sum()
    assert work.seen == [index.tolist() for index in batches(8)]
    assert len(recorded) == 1


def test_the_callers_indices_are_left_as_they_are(recorded: list[int]) -> None:
    """What is replayed reads indices of its own."""
    recorder = Recorder(Worker())
    every = batches(8)
    for index in every:
        recorder(index, "constants")
    assert [index.tolist() for index in every] == [index.tolist() for index in batches(8)]


def test_as_many_steps_are_taken_first_as_libraries_need(recorded: list[int]) -> None:
    recorder = Recorder(Worker())
    for number, index in enumerate(batches(WARM_UP + 2)):
        assert len(recorded) == (number > WARM_UP)
        recorder(index, "constants")


@pytest.mark.parametrize("last", [[99], [97, 98, 99]])
def test_a_last_batch_of_another_size_is_taken_and_the_recording_kept(
    last: list[int], recorded: list[int]
) -> None:
    work = Worker()
    recorder = Recorder(work)
    for _ in range(3):
        for index in [*batches(WARM_UP + 2), torch.tensor(last)]:
            recorder(index, "constants")
    assert work.seen == 3 * [*(index.tolist() for index in batches(WARM_UP + 2)), last]
    assert len(recorded) == 1


def test_changed_constants_are_recorded_anew(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for constants in ("one", "two"):
        for index in batches(WARM_UP + 3):
            recorder(index, constants)
    assert work.seen == 2 * [index.tolist() for index in batches(WARM_UP + 3)]
    assert len(recorded) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_has_the_same_numbers_taken_recorded_and_failed_to_record(
    fails: bool,
    recorded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Weights and the learning rate change in every epoch, so each one is recorded anew."""
    chosen = settings("--epochs", "2", "--anneal", "cosine", batch_size=200)
    chosen = replace(chosen, schedules={"kl_z": [[0, 0.5], [2, 1]]})
    if fails:

        def capture(work: Callable[[], Terms]) -> Any:
            recorded.append(len(recorded))
            raise RuntimeError("not while capturing")

        monkeypatch.setattr(step, "capture", capture)
    histories = []
    for wanted in (False, True):
        monkeypatch.setattr(
            "pyro_infocat.training.loop.recordable", lambda *_, wanted=wanted: wanted
        )
        history, _ = fit(chosen, folder=f"out{wanted}")
        histories.append(timeless(history))
    assert histories[0] == histories[1]
    assert len(recorded) == (1 if fails else 2)
    said = f"{TAKEN}(not while capturing)\n" if fails else ""
    assert capsys.readouterr().err == said


# A recording that fails.


class State:
    """Of a generator: where it is, and whether it takes draws for those of a recording."""

    def __init__(self, offset: int = 0) -> None:
        self.offset, self.capturing = offset, False


class Generator:
    """PyTorch's on a GPU, as a recording sees it."""

    def __init__(self, gpu: "GPU", state: State | None = None) -> None:
        self.gpu, self.state = gpu, state or State()

    def clone_state(self) -> "Generator":
        return Generator(self.gpu, State(self.state.offset))

    def graphsafe_set_state(self, other: "Generator") -> None:
        self.state = other.state

    def draw(self) -> int:
        if self.gpu.recording:
            assert self.state.capturing
            return -1
        if self.state.capturing:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.state.offset += 4
        return self.state.offset


class Graph:
    """A recorded graph."""

    gpu: "GPU"

    def replay(self) -> None:
        raise AssertionError("what failed is not replayed")


class GPU:
    """What of ``torch.cuda`` a recording touches."""

    def __init__(self) -> None:
        self.stream, self.recording, self.invalid = "main", False, False
        self.generator = Generator(self)
        gpu = self

        class Recording:
            def __init__(self, graph: Graph) -> None:
                pass

            def __enter__(self) -> None:
                self.left, gpu.stream = gpu.stream, "recording"
                gpu.recording = gpu.generator.state.capturing = True

            def __exit__(
                self,
                kind: type[BaseException] | None,
                error: BaseException | None,
                trace: TracebackType | None,
            ) -> None:
                gpu.recording = False
                if gpu.invalid:
                    # The recording ends, and nothing that follows its end is done.
                    raise RuntimeError("operation failed due to a previous error during capture")
                gpu.generator.state.capturing = False
                gpu.stream = self.left

        self.graph = Recording

    def fail(self, error: type[BaseException], text: str, invalidates: bool) -> None:
        self.invalid = invalidates
        raise error(text)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> GPU:
    made = GPU()
    for name, value in {
        "CUDAGraph": Graph,
        "graph": made.graph,
        "current_stream": lambda: made.stream,
        "set_stream": lambda stream: setattr(made, "stream", stream),
        "current_device": lambda: 0,
        "default_generators": (made.generator,),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(step, "on_the_side", lambda take, index: take(index))
    return made


def draws_of(gpu: GPU, recorder: Recorder, drawn: list[int], number: int = 8) -> list[int]:
    drawn.clear()
    for index in batches(number):
        recorder(index, "constants")
    return list(drawn)


@pytest.mark.parametrize(
    ("error", "invalidates"),
    [(RuntimeError, True), (RuntimeError, False), (ValueError, True), (ValueError, False)],
)
def test_a_recording_that_fails_leaves_a_step_that_can_be_taken(
    error: type[Exception], invalidates: bool, gpu: GPU, capsys: pytest.CaptureFixture[str]
) -> None:
    """It draws what it would have drawn, on the stream that it was on, and is said once.

    As where the work asks the host, of which PyTorch says so, or where only an exception of the
    work's own ended it.
    """
    drawn: list[int] = []

    def take(index: Tensor) -> Terms:
        drawn.append(gpu.generator.draw())
        if gpu.recording:
            drawn.pop()
            gpu.fail(error, "operation not permitted\nwhen stream is capturing", invalidates)
        assert gpu.stream == "main"
        return {"reconstruction": index.sum().float()}

    for _ in range(2):
        found = draws_of(gpu, Recorder(take), drawn)
        assert len(found) == 8
        assert found == [found[0] + 4 * number for number in range(8)]
    assert found[0] == 9 * 4
    assert gpu.stream == "main"
    assert not gpu.generator.state.capturing
    said = f"{TAKEN}(operation not permitted when stream is capturing)\n"
    assert capsys.readouterr().err == 2 * said


def test_a_run_that_is_stopped_while_it_records_leaves_pytorch_as_it_was(gpu: GPU) -> None:
    """As in a notebook, whose next cell goes on in this process."""

    def take(index: Tensor) -> Terms:
        if gpu.recording:
            gpu.fail(KeyboardInterrupt, "", invalidates=True)
        gpu.generator.draw()
        return {}

    recorder = Recorder(take)
    with pytest.raises(KeyboardInterrupt):
        draws_of(gpu, recorder, [])
    assert gpu.stream == "main"
    assert gpu.generator.draw() == 4 * (WARM_UP + 1)


def test_what_is_wrong_with_the_step_itself_shows_when_it_is_taken(gpu: GPU) -> None:
    steps: list[bool] = []

    def take(index: Tensor) -> Terms:
        steps.append(gpu.recording)
        if len(steps) > WARM_UP:
            raise ValueError("not of recording")
        return {}

    with pytest.raises(ValueError, match=r"^not of recording$"):
        draws_of(gpu, Recorder(take), [])
    assert steps == [False] * WARM_UP + [True, False]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_freed_by_garbage_collection_while_a_step_is_recorded(
    enabled: bool, fails: bool, gpu: GPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of an earlier start that is freed then would end the recording.

    Such a graph is garbage that only the collection finds: a step and its recorder hold each other.
    """
    monkeypatch.setattr(Graph, "replay", lambda self: None)
    collecting: dict[bool, set[bool]] = {False: set(), True: set()}

    def take(index: Tensor) -> Terms:
        collecting[gpu.recording].add(gc.isenabled())
        if gpu.recording and fails:
            gpu.fail(RuntimeError, "not while capturing", invalidates=True)
        return {}

    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        draws_of(gpu, Recorder(take), [])
        after = gc.isenabled()
    finally:
        gc.enable() if before else gc.disable()
    assert collecting == {False: {enabled}, True: {False}}
    assert after is enabled


# On a GPU.


@pytest.mark.gpu
@pytest.mark.usefixtures("alone")
def test_replayed_steps_train_as_taken_ones_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end near the same bound; the draws differ, so the mean of the last epochs counts.

    Two runs on a CPU from one start by other draws ended 0.05 nats apart.
    """
    chosen = settings("--epochs", "40", batch_size=100, device="cuda")
    device = torch.device("cuda")
    bounds = []
    # A check of every value asks the host, which no recording can.
    with pyro.validation_enabled(False):
        for graph in (False, True):
            torch.manual_seed(0)
            parts = Builder(chosen, DATA_SETS["digits"]).parts(device)
            folder = RunFolder(Path(f"out{graph}"))
            folder.create(chosen)
            data = digits().to(device)
            history = train(replace(chosen, graph=graph), data, parts, folder, progress=False)
            bounds.append(statistics.mean(row["elbo"] for row in history[-5:]))
            assert capsys.readouterr().err == ""
    assert bounds[0] == pytest.approx(bounds[1], abs=0.5)


@pytest.mark.gpu
def test_a_graph_of_a_step_is_recorded_and_replayed() -> None:
    weight = torch.zeros(3, device="cuda")

    def take(index: Tensor) -> Terms:
        weight.add_(1)
        return {"reconstruction": weight.sum() + index.sum()}

    recorder = Recorder(take)
    for number in range(1, 9):
        index = torch.tensor([number], device="cuda")
        assert recorder(index, None)["reconstruction"].item() == 3 * number + number
    assert recorder.able


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["asks the host", "raises"])
def test_steps_go_on_where_a_recording_fails(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They draw what they would have drawn without one."""
    means = []
    for recorded in (False, True):
        torch.cuda.manual_seed(0)
        drawn: list[Tensor] = []

        def take(index: Tensor, drawn: list[Tensor] = drawn) -> Terms:
            noise = torch.bernoulli(torch.full((100,), 0.5, device="cuda"))
            if torch.cuda.is_current_stream_capturing():
                if how == "raises":
                    raise ValueError("of the work's own")
                noise.sum().item()
            drawn.append(noise)
            return {"reconstruction": noise.sum()}

        recorder = Recorder(take)
        recorder.able = recorded
        for number in range(8):
            recorder(torch.tensor([number], device="cuda"), None)
        means.append(torch.stack(drawn))
    assert torch.equal(*means)
    assert not recorder.able
    assert capsys.readouterr().err.startswith(TAKEN)
