"""Clusters that training begins near."""

import numpy as np
import pandas as pd
import torch
from pyro.distributions import Categorical
from torch.distributions import MultivariateNormal

from pyro_infocat.data.table import Rows, data_set
from pyro_infocat.objective.terms import Batch, Nearness
from pyro_infocat.training.clusters import continuous, find, of_gaussians


def of(frame):
    data = data_set(Rows(frame), "the data", whole=True)
    return data.train, data.facts.columns


def right(found, labels):
    """Share of the examples in the right cluster, of two, whichever is called the first."""
    share = (found == labels).double().mean().item()
    return max(share, 1 - share)


def long_and_thin(number=400):
    """Two clusters side by side, five times as long as they lie apart: (N, 2), and which (N,)."""
    rng = np.random.default_rng(0)
    labels = np.arange(number) % 2
    x = rng.normal(size=(number, 2)) * [5.0, 0.3] + labels[:, None] * [0.0, 2.0]
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    return pd.DataFrame(x @ turn, columns=["a", "b"]), torch.from_numpy(labels)


def test_the_mixture_finds_clusters_that_are_long_and_thin():
    frame, labels = long_and_thin()
    split, _ = of(frame)
    torch.manual_seed(0)
    begin = torch.nn.functional.one_hot((labels + (torch.rand(400) < 0.2)) % 2, 2).double()
    y = split.pixels.double()
    assert right(of_gaussians(y, begin).joint(y).argmax(1), labels) > 0.99


def test_a_step_is_expectation_maximisation_written_out(monkeypatch):
    monkeypatch.setattr("pyro_infocat.training.clusters.STEPS", 1)
    torch.manual_seed(0)
    y = torch.randn(50, 3, dtype=torch.float64)
    shares = torch.rand(50, 4, dtype=torch.float64).softmax(1)
    held = shares.sum(0)
    centres = (shares.mT @ y) / held[:, None]
    apart = y[:, None] - centres
    scatter = torch.einsum("nk,nki,nkj->kij", shares, apart, apart)
    ridge = 1e-3 * torch.eye(3, dtype=torch.float64)
    further = 3 * 3 * 13
    drawn = scatter + further * (scatter.sum(0) / 50 + ridge)
    covariance = drawn / (held + further)[:, None, None] + ridge
    joint = MultivariateNormal(centres, covariance).log_prob(y[:, None]) + (held / 50).log()
    found = of_gaussians(y, shares).joint(y)
    torch.testing.assert_close(found.softmax(1), joint.softmax(1))


def test_clusters_are_nearest_centres_of_k_means_where_a_column_is_not_continuous():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    frame = pd.DataFrame({"a": rng.normal(size=200) + 6 * labels, "b": rng.integers(0, 3, 200) / 2})
    split, columns = of(frame)
    assert not continuous(split.pixels, ["real", "real"])
    found = find(split, columns, 2, seed=0)
    assert right(found.of(split.grey()), torch.from_numpy(labels)) > 0.99
    # The border is half-way between the centres.
    centres = found.mixture.shift
    middle = found.scale.mean + found.scale.scale * centres.mean(0)
    across = found.scale.scale * (centres[1] - centres[0])
    near = torch.stack([middle - 0.01 * across, middle + 0.01 * across])
    assert found.of(near).tolist() == [0, 1]


def test_a_cluster_has_no_unit():
    frame, _ = long_and_thin()
    split, columns = of(frame)
    other, scaled = of(frame * [1000.0, 0.01] + 5)
    first = find(split, columns, 2, 0).of(split.grey())
    assert right(find(other, scaled, 2, 0).of(other.grey()), first) > 0.995


def test_what_is_missing_is_as_the_mean():
    frame, _ = long_and_thin()
    frame.iloc[::40, 0] = np.nan
    split, columns = of(frame)
    found = find(split, columns, 2, 0)
    filled = torch.where(split.pixels.isnan(), found.scale.mean, split.pixels)
    assert split.pixels.isnan().any()
    assert torch.equal(found.of(split.grey()), found.of(filled))


def test_a_column_of_which_much_is_missing_is_not_continuous():
    x = torch.linspace(0, 1, 100).unsqueeze(-1)
    assert continuous(x, ["real"])
    x[:10] = torch.nan
    assert not continuous(x, ["real"])


def test_fewer_rows_that_differ_than_clusters_have_none():
    frame = pd.DataFrame({"a": [0.5, 1.5, 2.5] * 4})
    split, columns = of(frame)
    assert find(split, columns, 4, 0) is None
    assert find(split, columns, 3, 0).of(split.grey()).unique().numel() == 3


def test_an_example_counts_for_its_cluster_by_the_root_of_its_size():
    frame = pd.DataFrame({"a": [0.0, 0.1] * 32 + [9.0, 9.1] * 2})
    split, columns = of(frame)
    found = find(split, columns, 2, 0)
    counts, cluster = found(split.grey()), found.of(split.grey())
    assert torch.equal(counts.argmax(1), cluster)
    assert (counts != 0).sum() == len(counts)
    torch.testing.assert_close(counts.sum(1).mean(), torch.tensor(1.0))
    # 64 examples against 4: one of the few counts four times as much.
    torch.testing.assert_close(counts[-1].sum() / counts[0].sum(), torch.tensor(4.0))


def test_the_term_is_minus_log_q_of_the_cluster():
    q = torch.tensor([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
    clusters = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]])
    made = {"category": lambda: Categorical(probs=q), "clusters": lambda: clusters}
    term = Nearness()(Batch(None, None, torch.zeros(3, 1), **made))
    torch.testing.assert_close(term, -torch.tensor([0.8, 0.5**2]).log().sum(), atol=1e-5, rtol=0)
