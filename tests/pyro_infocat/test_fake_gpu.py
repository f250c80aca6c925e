"""Training steps on tensors that say they are on a GPU and hold no numbers; none is needed.

What a CUDA graph cannot hold fails here: a look at a value, a shape that depends on one, a copy
from or to the host, two devices in one operation. The backward pass is left out, since PyTorch's
engine asks the driver.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import CatVAE
from pyro_infocat import build, data
from pyro_infocat.arguments import parse
from pyro_infocat.settings import DATA_SETS, ROOT
from pyro_infocat.step import Step
from pyro_infocat.terms import SIGNS
from pyro_infocat.train import set_validation

GPU = torch.device("cuda:0")

# Recurrent layers are left out: they ask where in memory their weights lie.
PARTS = [
    ["--guide", "guides.SoftCode"],
    ["--guide", "guides.Gumbel"],
    ["--prior", "models.priors.Mixture"],
    ["--prior", "models.priors.Simplex"],
    ["--prior", "models.priors.Vamp"],
    ["--likelihood", "models.likelihoods.Bernoulli"],
    ["--likelihood", "models.likelihoods.DiscretisedLogistic"],
    ["--likelihood", "models.likelihoods.GreyBernoulli"],
    ["--encoder", "guides.encoders.Convolutional", "--decoder", "models.decoders.Convolutional"],
    ["--kl", "sampled", "--particles", "2"],
    ["--decoded", "2"],
]


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
    """Every term has a weight."""
    set_validation(False)
    # Autocast asks the driver.
    chosen = replace(parse(flags)[0], precision="float32")
    facts = DATA_SETS[chosen.data]
    with FakeTensorMode():
        with GPU:
            model, guide, view = build.build(chosen, GPU)
            pixels = torch.zeros(300, facts.features, dtype=torch.uint8)
            split = data.Split(pixels, torch.zeros(300), facts.levels)
        bound = build.objective(chosen)
        bound.weights = dict.fromkeys(SIGNS, 1.0)
        assert bound.written_out(model, guide)
        module = bound(model, guide).train()
        optimizer = torch.optim.SGD(module.parameters())
        seen = build.observation(chosen, model.decoder.likelihood)
        step = Step(split, seen, view, guide, bound, module, optimizer)
        with NoCopies():
            for _ in range(2):
                terms = step(torch.arange(64, device=GPU))
        assert terms.keys() == set(SIGNS)
        assert all(term.device == GPU for term in terms.values())


@pytest.mark.usefixtures("alone", "no_engine")
@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "runs").glob("*.yaml")))
def test_a_step_of_each_preset_stays_on_the_gpu(preset: str) -> None:
    take_two_steps(["--config", str(ROOT / "runs" / preset)])


@pytest.mark.usefixtures("alone", "no_engine")
@pytest.mark.parametrize("flags", PARTS, ids=" ".join)
def test_a_step_of_other_parts_stays_on_the_gpu(flags: list[str]) -> None:
    take_two_steps(flags)


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
def test_a_slip_is_seen(slip: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above can fail."""
    right = CatVAE.generate

    def generate(self: Any, number: int) -> Any:
        c, z, x = right(self, number)
        return c, z, slip(x)

    monkeypatch.setattr(CatVAE, "generate", generate)
    with pytest.raises(Exception, match=said):
        take_two_steps([])
