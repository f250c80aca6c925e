"""What holds of the bound for every small program: by sums over categories, choices and a grid.

q is a table here, a row for each example, so that every q(c, z | x) can be drawn: also one that
rules categories out.

Shapes: B batch, K categories, D latent dimensions, X features, S samples.
"""

import itertools
import math
from typing import Any, NamedTuple

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from guides.guide import Guide, Posterior
from models import CatVAE, decoders, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.objective.bound import direct_terms, elbo_of
from pyro_infocat.objective.terms import information_bound
from tests.pyro_infocat.objective.by_hand import kl_normal, log_normal, prior_by_hand
from tests.pyro_infocat.objective.programs import LIKELIHOODS
from tests.pyro_infocat.objective.ways import Loss, assert_same, through_loss, with_gradients

pytestmark = pytest.mark.usefixtures("double")

SEEDS = st.integers(0, 2**31)


class Quantiles(dist.Normal):
    """A normal whose S draws are its S mid-quantiles: an average over them is an integral."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        (number,) = sample_shape
        share = (torch.arange(number) + 0.5) / number
        z = dist.Normal(torch.zeros(()), 1.0).icdf(share).reshape(-1, *[1] * len(self.batch_shape))
        return self.mean + self.stddev * z

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Quantiles, _instance))


class Table(Guide):
    """q(c, z | x) of B examples, whatever they are; c is barred where ``barred`` (B, K) is true."""

    normal: type[dist.Normal] = dist.Normal

    def __init__(self, categories: int, examples: int, latent: int, barred: Tensor) -> None:
        super().__init__(categories)
        self.odds = nn.Parameter(2 * torch.randn(examples, categories))
        self.mean = nn.Parameter(torch.randn(categories, examples, latent))
        self.log_scale = nn.Parameter(torch.randn(categories, examples, latent) / 2)
        self.barred = barred

    def posterior(self, x: Tensor) -> Posterior:
        b = torch.arange(len(x))
        return Posterior(
            dist.Categorical(logits=self.odds.masked_fill(self.barred, -math.inf)),
            lambda c: self.normal(self.mean[c, b], self.log_scale[c, b].exp()).to_event(1),
        )


class Programs(NamedTuple):
    model: CatVAE
    guide: Table
    x: Tensor


@st.composite
def programs(
    draw: st.DrawFn, categories: int = 5, latent: int = 3, examples: int = 4, kind: str = ""
) -> Programs:
    """A random model, q and x of at most these sizes."""
    k, d = draw(st.integers(1, categories)), draw(st.integers(1, latent))
    b, features = draw(st.integers(1, examples)), draw(st.integers(1, 4))
    kind = kind or draw(st.sampled_from([*LIKELIHOODS]))
    bars = draw(st.lists(st.integers(0, 2**k - 2), min_size=b, max_size=b))
    barred = torch.tensor([[bool(bits >> c & 1) for c in range(k)] for bits in bars])
    shares = draw(st.lists(st.floats(-3, 3), min_size=k, max_size=k))
    torch.manual_seed(draw(SEEDS))
    prior = priors.Mixture(k, d, 2.0, [10**share for share in shares], learn_weights=True)
    nn.init.uniform_(prior.log_scale, -1, 1)
    decoder = decoders.MLP(d, features, LIKELIHOODS[kind](), [3])
    for parameter in decoder.parameters():
        parameter.data *= 3
    x = torch.rand(b, features)
    if kind == "bernoulli":
        x = x.round()
    if kind == "logistic":
        x = (3 * x).round() / 3
    model = CatVAE(prior, decoder, kl=draw(st.sampled_from(["analytic", "sampled"])))
    return Programs(model, Table(k, b, d, barred), x)


def by_hand(model: CatVAE, guide: Table, x: Tensor) -> dict[str, Tensor]:
    """The terms as a sum over the examples and the categories that q allows, one by one."""
    log_p, means, scales = prior_by_hand(model.prior)
    terms = {name: torch.zeros(()) for name in ("reconstruction", "kl_z", "kl_c")}
    torch.manual_seed(1)
    noise = torch.randn(guide.mean.shape)
    for b, k in itertools.product(range(len(x)), range(guide.categories)):
        if guide.barred[b, k]:
            continue
        allowed = ~guide.barred[b]
        log_q = guide.odds[b, k] - guide.odds[b][allowed].exp().sum().log()
        mean, scale = guide.mean[k, b], guide.log_scale[k, b].exp()
        z = mean + scale * noise[k, b]
        if model.kl == "analytic":
            kl = kl_normal(mean, scale, means[k], scales[k])
        else:
            kl = log_normal(z, mean, scale) - log_normal(z, means[k], scales[k])
        q = log_q.exp()
        values = (model.decoder(z).log_prob(x[b]), kl, log_q - log_p[k])
        for name, value in zip(terms, values, strict=True):
            terms[name] = terms[name] + q * value
    return terms


WEIGHTS = st.fixed_dictionaries(
    {name: st.sampled_from([0.5, 1.0, 3.0]) for name in ("reconstruction", "kl_z", "kl_c")}
)


@given(programs(), WEIGHTS)
def test_written_out_and_through_pyro_are_the_sum_over_what_q_allows(
    made: Programs, weights: dict[str, float]
) -> None:
    """Loss and every gradient."""
    model, guide, _ = made
    terms = by_hand(*made)
    signed = -weights["reconstruction"] * terms["reconstruction"]
    signed = signed + weights["kl_z"] * terms["kl_z"] + weights["kl_c"] * terms["kl_c"]
    expected = with_gradients(signed, model, guide)
    for direct in (True, False):
        objective = InfoCatELBO(0.0, weights=weights, direct=direct)
        assert_same(through_loss(objective, *made), expected, f"direct={direct}")
        for name, term in terms.items():
            assert objective.terms[name].item() == pytest.approx(term.item(), rel=1e-9, abs=1e-9)


@given(programs())
def test_the_terms_keep_their_signs_and_limits(made: Programs) -> None:
    """Divergences are none below 0, entropies lie between 0 and log K, information below both."""
    model, guide, x = made
    model.kl = "analytic"
    everything = dict.fromkeys(("marginal_entropy", "conditional_entropy"), 1.0)
    objective = InfoCatELBO(weights=everything)
    objective.evaluate(model, guide, x)
    terms = {name: term.item() / len(x) for name, term in objective.terms.items()}
    most = math.log(guide.categories) + 1e-12
    assert terms["kl_z"] >= -1e-12
    assert terms["kl_c"] >= -1e-12
    assert -1e-12 <= terms["conditional_entropy"] <= terms["marginal_entropy"] + 1e-12
    assert terms["marginal_entropy"] <= most
    # KL(q || p) = -H(q) - E_q[log p]: of the uniform p it is log K at most.
    model.prior.logits.data.zero_()
    uniform = direct_terms(model, guide.posterior(x), x)["kl_c"].item() / len(x)
    assert uniform == pytest.approx(math.log(guide.categories) - terms["conditional_entropy"])


@given(programs(kind="bernoulli"), SEEDS)
def test_the_information_bound_is_the_entropy_of_c_at_most(made: Programs, seed: int) -> None:
    """And is it, where the critic is certain and right."""
    model, guide, _ = made
    number = len(guide.barred)
    guide.barred = torch.zeros_like(guide.barred)
    torch.manual_seed(seed)
    entropy = model.prior.category().entropy().item()
    assert entropy <= math.log(guide.categories) + 1e-12
    found = information_bound(model, guide, number).item() / number
    assert found <= entropy + 1e-12
    torch.manual_seed(seed)
    c, _, _ = model.generate(number)
    log_q = guide.odds.log_softmax(-1)[torch.arange(number), c]
    assert found == pytest.approx(entropy + log_q.mean().item(), rel=1e-9, abs=1e-9)
    guide.odds.data = 1e3 * nn.functional.one_hot(c, guide.categories).double()
    torch.manual_seed(seed)
    certain = information_bound(model, guide, number).item() / number
    assert certain == pytest.approx(entropy, abs=1e-9)


@given(programs(latent=1, kind="bernoulli"))
def test_the_bound_lies_below_the_likelihood(made: Programs) -> None:
    """Both as integrals over z: the first at 500 quantiles, the second on a grid.

    By Jensen's inequality; their difference is KL(q(c, z | x) || p(c, z | x)), summed up here from
    the densities on the grid.
    """
    model, guide, x = made
    model.kl = "analytic"
    guide.normal = Quantiles
    with torch.no_grad():
        found = elbo_of(direct_terms(model, guide.posterior(x), x, particles=500)).item()
        log_p, means, scales = prior_by_hand(model.prior)
        step = 0.01
        z = torch.arange(-40, 40, step).unsqueeze(-1)
        likelihood = model.decoder(z).log_prob(x.unsqueeze(1))
        log_joint = torch.stack(
            [log_p[k] + log_normal(z, means[k], scales[k]) + likelihood for k in range(len(log_p))]
        )
        log_x = log_joint.logsumexp((0, 2)) + math.log(step)
        gap = 0.0
        for k, b in itertools.product(range(guide.categories), range(len(x))):
            if guide.barred[b, k]:
                continue
            log_q = guide.odds[b].masked_fill(guide.barred[b], -math.inf).log_softmax(-1)[k]
            log_q = log_q + log_normal(z, guide.mean[k, b], guide.log_scale[k, b].exp())
            gap += float((log_q.exp() * (log_q + log_x[b] - log_joint[k, b])).sum() * step)
    assert gap >= -1e-9
    assert found == pytest.approx(log_x.sum().item() - gap, abs=0.02 * len(x))


@given(programs(latent=2))
def test_the_bound_is_the_likelihood_where_q_is_the_posterior(made: Programs) -> None:
    """A decoder that ignores z leaves the prior as the posterior."""
    model, guide, x = made
    guide.barred = torch.zeros_like(guide.barred)
    log_p, means, scales = prior_by_hand(model.prior)
    with torch.no_grad():
        model.decoder.network[0].weight.zero_()
        guide.odds.copy_(log_p.expand_as(guide.odds) + torch.randn(len(x), 1))
        guide.mean.copy_(means.unsqueeze(1).expand_as(guide.mean))
        guide.log_scale.copy_(scales.log().unsqueeze(1).expand_as(guide.log_scale))
        expected = model.decoder(torch.zeros(model.prior.latent)).log_prob(x).sum().item()
        for direct in (True, False):
            found = -InfoCatELBO(0.0, direct=direct).loss(model, guide, x)
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


class Forced:
    """Stands for ``exponential_``: the draw is what is said, example by example."""

    choice: list[int] = []

    def __call__(self, rest: Tensor, *_: Any) -> Tensor:
        rest.fill_(1.0)
        for b, k in enumerate(self.choice):
            # Of nothing the logarithm outweighs every other; what is ruled out it does not.
            rest[k, b] = 0.0
        return rest


@given(programs(categories=5, examples=2), st.integers(1, 3))
def test_over_every_choice_the_decoded_bound_is_right_on_average(
    made: Programs, decoded: int
) -> None:
    """Loss and gradients, each choice weighed by its chance: no error of sampling."""
    model, guide, x = made
    model.kl = "analytic"
    if not decoded < guide.categories - 1:
        return
    log_p, means, scales = prior_by_hand(model.prior)
    log_q = guide.odds.masked_fill(guide.barred, -math.inf).log_softmax(-1)
    top = log_q.detach().topk(decoded).indices
    torch.manual_seed(1)
    noise = torch.randn(decoded + 1, len(x), model.prior.latent)

    right = torch.zeros(())
    for b, k in itertools.product(range(len(x)), range(guide.categories)):
        if guide.barred[b, k]:
            continue
        # The noise of its place: the last is of whichever is drawn.
        at = (top[b] == k).nonzero()
        place = int(at) if len(at) else decoded
        mean, scale = guide.mean[k, b], guide.log_scale[k, b].exp()
        fit = model.decoder(mean + scale * noise[place, b]).log_prob(x[b])
        kl = kl_normal(mean, scale, means[k], scales[k])
        right = right - log_q[b, k].exp() * (fit - kl - log_q[b, k] + log_p[k])
    expected = with_gradients(right, model, guide)

    q = log_q.detach().exp().tolist()
    rest = [[k for k in range(guide.categories) if k not in top[b]] for b in range(len(x))]
    # Where all that is left is ruled out, whichever is drawn weighs nothing.
    rest = [[k for k in left if q[b][k] > 0] or left[:1] for b, left in enumerate(rest)]
    forced, average = Forced(), None
    objective = InfoCatELBO(0.0, decoded=decoded)
    for choice in itertools.product(*rest):
        chance = 1.0
        for b, k in enumerate(choice):
            held = sum(q[b][one] for one in rest[b])
            chance *= q[b][k] / held if held else 1.0
        forced.choice = [*choice]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "exponential_", lambda *given_: forced(*given_))
            loss, slopes = through_loss(objective, *made)
        if average is None:
            average = (0 * loss, {name: 0 * slope for name, slope in slopes.items()})
        average = (
            average[0] + chance * loss,
            {name: average[1][name] + chance * slope for name, slope in slopes.items()},
        )
    assert average is not None
    assert_near(average, expected)


def assert_near(found: Loss, expected: Loss) -> None:
    """Gradients that cancel are held to the size of the largest."""
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-8)
    largest = max(float(slope.abs().max()) for slope in expected[1].values())
    for name, slope in expected[1].items():
        torch.testing.assert_close(found[1][name], slope, rtol=1e-7, atol=1e-9 * largest)


@given(programs(latent=2), st.randoms(use_true_random=False))
def test_no_order_of_categories_or_examples_counts(made: Programs, random: Any) -> None:
    """Each term, by draws that do not depend on the order."""
    model, guide, x = made
    model.kl = "analytic"
    guide.normal = Quantiles
    k, b = list(range(guide.categories)), list(range(len(x)))
    random.shuffle(k), random.shuffle(b)
    other = Table(len(k), len(b), model.prior.latent, guide.barred[b][:, k])
    mixture = priors.Mixture(len(k), model.prior.latent)
    with torch.no_grad():
        other.odds.copy_(guide.odds[b][:, k])
        for name in ("mean", "log_scale"):
            getattr(other, name).copy_(getattr(guide, name)[k][:, b])
            getattr(mixture, name).copy_(getattr(model.prior, name)[k])
        mixture.logits.copy_(model.prior.logits[k])
    other.normal = Quantiles
    permuted = CatVAE(mixture, model.decoder)
    weights = {"marginal_entropy": 1.0, "conditional_entropy": 1.0}
    bounds = [InfoCatELBO(0.0, 3, weights=weights) for _ in range(2)]
    with torch.no_grad():
        bounds[0].evaluate(model, guide, x)
        bounds[1].evaluate(permuted, other, x[b])
    for name, term in bounds[0].terms.items():
        assert bounds[1].terms[name].item() == pytest.approx(term.item(), rel=1e-9, abs=1e-9), name


@given(programs(), st.integers(1, 4))
def test_particles_are_an_average_of_bounds(made: Programs, particles: int) -> None:
    model, guide, x = made
    torch.manual_seed(1)
    found = direct_terms(model, guide.posterior(x), x, particles)
    torch.manual_seed(1)
    noise = torch.randn(particles, *guide.mean.shape)
    sums = dict.fromkeys(found, 0.0)
    for one in noise:

        class Given(dist.Normal):
            draw = one

            def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
                return (self.mean + self.stddev * self.draw).expand(self.shape(sample_shape))

            def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Any:
                return super().expand(batch_shape, self._get_checked_instance(Given, _instance))

        guide.normal = Given
        for name, term in direct_terms(model, guide.posterior(x), x).items():
            sums[name] += term.item() / particles
    for name, term in found.items():
        assert term.item() == pytest.approx(sums[name], rel=1e-9, abs=1e-9), name
