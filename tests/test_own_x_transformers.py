"""Models of x-transformers: capture and apply are exact."""

import math
import warnings
from importlib import import_module

import pytest
import torch

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.errors import InputError
from own_model_samples import HEADS, IDS, LAYERS, SIZE, batch, changed, lines_of_addition, settled

KINDS = {
    "learned": ({}, {}),
    "rotary": ({"rotary_pos_emb": True, "attn_dim_head": 32}, {}),
    "xpos": ({"rotary_xpos": True, "attn_dim_head": 32}, {}),
    "alibi": (
        {"alibi_pos_bias": True, "attn_flash": True, "attn_kv_heads": 2},
        {"use_abs_pos_emb": False},
    ),
    "t5": ({"rel_pos_bias": True}, {}),
}


@pytest.fixture(scope="module")
def xt():
    """x-transformers, whose import warns on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("x_transformers")


def wrapped(xt, kind="learned", **more):
    torch.manual_seed(0)
    options, around = KINDS[kind]
    options = {"dim": 32, "depth": 2, "heads": HEADS, "attn_dim_head": 8, **options, **more}
    net = xt.TransformerWrapper(
        num_tokens=SIZE, max_seq_len=64, attn_layers=xt.Decoder(**options), **around
    )
    return xt.AutoregressiveWrapper(net).eval()


def x_pair(xt):
    torch.manual_seed(0)
    sizes = {"num_tokens": SIZE, "depth": 2, "heads": HEADS, "max_seq_len": 64, "attn_dim_head": 8}
    options = {f"{side}_{name}": size for side in ("enc", "dec") for name, size in sizes.items()}
    return xt.XTransformer(dim=32, **options).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_x_transformers_is_its_own(xt, kind):
    model, (source, target) = wrapped(xt, kind), batch()
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    assert changed(model) == []
    for part in model.modules():
        if isinstance(getattr(part, "flash", None), bool):
            part.flash = False
    with torch.no_grad():
        _, weights = model.net(torch.cat([source, target], 1), return_attn=True)
    whole = torch.stack([one.mean(0) for one in weights])[:, :, 11:]
    assert torch.allclose(maps.weights["cross"], whole[..., :11], atol=1e-5)
    assert torch.allclose(maps.weights["self"], whole[..., 11:], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_without_positions_it_is_the_model_that_has_none_under_attn_bias(xt, kind):
    model, (source, target) = wrapped(xt, kind), batch()
    ids = torch.cat([source, target], 1)
    lines = [Line(text, head) for head in range(HEADS) for text in ("a[c]", "b[c]", "a[c-1]")]
    bias = CalibratedBias("addition", HEADS, lines)
    mask = settled(5, "one", bias)
    mask[:, 11:, 11:] = -math.inf  # no head has a line there
    with lw.apply(model, bias, tokens=IDS), torch.no_grad():
        off = model.net(ids)
    with lw.apply(model, bias, tokens=IDS, positions="on"), torch.no_grad():
        kept = model.net(ids)
    layers = model.net.attn_layers
    layers.rotary_pos_emb = layers.rel_pos = None
    del model.net.pos_emb
    model.net.pos_emb = lambda *args, **kwargs: 0
    with torch.no_grad():
        wanted = model.net(ids, attn_bias=mask[None])
    assert torch.allclose(off, wanted, atol=1e-5)
    # A table begins with numbers of 1e-5.
    assert not torch.allclose(kept, wanted, atol=1e-6)


@pytest.mark.trains
@pytest.mark.parametrize("kind", [*KINDS, "pair"])
def test_x_transformers_generates_with_its_cache_what_it_does_without(xt, kind):
    model, (source, target) = x_pair(xt) if kind == "pair" else wrapped(xt, kind), batch(40, 4)
    prompt = [source, target[:, :1]] if kind == "pair" else [torch.cat([source, target[:, :1]], 1)]
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        found = [
            model.generate(*prompt, 30, temperature=0.0, cache_kv=use) for use in (True, False)
        ]
    assert torch.equal(*found)
    assert len(set(found[0][0].tolist())) > 1
    assert changed(model) == []


def test_an_x_transformer_pair_is_captured_at_both_sites(xt):
    model, (source, target) = x_pair(xt), batch()
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    with torch.no_grad():
        memory = model.encoder(source, return_embeddings=True)
        _, weights = model.decoder.net(target, context=memory, return_attn=True)
    wanted = [one.mean(0) for one in weights]  # self and cross in turn
    for layer in range(LAYERS):
        assert torch.allclose(maps.weights["self"][layer], wanted[2 * layer], atol=1e-5)
        assert torch.allclose(maps.weights["cross"][layer], wanted[2 * layer + 1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attn_num_mem_kv": 2}, "memory tokens and memory keys"),
        (
            {"attn_softclamp_logits": True},
            "attention with softclamp_logits does not read along a bias",
        ),
        ({"shift_tokens": 1}, "ShiftTokens takes over a layer's attention and reads past the bias"),
        ({"attn_selective": True}, "attention with selective does not read along a bias alone"),
    ],
)
def test_x_transformers_attention_that_a_bias_does_not_decide(xt, options, says):
    with pytest.raises(InputError, match=says):
        lw.apply(wrapped(xt, **options), lines_of_addition(), tokens=IDS)


def test_x_transformers_parts_without_ids(xt):
    with pytest.raises(InputError, match="Decoder takes no token ids; pass a TransformerWrapper"):
        lw.apply(xt.Decoder(dim=32, depth=1, heads=4), lines_of_addition(), tokens=IDS)
