"""A training step: from the indices of a batch to the optimiser's update.

On a GPU a step is recorded once as a CUDA graph and replayed: a small model's step is hundreds of
kernels of microseconds each, and launching them one by one takes Python longer than running them.

Shapes: B batch, X features.
"""

import functools
import gc
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_infocat.build import Parts
from pyro_infocat.data import Observation, Split, observe
from pyro_infocat.errors import reason
from pyro_infocat.networks import statistics_kept
from pyro_infocat.objective import Terms
from pyro_infocat.objective.terms import Known
from pyro_infocat.runtime import processes
from pyro_infocat.training.known import Labelled

WARM_UP = 3
"""Steps before one is recorded: libraries choose their kernels and take their memory in them."""


class Step:
    """From the indices of a batch to the optimiser's update.

    :ivar x: what the likelihood got of the last batch (B, X).
    :param split: the examples.
    :param observation: what the likelihood gets of them.
    :param parts: whose objective's weights may change between steps.
    :param module: the bound over model and guide, averaged over processes.
    :param constants: what a recorded step cannot see change; None takes every step.
    :param labelled: examples whose labels training sees, beside those of a batch; None where the
        labels of the split are none of its business.
    """

    def __init__(
        self,
        split: Split,
        observation: Observation,
        parts: Parts,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        constants: Callable[[], Hashable] | None = None,
        labelled: Labelled | None = None,
    ) -> None:
        self.split, self.observation, self.parts = split, observation, parts
        self.module, self.optimizer, self.constants = module, optimizer, constants
        self.labelled = labelled
        self.recorder = Recorder(self.take) if constants else None
        self.x: Tensor

    def __call__(self, index: Tensor) -> Terms:
        """Take a step on the examples of ``index`` (B,); the terms, sums over them in nats."""
        if self.recorder is None or self.constants is None:
            return self.take(index)
        return self.recorder(index, self.constants())

    def take(self, index: Tensor) -> Terms:
        """The step itself."""
        bound, guide = self.parts.bound, self.parts.guide
        mine = processes.mine(index)
        grey = self.split.grey(mine)
        self.x = observe(grey, self.observation)
        others: dict[str, Any] = {}
        drawn = self.labelled.draw(len(mine)) if self.labelled else None
        also = None
        if bound.needs("view"):
            # A view may ask q(c|x) of what is no example, and measure distances in the batch.
            with statistics_kept(guide):
                seen = grey if drawn is None else torch.cat([grey, drawn[0]])
                looked = observe(self.parts.view(seen, guide.category), self.observation)
                others["view"], also = looked[: len(grey)], looked[len(grey) :]
        if drawn is not None:
            x = observe(drawn[0], self.observation)
            others["known"] = Known(self.split.labels[mine], x, also, drawn[1])
        if bound.needs("labels"):
            others["labels"] = self.split.labels[mine]
        # Processes average their gradients; the sum over the whole batch is meant.
        loss = self.module(self.x, **others) * processes.world() / len(index)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return bound.terms


class Recorder:
    """Records a step as a CUDA graph and replays it; any step that it cannot replay is taken.

    The first steps with the same constants are taken one by one, the next is recorded, and all
    others are replayed. The last batch of an epoch, where it is smaller, is taken.

    :param take: the step: its work on the GPU may depend on the index and the constants alone.
    """

    def __init__(self, take: Callable[[Tensor], Terms]) -> None:
        self.take = take
        self.able = True
        self.constants: Hashable = None
        self.taken = 0
        self.index: Tensor | None = None
        self.replay: Callable[[], None] | None = None
        self.terms: Terms = {}

    def __call__(self, index: Tensor, constants: Hashable) -> Terms:
        """A step on ``index`` (B,) with these constants; the terms hold until the next one."""
        if self.index is None:
            self.index = index.clone()
        if not self.able:
            return self.take(index)
        if constants != self.constants:
            self.constants, self.taken, self.replay = constants, 0, None
        if index.shape != self.index.shape or self.taken < WARM_UP:
            self.taken += 1
            return on_the_side(self.take, index)
        self.index.copy_(index)
        if self.replay is None:
            self._record(self.index)
        if self.replay is None:
            return self.take(index)
        self.replay()
        return self.terms

    def _record(self, index: Tensor) -> None:
        try:
            self.replay, self.terms = capture(lambda: self.take(index))
        # Whatever failed: what is wrong with the step itself shows again when it is taken.
        except Exception as error:
            # Leaving the recording raises too, and would hide what ended it: Ctrl-C as well.
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            if not isinstance(first, Exception):
                raise first from None
            self.able = False
            said = reason(first)[:200]
            print(f"CUDA graph: steps are taken one by one, not replayed ({said})", file=sys.stderr)


@functools.cache
def side_stream(device: int) -> torch.cuda.Stream:
    """One stream for all steps on a GPU: each keeps memory of its own."""
    return torch.cuda.Stream(device)


def on_the_side(take: Callable[[Tensor], Terms], index: Tensor) -> Terms:
    """A step beside the stream that records, as a graph's warm-up has to be."""
    here, stream = torch.cuda.current_stream(), side_stream(torch.cuda.current_device())
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        terms = take(index)
    here.wait_stream(stream)
    return terms


def capture(work: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
    """Record work without doing it: what does it, and the tensors that then hold its terms.

    :raises RuntimeError: where the work holds something that a CUDA graph cannot. Work can then be
        done as before.
    """
    graph = torch.cuda.CUDAGraph()
    with undone_on_failure(), no_collection(), torch.cuda.graph(graph):
        terms = work()
    return graph.replay, terms


@contextmanager
def undone_on_failure() -> Iterator[None]:
    """Put back what PyTorch leaves changed where a recording fails.

    Ending it raises, and what comes after that is left out: the stream stays that of the recording
    (``torch.cuda.graph.__exit__``), and the generator takes all that follows for a part of it and
    refuses to draw (``CUDAGraph::capture_end``; not since PyTorch keeps a state a recording).
    """
    stream = torch.cuda.current_stream()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    # A copy is no part of any recording. It is at the same number: nothing has been drawn.
    state = generator.clone_state()
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(state)
        raise


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python free nothing by its garbage collection.

    A graph of an earlier start may be garbage. To destroy it is no work that can be recorded, and
    fails the recording during which it happens (pytorch/pytorch#161037).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
