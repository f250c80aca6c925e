"""Views of rows of a table: hidden columns, and steps where columns have one scale.

Statistical tests have a fixed seed and, over seeds, an error rate under 1e-6 each.
"""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guides.encoders import Table
from pyro_infocat.views import AdversarialHidden, Hidden, VirtualAdversarial
from tests.tables import COLUMNS, WHERE

pytestmark = pytest.mark.usefixtures("double")

X = 9


def rows(number: int) -> Tensor:
    x = torch.rand(number, X)
    x[:, 4] = torch.poisson(torch.full((number,), 4.0))
    return x


def never(x: Tensor) -> dist.Categorical:
    raise AssertionError("this view has no use for a classifier")


def classifier(x: Tensor) -> dist.Categorical:
    """A random network's q(c | x), the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder, last = Table(COLUMNS, [16], norm=False), torch.nn.Linear(16, 3)
    return dist.Categorical(logits=5 * last(encoder(x)))


def test_each_column_is_hidden_by_itself_with_the_chance_that_was_given() -> None:
    x, number = rows(2000), 2000
    view = Hidden(COLUMNS, share=0.3)(x, never)
    hidden = view.isnan()
    assert torch.equal(view[~hidden], x[~hidden])
    columns = torch.stack([hidden[:, place].any(1) for place in WHERE.values()], 1)
    for place, column in zip(WHERE.values(), columns.unbind(1), strict=True):
        assert torch.equal(hidden[:, place].all(1), column)
    error = math.sqrt(0.3 * 0.7 / number)
    assert ((columns.double().mean(0) - 0.3).abs() < 5.5 * error).all()
    # Two columns are hidden together as often as by chance.
    both = (columns[:, :1] & columns[:, 1:]).double().mean(0)
    assert ((both - 0.09).abs() < 5.5 * math.sqrt(0.09 * 0.91 / number)).all()


def test_nothing_is_hidden_at_a_share_of_zero_and_schedules_may_change_it() -> None:
    view, x = Hidden(COLUMNS, share=0.0), rows(20)
    assert torch.equal(view(x, never), x)
    view.share = 0.9
    assert view(x, never).isnan().any()
    with pytest.raises(ValueError, match="share must be at least 0 and below 1, not 1"):
        view.share = 1.0
    assert "share" in view.schedulable


def test_what_was_missing_stays_so_and_the_rest_is_pushed() -> None:
    x = rows(30)
    x[3, WHERE["animal"]], x[4, 4] = torch.nan, torch.nan
    view = AdversarialHidden(COLUMNS, share=0.0, epsilon=0.5)(x, classifier)
    assert torch.equal(view.isnan(), x.isnan())
    assert not view.requires_grad
    there = ~x.isnan()
    assert (view[there] != x[there]).double().mean() > 0.9


def test_a_step_has_the_length_that_neighbours_say_where_columns_have_one_scale() -> None:
    x = rows(30)
    x[:, 4] += 5  # Far from 0, below which no count is pushed.
    view = AdversarialHidden(COLUMNS, share=0.0, epsilon=0.3, neighbour=4)(x, classifier)

    def even(x: Tensor) -> Tensor:
        return torch.cat([x[:, :4], (x[:, 4:5].log1p() - 1.2) / 0.7, x[:, 5:]], 1)

    radius = torch.cdist(even(x), even(x)).sort(1).values[:, 4]
    torch.testing.assert_close((even(view) - even(x)).norm(dim=1), 0.3 * radius)


def test_a_missing_value_is_no_distance_to_a_neighbour() -> None:
    x = torch.zeros(3, X)
    x[1], x[2, 0] = torch.nan, 2.0
    view = VirtualAdversarial(epsilon=1.0, neighbour=2)(x, classifier)
    # The farther neighbour of the first row is the third; the second has nothing to tell.
    assert (view[0] - x[0]).norm().item() == pytest.approx(2.0)
    assert torch.equal(view.isnan(), x.isnan())


def test_a_pushed_count_is_never_negative() -> None:
    x = rows(50)
    x[:, 4] = 0
    view = AdversarialHidden(COLUMNS, share=0.0, epsilon=3.0)(x, classifier)
    assert (view[:, 4] >= 0).all()


@pytest.mark.parametrize("kind", [Hidden, AdversarialHidden])
def test_data_without_columns_are_refused(kind: type[Hidden]) -> None:
    with pytest.raises(ValueError, match="needs the columns of a table"):
        kind(())
