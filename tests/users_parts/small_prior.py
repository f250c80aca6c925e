"""A prior of one's own."""

import torch

from models.priors import FixedModes


class Square(FixedModes):
    """Four modes at the corners of a square in two dimensions."""

    def __init__(self, side: float = 6.0) -> None:
        if side <= 0:
            raise ValueError(f"side must be above 0, not {side}")
        corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        super().__init__(side * (corners - 0.5))
