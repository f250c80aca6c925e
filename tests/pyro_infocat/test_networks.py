"""Networks in bfloat16 under a bound in float32."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guides import Enumerated, encoders
from guides.guide import Guide
from models import CatVAE, decoders, likelihoods, priors
from pyro_infocat import InfoCatELBO
from pyro_infocat.networks import compiled, computing_in, networks

K, B, SHAPE = 5, 64, (8, 8)
X = SHAPE[0] * SHAPE[1]
ENCODERS = {
    "MLP": functools.partial(encoders.MLP, X, [32]),
    "normed": functools.partial(encoders.MLP, X, [32], norm=True),
    "convolutional": functools.partial(encoders.Convolutional, SHAPE, 4, 32, norm=True),
    "recurrent": functools.partial(encoders.Recurrent, SHAPE, 16),
}
DECODERS: dict[str, Any] = {
    "MLP": lambda d, p: decoders.MLP(d, X, p, [32]),
    "convolutional": lambda d, p: decoders.Convolutional(d, SHAPE, p, 4),
    "recurrent": lambda d, p: decoders.Recurrent(d, SHAPE, p, 16),
}


def parts(encoder: str = "MLP", decoder: str = "MLP", **arguments: Any) -> tuple[CatVAE, Guide]:
    torch.manual_seed(0)
    prior = priors.Orthogonal(K, 2)
    made = DECODERS[decoder](prior.latent, likelihoods.Bernoulli())
    return CatVAE(prior, made), Enumerated(ENCODERS[encoder], K, prior.latent, 16, **arguments)


def loss_and_gradients(model: CatVAE, guide: Guide) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(B, X).round()
    # The draws of generated images jump with the smallest change of a mean; the rest is smooth.
    loss = InfoCatELBO(0.0)(model, guide)(x) / B
    parameters = [*model.parameters(), *guide.parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    return loss, torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("shared", [False, True])
def test_the_outermost_networks_are_found_once(shared: bool) -> None:
    _, guide = parts(shared=shared)
    found = list(networks(guide))
    encoders_inside = [guide.encoder] if shared else [guide.encoder, guide.latent_encoder]
    expected = [guide.classifier, guide.from_x, guide.from_c, guide.head]
    expected += [encoder.network for encoder in encoders_inside]
    assert {id(network) for network in found} == {id(network) for network in expected}
    assert len(found) == len(expected)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_loss_and_gradients_are_near_those_of_float32(encoder: str, decoder: str) -> None:
    """bfloat16 rounds to 1 in 256; single products are off by as much, sums by less."""
    model, guide = parts(encoder, decoder)
    loss, gradients = loss_and_gradients(model, guide)
    with computing_in("bfloat16", nn.ModuleList([model, guide])):
        rough_loss, rough = loss_and_gradients(model, guide)
    assert rough_loss.dtype is rough.dtype is torch.float32
    assert not torch.equal(rough, gradients)
    assert rough_loss.item() == pytest.approx(loss.item(), rel=2e-3)
    assert (rough - gradients).norm() < 0.03 * gradients.norm()


def test_layers_compute_in_bfloat16_and_distributions_hold_float32() -> None:
    model, guide = parts()
    used: set[torch.dtype] = set()
    for layer in [*model.modules(), *guide.modules()]:
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda *_: used.add(_[-1].dtype))
    with computing_in("bfloat16", nn.ModuleList([model, guide])):
        x = torch.rand(B, X).round()
        category, latent = guide.posterior(x)
        decoded = model.decoder(latent(torch.arange(K).unsqueeze(-1)).sample())
    # A hook of the outermost network itself runs after its answer is widened again.
    assert torch.bfloat16 in used
    assert category.logits.dtype is decoded.mean.dtype is torch.float32


def test_recurrent_layers_stay_in_float32() -> None:
    layer = nn.GRU(2, 3)
    x = torch.randn(4, 5, 2)
    before = layer(x)[0]
    with computing_in("bfloat16", nn.ModuleList([layer])):
        assert torch.equal(layer(x)[0], before)


def test_afterwards_every_number_is_what_it_was() -> None:
    model, guide = parts("recurrent", "convolutional")
    before = loss_and_gradients(model, guide)
    with computing_in("bfloat16", nn.ModuleList([model, guide])):
        pass
    after = loss_and_gradients(model, guide)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not any("forward" in vars(module) for module in guide.modules())


def test_float32_touches_nothing() -> None:
    model, _ = parts()
    with computing_in("float32", model):
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_network_that_raises_is_put_back() -> None:
    model, _ = parts()
    with pytest.raises(RuntimeError, match="shapes"), computing_in("bfloat16", model):
        model.decoder(torch.zeros(3, 1))
    assert not any("forward" in vars(module) for module in model.modules())


def test_compiled_networks_give_the_same_numbers_and_are_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The compiler's own work is left out: compiling takes a minute; what is around it is ours."""
    made: list[nn.Module] = []

    def compile_(self: nn.Module) -> None:
        made.append(self)
        self._compiled_call_impl = self._call_impl

    monkeypatch.setattr(nn.Module, "compile", compile_)
    model, guide = parts()
    both = nn.ModuleList([model, guide])
    before = loss_and_gradients(model, guide)
    with compiled(True, both, lambda: loss_and_gradients(model, guide)):
        inside = loss_and_gradients(model, guide)
    assert {id(network) for network in made} == {id(network) for network in networks(both)}
    assert torch.equal(before[1], inside[1])
    assert all(module._compiled_call_impl is None for module in both.modules())


def test_networks_that_do_not_compile_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no working C++\ncompiler")

    def compile_(self: nn.Module) -> None:
        self._compiled_call_impl = broken

    monkeypatch.setattr(nn.Module, "compile", compile_)
    model, guide = parts()
    both = nn.ModuleList([model, guide])
    before = loss_and_gradients(model, guide)
    with compiled(True, both, lambda: loss_and_gradients(model, guide)):
        inside = loss_and_gradients(model, guide)
    assert torch.equal(before[1], inside[1])
    assert capsys.readouterr().err == (
        "torch.compile: networks run as they are (no working C++ compiler)\n"
    )


def test_trying_to_compile_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a run that goes on would differ from one that was never stopped."""
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    layer = nn.BatchNorm1d(3).train()
    torch.manual_seed(0)
    following = torch.rand(())
    torch.manual_seed(0)
    with compiled(True, layer, lambda: layer(torch.randn(4, 3))):
        assert torch.rand(()) == following
    assert torch.equal(layer.running_mean, torch.zeros(3))
    assert torch.equal(layer.running_var, torch.ones(3))


def test_a_layer_that_is_called_by_keywords_computes_in_bfloat16() -> None:
    layer = nn.MultiheadAttention(4, 1)
    x = torch.randn(3, 2, 4)
    with computing_in("bfloat16", layer):
        inside, _ = layer(x, x, x, need_weights=False)
    outside, _ = layer(x, x, x, need_weights=False)
    assert inside.dtype is torch.float32
    assert not torch.equal(inside, outside)
    torch.testing.assert_close(inside, outside, rtol=0.1, atol=0.1)


def test_nothing_is_compiled_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", None)
    model, _ = parts()
    with compiled(False, model, lambda: pytest.fail("tried")):
        pass


@pytest.mark.gpu
def test_the_compiler_gives_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    model, guide = (part.cuda() for part in parts())
    x = torch.rand(B, X, device="cuda").round()

    def value() -> float:
        torch.manual_seed(1)
        return InfoCatELBO(0.0).loss(model, guide, x) / B

    before = value()
    with compiled(True, nn.ModuleList([model, guide]), value):
        assert value() == pytest.approx(before, rel=1e-4)
    assert capsys.readouterr().err == ""
