"""Data sets: grey images that live on the device as bytes and are binarised there.

Shapes: B batch, N examples, X features.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from pyro_infocat.catalogue import Facts
from pyro_infocat.errors import UserError

Observation = Literal["binary", "grey"]
"""What the likelihood gets: pixels drawn as 0 or 1 with the grey level's chance, or grey levels."""

FIXED_SEED = 0
"""The one draw by which the test split is binarised, for every run and every seed."""


def observe(grey: Tensor, observation: Observation) -> Tensor:
    """What the likelihood gets of grey levels (B, X); binarised anew at each call."""
    return torch.bernoulli(grey.clamp(0, 1)) if observation == "binary" else grey


@dataclass(frozen=True)
class Split:
    """Images as bytes.

    :ivar pixels: (N, X), uint8, from 0 to ``levels`` - 1.
    :ivar labels: (N,), int64; read by evaluation, and by terms that declare that they need them.
    :ivar levels: number of grey levels.
    :ivar labelled: whether the labels say anything.
    """

    pixels: Tensor
    labels: Tensor
    levels: int
    labelled: bool = True

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device) -> "Split":
        """The same images on a device."""
        return Split(self.pixels.to(device), self.labels.to(device), self.levels, self.labelled)

    def grey(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Grey levels in [0, 1] (B, X)."""
        return self.pixels[index].to(torch.get_default_dtype()) / (self.levels - 1)

    def fixed(self, observation: Observation) -> Tensor:
        """What the likelihood gets (N, X), binarised once and for all by ``FIXED_SEED``."""
        if observation == "grey":
            return self.grey()
        # Drawn on the CPU, so that every device has the same test set.
        generator = torch.Generator().manual_seed(FIXED_SEED)
        grey = self.grey()
        return torch.bernoulli(grey.cpu(), generator=generator).to(grey.device)

    def shuffled(self) -> Tensor:
        """The indices of all examples in a new order (N,), on the data's device."""
        return torch.randperm(len(self), device=self.pixels.device)

    def checksum(self) -> int:
        """CRC-32 of the images."""
        return zlib.crc32(self.pixels.cpu().contiguous().numpy().data)

    def part(self, index: Tensor) -> "Split":
        """The examples of some indices (B,), or where a mask (N,) is true."""
        return Split(self.pixels[index], self.labels[index], self.levels, self.labelled)


@dataclass(frozen=True)
class DataSet:
    """A training and a test split of images of one shape.

    Where ``facts`` name no classes, the labels are zeros that say nothing.
    """

    facts: Facts
    train: Split
    test: Split

    @cached_property
    def fingerprint(self) -> dict[str, list[int]]:
        """Number and checksum of each split's images: a resumed run must be of the same.

        Labels are for evaluation, and may be corrected.
        """
        splits = {"train": self.train, "test": self.test}
        return {name: [len(split), split.checksum()] for name, split in splits.items()}

    def checked(self, setting: str = "data", value: object = None) -> "DataSet":
        """Itself.

        :param setting: what gave it, for the error, and the value of that.
        :raises UserError: where a split's images are no bytes below its levels, or of another X.
        """
        for name, split in (("train", self.train), ("test", self.test)):
            pixels, wanted = split.pixels, (len(split.labels), self.facts.features)
            if pixels.dtype is not torch.uint8 or tuple(pixels.shape) != wanted:
                raise UserError(
                    f"the {name} split holds {pixels.dtype} of shape {tuple(pixels.shape)}; it "
                    f"must hold torch.uint8 of shape {wanted}",
                    setting,
                    value,
                )
            if pixels.numel() and int(pixels.max()) >= split.levels:
                raise UserError(
                    f"the {name} split holds bytes up to {int(pixels.max())}; its {split.levels} "
                    f"levels are 0 to {split.levels - 1}",
                    setting,
                    value,
                )
        return self

    def to(self, device: torch.device) -> "DataSet":
        """The same splits on a device."""
        moved = DataSet(self.facts, self.train.to(device), self.test.to(device))
        moved.__dict__["fingerprint"] = self.fingerprint
        return moved
