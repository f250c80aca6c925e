"""A step taken, recorded and replayed. The tests without a GPU put a stand-in for the graph."""

import statistics
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyro_infocat import build, step
from pyro_infocat.arguments import parse
from pyro_infocat.data import digits
from pyro_infocat.record import Record
from pyro_infocat.step import WARM_UP, Recorder, Step
from pyro_infocat.terms import Terms
from pyro_infocat.train import set_validation, train
from tests.brief import SMALL


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
        terms = {"reconstruction": torch.zeros(())}
        return lambda: terms["reconstruction"].copy_(work()["reconstruction"]), terms

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


def test_a_smaller_last_batch_is_taken_and_the_recording_kept(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for _ in range(3):
        for index in [*batches(WARM_UP + 2), torch.tensor([99])]:
            recorder(index, "constants")
    assert work.seen == 3 * [*(index.tolist() for index in batches(WARM_UP + 2)), [99]]
    assert len(recorded) == 1


def test_changed_constants_are_recorded_anew(recorded: list[int]) -> None:
    work = Worker()
    recorder = Recorder(work)
    for constants in ("one", "two"):
        for index in batches(WARM_UP + 3):
            recorder(index, constants)
    assert work.seen == 2 * [index.tolist() for index in batches(WARM_UP + 3)]
    assert len(recorded) == 2


def test_what_cannot_be_recorded_is_said_once_and_taken(
    recorded: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        try:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        finally:
            # As PyTorch does on its way out of a recording.
            raise RuntimeError("capture failed due to a previous error")

    monkeypatch.setattr(step, "capture", capture)
    work = Worker()
    recorder = Recorder(work)
    for index in batches(8):
        recorder(index, "constants")
    assert work.seen == [index.tolist() for index in batches(8)]
    assert capsys.readouterr().err == (
        "CUDA graph: steps are taken one by one, not replayed "
        "(operation not permitted when stream is capturing)\n"
    )


@pytest.mark.usefixtures("alone")
def test_whatever_changes_between_epochs_is_a_constant_of_a_recording() -> None:
    chosen, _, _ = parse(
        [*SMALL, "--guide", "guides.Gumbel", "--view", "pyro_infocat.views.Affine"]
    )
    model, guide, view = build.build(chosen, torch.device("cpu"))
    bound = build.objective(chosen)
    optimizer = torch.optim.Adam(model.parameters())
    whole = Step(digits().train, "grey", view, guide, bound, bound(model, guide), optimizer, True)
    seen: list[Hashable] = []

    def record(index: Tensor, constants: Hashable) -> Terms:
        seen.append(constants)
        return {}

    whole.recorder = record  # type: ignore[assignment]
    index = torch.arange(2)
    whole(index), whole(index)
    guide.temperature = 0.25  # type: ignore[assignment]
    whole(index)
    view.moves = 0.5  # type: ignore[attr-defined]
    whole(index)
    bound.weights["kl_z"] = 0.5
    whole(index)
    optimizer.param_groups[0]["lr"] = 0.125
    whole(index)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 5


@pytest.mark.usefixtures("alone")
def test_a_recorded_run_has_the_numbers_of_a_taken_one(
    recorded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and the learning rate change in every epoch, so each one is recorded anew."""
    chosen = replace(
        parse([*SMALL, "--epochs", "2", "--anneal", "cosine"])[0],
        batch_size=200,
        schedules={"kl_z": [[0, 0.5], [2, 1]]},
    )
    histories = []

    def whole_capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
        """A stand-in that holds every term of a real step."""
        recorded.append(len(recorded))
        terms: Terms = {}
        return lambda: terms.update(work()), terms

    monkeypatch.setattr(step, "capture", whole_capture)
    for wanted in (False, True):
        monkeypatch.setattr("pyro_infocat.train.recordable", lambda *_, wanted=wanted: wanted)
        torch.manual_seed(0)
        model, guide, view = build.build(chosen, torch.device("cpu"))
        record = Record(Path(f"out{wanted}"))
        record.create(chosen)
        history = train(chosen, digits(), model, guide, view, record)
        histories.append([{k: v for k, v in row.items() if k != "seconds"} for row in history])
    assert histories[0] == histories[1]
    assert len(recorded) == 2


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("size", [3, 7])
def test_a_step_follows_the_mean_gradient_of_its_batch(size: int) -> None:
    """Nats per example, however many there are."""
    chosen, _, _ = parse([*SMALL, "--weights", "{}", "--information_weight", "0"])
    torch.manual_seed(0)
    model, guide, view = build.build(chosen, torch.device("cpu"))
    bound = build.objective(chosen)
    module = bound(model, guide)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    x = digits().train.grey(torch.arange(size))
    torch.manual_seed(1)
    alone = [bound.differentiable_loss(model, guide, x)]
    mean = torch.autograd.grad(alone[0] / size, list(module.parameters()))
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    take = Step(digits().train, "grey", view, guide, bound, module, optimizer)
    torch.manual_seed(1)
    take(torch.arange(size))
    for (name, parameter), slope in zip(module.named_parameters(), mean, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - slope)
    assert max(slope.abs().max() for slope in mean) > 0.1


@pytest.mark.gpu
@pytest.mark.usefixtures("alone")
def test_replayed_steps_train_as_taken_ones_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end near the same bound; the draws differ, so the mean of the last epochs counts.

    Two runs on a CPU from one start by other draws ended 0.05 nats apart.
    """
    # A check of every value asks the host, which no recording can.
    set_validation(False)
    chosen = replace(parse([*SMALL, "--epochs", "40"])[0], batch_size=100, device="cuda")
    bounds = []
    for graph in (False, True):
        torch.manual_seed(0)
        model, guide, view = build.build(chosen, torch.device("cuda"))
        record = Record(Path(f"out{graph}"))
        record.create(chosen)
        data = digits().to(torch.device("cuda"))
        history = train(replace(chosen, graph=graph), data, model, guide, view, record)
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
