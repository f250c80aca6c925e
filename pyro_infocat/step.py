"""A training step, on a GPU recorded once as a CUDA graph and replayed.

A small model's step is hundreds of kernels of microseconds each, and launching them one by one
takes Python longer than running them: replayed, they follow one another without it.

Shapes: B batch, X features.
"""

import functools
import sys
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from guides.guide import Guide
from pyro_infocat import processes
from pyro_infocat.data import Observation, Split, observe
from pyro_infocat.errors import reason
from pyro_infocat.networks import statistics_kept
from pyro_infocat.objective import InfoCatELBO
from pyro_infocat.terms import Terms
from pyro_infocat.views import View

WARM_UP = 3
"""Steps before one is recorded: libraries choose their kernels and take their memory in them."""


class Step:
    """From the indices of a batch to the optimiser's update.

    :ivar x: what the likelihood saw of the last batch (B, X).
    :param split: the examples.
    :param seen: what the likelihood sees of them.
    :param bound: the objective, whose weights may change between steps.
    :param module: the bound over model and guide, averaged over processes.
    :param record: replay full batches as a CUDA graph.
    """

    def __init__(
        self,
        split: Split,
        seen: Observation,
        view: View,
        guide: Guide,
        bound: InfoCatELBO,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        record: bool = False,
    ) -> None:
        self.split, self.seen, self.view, self.guide = split, seen, view, guide
        self.bound, self.module, self.optimizer = bound, module, optimizer
        self.recorder = Recorder(self.take) if record else None
        self.x: Tensor

    def __call__(self, index: Tensor) -> Terms:
        """Take a step on the examples of ``index`` (B,); the terms, sums over them in nats."""
        if self.recorder is None:
            return self.take(index)
        # What a recorded step cannot see change.
        constants = (
            *self.bound.weights.values(),
            getattr(self.guide, "temperature", None),
            getattr(self.view, "moves", None),
            *(group["lr"] for group in self.optimizer.param_groups),
        )
        return self.recorder(index, constants)

    def take(self, index: Tensor) -> Terms:
        """The step itself."""
        grey = self.split.grey(processes.mine(index))
        self.x = observe(grey, self.seen)
        look = None
        if self.bound.weights["consistency"]:
            # A view may ask q(c|x) of what is no example.
            with statistics_kept(self.guide):
                look = observe(self.view(grey, self.guide.category), self.seen)
        # Processes average their gradients; the sum over the whole batch is meant.
        loss = self.module(self.x, view=look) * processes.world() / len(index)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return self.bound.terms


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
        except RuntimeError as error:
            self.able = False
            # Leaving the recording raises too, and would hide what ended it.
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
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

    :raises RuntimeError: where the work holds something that a CUDA graph cannot.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        terms = work()
    return graph.replay, terms
