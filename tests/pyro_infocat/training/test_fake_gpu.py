"""Training steps on tensors that say they are on a GPU and hold no numbers; none is needed.

What a CUDA graph cannot hold fails here: a look at a value, a shape that depends on one, a copy
from or to the host, two devices in one operation. The backward pass is left out, since PyTorch's
engine asks the driver.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyro
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import CatVAE
from pyro_infocat.build import Builder, observation
from pyro_infocat.data.dataset import Split
from pyro_infocat.places import PRESETS
from pyro_infocat.training.clusters import Clusters, Mixture, Scale
from pyro_infocat.training.step import Step
from tests.runs import parse
from tests.tables import facts_for

GPU = torch.device("cuda:0")

# Recurrent layers are left out: they ask where in memory their weights lie.
PARTS = [
    "--guide guides.Gumbel",
    "--likelihood models.likelihoods.Bernoulli",
    "--decoded 2",
    "--guide guides.SoftCode",
    "--prior models.priors.Mixture",
    "--prior models.priors.Simplex",
    "--prior models.priors.Vamp",
    "--likelihood models.likelihoods.DiscretisedLogistic",
    "--likelihood models.likelihoods.GreyBernoulli",
    "--encoder guides.encoders.Convolutional --decoder models.decoders.Convolutional",
    "--kl sampled --particles 2",
]
QUICK = ["digits.yaml", "mnist.yaml", *PARTS[:3]]
"""What covers the essentials, with small networks."""


def quick_first(cases: Iterable[str]) -> list[Any]:
    return [pytest.param(case, marks=[pytest.mark.slow] * (case not in QUICK)) for case in cases]


class NoCopies(TorchDispatchMode):
    """Refuses copies from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            tensors = [
                leaf for leaf in tree_leaves((args, answer)) if isinstance(leaf, torch.Tensor)
            ]
            devices = {tensor.device.type for tensor in tensors}
            if len(devices) > 1:
                raise RuntimeError(f"a copy between {' and '.join(sorted(devices))}")
        return answer


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs backward, and modules are made where they are to be."""
    monkeypatch.setattr(nn.Module, "to", lambda self, _: self)
    monkeypatch.setattr(torch.Tensor, "backward", lambda _: None)
    monkeypatch.setattr(torch.autograd, "grad", lambda _, x: (torch.zeros_like(x),))


def take_two_steps(flags: list[str]) -> None:
    """Every term has a weight, one that looks at labels too."""
    labelled = ["--terms", "tests.users_parts.labelled_term.Supervised"]
    # Autocast asks the driver.
    chosen = replace(parse([*flags, *labelled])[0], precision="float32")
    facts = facts_for(chosen)
    # A check of every value asks the host; a run has none.
    with pyro.validation_enabled(False), FakeTensorMode():
        with GPU:
            parts = Builder(chosen, facts).parts(GPU)
            kind = torch.uint8 if facts.images else torch.float32
            pixels = torch.zeros(300, facts.features, dtype=kind)
            split = Split(pixels, torch.zeros(300, dtype=torch.int64), facts.levels)
        with GPU:
            parts.bound.clusters = some_clusters(split, parts.model.prior.categories)
        parts.bound.weights = dict.fromkeys(parts.bound.signs, 1.0)
        assert parts.bound.written_out(parts.model, parts.guide)
        module = parts.bound(parts.model, parts.guide).train()
        optimizer = torch.optim.SGD(module.parameters())
        observed = observation(chosen, parts.model.decoder.likelihood)
        step = Step(split, observed, parts, module, optimizer)
        with NoCopies():
            for _ in range(2):
                terms = step(torch.arange(64, device=GPU))
        assert terms.keys() == set(parts.bound.signs)
        assert all(term.device == GPU for term in terms.values())


def some_clusters(split: Split, categories: int) -> Clusters:
    """As k-means finds them, of which only the shapes count here."""
    features = split.pixels.shape[1]
    alike = torch.eye(features).unsqueeze(0)
    centres = torch.zeros(categories, features)
    mixture = Mixture(alike, centres, torch.zeros(categories))
    return Clusters(Scale(split.grey(), ()), mixture, torch.ones(categories))


@pytest.mark.usefixtures("alone", "no_engine")
@pytest.mark.parametrize("preset", quick_first(sorted(p.name for p in PRESETS.glob("*.yaml"))))
def test_a_step_of_each_preset_stays_on_the_gpu(preset: str) -> None:
    take_two_steps(["--config", str(PRESETS / preset)])


@pytest.mark.usefixtures("alone", "no_engine")
@pytest.mark.parametrize("flags", quick_first(PARTS))
def test_a_step_of_other_parts_stays_on_the_gpu(flags: str) -> None:
    take_two_steps(flags.split())


@pytest.mark.usefixtures("alone", "no_engine")
@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda x: x * x.max().item(), "_local_scalar_dense"),
        (lambda x: x[x > 0], "nonzero"),
        (lambda x: x + torch.zeros(x.shape), "cuda:0(,| and) cpu"),
        (lambda x: x + torch.zeros(x.shape).to(x.device), "a copy between cpu and cuda"),
        (lambda x: x.cpu().to(x.device), "a copy between cpu and cuda"),
    ],
)
def test_a_slip_is_found(slip: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    right = CatVAE.generate

    def generate(self: Any, number: int) -> Any:
        c, z, x = right(self, number)
        return c, z, slip(x)

    monkeypatch.setattr(CatVAE, "generate", generate)
    with pytest.raises(Exception, match=said):
        take_two_steps([])
