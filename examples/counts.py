"""Counts of single cells' molecules or of words: a reader, a likelihood, an encoder and a view.

docs/counts.md shows them at work. Shapes: N examples, X features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from guides import encoders
from models import arguments
from models.likelihoods import Likelihood
from models.scales import bounded
from models.tables import FARTHEST, log_negative_binomial
from pyro_infocat import DataSet, Reader, UserError, View
from pyro_infocat.catalogue import Facts
from pyro_infocat.data import Examples
from pyro_infocat.data.dataset import held_out
from pyro_infocat.data.table import LARGEST_COUNT, Rows, data_set, examples, read_rows


class Counts(Reader):
    """Counts (N, X) in a file; each feature is a column of the kind ``count``.

    :param data: a .csv, .tsv or .parquet that names its columns; an .npy; an .npz as of a table;
        or an .h5ad, of which ``X`` is read.
    :param data_label: the column of labels, of an .h5ad in ``obs``.
    :param n_features: keep so many, those of which log(1 + count), rows brought to one total,
        varies most in the training split; 0 keeps all that vary.
    :raises ValueError: for an ``n_features`` that is no whole number from 0.
    """

    def __init__(self, data: str, data_label: str | None = None, n_features: int = 0) -> None:
        arguments.whole("n_features", n_features, least=0)
        self.path, self.label, self.n_features = Path(data), data_label, n_features

    def read(self) -> DataSet:
        rows = self._rows()
        if len(rows.frame) < 3 or self.label not in (None, *rows.frame):
            return data_set(rows, f"'{self.path}'", self.label)  # which refuses them
        labels = [self.label] if self.label else []
        x = (counts := self._checked(rows.frame.drop(columns=labels))).to_numpy()
        x = x[: len(x) - rows.test] if rows.test else x[held_out(len(x))[0]]
        varies = np.log1p(x / x.sum(1, keepdims=True) * x.sum(1).mean()).var(0) * (np.ptp(x, 0) > 0)
        most = np.argsort(-varies, kind="stable")[: self.n_features or None]
        kept = counts.columns[np.sort(most[varies[most] > 0])]
        chosen = rows._replace(frame=rows.frame[[*kept, *labels]], usual="count")
        return data_set(chosen, f"'{self.path}'", self.label)

    def again(self, facts: Facts) -> Examples:
        frame, names = self._rows().frame, [one.name for one in facts.columns]
        known = self._checked(frame[names]) if {*names} <= {*frame} else frame
        return examples(known, facts, f"'{self.path}'")

    def _rows(self) -> Rows:
        if self.path.suffix == ".h5ad":
            import anndata  # for those who have such files

            try:
                held = anndata.read_h5ad(self.path)
            except OSError as error:
                raise UserError(f"'{self.path}' is no .h5ad: {error}", "data") from None
            return Rows(pd.concat([held.to_df(), held.obs.filter(items=[self.label])], axis=1))
        return read_rows(self.path)

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame in float64, all of it whole numbers, and in each row one above 0."""
        counts = frame.apply(pd.to_numeric, errors="coerce").astype(np.float64)
        x = counts.to_numpy()
        wrong = ~((x >= 0) & (x <= LARGEST_COUNT) & (x == x.round()))  # NaN is wrong too
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            where = f"row {row}, column '{frame.columns[column]}'"
            raise UserError(
                f"'{self.path}' holds {frame.iat[row, column]} in {where}; give raw counts, whole "
                f"numbers up to {LARGEST_COUNT:,}, and name a column of labels by --data_label",
                "data",
            )
        for row in np.flatnonzero(x.sum(1) == 0)[:1]:
            raise UserError(f"'{self.path}' counts nothing in row {row}; leave it out", "data")
        return counts


def usual_counts(columns: Sequence[Any]) -> Tensor:
    """Mean counts (X,): those of log-normals with the means and scales of the columns.

    :raises ValueError: for columns that are no counts, or none.
    """
    if not columns or any(column.kind != "count" for column in columns):
        raise ValueError("needs columns of counts, which --reader examples.counts.Counts makes")
    return torch.tensor([one.mean + one.scale**2 / 2 for one in columns]).expm1()


class CountsOfTotal(TorchDistribution):
    """Negative binomials of mean l * share and variance mean + mean^2 / e^log_shape.

    l, the total, is not modelled (scvi-tools' observed library size): ``log_prob(x)`` is
    log p(x | z, l) at the total of x, and a draw is of the total that is given.

    :param log_share: (..., X), of shares that sum to one; log_shape is (X,) and log_total ().
    """

    arg_constraints = {"log_share": constraints.real_vector, "log_shape": constraints.real_vector}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = True

    def __init__(self, log_share: Tensor, log_shape: Tensor, log_total: Tensor) -> None:
        self.log_share, self.log_shape, self.log_total = log_share, log_shape, log_total
        super().__init__(log_share.shape[:-1], log_share.shape[-1:])

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "CountsOfTotal":
        log_share = self.log_share.expand(*batch_shape, *self.event_shape)
        return CountsOfTotal(log_share, self.log_shape, self.log_total)

    @property
    def mean(self) -> Tensor:
        return (self.log_share + self.log_total).exp()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        mean = self.mean.expand(self.shape(sample_shape))
        with torch.no_grad():
            shape = self.log_shape.exp().expand(mean.shape)
            draw = torch.poisson(torch._standard_gamma(shape) / shape * mean)
        return draw + (mean - mean.detach())  # straight-through, as in models.likelihoods

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.given(value, value.sum(-1).clamp_min(1).log())

    def given(self, value: Tensor, log_total: Tensor) -> Tensor:
        """log p(value | z, l) in nats (...), for any l."""
        log_mean = self.log_share + log_total.unsqueeze(-1)
        return log_negative_binomial(value, log_mean, self.log_shape).sum(-1)


class NegativeBinomial(Likelihood):
    """Counts given z and their total: share = softmax(log usual count + raw), raw within 10.

    :param columns: of counts, each of which gets an inverse dispersion, learned within e^5.
    :param total: of a draw; 0 for the mean of the training split, which the columns tell.
    :raises ValueError: for columns that are no counts, or a total below 0 or not finite.
    """

    of_columns = True

    def __init__(self, columns: Sequence[Any], total: float = 0.0) -> None:
        super().__init__()
        arguments.not_negative("total", total)
        usual = usual_counts(columns)
        log_total = (usual.sum() if total == 0 else torch.tensor(total)).log()
        self.register_buffer("log_usual", usual.log(), persistent=False)
        self.register_buffer("log_total", log_total, persistent=False)
        self.log_shape = nn.Parameter(torch.zeros_like(usual))

    def forward(self, raw: Tensor) -> CountsOfTotal:
        near = FARTHEST * torch.tanh(raw.squeeze(-1) / FARTHEST)
        log_share = (self.get_buffer("log_usual") + near).log_softmax(-1)
        return CountsOfTotal(log_share, bounded(self.log_shape), self.get_buffer("log_total"))


class Scaled(encoders.MLP):
    """log(1 + count), rows brought to the usual total, then an MLP with batch normalisation."""

    def __init__(self, columns: Sequence[Any], hidden: Sequence[int] = (128, 128)) -> None:
        usual = usual_counts(columns)
        super().__init__(len(usual), hidden, norm=True)
        self.register_buffer("total", usual.sum(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.nan_to_num().clamp_min(0)  # a view may hide counts, step below 0, or leave nothing
        share = x / x.sum(-1, keepdim=True).clamp_min(1)
        return super().forward((self.get_buffer("total") * share).log1p())


class Thinned(View):
    """The same cell or text, looked at for a shorter time: each count x is Binomial(x, share).

    A draw of the total l becomes one of the total share * l, with z and dispersions as before.

    :param share: of a count that is kept, from 0 to 1; a schedule may set it.
    :raises ValueError: for another share.
    """

    schedulable = ("share",)

    def __init__(self, share: float = 0.5) -> None:
        arguments.share("share", share)
        self.share = share

    def __call__(self, grey: Tensor, classifier: Any) -> Tensor:
        return torch.binomial(grey, torch.full_like(grey, self.share))
