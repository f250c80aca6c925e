"""Which categories die, merge or come back while a run trains. No label is read.

Shapes: K categories, N examples, X features.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from guides.guide import Guide
from models import CatVAE
from pyro_infocat.data import Observation, Split
from pyro_infocat.evaluation.overlap import CHUNK, overlaps, taken_for
from pyro_infocat.runtime.randomness import evaluating

SEED = 0
EXAMPLES = 2000
"""Training examples that are looked at."""

DEAD, BACK = 0.1, 0.2
"""A category dies below the one and is back above the other, times what the prior gives it."""

MERGED, PARTED = 0.5, 0.25
"""Two categories merge above the one overlap and part below the other."""

Events = dict[tuple[str, str], list[tuple[int, float]]]
"""What happened and the form of its number: to which categories, with which number."""


class CollapseMonitor:
    """Says when a category dies, comes back, merges into another or parts from it.

        share_c     mean_x q(c|x), over training examples
        overlap     of two categories' generated images (:mod:`pyro_infocat.evaluation.overlap`)

    Only living categories are compared: nothing is taken for a dead one.

    No checkpoint holds what it knows: a resumed run says again what is dead or merged.

    :param split: the training split.
    :param epochs: of the whole run.
    :ivar dead: categories.
    :ivar into: merged categories, each with the one that it is part of.
    """

    def __init__(
        self, model: CatVAE, guide: Guide, split: Split, observation: Observation, epochs: int
    ) -> None:
        self.model, self.guide, self.epochs = model, guide, epochs
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SEED))
        self.x = split.part(order[:EXAMPLES].to(split.device)).fixed(observation)
        # Before training: a prior that learns p(c) would follow a category into its death.
        self.expected: list[float] = model.prior.category().probs.tolist()
        self.dead: set[int] = set()
        self.into: dict[int, int] = {}
        self.settled = False

    def look(self, epoch: int, decoding: bool, board: SummaryWriter) -> None:
        """Print what changed, a line for each kind of change, and write the state to TensorBoard.

        :param epoch: number of the epoch that has ended, from 1.
        :param decoding: whether reconstruction has weight. Where it has none, generated images
            say nothing of the categories.
        """
        events: Events = defaultdict(list)
        with evaluating(self.x.device, self.model, self.guide, seed=SEED):
            share = self._share()
            taken = taken_for(self.model, self.guide) if decoding else None
        self._deaths(share, events)
        state = {"used": len(share) - len(self.dead), "least_share": min(share)}
        if taken is not None:
            self._mergers(share, taken, epoch, events)
            state["merged"] = len(self.into)
        for line in _lines(events):
            # A bare print would tear the progress bar.
            tqdm.write(f"epoch {epoch}: {line}")
        # A log file would have it at the end of the run.
        sys.stdout.flush()
        for name, value in state.items():
            board.add_scalar(f"categories/{name}", value, epoch)

    def _share(self) -> list[float]:
        """Each category's share of the examples: K numbers."""
        parts = [self.guide.category(x).probs.sum(0) for x in self.x.split(CHUNK)]
        return (torch.stack(parts).sum(0) / len(self.x)).tolist()

    def _deaths(self, share: list[float], events: Events) -> None:
        for c, (now, expected) in enumerate(zip(share, self.expected, strict=True)):
            if c not in self.dead and now < DEAD * expected:
                self.dead.add(c)
                events["died ({} of the examples)", ".1%"].append((c, now))
            elif c in self.dead and now > BACK * expected:
                self.dead.remove(c)
                events["came back ({} of the examples)", ".1%"].append((c, now))

    def _mergers(self, share: list[float], taken: Tensor, epoch: int, events: Events) -> None:
        overlap = overlaps(taken).tolist()
        before, self.into = self.into if self.settled else {}, {}
        alive = [c for c in range(len(share)) if c not in self.dead]
        whole: list[int] = []
        # The fuller of two takes the other in, and goes on to for as long as they are one.
        for c in sorted(alive, key=lambda c: (c in before, -share[c])):
            closest = max(whole, key=lambda other: overlap[c][other], default=c)
            if before.get(c) in whole and overlap[c][before[c]] > PARTED:
                self.into[c] = before[c]
            elif closest != c and overlap[c][closest] > MERGED:
                self.into[c] = closest
            else:
                whole.append(c)
        # Training starts with one image for all categories. That is no news until it lasts.
        self.settled |= 2 * len(whole) > len(alive) or 2 * epoch > self.epochs
        for c in alive if self.settled else ():
            new, old = self.into.get(c), before.get(c)
            if new is not None and new != old:
                event = f"merged into {new} (what they generate overlaps by {{}})"
                events[event, ".0%"].append((c, overlap[c][new]))
            elif new is None and old in alive:
                events[f"parted from {old}", ""].append((c, 0.0))


def _lines(events: Events) -> Iterator[str]:
    """A line for each kind of event."""
    for (event, form), happened in events.items():
        categories, numbers = zip(*happened, strict=True)
        noun = "category" if len(categories) == 1 else "categories"
        span = dict.fromkeys(format(end, form) for end in (min(numbers), max(numbers)))
        yield f"{noun} {', '.join(map(str, categories))} {event.format(' to '.join(span))}"
