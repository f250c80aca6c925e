"""p(x | raw) of a row of a table: real numbers, counts, yes or no, categories, each with its own.

The columns are objects with ``kind``, ``width``, ``mean`` and ``scale``: ``kind`` is ``real``,
``count``, ``binary`` or ``category``, and ``width`` says how many features of x a column takes.

Shapes: B batch, X features, C columns of categories, W features of the widest of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, one_hot, softplus

from models.likelihoods import Likelihood
from models.scales import LOG_SCALE_BOUND, bounded

FARTHEST = 10.0
"""Standard deviations from a column's mean that a decoder's mean reaches at most."""

LARGEST_LOG_MEAN = 17.0
"""Of a count. x holds whole numbers up to 2^24 = e^16.6 exactly."""


class Places(nn.Module):
    """Where each kind's columns stand among the features of x: index tensors, as buffers.

    :ivar real: features (R,), as ``count`` and ``binary`` are.
    :ivar category: features (C, W) of each column of categories; what is beyond the narrower ones
        is their first feature again, and ``beyond`` (C, W) is true there.
    :param columns: of the table.
    :raises ValueError: for none, or a kind that is none.
    """

    real: Tensor
    count: Tensor
    binary: Tensor
    category: Tensor
    beyond: Tensor

    def __init__(self, columns: Sequence[Any]) -> None:
        super().__init__()
        if not columns:
            raise ValueError("needs the columns of a table, and the data have none")
        single: dict[str, list[int]] = {"real": [], "count": [], "binary": []}
        blocks: list[list[int]] = []
        self.features = 0
        for column in columns:
            taken = list(range(self.features, self.features + column.width))
            if column.kind == "category":
                blocks.append(taken)
            elif column.kind in single:
                single[column.kind] += taken
            else:
                raise ValueError(f"column '{column.name}' is of no kind '{column.kind}'")
            self.features += column.width
        for kind, places in single.items():
            self.register_buffer(kind, torch.tensor(places, dtype=torch.int64), persistent=False)
        widest = max(map(len, blocks), default=0)
        padded = [block + block[:1] * (widest - len(block)) for block in blocks]
        beyond = [[place >= len(block) for place in range(widest)] for block in blocks]
        shape = (len(blocks), widest)
        category = torch.tensor(padded, dtype=torch.int64).reshape(shape)
        outside = torch.tensor(beyond, dtype=torch.bool).reshape(shape)
        self.register_buffer("category", category, persistent=False)
        self.register_buffer("beyond", outside, persistent=False)


class MixedRow(TorchDistribution):
    """Independent columns of several kinds. A value that is NaN is missing and counts for nothing.

    log p of a row is the sum over what is there, which is log p with the rest integrated out.

        real        Normal(location, e^log_scale)
        count       negative binomial of mean e^log_mean and variance mean + mean^2 / e^log_shape
        binary      Bernoulli(logit)
        category    Categorical(logits), one-hot

    :param raw: (..., X): location, log-mean and logits at the places of their columns.
    :param places: of the columns.
    :param log_scale: (R,) of the real columns.
    :param log_shape: of the counts.
    """

    arg_constraints = {"raw": constraints.real_vector}
    has_rsample = True

    def __init__(
        self,
        raw: Tensor,
        places: Places,
        log_scale: Tensor,
        log_shape: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.raw, self.places = raw, places
        self.log_scale, self.log_shape = log_scale, log_shape
        super().__init__(raw.shape[:-1], raw.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "MixedRow":
        raw = self.raw.expand(torch.Size(batch_shape) + self.event_shape)
        new = MixedRow(raw, self.places, self.log_scale, self.log_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        return Row(self.places)

    def _log_shares(self) -> Tensor:
        """log p of each category (..., C, W); -inf beyond the last."""
        logits = self.raw[..., self.places.category].masked_fill(self.places.beyond, -math.inf)
        return logits.log_softmax(-1)

    def _spread_out(self, real: Tensor, count: Tensor, binary: Tensor, shares: Tensor) -> Tensor:
        """Values of each kind at the places of their features: (..., X)."""
        x = torch.zeros(
            real.shape[:-1] + self.event_shape, dtype=self.raw.dtype, device=self.raw.device
        )
        places = self.places
        for index, values in ((places.real, real), (places.count, count), (places.binary, binary)):
            x = x.index_add(-1, index, values)
        # Beyond the last category there is nothing to add.
        return x.index_add(-1, places.category.flatten(), shares.flatten(-2))

    @property
    def mean(self) -> Tensor:
        raw, places = self.raw, self.places
        return self._spread_out(
            raw[..., places.real],
            raw[..., places.count].exp(),
            raw[..., places.binary].sigmoid(),
            self._log_shares().exp(),
        )

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        mean = self.mean.expand(self.shape(sample_shape))
        fixed, places = mean.detach(), self.places
        normal = torch.randn_like(mean[..., places.real])
        real = mean[..., places.real] + self.log_scale.exp() * normal
        with torch.no_grad():
            expected = fixed[..., places.count]
            shape = self.log_shape.exp().expand(expected.shape)
            # A draw from a Gamma of a small shape may be 0, and so then is the count.
            count = torch.poisson(torch._standard_gamma(shape) / shape * expected)
            chance = fixed[..., places.binary]
            binary = (torch.rand_like(chance) < chance).to(mean.dtype)
            shares = self._log_shares().expand(*mean.shape[:-1], *places.category.shape)
            # The largest of log p and Gumbel noise falls on each category with chance p.
            noise = -torch.empty_like(shares).exponential_().log()
            chosen = (shares + noise).argmax(-1) if shares.numel() else shares.sum(-1).long()
            block = one_hot(chosen, max(1, shares.shape[-1]))[..., : shares.shape[-1]]
            exact = self._spread_out(real.detach(), count, binary, block.to(mean.dtype))
            # Only what is no real number is drawn without a gradient of its own.
        smooth = mean.index_copy(-1, places.real, real)
        return exact + (smooth - smooth.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        raw, places = self.raw, self.places
        there = ~value.isnan()
        # Filled in before any arithmetic: the gradient of NaN times 0 would be NaN.
        value = torch.where(there, value, 0.0)

        def of(index: Tensor, log_p: Tensor) -> Tensor:
            return torch.where(there[..., index], log_p, 0.0).sum(-1)

        scaled = (value[..., places.real] - raw[..., places.real]) * (-self.log_scale).exp()
        real = -0.5 * scaled.square() - self.log_scale - 0.5 * math.log(2 * math.pi)
        count = log_negative_binomial(
            value[..., places.count], raw[..., places.count], self.log_shape
        )
        logit = raw[..., places.binary]
        binary = value[..., places.binary] * logit - softplus(logit)
        shares = self._log_shares().masked_fill(places.beyond, 0.0)
        category = value[..., places.category] * shares
        total = of(places.real, real) + of(places.count, count) + of(places.binary, binary)
        return total + of(places.category, category.masked_fill(places.beyond, 0.0)).sum(-1)


class Row(constraints.Constraint):
    """Rows that a table may hold: counts whole and from 0, 0 or 1, one-hot blocks, or NaN."""

    event_dim = 1

    def __init__(self, places: Places) -> None:
        self.places = places

    def check(self, value: Tensor) -> Tensor:
        places = self.places
        count, binary = value[..., places.count], value[..., places.binary]
        category = value[..., places.category]
        blocks = category.masked_fill(places.beyond, 0.0).sum(-1)
        right = [
            ~value.isinf(),
            count.isnan() | ((count >= 0) & (count == count.round())),
            binary.isnan() | (binary == 0) | (binary == 1),
            blocks.isnan() | (blocks == 1),
            (category.isnan() | (category == 0) | (category == 1)).flatten(-2),
        ]
        return torch.cat(right, -1).all(-1)


def log_negative_binomial(count: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """log p(count) of a mean and a shape r: a Poisson whose rate is Gamma(r, r / mean).

    In float64 where the device has it: its large terms cancel, and of a count of a million
    float32 would leave one digit.
    """
    dtype = log_mean.dtype
    if log_mean.device.type != "mps":
        count, log_mean, log_shape = count.double(), log_mean.double(), log_shape.double()
    r = log_shape.exp()
    ways = torch.lgamma(count + r) - torch.lgamma(r) - torch.lgamma(count + 1)
    odds = log_mean - log_shape
    return (ways + r * logsigmoid(-odds) + count * logsigmoid(odds)).to(dtype)


class Mixed(Likelihood):
    """Columns of a table, independent given z: real, counts, yes or no, and categories.

    A missing value is NaN and counts for nothing. The log-likelihood is of a density in the real
    columns, in units of their standard deviation, and of a probability mass in the others. The
    mean of a real column and the log-mean of a count stay within 10 standard deviations.

    :param columns: of the table: objects with ``kind``, ``width``, ``mean`` and ``scale``.
    :param scale: standard deviation of a real column given z, in units of the column's own.
    :param learn_scale: learn one for each real column, starting at ``scale``.
    :raises ValueError: for data without columns, or a scale outside of (e^-5, e^5).
    """

    of_columns = True
    count_mean: Tensor
    count_scale: Tensor

    def __init__(
        self, columns: Sequence[Any], scale: float = 0.5, learn_scale: bool = True
    ) -> None:
        super().__init__()
        # The negated comparison refuses NaN too.
        if not math.exp(-LOG_SCALE_BOUND) < scale < math.exp(LOG_SCALE_BOUND):
            bounds = f"{math.exp(-LOG_SCALE_BOUND):.4f} and {math.exp(LOG_SCALE_BOUND):.1f}"
            raise ValueError(f"scale must lie between {bounds}, not {scale}")
        self.places = Places(columns)
        counts = [column for column in columns if column.kind == "count"]
        for name in ("mean", "scale"):
            each = torch.tensor([float(getattr(column, name)) for column in counts])
            self.register_buffer(f"count_{name}", each, persistent=False)
        begin = LOG_SCALE_BOUND * math.atanh(math.log(scale) / LOG_SCALE_BOUND)
        log_scale = torch.full(self.places.real.shape, begin)
        self.log_scale: Tensor
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)
        self.log_shape = nn.Parameter(torch.zeros(self.places.count.shape))

    def forward(self, raw: Tensor) -> MixedRow:
        raw = raw.squeeze(-1)
        near = FARTHEST * torch.tanh(raw / FARTHEST)
        places = self.places
        real = near[..., places.real]
        count = self.count_mean + self.count_scale * near[..., places.count]
        raw = raw.index_copy(-1, places.real, real)
        raw = raw.index_copy(-1, places.count, count.clamp_max(LARGEST_LOG_MEAN))
        return MixedRow(raw, places, bounded(self.log_scale), bounded(self.log_shape))
