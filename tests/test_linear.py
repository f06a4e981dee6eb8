"""Products with weights: both engines give what `nn.Linear` gives, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import random_batch
from lengthwise.bias import Causal
from lengthwise.engine import products as module
from lengthwise.engine.products import Linear, feed_forward, filled, linear
from lengthwise.model import Transformer, plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

# Those that oneDNN does are tested where it is; everywhere that it is left alone where it is not wanted.
needs_onednn = pytest.mark.skipif(not module._is_there(), reason="no AVX-512, or no oneDNN")


@pytest.fixture
def eager(monkeypatch):
    """Products of any size are large."""
    monkeypatch.setattr(module, "LARGE", 0)


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the products that oneDNN did."""
    seen = []

    def product(x, *rest):
        seen.append(tuple(x.shape))
        return original(x, *rest)

    original = module._product
    monkeypatch.setattr(module, "_product", product)
    return seen


def parts(shape, out, seed=0, back=None):
    """Leaf tensors: x, weight, bias, and those of the way back with a residual where it is asked for."""
    rng = torch.Generator().manual_seed(seed)
    sizes = [shape, (out, shape[-1]), (out,)]
    if back is not None:
        sizes += [(back, out), (back,), (*shape[:-1], back)]
    return [torch.randn(size, generator=rng).requires_grad_() for size in sizes]


def gradients(function, tensors, seed=1):
    """Its value, and the gradients of a random sum of it."""
    y = function(*tensors)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), tensors)]


def in_double(function, tensors):
    return gradients(function, [t.detach().double().requires_grad_() for t in tensors])


def close(found, wanted):
    for own, other in zip(found, wanted, strict=True):
        assert own.shape == other.shape
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(own.double() / scale, other / scale, rtol=0, atol=1e-5)


def torch_feed_forward(x, weight, bias, back, back_bias, residual):
    return residual + F.linear(F.relu(F.linear(x, weight, bias)), back, back_bias)


def our_feed_forward(x, weight, bias, back, back_bias, residual):
    expand, contract = (nn.Linear(own.shape[1], own.shape[0]) for own in (weight, back))
    for layer, own, own_bias in ((expand, weight, bias), (contract, back, back_bias)):
        del layer.weight, layer.bias
        layer.weight, layer.bias = own, own_bias
    return feed_forward(x, expand, contract, residual)


@needs_onednn
@settings(max_examples=25, deadline=None)
@given(
    problems=st.integers(1, 4),
    rows=st.sampled_from([32, 64, 96]),
    width=st.integers(1, 40),
    out=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_equals_torch_in_float64(problems, rows, width, out, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGE", 0)
        tensors = parts((problems, rows, width), out, seed)
        assert module._takes_onednn(*tensors[:2])
        close(gradients(linear, tensors), in_double(F.linear, tensors))
        tensors = parts((problems, rows, width), out, seed, back=width)
        close(gradients(our_feed_forward, tensors), in_double(torch_feed_forward, tensors))


@needs_onednn
def test_relu_passes_no_gradient_where_it_cut(eager):
    x = torch.ones(32, 1, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    back = torch.ones(1, 3, requires_grad=True)
    zeros = [torch.zeros(size, requires_grad=True) for size in ((3,), (1,), (32, 1))]
    tensors = (x, weight, zeros[0], back, zeros[1], zeros[2])
    y = our_feed_forward(*tensors)
    assert y.flatten().tolist() == [1.0] * 32
    y.sum().backward()
    assert weight.grad.flatten().tolist() == [32.0, 0.0, 0.0]
    assert back.grad.flatten().tolist() == [32.0, 0.0, 0.0]
    assert x.grad.flatten().tolist() == [1.0] * 32


@needs_onednn
def test_values_are_the_same_with_and_without_gradients(eager):
    tensors = parts((64, 16), 48, back=16)
    with torch.no_grad():
        values = linear(*tensors[:3]), our_feed_forward(*tensors)
    assert not any(value.requires_grad for value in values)
    assert values[0].equal(linear(*tensors[:3]))
    assert values[1].equal(our_feed_forward(*tensors))


@needs_onednn
def test_what_needs_no_gradient_gets_none(eager, calls):
    x, weight, bias = parts((32, 8), 4)
    linear(x.detach(), weight, bias.detach()).sum().backward()
    assert x.grad is None
    assert bias.grad is None
    assert weight.grad.shape == (4, 8)
    assert len(calls) == 2  # the product, and the gradient of its weight


@needs_onednn
def test_same_bits_every_time(eager):
    tensors = parts((256, 64), 256, back=64)
    first = gradients(our_feed_forward, tensors)
    assert all(
        own.equal(other)
        for _ in range(5)
        for own, other in zip(first, gradients(our_feed_forward, tensors), strict=True)
    )


class TestChoice:
    """oneDNN multiplies only what it is faster at, and what comes in shapes that recur."""

    @pytest.fixture(autouse=True)
    def there(self, monkeypatch):
        monkeypatch.setattr(module, "_is_there", lambda: True)

    @pytest.mark.parametrize("rows", [31, 33, 48])
    def test_odd_numbers_of_rows_are_left_to_torch(self, eager, rows):
        x, weight, _ = parts((rows, 8), 4)
        assert not module._takes_onednn(x, weight)
        assert module._takes_onednn(*parts((32, 8), 4)[:2])

    def test_small_products_are_left_to_torch(self):
        assert not module._takes_onednn(torch.zeros(1024, 64), torch.zeros(127, 64))
        assert module._takes_onednn(torch.zeros(1024, 64), torch.zeros(128, 64))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_types_are_left_to_torch(self, eager, dtype):
        assert not module._takes_onednn(torch.zeros(32, 8, dtype=dtype), torch.zeros(4, 8))
        x, weight = torch.zeros(32, 8, dtype=dtype), torch.zeros(4, 8, dtype=dtype)
        assert not module._takes_onednn(x, weight)

    def test_it_can_be_turned_off(self, eager):
        x, weight, _ = parts((32, 8), 4)
        torch.backends.mkldnn.enabled = False
        try:
            assert not module._takes_onednn(x, weight)
        finally:
            torch.backends.mkldnn.enabled = True
        assert module._takes_onednn(x, weight)

    def test_mixed_precision_is_left_to_torch(self, eager):
        x, weight, bias = parts((32, 8), 4)
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight, bias).dtype == torch.bfloat16

    def test_other_devices_are_left_to_torch(self, eager):
        x, weight = torch.zeros(32, 8, device="meta"), torch.zeros(4, 8, device="meta")
        assert linear(x, weight).device.type == "meta"

    @pytest.mark.parametrize(
        ("rows", "whole"), [(0, 0), (511, 511), (512, 512), (513, 576), (640, 640)]
    )
    def test_rows_are_filled_up(self, monkeypatch, rows, whole):
        assert filled(rows) == whole
        monkeypatch.setattr(module, "_is_there", lambda: False)
        assert filled(rows) == rows


@needs_onednn
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("encoder_layers", [0, 1])
def test_a_model_has_the_same_gradients_by_either_engine(
    monkeypatch, norm, dropout, encoder_layers
):
    torch.manual_seed(0)
    layout = Layout(TASKS["addition"](), 7)
    model = Transformer(
        len(layout.vocabulary), norm=norm, dropout=dropout, encoder_layers=encoder_layers
    )
    plan = plan_attention(Causal(4), layout, 2, encoder=encoder_layers > 0)
    source, target = random_batch(layout, 32)
    found = []
    for large in (0, 2**60):
        monkeypatch.setattr(module, "LARGE", large)
        model.zero_grad()
        torch.manual_seed(1)  # the same channels are dropped
        logits = model(source, target[:, :-1], plan).logits
        F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()).backward()
        found.append([logits.detach(), *(own.grad.clone() for own in model.parameters())])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5)


def test_without_onednn_it_is_torch(monkeypatch, eager):
    monkeypatch.setattr(module, "_is_there", lambda: False)
    tensors = parts((64, 16), 48, back=16)
    assert linear(*tensors[:3]).equal(F.linear(*tensors[:3]))
    assert our_feed_forward(*tensors).equal(torch_feed_forward(*tensors))


def test_a_seed_gives_the_weights_that_torch_gives():
    torch.manual_seed(3)
    ours = Linear(5, 7)
    torch.manual_seed(3)
    theirs = nn.Linear(5, 7)
    assert ours.weight.equal(theirs.weight)
    assert ours.bias.equal(theirs.bias)
    assert list(ours.state_dict()) == list(theirs.state_dict())
