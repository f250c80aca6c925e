"""Readers of one's own."""

from pathlib import Path

import torch

from pyro_infocat import DataSet, Reader
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import Split


class Text(Reader):
    """Images in a text file: a row of grey levels up to 9 a line, such as 0129, and no labels."""

    def __init__(self, data: str, data_root: str, height: int = 1) -> None:
        self.path, self.height = Path(data_root) / data, height

    def read(self) -> DataSet:
        lines = self.path.read_text().split()
        pixels = torch.tensor([[int(digit) for digit in line] for line in lines])
        pixels = pixels.to(torch.uint8)
        facts = Facts("digits", (self.height, pixels.shape[1] // self.height), 10, ())
        train, test = (
            Split(some, torch.zeros(len(some), dtype=torch.int64), facts.levels, labelled=False)
            for some in (pixels[5:], pixels[:5])
        )
        return DataSet(facts, train, test)
