"""A recording that fails leaves a step that can be taken.

What PyTorch does where a recording fails is in a stand-in as its source has it (2.11 and 2.14:
``torch.cuda.graph.__exit__``, ``CUDAGraph::capture_end``, ``CUDAGeneratorState::increase``). That a
GPU does the same only the test marked gpu can say.
"""

import gc
from types import TracebackType

import pytest
import torch
from torch import Tensor

from pyro_infocat.objective import Terms
from pyro_infocat.training import step
from pyro_infocat.training.step import WARM_UP, Recorder

TAKEN = "CUDA graph: steps are taken one by one, not replayed "


def batches(number: int, size: int = 2) -> list[Tensor]:
    return list(torch.arange(number * size).split(size))


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
        self.interrupted = False
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
                if gpu.interrupted:
                    raise KeyboardInterrupt
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


@pytest.mark.parametrize("ending", [False, True])
def test_a_run_that_is_stopped_while_it_records_leaves_pytorch_as_it_was(
    ending: bool, gpu: GPU
) -> None:
    """As in a notebook, whose next cell goes on in this process.

    PyTorch's own error at the end of the recording does not take the place of Ctrl-C.
    """

    def take(index: Tensor) -> Terms:
        if gpu.recording:
            gpu.interrupted = ending
            if not ending:
                gpu.fail(KeyboardInterrupt, "", invalidates=True)
            return {}
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
