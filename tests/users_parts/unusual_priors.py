"""Priors that fit, and whose constructor or distribution is out of the ordinary."""

from enum import Enum
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from models.priors import Orthogonal, Prior


class Four(Prior):
    """The same normal of four dimensions for all categories."""

    def __init__(self, categories: int = 10) -> None:
        super().__init__(categories, 4)

    def component(self, c: Tensor) -> dist.Distribution:
        return dist.Normal(torch.zeros(*c.shape, 4), 1.0).to_event(1)


class NormalWithoutGradient(dist.Normal):
    has_rsample = False

    def rsample(self, shape: torch.Size = torch.Size()) -> Tensor:
        raise NotImplementedError


class WithoutGradient(Four):
    def component(self, c: Tensor) -> dist.Distribution:
        return NormalWithoutGradient(torch.zeros(*c.shape, 4), 1.0).to_event(1)


class Shade(Enum):
    LIGHT = "light"
    DARK = "dark"


class Typed(Orthogonal):
    """Takes what YAML has no word for."""

    def __init__(
        self,
        sizes: tuple[int, int] = (5, 2),
        shade: Shade = Shade.LIGHT,
        file: Path = Path("none"),
        files: list[Path] | None = None,
        mixed: tuple[int, str] = (1, "one"),
        many: tuple[int, ...] = (),
    ) -> None:
        super().__init__(*sizes)
        self.sizes, self.shade, self.file, self.files = sizes, shade, file, files
        self.mixed, self.many = mixed, many


class Untyped(Orthogonal):
    """Says no type of what it takes."""

    def __init__(self, extra=None) -> None:
        super().__init__()
        self.extra = extra


class HandsOn(Orthogonal):
    """Hands its base class what it does not take itself."""

    def __init__(self, extra: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.extra = extra


class TakesAList(Orthogonal):
    def __init__(self, extra: list[int]) -> None:
        super().__init__()


class TakesNames(Orthogonal):
    def __init__(self, extra: dict[str, dict[str, float]]) -> None:
        super().__init__()


class TakesAPrior(Orthogonal):
    def __init__(self, extra: Prior) -> None:
        super().__init__()
