"""What hands the examples of an epoch to the step, batch by batch.

Shapes: B batch, N examples.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pyro_infocat.data import Split
from pyro_infocat.runtime import processes


class Feed:
    """Batches of a split. Where its examples lie elsewhere, the next one is read during a step.

    :ivar split: on the device: what the indices of a batch are of. It is the examples' own where
        they are there, and else holds one batch at a time.
    :param examples: N of them.
    :param size: B.
    """

    def __init__(self, examples: Split, size: int) -> None:
        self.examples, self.size = examples, size
        self.split = examples
        if not examples.resident:
            # Batches that are left over join another.
            most = min(len(examples), size + 2 * processes.world())
            self.split = examples.part(torch.arange(most, device=examples.device)).loaded()
            self.places = torch.arange(most, device=examples.device)

    def __call__(self, order: Tensor) -> Iterator[Tensor]:
        """An epoch: for each batch its indices (B,) in ``split``, which hold until the next one.

        :param order: indices of all examples (N,).
        """
        parts = batches(order, self.size)
        if self.examples.resident:
            yield from parts
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, parts[0])
            for part, following in zip(parts, [*parts[1:], None], strict=True):
                batch = coming.result()
                if following is not None:
                    coming = reader.submit(self._read, following)
                yield self._put(batch, part)

    def _read(self, index: Tensor) -> Tensor:
        read = self.examples.pixels[index.cpu()]
        # From such memory a GPU takes it while it computes.
        return read.pin_memory() if self.examples.device.type == "cuda" else read

    def _put(self, batch: Tensor, index: Tensor) -> Tensor:
        held = self.split.pixels[: len(batch)]
        held.copy_(batch, non_blocking=True)
        self.split.labels[: len(batch)].copy_(self.examples.labels[index])
        return self.places[: len(batch)]


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Indices in parts of a size; what is left over is a part too, or joins the last one.

    Batch normalisation needs two examples in each process.
    """
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) < 2 * processes.world():
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
