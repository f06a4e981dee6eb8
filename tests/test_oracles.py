"""Positions and biases against public libraries: x-transformers, transformers, rotary-embedding-torch."""

from __future__ import annotations

import warnings
from importlib import import_module

import pytest
import torch
from torch import Tensor

from lengthwise.bias import T5, Alibi, Shaw
from lengthwise.bias.alibi import slopes
from lengthwise.bias.relative import buckets
from lengthwise.model import POSITIONS, plan_attention
from lengthwise.model.learned_bias import RelativeKeys, RelativeNumbers
from lengthwise.model.positions import rotate
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

# Importing these libraries takes seconds.
pytestmark = pytest.mark.trains

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def x_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("x_transformers.x_transformers")


@pytest.fixture(scope="module")
def t5():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("transformers.models.t5.modeling_t5")


@pytest.fixture(scope="module")
def wav2vec2_bert():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("transformers.models.wav2vec2_bert.modeling_wav2vec2_bert")


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Layout(TASKS["addition"](), 40)


# --- ALiBi ---


@pytest.mark.parametrize("heads", [*range(1, 18), 32, 33])
def test_slopes(x_transformers, heads):
    wanted = torch.tensor(x_transformers.AlibiPositionalBias._get_slopes(heads))
    torch.testing.assert_close(slopes(heads), wanted, **TOLERANCE)
    assert len(slopes(heads)) == heads


@pytest.mark.parametrize("heads", [3, 8])
def test_alibi(x_transformers, layout, heads):
    theirs, bias = x_transformers.AlibiPositionalBias(heads), Alibi(heads)
    rows, source = range(layout.target_length), layout.source_length
    own = bias.dense("self", 0, layout, rows)
    past = torch.ones(own.shape[1:]).tril().bool()
    wanted = theirs(len(rows), len(rows)).expand(heads, -1, -1)
    torch.testing.assert_close(own[:, past], wanted[:, past], **TOLERANCE)
    assert (own[:, ~past] == float("-inf")).all()
    torch.testing.assert_close(bias.encoder(layout), theirs(source, source), **TOLERANCE)
    assert not bias.dense("cross", 0, layout, rows).any()
    places = torch.arange(len(rows)), torch.arange(source)
    torch.testing.assert_close(
        Alibi(heads, "distance").dense("cross", 0, layout, rows),
        theirs.forward_custom_pos(*places),
        **TOLERANCE,
    )


# --- T5 ---


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 20), (4, 3), (16, 1000)])
@pytest.mark.parametrize("both", [False, True])
def test_buckets(t5, x_transformers, both, count, farthest):
    distance = torch.arange(-2000, 2001)[None]
    found = buckets(distance, count, farthest, both)
    theirs = t5.T5Attention._relative_position_bucket(distance, both, count, farthest)
    assert torch.equal(found, theirs)
    assert (found.min(), found.max()) == (0, count - 1)
    others = x_transformers.RelativePositionBias._relative_position_bucket(
        distance, not both, count, farthest
    )
    assert torch.equal(found, others)


def our_numbers(layout: Layout, site: str, weight: Tensor) -> Tensor:
    table = RelativeNumbers(len(weight), weight.shape[1], 64)
    with torch.no_grad():
        table.table.weight.copy_(weight)
    rows = range(layout.source_length if site == "encoder" else layout.target_length)
    return table(T5(weight.shape[1]).relative(site, layout, rows), torch.empty(0))


@pytest.mark.parametrize("site", ["self", "encoder"])
def test_t5_bias(t5, x_transformers, layout, site):
    config = t5.T5Config(num_heads=6, d_model=24, is_decoder=site == "self")
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    weight = theirs.relative_attention_bias.weight
    found = our_numbers(layout, site, weight)
    count = layout.keys(site)
    torch.testing.assert_close(found, theirs.compute_bias(count, count)[0], **TOLERANCE)
    # x-transformers multiplies by a scale of its own.
    others = x_transformers.RelativePositionBias(scale=8.0, causal=site == "self", heads=6)
    others.relative_attention_bias.weight.data.copy_(weight)
    torch.testing.assert_close(8 * found, others(count, count), atol=1e-4, rtol=1e-5)


def test_t5_at_cross_attention_has_buckets_for_both_sides(t5, layout):
    config = t5.T5Config(num_heads=6, d_model=24, is_decoder=False)
    theirs = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    wanted = theirs.compute_bias(layout.target_length, layout.source_length)[0]
    found = our_numbers(layout, "cross", theirs.relative_attention_bias.weight)
    torch.testing.assert_close(found, wanted, **TOLERANCE)


# --- Shaw ---


@pytest.mark.parametrize("farthest", [3, 16, 100])
def test_shaw(wav2vec2_bert, layout, farthest):
    heads, width = 4, 24
    config = wav2vec2_bert.Wav2Vec2BertConfig(
        hidden_size=width,
        num_attention_heads=heads,
        position_embeddings_type="relative_key",
        left_max_position_embeddings=farthest,
        right_max_position_embeddings=farthest,
        attention_dropout=0.0,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    theirs = wav2vec2_bert.Wav2Vec2BertSelfAttention(config).eval()
    x = torch.randn(2, layout.target_length, width)
    rows = layout.target_length
    closed = torch.ones(rows, rows).triu(1).bool()
    mask = torch.zeros(1, 1, rows, rows).masked_fill(closed, torch.finfo(torch.float32).min)
    with torch.no_grad():
        _, wanted = theirs(x, attention_mask=mask)
    query, key = (
        project(x).view(2, rows, heads, width // heads).transpose(1, 2)
        for project in (theirs.linear_q, theirs.linear_k)
    )
    table = RelativeKeys(2 * farthest + 1, heads, width)
    table.table.load_state_dict(theirs.distance_embedding.state_dict())
    plan = plan_attention(Shaw(heads, farthest), layout, 1)[0]["self"]
    found = plan.weights(query, key, table(plan.relative, query))
    assert (found - plan.weights(query, key)).abs().max() > 0.01
    torch.testing.assert_close(found, wanted, **TOLERANCE)


# --- RoPE ---


@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize("first", [0, 5])
def test_rope(x_transformers, channels, first):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = import_module("rotary_embedding_torch")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 50, channels)
    table = POSITIONS["rope"](torch.arange(first, first + 50), channels)
    found = rotate(x, table)
    theirs = library.RotaryEmbedding(channels).rotate_queries_or_keys(x, offset=first)
    torch.testing.assert_close(found, theirs, **TOLERANCE)
    turns, _ = x_transformers.RotaryEmbedding(channels)(torch.arange(first, first + 50))
    others = x_transformers.apply_rotary_pos_emb(x, turns)
    torch.testing.assert_close(found, others, **TOLERANCE)


def test_rope_scores_depend_on_the_difference_of_positions_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8)
    table = POSITIONS["rope"](torch.arange(40), 8)

    def score(i: int, j: int) -> Tensor:
        return (rotate(query, table[:, i : i + 1]) * rotate(key, table[:, j : j + 1])).sum()

    torch.testing.assert_close(score(3, 10), score(30, 37), **TOLERANCE)
    assert (score(3, 10) - score(3, 11)).abs() > 1e-3
