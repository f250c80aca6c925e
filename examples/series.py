"""Time series as data: a reader, an encoder, a decoder and a view, of public parts alone.

    python -m pyro_infocat.run --config examples/series.yaml --data FILE.npz --prior.categories 3

x is a series step by step. Each channel is standardised by the training split and moved into
[0, 1], where the Gaussian likelihood's mean lies: x = 1/2 + (value - mean) / (2 REACH spread).
Encoder, decoder and view raise ValueError for a size below 1, or data of another reader.
Shapes: B batch, N examples, T steps, C channels, X = T C features, D latent, H hidden features.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from guides.encoders import Encoder
from models.arguments import share, whole
from models.decoders import Decoder
from models.likelihoods import Likelihood
from pyro_infocat import DataSet, Reader, UserError, View
from pyro_infocat.catalogue import Column, Facts
from pyro_infocat.data import Examples, Split
from pyro_infocat.data.archive import read_arrays
from pyro_infocat.data.dataset import held_out

REACH = 4.0  # standard deviations from the middle of [0, 1] to its ends
STRIDE, SHORTEST = 4, 8  # of each convolution; steps at which there is no further one
KNOTS = 5  # places at which the speed of a warped series is drawn


class Series(Reader):
    """An .npz with series ``x_train`` (N, T) or (N, T, C), or an .npy of them.

    ``x_test`` is like it; without one a fixed fifth is held out. ``y_train`` and ``y_test`` (N,)
    are labels, whole numbers or words, for evaluation alone. UserError says what is wrong.
    """

    def __init__(self, data: str) -> None:
        self.data = data

    def read(self) -> DataSet:
        arrays = read_arrays(Path(self.data))
        if len(arrays.get("x_train", ())) < 2:
            raise self._wrong("give at least 2 series, (N, T) or (N, T, C), under x_train")
        series = self._series(arrays)
        every = np.concatenate(list(series.values()))
        both = np.split(np.arange(len(every)), [len(series["x_train"])])
        train, test = both if "x_test" in series else held_out(len(every))
        columns = self._columns(every[train])
        given = [arrays[name] for name in ("y_train", "y_test") if name in arrays]
        y = np.concatenate(given) if given else np.zeros(len(every), np.int64)
        if y.shape != (len(every),) or y.dtype.kind not in "iuU":
            raise self._wrong(f"labels: {y.dtype} {y.shape}; give an integer or word a series")
        names, codes = np.unique(y, return_inverse=True)
        split = Split(self._x(every, columns), torch.from_numpy(codes), 0, bool(given))
        facts = Facts("series", every.shape[1:], 0, tuple(map(str, names)) * bool(given), columns)
        train, test = (split.part(torch.from_numpy(part)) for part in (train, test))
        said = f"'{self.data}' holds {len(every)} series, T, C = {facts.shape}"
        return DataSet(facts, train, test, said)

    def again(self, facts: Facts) -> Examples:
        series = self._series(read_arrays(Path(self.data)))
        every = np.concatenate(list(series.values()))
        if every.shape[1:] != facts.shape:
            raise self._wrong(f"T, C are {every.shape[1:]}; give series of the run's {facts.shape}")
        names = [f"{name}/{n}" for name, x in series.items() for n in range(len(x))]
        return Examples(Split.of_real_numbers(self._x(every, facts.columns)), names)

    def _wrong(self, text: str) -> UserError:
        return UserError(f"'{self.data}': {text}", "data")

    def _series(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Series (N, T, C) by name."""
        series = {name: arrays[name] for name in ("x_train", "x_test") if name in arrays}
        for name, x in series.items():
            if x.ndim not in (2, 3) or not x.size or x.dtype.kind not in "iuf":
                raise self._wrong(f"{name} is {x.dtype} {x.shape}; give reals (N, T) or (N, T, C)")
            series[name] = x.reshape(*x.shape[:2], -1).astype(np.float64)
        shapes = [x.shape[1:] for x in series.values()]
        if len(set(shapes)) != 1:
            raise self._wrong(f"T, C of x_train, x_test are {shapes}; give both of the same T, C")
        return series

    def _columns(self, series: np.ndarray) -> tuple[Column, ...]:
        """What is kept with a run: each feature's step, channel and place in [0, 1]."""
        with np.errstate(all="ignore"):
            mean, spread = series.mean((0, 1)), series.std((0, 1))
        # Of equal numbers rounding leaves a spread.
        for n in np.flatnonzero(~((spread > 1e-13 * abs(mean)) & (spread < np.inf)))[:1]:
            raise self._wrong(f"channel {n} has spread {spread[n]}; give finite, varying numbers")
        return tuple(
            Column(f"t{t}.c{c}", "real", (), float(m - REACH * s), float(2 * REACH * s))
            for t in range(series.shape[1])
            for c, (m, s) in enumerate(zip(mean, spread, strict=True))
        )

    def _x(self, series: np.ndarray, columns: Sequence[Column]) -> Tensor:
        """x (N, X) of series (N, T, C)."""
        least, width = np.array([(column.mean, column.scale) for column in columns]).T
        with np.errstate(over="ignore"):
            x = ((series.reshape(len(series), -1) - least) / width).astype(np.float32)
        for row, feature in np.argwhere(~np.isfinite(x))[:1]:
            raise self._wrong(f"series {row} at {columns[feature].name} is not finite; mend it")
        return torch.from_numpy(x)


def sides(shape: Sequence[int]) -> tuple[int, int]:
    """T and C of x."""
    if len(shape) != 2:
        raise ValueError("needs series, as examples.series.Series reads them")
    return shape[0], shape[1]


def lengths(steps: int) -> list[int]:
    """T, and what each of the convolutions makes of it."""
    shorter = -(-steps // STRIDE)
    return [steps, *(lengths(shorter) if shorter > SHORTEST else [shorter])]


class Convolutional(Encoder):
    """Convolutions along time, ``width`` channels each, then a dense layer of H."""

    def __init__(self, shape: Sequence[int], width: int = 32, hidden: int = 128) -> None:
        super().__init__()
        whole("width", width), whole("hidden", hidden)
        self.sides, self.width = sides(shape), hidden
        sizes, layers = lengths(self.sides[0]), list[nn.Module]()
        for before in [self.sides[1], *[width] * (len(sizes) - 2)]:
            convolution = nn.Conv1d(before, width, 9, STRIDE, 4, bias=False)
            layers += [convolution, nn.BatchNorm1d(width), nn.ReLU()]
        dense = [nn.Linear(width * sizes[-1], hidden, bias=False), nn.BatchNorm1d(hidden)]
        self.network = nn.Sequential(*layers, nn.Flatten(), *dense, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.reshape(-1, *self.sides).mT).reshape(*x.shape[:-1], self.width)


class Transposed(Decoder):
    """A dense layer of ``width`` channels, then transposed convolutions along time."""

    def __init__(
        self, latent: int, shape: Sequence[int], likelihood: Likelihood, width: int = 16
    ) -> None:
        super().__init__(likelihood)
        whole("latent", latent), whole("width", width)
        steps, channels = sides(shape)
        first, *self.lengths = reversed(lengths(steps))
        self.dense = nn.Sequential(nn.Linear(latent, width * first), nn.Unflatten(1, (width, -1)))
        widths = [width] * len(self.lengths) + [channels * likelihood.outputs]
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(before, after, 8, STRIDE, 2) for before, after in pairwise(widths)
        )

    def raw(self, z: Tensor) -> Tensor:
        series = self.dense(z.reshape(-1, z.shape[-1]))
        for layer, length in zip(self.layers, self.lengths, strict=True):
            series = layer(series.relu())[..., :length]
        return series.mT.reshape(*z.shape[:-1], -1, self.likelihood.outputs)


class Warped(View):
    """A series at a changing speed and shifted in time, its channels scaled, with noise.

    Standard deviations from 0 to 1, others raise ValueError: ``warp`` of the log of the speed at a
    knot, ``shift`` of time in shares of T, beyond which the ends go on, ``scaling`` of the log of
    each channel's factor, ``jitter`` of noise, the channel's own standard deviation being 1.
    """

    def __init__(
        self, shape: Sequence[int], warp: float = 0.5, shift: float = 0.1,
        scaling: float = 0.1, jitter: float = 0.1,
    ) -> None:  # fmt: skip
        self.sides = sides(shape)
        strengths = {"warp": warp, "shift": shift, "scaling": scaling, "jitter": jitter}
        for name, value in strengths.items():
            share(name, value)
        self.warp, self.shift, self.scaling, self.jitter = strengths.values()

    def __call__(self, grey: Tensor, classifier: Any) -> Tensor:
        places, series = self.places(grey), grey.reshape(-1, *self.sides)
        before, after = places.floor(), places.ceil()
        low, high = (series.take_along_dim(one.long()[..., None], 1) for one in (before, after))
        seen = low.lerp(high, (places - before)[..., None]) - 0.5
        seen = seen * (self.scaling * torch.randn_like(seen[:, :1])).exp()
        return (0.5 + seen + self.jitter / (2 * REACH) * torch.randn_like(seen)).flatten(1)

    def places(self, grey: Tensor) -> Tensor:
        """The step in x (B, X) that each step of a view shows (B, T), never an earlier one."""
        steps = self.sides[0]
        knots = torch.randn(len(grey), 1, KNOTS, dtype=grey.dtype, device=grey.device)
        speed = (self.warp * interpolate(knots, steps, mode="linear")).exp().squeeze(1)
        way = speed.cumsum(1) - speed[:, :1]
        way = way * ((steps - 1) / way[:, -1:].clamp_min(1e-6))  # one step has no way to go
        return (way + self.shift * steps * torch.randn_like(way[:, :1])).clamp(0, steps - 1)
