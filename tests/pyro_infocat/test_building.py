"""From settings to parts: every setting that a part or the objective depends on reaches it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from guides import Bayes, encoders
from models import likelihoods
from pyro_infocat.build import Builder, observation
from pyro_infocat.catalogue import DATA_SETS
from pyro_infocat.settings import Settings
from tests.runs import parse

FACTS = DATA_SETS["digits"]
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("alone")


def settings(*flags: str) -> Settings:
    small = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--guide.hidden", "8"]
    return parse([*small, *flags])[0]


def test_the_objective_is_as_the_settings_weigh_it() -> None:
    chosen = settings(
        *("--information_weight", "0.25", "--particles", "3", "--decoded", "2"),
        *("--weights", "{consistency: 0.5, kl_z: 2}"),
    )
    bound = Builder(chosen, FACTS).parts(CPU).bound
    assert (bound.num_particles, bound.decoded) == (3, 2)
    assert bound.weights["information_bound"] == 0.25
    assert bound.weights["consistency"] == 0.5
    assert bound.weights["kl_z"] == 2
    assert bound.weights["reconstruction"] == bound.weights["kl_c"] == 1


@pytest.mark.parametrize("kl", ["analytic", "sampled"])
def test_the_program_gets_how_its_kl_is_taken(kl: str) -> None:
    model, _ = Builder(settings("--kl", kl), FACTS).programs(CPU)
    assert model.kl == kl


def test_parts_share_what_the_run_gives_them() -> None:
    chosen = settings("--prior.categories", "7", "--prior.delta", "2")
    parts = Builder(chosen, FACTS).parts(CPU)
    model, guide = parts.model, parts.guide
    assert (model.prior.categories, guide.categories) == (7, 7)
    z = model.prior.component(torch.zeros(3, dtype=torch.int64)).sample()
    assert z.shape == (3, model.prior.latent) == (3, 14)
    assert model.decoder(z).sample().shape == (3, FACTS.features)
    assert guide.category(torch.rand(3, FACTS.features)).logits.shape == (3, 7)


def test_model_and_guide_go_to_the_device() -> None:
    """Tensors of the device ``meta`` are shapes without numbers."""
    model, guide = Builder(settings(), FACTS).programs(torch.device("meta"))
    for part in (model, guide):
        held = [*part.parameters(), *part.buffers()]
        assert held
        assert {tensor.device.type for tensor in held} == {"meta"}


@pytest.mark.parametrize("observe", ["auto", "binary", "grey"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_likelihood_gets_what_fits_it_unless_it_is_told(binary: bool, observe: str) -> None:
    kind = likelihoods.Bernoulli if binary else likelihoods.ContinuousBernoulli
    chosen = replace(settings(), observe=observe)
    if binary and observe == "grey":
        with pytest.raises(Exception, match="holds 0 and 1 only"):
            observation(chosen, kind())
    else:
        fitting = "binary" if binary else "grey"
        assert observation(chosen, kind()) == (fitting if observe == "auto" else observe)


# Instances that the user made.


class Kept(nn.Module):
    """Any object that is held and copied."""


@pytest.mark.parametrize("role", ["terms", "metrics", "figures"])
def test_several_instances_are_copied(role: str) -> None:
    """Training changes a copy, and a second run begins as the first did."""
    mine = Kept()
    builder = Builder(settings(), FACTS, instances={role: [mine]})
    for _ in range(2):
        (found,) = builder.several(role)
        assert type(found) is Kept
        assert found is not mine
        found.changed = True
    assert not hasattr(mine, "changed")


def test_each_network_of_a_guide_is_a_copy_of_the_encoder() -> None:
    mine = encoders.MLP(FACTS.features, [8])
    builder = Builder(settings("--guide", "guides.Bayes"), FACTS, instances={"encoder": mine})
    builder.programs(CPU)
    one, other = (builder.make("encoder", {}) for _ in range(2))
    first, second, own = (next(net.parameters()) for net in (one, other, mine))
    assert torch.equal(first, second)
    assert len({first.data_ptr(), second.data_ptr(), own.data_ptr()}) == 3


def test_a_guide_that_reads_the_prior_reads_the_models_own() -> None:
    chosen = settings("--guide", "guides.Bayes", "--kl", "sampled")
    model, guide = Builder(chosen, FACTS).programs(CPU)
    assert isinstance(guide, Bayes)
    assert guide.prior is model.prior
