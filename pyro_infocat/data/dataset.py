"""Data sets: examples on the device, in memory or on disk; images are bytes.

Shapes: B batch, N examples, X features.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_infocat.catalogue import Facts
from pyro_infocat.data.disk import OnDisk, blocks_of
from pyro_infocat.errors import UserError

Observation = Literal["binary", "grey"]
"""What the likelihood gets: pixels drawn as 0 or 1 with the grey level's chance, or grey levels."""

FIXED_SEED = 0
"""The one draw by which the test split is binarised, for every run and every seed."""


HELD_OUT = 0.2
"""Share of the examples that is the test split where none is given."""

MOST_HELD_OUT = 10_000
"""Examples that are held out at most: by so many a share is known to half a per cent."""


def held_out(number: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of a training split, and of the fixed fifth that becomes the test split.

    Of more than 50,000 examples it is 10,000.
    """
    order = np.random.default_rng(FIXED_SEED).permutation(number)
    held = min(max(1, round(HELD_OUT * number)), MOST_HELD_OUT)
    return order[held:], order[:held]


def observe(grey: Tensor, observation: Observation) -> Tensor:
    """What the likelihood gets of grey levels (B, X); binarised anew at each call."""
    return torch.bernoulli(grey.clamp(0, 1)) if observation == "binary" else grey


@dataclass(frozen=True)
class Split:
    """Examples: images as bytes, or rows of real numbers.

    :ivar pixels: (N, X); of images uint8 from 0 to ``levels`` - 1, of anything else float32, in
        which NaN stands for a value that is missing. On the labels' device, or elsewhere where
        that has no room for them.
    :ivar labels: (N,), int64, -1 where it is not known; read by evaluation, and by terms that
        declare that they need them.
    :ivar levels: number of grey levels; 0 of real numbers.
    :ivar labelled: whether the labels say anything.
    """

    pixels: Tensor | OnDisk
    labels: Tensor
    levels: int
    labelled: bool = True

    def __len__(self) -> int:
        return self.pixels.shape[0]

    @property
    def device(self) -> torch.device:
        """Where examples are handed out, and where indices are."""
        return self.labels.device

    @property
    def bytes(self) -> int:
        """What the examples take up."""
        return math.prod(self.pixels.shape) * self.pixels.dtype.itemsize

    @property
    def resident(self) -> bool:
        """Whether the examples are there already."""
        return isinstance(self.pixels, Tensor) and self.pixels.device == self.device

    def to(self, device: torch.device, resident: bool = True) -> "Split":
        """The same examples for a device.

        :param resident: whether to move them there, or to hand them out from where they are.
        """
        pixels = self.pixels
        if resident and isinstance(pixels, Tensor):
            pixels = pixels.to(device)
        return replace(self, pixels=pixels, labels=self.labels.to(device))

    @classmethod
    def of_real_numbers(cls, values: Tensor) -> "Split":
        """Rows of real numbers (N, X), without labels."""
        return cls(values, torch.zeros(len(values), dtype=torch.int64), 0, False)

    @classmethod
    def joined(cls, splits: Sequence["Split"]) -> "Split":
        """The examples of one split after those of another."""
        first = splits[0]
        pixels = torch.cat([split.pixels[:] for split in splits])
        labels = torch.cat([split.labels for split in splits])
        return cls(pixels, labels, first.levels, first.labelled)

    def held(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Some examples as they are held (B, X), on the device."""
        if self.resident:
            return self.pixels[index]
        there = index.cpu() if isinstance(index, Tensor) else index
        return self.pixels[there].to(self.device)

    def grey(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Grey levels in [0, 1], or the real numbers as they are (B, X)."""
        chosen = self.held(index).to(torch.get_default_dtype())
        return chosen / (self.levels - 1) if self.levels else chosen

    def fixed(self, observation: Observation) -> Tensor:
        """What the likelihood gets (N, X), binarised once and for all by ``FIXED_SEED``."""
        if observation == "grey":
            return self.grey()
        # Drawn on the CPU, so that every device has the same test set.
        generator = torch.Generator().manual_seed(FIXED_SEED)
        grey = self.grey()
        return torch.bernoulli(grey.cpu(), generator=generator).to(grey.device)

    def shuffled(self) -> Tensor:
        """The indices of all examples in a new order (N,), on the device."""
        return torch.randperm(len(self), device=self.device)

    def checksum(self) -> int:
        """CRC-32 of the examples."""
        crc = 0
        for block in blocks_of(self.pixels):
            crc = zlib.crc32(block.cpu().contiguous().numpy().data, crc)
        return crc

    def label_checksum(self) -> int:
        """CRC-32 of the labels."""
        return zlib.crc32(self.labels.cpu().contiguous().numpy().data)

    def part(self, index: Tensor) -> "Split":
        """The examples of some indices (B,), or where a mask (N,) is true."""
        pixels: Tensor | OnDisk
        if isinstance(self.pixels, OnDisk):
            pixels = self.pixels.chosen(index.cpu())
        else:
            pixels = self.pixels[index if self.resident else index.cpu()]
        return replace(self, pixels=pixels, labels=self.labels[index])

    def some(self, most: int) -> "Split":
        """At most so many examples, on the device: all, or as many by one fixed draw."""
        if len(self) <= most:
            return self.loaded()
        generator = torch.Generator().manual_seed(FIXED_SEED)
        order = torch.randperm(len(self), generator=generator)[:most].sort().values
        return self.part(order.to(self.device)).loaded()

    def loaded(self) -> "Split":
        """The same, on the device."""
        if self.resident:
            return self
        return replace(self, pixels=self.held())


@dataclass(frozen=True)
class DataSet:
    """A training and a test split of examples of one shape.

    Where ``facts`` name no classes, the labels are zeros that say nothing.

    :ivar said: what was taken for what, for the first line of a run; "" where that is no question.
    :ivar names: of the categories that known labels give a name, by their number.
    :ivar kept: the folder for what is learned of the data once for all runs; None where that would
        not be worth it.
    """

    facts: Facts
    train: Split
    test: Split
    said: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    kept: Path | None = None

    @cached_property
    def fingerprint(self) -> dict[str, list[int]]:
        """Number and checksum of each split's images: a resumed run must be of the same.

        Labels are for evaluation, and may be corrected.
        """
        splits = {"train": self.train, "test": self.test}
        return {name: [len(split), split.checksum()] for name, split in splits.items()}

    @cached_property
    def label_checksum(self) -> int:
        """Checksum of the training split's labels, for terms that look at them."""
        return self.train.label_checksum()

    def checked(self, setting: str = "data", value: object = None) -> "DataSet":
        """Itself.

        :param setting: what gave it, for the error, and the value of that.
        :raises UserError: where a split's images are no bytes below its levels, of another X or of
            no shape of an image; where other data than a table's are not finite.
        """
        shape = self.facts.shape
        if self.facts.images and not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 3)):
            raise UserError(
                f"the data's facts have shape {shape}; images have (height, width), or (3, height, "
                "width) in colour",
                setting,
                value,
            )
        for name, split in (("train", self.train), ("test", self.test)):
            pixels, wanted = split.pixels, (len(split.labels), self.facts.features)
            kind = torch.uint8 if self.facts.images else torch.float32
            if pixels.dtype is not kind or tuple(pixels.shape) != wanted:
                raise UserError(
                    f"the {name} split holds {pixels.dtype} of shape {tuple(pixels.shape)}; it "
                    f"must hold {kind} of shape {wanted}",
                    setting,
                    value,
                )
            if split.levels != self.facts.levels:
                raise UserError(
                    f"the {name} split has {split.levels} levels, and the data's facts say "
                    f"{self.facts.levels}; they must be the same",
                    setting,
                    value,
                )
            first = 0
            for block in blocks_of(pixels):
                self._check_block(name, first, block, setting, value)
                first += len(block)
        return self

    def _check_block(
        self, name: str, first: int, block: Tensor, setting: str, value: object
    ) -> None:
        """Refuse numbers that a split must not hold.

        :param first: the number of the block's first example.
        """
        if not self.facts.images:
            # A missing value of a table is NaN, and nothing is infinite.
            odd = block.isinf() if self.facts.columns else ~block.isfinite()
            if odd.any():
                row, feature = odd.nonzero()[0].tolist()
                raise UserError(
                    f"the {name} split holds {block[row, feature].item()} in row {first + row}, "
                    f"feature {feature}; give finite numbers",
                    setting,
                    value,
                )
        elif block.numel() and int(block.max()) >= self.facts.levels:
            raise UserError(
                f"the {name} split holds bytes up to {int(block.max())}; its {self.facts.levels} "
                f"levels are 0 to {self.facts.levels - 1}",
                setting,
                value,
            )

    def to(self, device: torch.device, resident: bool = True) -> "DataSet":
        """The same splits for a device.

        :param resident: whether the training split moves there; the test split does.
        """
        train, test = self.train.to(device, resident), self.test.to(device)
        moved = replace(self, train=train, test=test)
        # Of what may be on a GPU by then, and asked for after every epoch.
        known = {"fingerprint": self.fingerprint, "label_checksum": self.label_checksum}
        moved.__dict__.update(known)
        return moved
