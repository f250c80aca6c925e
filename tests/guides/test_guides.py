"""Guides and the generative program: what each distribution is and which sites there are."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import nn
from torch.optim.swa_utils import AveragedModel

from guides import Bayes, Enumerated, encoders
from guides.guide import Guide
from guides.relaxed import Gumbel, Relaxed, SoftCode
from models import CatVAE, decoders
from models.likelihoods import Bernoulli, Gaussian, Likelihood
from models.priors import Mixture, Orthogonal, Prior

pytestmark = pytest.mark.usefixtures("double")

B, K, D, X = 5, 3, 3, 6


def encoder() -> encoders.MLP:
    return encoders.MLP(X, [4])


def orthogonal() -> Orthogonal:
    return Orthogonal(K, delta=1, scale=1, weights=[1, 2, 3])


GUIDES: dict[str, Callable[[], Guide]] = {
    "enumerated": lambda: Enumerated(encoder, K, D, hidden=7),
    "shared": lambda: Enumerated(encoder, K, D, hidden=7, shared=True),
    "bayes": lambda: Bayes(encoder, orthogonal(), D),
}


@pytest.fixture(params=GUIDES)
def guide(request: pytest.FixtureRequest) -> Guide:
    """One of every guide."""
    return GUIDES[request.param]()


def model(prior: Prior | None = None, likelihood: Likelihood | None = None) -> CatVAE:
    return CatVAE(prior or orthogonal(), decoders.MLP(D, X, likelihood or Bernoulli(), [4]))


def samples(trace: poutine.Trace) -> set[str]:
    """The random variables of a program's run."""
    return {
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


@pytest.mark.parametrize("left", [(B,), (2, B), (2, 1, B)])
def test_category_is_a_distribution_for_each_x(guide: Guide, left: tuple[int, ...]) -> None:
    x = torch.rand(*left, X)
    category = guide.category(x)
    assert category.probs.shape == (*left, K)
    torch.testing.assert_close(category.probs.sum(-1), torch.ones(left))
    torch.testing.assert_close(category.logits.logsumexp(-1), torch.zeros(left))
    each = [guide.category(item).probs for item in x.reshape(-1, 1, X)]
    torch.testing.assert_close(category.probs, torch.cat(each).reshape(*left, K))
    torch.testing.assert_close(guide.posterior(x).category.probs, category.probs)


def test_latent_broadcasts_over_categories(guide: Guide) -> None:
    """All c at once, (K, 1), is each c by itself."""
    x, z = torch.rand(B, X), torch.randn(D)
    latent = guide.posterior(x).latent
    every = latent(torch.arange(K).unsqueeze(-1))
    assert every.batch_shape == (K, B)
    assert every.event_shape == (D,)
    assert every.has_rsample
    for k in range(K):
        one = latent(torch.full((B,), k))
        assert one.batch_shape == (B,)
        torch.testing.assert_close(one.log_prob(z), every.log_prob(z)[k])
    particles = latent(torch.arange(K).reshape(K, 1, 1))
    assert particles.batch_shape == (K, 1, B)


@pytest.mark.parametrize("shared", [False, True])
def test_enumerated_by_hand(shared: bool) -> None:
    """q(z | x, c) = N(m, exp(5 tanh(s / 5))), m and s linear in relu(A h(x) + e_c)."""
    guide = Enumerated(encoder, K, D, hidden=7, shared=shared)
    x = torch.rand(B, X)
    h = guide.encoder(x)
    odds = torch.exp(guide.classifier(h))
    torch.testing.assert_close(guide.category(x).probs, odds / odds.sum(-1, keepdim=True))
    h_z = h if shared else guide.latent_encoder(x)
    for k in range(K):
        c = torch.full((B,), k)
        raw = guide.head[1](torch.relu(guide.from_x(h_z) + guide.from_c.weight[k]))
        latent = guide.posterior(x).latent(c)
        torch.testing.assert_close(latent.mean, raw[:, :D])
        torch.testing.assert_close(latent.stddev.log(), 5 * torch.tanh(raw[:, D:] / 5))


@pytest.mark.parametrize("kind", [Enumerated, SoftCode, Gumbel])
def test_sharing_drops_one_encoder(kind: type[Enumerated]) -> None:
    one, two = kind(encoder, K, D, shared=True), kind(encoder, K, D)
    count = [sum(p.numel() for p in module.parameters()) for module in (one, two, encoder())]
    assert count[1] - count[0] == count[2]


def test_c_matters_to_the_latent_of_enumerated() -> None:
    mean = (
        GUIDES["enumerated"]()
        .posterior(torch.rand(B, X))
        .latent(torch.arange(K).unsqueeze(-1))
        .mean
    )
    assert (mean[0] - mean[1]).abs().max() > 1e-3


def test_bayes_category_is_bayes_rule() -> None:
    """p(c | z) at the mean of q(z | x), from weights and densities."""
    prior = orthogonal()
    guide = Bayes(encoder, prior, D)
    x = torch.rand(B, X)
    mean = guide.head(guide.encoder(x))[:, :D]
    joint = torch.stack(
        [(k + 1) / 6 * torch.exp(-((mean - prior.modes[k]) ** 2).sum(-1) / 2) for k in range(K)],
        -1,
    )
    torch.testing.assert_close(guide.category(x).probs, joint / joint.sum(-1, keepdim=True))


def test_bayes_leaves_the_prior_to_the_model() -> None:
    """Its parameters are the model's: an optimiser over both must meet them once."""
    prior = Mixture(K, D)
    guide = Bayes(encoder, prior, D)
    mine = {id(p) for p in guide.parameters()}
    assert mine.isdisjoint(id(p) for p in prior.parameters())
    before = guide.category(torch.ones(1, X)).probs
    torch.nn.init.constant_(prior.mean[0].detach(), 3.0)
    assert not torch.equal(guide.category(torch.ones(1, X)).probs, before)


def test_latent_scales_are_bounded(guide: Guide) -> None:
    head = guide.head if isinstance(guide, Bayes) else guide.head[-1]
    torch.nn.init.constant_(head.bias, 1e3)
    latent = guide.posterior(torch.rand(B, X)).latent(torch.zeros(B, dtype=torch.int64))
    torch.testing.assert_close(latent.stddev.log(), torch.full((B, D), 5.0))


@pytest.mark.parametrize("make", [SoftCode, Gumbel])
def test_mixed_codes(make: type[Relaxed]) -> None:
    """Weights over categories, and no Pyro program."""
    guide = make(encoder, K, D, hidden=7)
    log_q = guide.category(torch.rand(B, X)).logits
    weights = guide.mix(log_q)
    assert weights.shape == (B, K)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B))
    if make is SoftCode:
        torch.testing.assert_close(weights, log_q.exp())
    message = f"^{make.__name__} mixes the codes of all categories, which no Pyro program"
    with pytest.raises(TypeError, match=message):
        guide(torch.rand(B, X))


def test_cold_gumbel_weights_are_draws_of_c() -> None:
    """Near temperature 0 a mix is one-hot, and its mean q(c | x) within 5 standard errors.

    Of three categories, so one of 580,000 seeds fails.
    """
    guide = Gumbel(encoder, K, D, hidden=7, temperature=1e-4)
    q = torch.tensor([0.2, 0.3, 0.5])
    draws = guide.mix(q.log().expand(4000, K))
    # Two of the Gumbels come as close as the temperature a few times in ten thousand.
    assert (draws.amax(-1) > 0.999).double().mean() > 0.99
    assert ((draws.mean(0) - q).abs() < 5 * (q * (1 - q) / 4000).sqrt()).all()


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_gumbel_temperature_is_above_0_and_finite(value: float) -> None:
    """When given and when set by a schedule; a refused one leaves the old."""
    message = f"^temperature must be above 0 and finite, not {value}$"
    with pytest.raises(ValueError, match=message):
        Gumbel(encoder, K, D, temperature=value)
    guide = Gumbel(encoder, K, D, temperature=0.7)
    with pytest.raises(ValueError, match=message):
        guide.temperature = value
    assert guide.temperature == 0.7


def test_gumbel_temperature_can_be_scheduled() -> None:
    """As in two guides, of which one has the lower temperature from the start."""
    guide, cold = (Gumbel(encoder, K, D, temperature=value) for value in (1.0, 0.25))
    assert guide.schedulable == ("temperature",)
    guide.temperature = 0.25
    log_q = torch.rand(B, K).log_softmax(-1)
    draws = []
    for each in (guide, copy.deepcopy(guide), cold):
        torch.manual_seed(1)
        draws.append(each.mix(log_q))
    assert torch.equal(draws[0], draws[2])
    assert torch.equal(draws[1], draws[2])


def test_what_can_be_scheduled_is_a_float_attribute(guide: Guide) -> None:
    parts = [guide, guide.encoder, model(), model().prior, model().decoder, Bernoulli()]
    assert [part.schedulable for part in parts] == [()] * 6
    gumbel = Gumbel(encoder, K, D)
    assert all(isinstance(getattr(gumbel, name), float) for name in gumbel.schedulable)


def test_critic_is_the_classifier_but_for_the_quirk(guide: Guide) -> None:
    x = torch.rand(B, X)
    torch.testing.assert_close(guide.critic(x).logits, guide.category(x).logits)
    odd = SoftCode(encoder, K, D, quirks=True, rate=0.0)
    probabilities = odd.category(x).probs
    torch.testing.assert_close(odd.critic(x).probs, probabilities.softmax(-1))


def test_quirks_keep_dropout_on() -> None:
    """The dropped share of hidden features is the rate, at test time too.

    Within 5 standard errors, twice: one of 870,000 seeds fails.
    """
    guide = SoftCode(lambda: encoders.MLP(X, [400]), K, D, quirks=True, rate=0.3).eval()
    x = torch.ones(50, X)
    for network in (guide.encoder, guide.latent_encoder):
        alive = network.network(x) > 0
        dropped = (network(x)[alive] == 0).double()
        assert abs(dropped.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / len(dropped))


def test_sites_of_the_guide(guide: Guide) -> None:
    trace = poutine.trace(guide).get_trace(torch.rand(B, X))
    enumerated = isinstance(guide, Enumerated)
    assert samples(trace) == ({"c", "z"} if enumerated else {"z"})
    assert trace.nodes["z"]["value"].shape == (B, D)
    if enumerated:
        assert trace.nodes["c"]["infer"]["enumerate"] == "parallel"
        assert trace.nodes["c"]["value"].shape == (B,)
    (batch,) = trace.nodes["z"]["cond_indep_stack"]
    assert (batch.name, batch.size) == ("batch", B)
    assert {f"guide$$${name}" for name, _ in guide.named_parameters()} <= set(trace.nodes)


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_sites_of_the_model(kl: str) -> None:
    program = CatVAE(orthogonal(), decoders.MLP(D, X, Bernoulli(), [4]), kl=kl)
    x = torch.rand(B, X).round()
    trace = poutine.trace(program).get_trace(x)
    assert samples(trace) == {"c", "z", "x"}
    assert trace.nodes["c"]["infer"]["enumerate"] == "parallel"
    assert trace.nodes["z"]["infer"]["kl"] == kl
    assert trace.nodes["x"]["is_observed"]
    assert trace.nodes["x"]["value"] is x
    for name in ("c", "z", "x"):
        (batch,) = trace.nodes[name]["cond_indep_stack"]
        assert (batch.name, batch.size) == ("batch", B)
    assert {f"model$$${name}" for name, _ in program.named_parameters()} <= set(trace.nodes)
    # z and x follow the c and z that were drawn.
    c, z = trace.nodes["c"]["value"], trace.nodes["z"]["value"]
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], program.prior.component(c).log_prob(z))
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], program.decoder(z).log_prob(x))


@pytest.mark.parametrize("left", [(), (4,), (2, 4)])
def test_log_joint_is_the_program_with_c_summed_out(left: tuple[int, ...]) -> None:
    """log sum_c p(c) p(z | c) p(x | z), each factor from the program's own sites."""
    program = model()
    x, z = torch.rand(B, X).round(), torch.randn(*left, B, D)
    joint = program.log_joint(x, z)
    assert joint.shape == (*left, B)
    for drawn, found in zip(z.reshape(-1, B, D), joint.reshape(-1, B), strict=True):
        total = torch.zeros(B)
        for k in range(K):
            values = {"c": torch.full((B,), k), "z": drawn}
            trace = poutine.trace(poutine.condition(program, values)).get_trace(x)
            trace.compute_log_prob()
            total += sum(trace.nodes[name]["log_prob"] for name in ("c", "z", "x")).exp()
        torch.testing.assert_close(found, total.log())


def test_model_refuses_grey_pixels_under_bernoulli() -> None:
    with pytest.raises(ValueError, match="to be within the support"):
        poutine.trace(model()).get_trace(torch.full((B, X), 0.5)).compute_log_prob()


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3], [0.01, 0.9, 0.09]])
@pytest.mark.parametrize("number", [1, 2, 3, 7, 64, 500])
def test_generated_categories_are_stratified(number: int, weights: list[float]) -> None:
    """Each within one of number * p(c), draw after draw."""
    program = model(Orthogonal(K, delta=1, weights=weights))
    expected = number * torch.tensor(weights) / sum(weights)
    for _ in range(20):
        c, _, _ = program.generate(number)
        count = torch.bincount(c, minlength=K)
        assert len(count) == K
        assert ((count - expected).abs() < 1 + 1e-9).all()


def test_a_sum_of_probabilities_that_is_rounded_down_draws_no_further_category(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the largest number that torch.rand gives, which lies above some of the sums."""
    largest = torch.tensor(1 - 2**-53)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: largest)
    sums = []
    for categories in range(2, 80):
        prior = Orthogonal(categories, delta=1)
        sums.append(prior.category().probs.cumsum(-1)[-1])
        decoder = decoders.MLP(categories, X, Bernoulli(), [4])
        c, _, _ = CatVAE(prior, decoder).generate(1)
        assert c.tolist() == [categories - 1]
    assert min(sums) < largest


def test_generated_categories_are_unbiased() -> None:
    """Counts average to number * p(c).

    Within 5 standard errors, each count's deviation being at most 1/2: one of 580,000 seeds fails.
    """
    program, rounds = model(), 2000
    count = sum(torch.bincount(program.generate(4)[0], minlength=K) for _ in range(rounds))
    expected = 4 * torch.tensor([1.0, 2, 3]) / 6
    assert (count / rounds - expected).abs().max() < 5 * 0.5 / math.sqrt(rounds)


def test_generated_latents_follow_their_category() -> None:
    """z - mu_c is standard normal: mean, and covariance, within 5 standard errors.

    D means and D (D + 1) / 2 covariances: at most one of 190,000 seeds fails.
    """
    program, number = model(), 3000
    c, z, _ = program.generate(number)
    rest = (z - program.prior.modes[c]).detach()
    assert rest.mean(0).abs().max() < 5 / math.sqrt(number)
    # Entries of a normal sample's covariance have variance 1, on the diagonal 2.
    assert (rest.mT.cov() - torch.eye(D)).abs().max() < 5 * math.sqrt(2 / number)


@pytest.mark.parametrize("likelihood", [Bernoulli, Gaussian])
def test_generate_shapes_and_gradients(likelihood: Callable[[], Likelihood]) -> None:
    program = model(Mixture(K, D), likelihood())
    c, z, x = program.generate(200)
    assert (c.shape, z.shape, x.shape) == ((200,), (200, D), (200, X))
    assert c.dtype == torch.int64
    (x**2).sum().backward()
    for name, parameter in program.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


class Drawn(Likelihood):
    """Pixels of which only draws without gradients can be had."""

    def forward(self, raw: torch.Tensor) -> torch.distributions.Distribution:
        pixels = torch.distributions.Bernoulli(logits=raw.squeeze(-1))
        return torch.distributions.Independent(pixels, 1)


def test_without_gradients_draws_need_no_rsample() -> None:
    program = model(likelihood=Drawn())
    with torch.no_grad():
        _, _, x = program.generate(50)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(NotImplementedError):
        program.generate(50)


def bayes_pair() -> tuple[CatVAE, Bayes]:
    prior = Mixture(K, D, spread=3.0)
    return CatVAE(prior, decoders.MLP(D, X, Gaussian(), [5]), "sampled"), Bayes(encoder, prior, D)


@pytest.mark.parametrize("copied", [copy.deepcopy, AveragedModel])
def test_a_bayes_guide_is_not_copied_without_its_prior(
    copied: Callable[[nn.Module], nn.Module],
) -> None:
    _, guide = bayes_pair()
    with pytest.raises(TypeError, match=r"^Bayes reads p\(c\|z\) off the model's prior: copy both"):
        copied(guide)


def test_an_averaged_bayes_guide_reads_the_averaged_prior() -> None:
    model, guide = bayes_pair()
    averaged = AveragedModel(nn.ModuleList([model, guide]))
    averaged.update_parameters(nn.ModuleList([model, guide]))
    with torch.no_grad():
        model.prior.mean.copy_(model.prior.mean.roll(1, 0))
    averaged.update_parameters(nn.ModuleList([model, guide]))
    averaged_model, averaged_guide = averaged.module
    x = torch.rand(50, X)
    z = averaged_guide.posterior(x).latent(torch.zeros(1, dtype=torch.long)).mean
    expected = averaged_model.prior.responsibilities(z)
    torch.testing.assert_close(averaged_guide.category(x).logits, expected)
    assert not torch.allclose(expected, model.prior.responsibilities(z))
