"""Likelihoods p(x | raw): each turns the raw output of a decoder into a distribution over x.

All are normalised except ``GreyBernoulli``, which is kept for comparison.

Shapes: B batch, X features, S samples. A likelihood takes raw (..., X, outputs) and returns a
distribution of batch shape (...) and event shape (X,).

Every distribution has ``rsample``, so that gradients of the information bound reach the decoder.
Where x is discrete the draw is exact and its gradient is straight-through (Bengio et al. 2013).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, pad

from models.arguments import picture, whole
from models.recorded import Recorded
from models.scales import LOG_SCALE_BOUND, bounded


class Likelihood(Recorded, nn.Module, ABC):
    """p(x | raw). A subclass defines ``forward``."""

    outputs: int = 1
    """How many raw numbers describe a feature."""
    binary: bool = False
    """Whether x is 0 or 1; else it is a grey level in [0, 1]."""
    of_columns: bool = False
    """Whether it is made for what the columns of a table hold."""
    schedulable: tuple[str, ...] = ()
    """Names of float attributes that a schedule may set between epochs."""

    @abstractmethod
    def forward(self, raw: Tensor) -> dist.Distribution:
        """The distribution of x given raw (..., X, outputs): event shape (X,)."""


class BernoulliLogMass(torch.autograd.Function):
    """log p(x | logits) in nats: (...) for logits (..., X) and x of a shape that expands to theirs.

        log p(x) = sum over features of (x - 1/2) l - |l| / 2 + log sigmoid(|l|)

    sigmoid(|l|) lies in [1/2, 1], so that a product of ``GROUP`` of them does not underflow and
    one logarithm serves all. The cost is in logarithms and in memory: the forward pass allocates
    two tensors of the logits' size, the backward pass one. Differentiable once.
    """

    GROUP = 32

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        size = logits.abs()
        # Subtracted before the sum: in each feature a large logit cancels exactly.
        linear = ((x - 0.5) * logits).sub_(size, alpha=0.5).sum(-1)
        likelier = size.sigmoid_()
        columns = logits.shape[-1] // BernoulliLogMass.GROUP
        whole = columns * BernoulliLogMass.GROUP
        groups = likelier[..., :whole].unflatten(-1, (BernoulliLogMass.GROUP, columns)).prod(-2)
        return linear + groups.log_().sum(-1) + likelier[..., whole:].log().sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, x = ctx.saved_tensors
        outer = gradients[0].unsqueeze(-1)
        by_x = (logits * outer).sum_to_size(x.shape) if ctx.needs_input_grad[1] else None
        return logits.sigmoid().neg_().add_(x).mul_(outer), by_x


class BernoulliPixels(TorchDistribution):
    """Independent Bernoulli features with straight-through ``rsample``.

    :param logits: (..., X).
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.boolean, 1)
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "BernoulliPixels":
        logits = self.logits.expand(torch.Size(batch_shape) + self.event_shape)
        # A subclass keeps its support, and validation stays on where a plate expands.
        new = type(self)(logits, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        mean = self.mean.expand(self.shape(sample_shape))
        # torch.bernoulli raises on NaN; here it reaches the loss, where it is reported by term.
        draw = (torch.rand_like(mean) < mean).to(mean.dtype)
        return draw + (mean - mean.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.logits.shape)
        return BernoulliLogMass.apply(self.logits.expand(shape), value)


class Bernoulli(Likelihood):
    """x in {0, 1}, independent given z. Its log-likelihood is of a probability mass."""

    binary = True

    def forward(self, raw: Tensor) -> BernoulliPixels:
        return BernoulliPixels(raw.squeeze(-1))


class NeighbourlyPixels(TorchDistribution):
    """Autoregressive Bernoulli pixels in raster order, each given z and the N before it nearby.

    :param raw: (..., X, 1 + R), of each pixel a logit and R weights on the context's features.
    :param neighbours: (X, N), see :func:`before`.
    :param context: from neighbours (..., N) to R features (..., R).
    """

    arg_constraints = {"raw": constraints.independent(constraints.real, 2)}
    support = constraints.independent(constraints.boolean, 1)
    has_rsample = True

    def __init__(
        self,
        raw: Tensor,
        neighbours: Tensor,
        context: nn.Module,
        validate_args: bool | None = None,
    ) -> None:
        self.raw, self.neighbours, self.context = raw, neighbours, context
        super().__init__(raw.shape[:-2], raw.shape[-2:-1], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "NeighbourlyPixels":
        raw = self.raw.expand(torch.Size(batch_shape) + self.raw.shape[-2:])
        new = NeighbourlyPixels(raw, self.neighbours, self.context, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def logits(self, value: Tensor, pixels: slice = slice(None)) -> Tensor:
        """Logits (..., P) of the P chosen pixels given value (..., X)."""
        # Index X stands for pixels beyond the edge, which count as 0.
        padded = pad(value, (0, 1))
        features = self.context(padded[..., self.neighbours[pixels]])
        raw = self.raw[..., pixels, :]
        return raw[..., 0] + (raw[..., 1:] * features).sum(-1)

    def in_order(self, value: Tensor, decide: Callable[[Tensor], Tensor]) -> Tensor:
        """Fill value (..., X) in place, in raster order: ``decide`` maps a logit to a pixel."""
        with torch.no_grad():
            for pixel in range(self.event_shape[0]):
                here = slice(pixel, pixel + 1)
                value[..., here] = decide(self.logits(value, here))
        return value

    @property
    def mean(self) -> Tensor:
        """Each pixel's mean given the means of those before it: an approximation of the mean."""
        return self.in_order(torch.zeros_like(self.raw[..., 0]), torch.sigmoid)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        empty = self.raw.new_zeros(self.shape(sample_shape))
        draw = self.in_order(
            empty, lambda logits: (torch.rand_like(logits) < logits.sigmoid()) * 1.0
        )
        mean = self.logits(draw).sigmoid()
        return draw + (mean - mean.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return BernoulliLogMass.apply(self.logits(value), value)


class AutoregressiveBernoulli(Likelihood):
    """x in {0, 1}, each pixel given z and R features of the pixels above and before it.

        logit of x_i = raw_i0 + sum_k raw_ik context(neighbours of x_i)_k

    The context models local structure, such as edges and strokes, which leaves the global one to
    z (Gulrajani et al. 2017; Chen et al. 2017). A neighbourhood is ``reach`` rows up and ``reach``
    columns to either side. A draw takes X sequential steps. Its log-likelihood is of a probability
    mass.

    :param shape: (height, width) of an image.
    :param reach: size of the neighbourhood in pixels.
    :param rank: R.
    :param hidden: width of the context's hidden layer.
    :raises ValueError: for a reach, rank or width below 1, or an image in colour.
    """

    binary = True

    def __init__(
        self, shape: Sequence[int], reach: int = 3, rank: int = 4, hidden: int = 64
    ) -> None:
        super().__init__()
        channels, *sides = picture(shape)
        if channels > 1:
            raise ValueError(
                "takes grey images of 0 and 1, and these are in colour; "
                "models.likelihoods.Gaussian or DiscretisedLogistic would fit"
            )
        for name, number in (("reach", reach), ("rank", rank), ("hidden", hidden)):
            whole(name, number)
        self.outputs = 1 + rank
        self.register_buffer("neighbours", before(sides, reach), persistent=False)
        inputs = 2 * reach * (reach + 1)
        self.context = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, rank))

    def forward(self, raw: Tensor) -> NeighbourlyPixels:
        return NeighbourlyPixels(raw, self.get_buffer("neighbours"), self.context)


def before(shape: Sequence[int], reach: int) -> Tensor:
    """Indices (X, N) of the N neighbours that precede each pixel, X for one beyond the edge.

    :param shape: (height, width) of an image.
    :param reach: rows up and columns to either side; N = 2 reach (reach + 1).
    """
    height, width = shape
    steps = [
        (down, right)
        for down in range(-reach, 1)
        for right in range(-reach, reach + 1)
        if (down, right) < (0, 0)
    ]
    down, right = torch.tensor(steps).unbind(-1)
    rows = torch.arange(height).repeat_interleave(width).unsqueeze(-1) + down
    columns = torch.arange(width).repeat(height).unsqueeze(-1) + right
    inside = (rows >= 0) & (columns >= 0) & (columns < width)
    return torch.where(inside, rows * width + columns, height * width)


class ContinuousBernoulliPixel(dist.ContinuousBernoulli):
    """torch's distribution, but exact at every logit l: torch's clamps probabilities, l near 16.

        p(x) = l e^(l x) / (e^l - 1)
        icdf(u) = log(1 + u (e^l - 1)) / l,   used by rsample
        mean = 1 / (1 - e^-l) - 1 / l

    Each has a removable singularity at l = 0, where a series replaces it. Away from 0 both signs
    are computed from -|l| by symmetry, so that no exponential overflows.
    """

    def icdf(self, value: Tensor) -> Tensor:
        logit, u = self.logits, value
        series = u + u * (1 - u) * (logit / 2 + logit.square() * (1 - 2 * u) / 6)
        middle = torch.where(logit.abs() < 1e-3, 1e-3, logit).clamp(-2, 2)
        # Rounded up it may pass 1 by a bit.
        near = (torch.log1p(u * torch.expm1(middle)) / middle).clamp_max(1)
        a = logit.abs().clamp_min(0.5)
        tiny = torch.finfo(logit.dtype).tiny
        v = torch.where(logit > 0, u, 1 - u).clamp_min(tiny)
        far = (1 + torch.log(v + (1 - v) * torch.exp(-a)) / a).clamp(0, 1)
        mirrored = torch.where(logit > 0, far, 1 - far)
        return torch.where(
            logit.abs() < 1e-3, series, torch.where(logit.abs() <= 1, near, mirrored)
        )

    @property
    def mean(self) -> Tensor:
        logit = self.logits
        series = 0.5 + logit / 12 - logit.pow(3) / 720
        a = logit.abs().clamp_min(0.05)
        far = -1 / torch.expm1(-a) - 1 / a
        return torch.where(logit.abs() < 0.1, series, torch.where(logit > 0, far, 1 - far))

    def _cont_bern_log_norm(self) -> Tensor:
        size = self.logits.abs()
        a = size.clamp_min(1e-3)
        far = a.log() + torch.log1p(torch.exp(-a)) - torch.log(-torch.expm1(-a))
        return torch.where(size > 1e-3, far, math.log(2) + size.square() / 12)


class ContinuousBernoulli(Likelihood):
    """x in [0, 1], with the normalised density of Loaiza-Ganem and Cunningham (2019).

    Its log-likelihood is of a density and may be positive.
    """

    def forward(self, raw: Tensor) -> dist.Distribution:
        return ContinuousBernoulliPixel(logits=raw.squeeze(-1)).to_event(1)


class Gaussian(Likelihood):
    """x = sigmoid(raw) + scale * noise, the noise standard normal.

    Its log-likelihood is of a density over the reals and may be positive. The mean is confined to
    [0, 1]: an unconstrained one diverges for a category without examples, on which only the
    information bound acts.

    :param scale: standard deviation, in units of the grey levels [0, 1].
    :param learn_scale: learn one standard deviation for all features, starting at ``scale``.
    :raises ValueError: for a scale outside of (e^-5, e^5).
    """

    def __init__(self, scale: float = 0.3, learn_scale: bool = False) -> None:
        super().__init__()
        # The negated comparison refuses NaN too.
        if not math.exp(-LOG_SCALE_BOUND) < scale < math.exp(LOG_SCALE_BOUND):
            bounds = f"{math.exp(-LOG_SCALE_BOUND):.4f} and {math.exp(LOG_SCALE_BOUND):.1f}"
            raise ValueError(f"scale must lie between {bounds}, not {scale}")
        log_scale = torch.tensor(LOG_SCALE_BOUND * math.atanh(math.log(scale) / LOG_SCALE_BOUND))
        self.log_scale: Tensor
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, raw: Tensor) -> dist.Distribution:
        scale = bounded(self.log_scale).exp()
        return dist.Normal(raw.squeeze(-1).sigmoid(), scale).to_event(1)


class LogisticLevels(TorchDistribution):
    """Independent logistic variables rounded to one of ``levels`` grey levels in [0, 1].

    The lowest and highest level take the tails, so that the masses sum to one.

    :param mean: location (..., X) of the logistic, in units of the grey levels [0, 1].
    :param log_scale: log of its scale, broadcastable with mean.
    :param levels: number of grey levels, 256 for 8-bit pixels.
    """

    arg_constraints = {"mean": constraints.real_vector, "log_scale": constraints.real_vector}
    support = constraints.independent(constraints.unit_interval, 1)
    has_rsample = True

    def __init__(
        self, mean: Tensor, log_scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        self.location, self.log_scale = torch.broadcast_tensors(mean, log_scale)
        self.levels = levels
        super().__init__(
            self.location.shape[:-1], self.location.shape[-1:], validate_args=validate_args
        )

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "LogisticLevels":
        shape = torch.Size(batch_shape) + self.event_shape
        location, log_scale = self.location.expand(shape), self.log_scale.expand(shape)
        new = LogisticLevels(location, log_scale, self.levels, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The location clipped to [0, 1]: an approximation that ignores rounding and tails."""
        return self.location.clamp(0, 1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        location = self.location.expand(self.shape(sample_shape))
        tiny = torch.finfo(location.dtype).tiny
        uniform = torch.rand_like(location).clamp_min(tiny)
        smooth = location + self.log_scale.exp() * (uniform.log() - torch.log1p(-uniform))
        top = self.levels - 1
        draw = (smooth.detach() * top).round().clamp(0, top) / top
        return draw + (smooth - smooth.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        inverse = torch.exp(-self.log_scale)
        upper = (value - self.location + half) * inverse
        lower = (value - self.location - half) * inverse
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)).
        width = 2 * half * inverse
        inside = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        outside = torch.where(value <= half, logsigmoid(upper), logsigmoid(-lower))
        edge = (value <= half) | (value >= 1 - half)
        return torch.where(edge, outside, inside).sum(-1)


class DiscretisedLogistic(Likelihood):
    """x in ``levels`` grey levels in [0, 1] (Kingma et al. 2016, appendix C).

    Its log-likelihood is of a probability mass.

    :param levels: number of grey levels of the data.
    :raises ValueError: for fewer than 2 levels.
    """

    outputs = 2

    def __init__(self, levels: int) -> None:
        super().__init__()
        whole("levels", levels, least=2)
        self.levels = levels

    def forward(self, raw: Tensor) -> LogisticLevels:
        location, log_scale = raw.unbind(-1)
        # Raw output of 0 means mid-grey and a scale of about e^-2, so that training starts near
        # the data.
        return LogisticLevels(location + 0.5, bounded(log_scale - 2), self.levels)


class GreyBernoulliPixels(BernoulliPixels):
    """Bernoulli's log-mass evaluated at grey levels, which is not a normalised log-density."""

    support = constraints.independent(constraints.unit_interval, 1)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.mean.expand(self.shape(sample_shape))


class GreyBernoulli(Likelihood):
    """Cross-entropy of grey levels in [0, 1], the loss of the authors' published code.

    Not a likelihood: it does not integrate to one over [0, 1], so that its nats bound no
    log-likelihood and compare with no other. Kept for comparison with that code. A draw is the
    mean, as in that code.
    """

    def forward(self, raw: Tensor) -> GreyBernoulliPixels:
        return GreyBernoulliPixels(raw.squeeze(-1))
