"""Layers against `torch.nn.Transformer` itself, pre-norm and post-norm, with and without an encoder."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import HEADS, LAYERS, biases, random_batch
from lengthwise.bias import SITES, CalibratedBias, Causal
from lengthwise.decoding.greedy import greedy_decode
from lengthwise.model import Transformer, plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

WIDTH, FEED_FORWARD = 12, 20
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


class Identity(nn.Module):
    """What the paper's code gives `nn.Transformer` as an encoder."""

    def forward(self, source: Tensor, **_) -> Tensor:
        return source


def make_torch(norm: str, encoder_layers: int) -> nn.Transformer:
    """torch's own transformer; all its parameters are random, norms and offsets too."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "enable_nested_tensor")
        model = nn.Transformer(
            WIDTH,
            HEADS,
            max(1, encoder_layers),
            LAYERS,
            FEED_FORWARD,
            dropout=0.0,
            batch_first=True,
            norm_first=norm == "pre",
            custom_encoder=None if encoder_layers else Identity(),
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def copy_weights(model: Transformer, theirs: nn.Transformer) -> None:
    """Ours gets the weights of torch's."""

    def copy(to: nn.Module, of: nn.Module) -> None:
        to.load_state_dict(of.state_dict())

    def copy_rows(to: nn.Linear, of: nn.MultiheadAttention, rows: slice) -> None:
        to.weight.copy_(of.in_proj_weight[rows])
        to.bias.copy_(of.in_proj_bias[rows])

    with torch.no_grad():
        pairs = list(zip(model.layers, theirs.decoder.layers, strict=True))
        if model.encodes:
            pairs += zip(model.encoder_layers, theirs.encoder.layers, strict=True)
            copy(model.encoder_norm, theirs.encoder.norm)
        copy(model.norm, theirs.decoder.norm)
        for ours, layer in pairs:
            copy_rows(ours.self_attention.query_key_value, layer.self_attn, slice(None))
            copy(ours.self_attention.out, layer.self_attn.out_proj)
            copy(ours.expand, layer.linear1)
            copy(ours.contract, layer.linear2)
            copy(ours.norm_self, layer.norm1)
            decoder = hasattr(layer, "multihead_attn")
            copy(ours.norm_feed_forward, layer.norm3 if decoder else layer.norm2)
            if decoder:
                copy(ours.norm_cross, layer.norm2)
                cross = ours.cross_attention
                copy_rows(cross.query, layer.multihead_attn, slice(WIDTH))
                copy_rows(cross.key_value, layer.multihead_attn, slice(WIDTH, None))
                copy(cross.out, layer.multihead_attn.out_proj)


def make_pair(norm: str, encoder_layers: int, scale: str = "none"):
    """Ours, in evaluation mode, and torch's with equal weights, which stays in training mode so that
    no fast path is taken.
    """
    theirs = make_torch(norm, encoder_layers)
    model = Transformer(
        13,
        width=WIDTH,
        heads=HEADS,
        layers=LAYERS,
        feed_forward=FEED_FORWARD,
        encoder_layers=encoder_layers,
        norm=norm,
        embedding_scale=scale,
    )
    copy_weights(model, theirs)
    return model.eval(), theirs


def torch_logits(model, theirs, bias, layout: Layout, source: Tensor, target: Tensor) -> Tensor:
    target = target[:, : layout.target_length]
    scale = math.sqrt(WIDTH) if model.scale else 1.0
    own, cross = (
        bias.dense(site, 0, layout, range(layout.target_length)).repeat(len(source), 1, 1)
        for site in SITES
    )
    read = theirs(
        model.source_embedding(source) * scale + model.scheme(torch.arange(source.shape[1]), WIDTH),
        model.target_embedding(target) * scale + model.scheme(torch.arange(target.shape[1]), WIDTH),
        tgt_mask=own,
        memory_mask=cross,
    )
    return model.to_logits(read)


def our_logits(model, bias, layout: Layout, source: Tensor, target: Tensor) -> Tensor:
    plan = plan_attention(bias, layout, LAYERS, encoder=model.encodes)
    return model(source, target[:, : layout.target_length], plan).logits


@pytest.mark.parametrize("scale", ["none", "sqrt"])
@pytest.mark.parametrize("encoder_layers", [0, 1, 3])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_model_is_torchs(norm, encoder_layers, scale):
    model, theirs = make_pair(norm, encoder_layers, scale)
    layout, bias = Layout(TASKS["addition"](), 5), Causal(HEADS)
    source, target = random_batch(layout, 20)
    found = our_logits(model, bias, layout, source, target)
    wanted = torch_logits(model, theirs, bias, layout, source, target)
    assert found.std() > 0.1
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradients_are_torchs(norm):
    model, theirs = make_pair(norm, 1)
    layout, bias = Layout(TASKS["addition"](), 5), Causal(HEADS)
    source, target = random_batch(layout, 3)
    inner = [model.encoder_layers[0].expand.weight, model.layers[0].cross_attention.query.weight]
    outer = [
        theirs.encoder.layers[0].linear1.weight,
        theirs.decoder.layers[0].multihead_attn.in_proj_weight,
    ]
    weigh = torch.randn(3, 6, 13)
    found = torch.autograd.grad(
        (our_logits(model, bias, layout, source, target) * weigh).sum(), inner
    )
    wanted = torch.autograd.grad(
        (torch_logits(model, theirs, bias, layout, source, target) * weigh).sum(), outer
    )
    assert all(gradient.abs().max() > 1e-3 for gradient in found)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], wanted[1][:WIDTH], atol=1e-4, rtol=1e-4)


@settings(max_examples=15)
@given(biases(everywhere=False), st.integers(1, 6), st.sampled_from(("pre", "post")))
def test_a_calibrated_model_is_torchs(bias, width, norm):
    lines = [line for line in bias.lines if line.layer is None]
    bias = CalibratedBias(bias.task, HEADS, lines)  # torch takes one mask for all layers
    model, theirs = make_pair(norm, 0)
    layout = Layout(TASKS[bias.task](), width)
    source, target = random_batch(layout, 2)
    wanted = torch_logits(model, theirs, bias, layout, source, target)
    torch.testing.assert_close(our_logits(model, bias, layout, source, target), wanted, **TOLERANCE)


def test_scaled_embeddings_start_as_large_as_positions():
    model = Transformer(50, width=64, embedding_scale="sqrt")
    for embedding in (model.source_embedding, model.target_embedding):
        assert 0.8 < (embedding.weight * 8).std() < 1.2


def test_dropout_acts_in_the_encoder_in_training_alone():
    torch.manual_seed(0)
    model = Transformer(13, width=12, heads=3, layers=1, dropout=0.5, encoder_layers=1, norm="post")
    layout = Layout(TASKS["addition"](), 3)
    source, target = random_batch(layout, 2)
    plan = plan_attention(Causal(3), layout, 1, encoder=True)

    def logits() -> Tensor:
        return model(source, target[:, :-1], plan).logits

    assert not torch.equal(logits(), logits())
    model.eval()
    assert torch.equal(logits(), logits())


def test_a_plan_without_the_encoder_is_refused():
    model, _ = make_pair("pre", 1)
    layout = Layout(TASKS["addition"](), 2)
    source, target = random_batch(layout, 1)
    with pytest.raises(ValueError, match="encoder=True"):
        model(source, target[:, :-1], plan_attention(Causal(HEADS), layout, LAYERS))
    assert greedy_decode(model, Causal(HEADS), layout, source).shape == (1, 3)


def test_parts_that_a_model_lacks_leave_its_weights_alone():
    torch.manual_seed(3)
    plain = Transformer(13, width=12, heads=3).state_dict()
    torch.manual_seed(3)
    more = Transformer(13, width=12, heads=3, encoder_layers=1, positions="learned").state_dict()
    assert len(more) > len(plain)
    assert all(torch.equal(weight, more[name]) for name, weight in plain.items())
