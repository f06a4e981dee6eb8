"""Models of torch.nn, Hugging Face transformers and x-transformers: capture and apply are exact."""

import copy
import math
import warnings
from importlib import import_module

import pytest
import torch
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.calibration.maps import capture_problems
from lengthwise.errors import InputError
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.sampling import generator
from own_model_samples import (
    HEADS,
    IDS,
    LAYERS,
    SIZE,
    TorchGPT,
    TorchPair,
    causal,
    lines_of_addition,
)

ADDITION = lw.Format("addition")


def batch(length=4, count=8):
    """Ids of the problems that capture looks at, and what is read of their answers."""
    layout = ADDITION.at(length + 1)
    operands = capture_problems(layout, generator(0, "capture"), count, length, "any")
    source, target = (Tokens(ADDITION, IDS).of(one) for one in layout.batch(operands))
    return source, target[:, :-1]


def settled(width, kind, bias=None):
    """Of a bias as its lines say: every mask, made from `dense` and words, not from `Reading`."""
    bias, layout = bias or lines_of_addition(), ADDITION.at(width)
    rows = range(layout.target_length)
    cross = bias.dense("cross", 0, layout, rows)
    cross[..., width].masked_fill_((cross == -math.inf).all(-1), 0)
    own = bias.dense("self", 0, layout, rows)
    source = layout.source_length
    alone = torch.full((source, source), -math.inf).fill_diagonal_(0)
    if kind == "pair":
        return {"cross": cross, "self": own, "encoder": alone.expand(HEADS, -1, -1)}
    whole = torch.full((HEADS, source + len(rows), source + len(rows)), -math.inf)
    whole[:, :source, :source] = alone
    whole[:, source:, :source] = cross
    return whole


def changed(model):
    """Names of modules that something of ours is left in."""
    return [
        name
        for name, part in model.named_modules()
        if any("lengthwise" in repr(hook) for hook in part._forward_pre_hooks.values())
        or any("lengthwise" in repr(hook) for hook in part._forward_hooks.values())
        or "forward" in vars(part)
        or any(key.startswith("_lengthwise") for key in vars(part))
    ]


# --- torch.nn ---


def pair(**options):
    torch.manual_seed(0)
    return TorchPair(**options).eval()


def by_hand(model, source, target, masks):
    """The logits of nn.Transformer's own parts under masks `[head, query, key]`, shared by all layers."""
    body, many = model.body, len(source)
    x, y = (model.wte(ids) for ids in (source, target))
    if not model.batch_first:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
    wide = {place: mask.repeat(many, 1, 1) for place, mask in masks.items()}
    memory = body.encoder(x, mask=wide["encoder"])
    out = body.decoder(y, memory, tgt_mask=wide["self"], memory_mask=wide["cross"])
    return model.head(out if model.batch_first else out.transpose(0, 1))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"norm_first": True}])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_torch_layers_under_a_bias_are_those_with_its_masks(mode, options):
    model = pair(**options)
    source, target = batch(40)
    model.train()  # without torch's fast path of evaluation, which takes no such masks
    wanted = by_hand(model, source, target, settled(41, "pair"))
    model.train(mode == "train")
    with lw.apply(model, lines_of_addition(), tokens=IDS, positions=model.wpe), torch.no_grad():
        found = model(source, target)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert changed(model) == []


def test_torch_encoder_layers_are_one_sequence():
    torch.manual_seed(0)
    model, (source, target) = TorchGPT().eval(), batch(40)
    ids = torch.cat([source, target], dim=1)
    model.train()
    x = model.body(model.wte(ids), mask=settled(41, "one").repeat(len(ids), 1, 1))
    wanted = model.head(x)
    model.eval()
    with lw.apply(model, lines_of_addition(), tokens=IDS, positions=model.wpe), torch.no_grad():
        found = model(ids)
    assert found.isfinite().all()
    assert torch.allclose(found, wanted, atol=1e-5)


def test_each_layer_of_torch_has_its_own_lines():
    model, (source, target) = pair(), batch()
    lines = [Line("a[c]", head, 0) for head in range(HEADS)]
    lines += [Line("b[c]", head, 1) for head in range(HEADS)]
    lines += [Line("answer[c-1]", head) for head in range(HEADS)]
    seen = {}

    def keep(layer):
        def hook(module, args, kwargs):
            seen[layer] = kwargs["attn_mask"][0, 0] == 0

        return hook

    with lw.apply(model, CalibratedBias("addition", HEADS, lines), tokens=IDS, positions=model.wpe):
        for layer, block in enumerate(model.body.decoder.layers):
            block.multihead_attn.register_forward_pre_hook(keep(layer), with_kwargs=True)
        model(source, target)
    assert [seen[layer].nonzero().tolist() for layer in range(LAYERS)] == [[[4]], [[10]]]


def test_attention_of_torch_is_its_own():
    model, (source, target) = pair(), batch()
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    memory, x = model.body.encoder(model.embed(source)), model.embed(target)
    for layer, block in enumerate(model.body.decoder.layers):
        asked = {"need_weights": True, "average_attn_weights": False}
        own = block.self_attn(x, x, x, attn_mask=causal(x.shape[1]), **asked)
        y = block.norm1(x + own[0])
        cross = block.multihead_attn(y, memory, memory, **asked)
        assert torch.allclose(maps.weights["self"][layer], own[1].mean(0), atol=1e-5)
        assert torch.allclose(maps.weights["cross"][layer], cross[1].mean(0), atol=1e-5)
        x = block(x, memory, tgt_mask=causal(x.shape[1]))
    assert changed(model) == []


def test_a_bare_decoder_takes_a_bias_but_no_ids():
    torch.manual_seed(0)
    body = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(16, HEADS, 32, 0.0, batch_first=True), 2
    )
    masks = {place: mask.repeat(2, 1, 1) for place, mask in settled(5, "pair").items()}
    x, memory = torch.randn(2, 6, 16), torch.randn(2, 11, 16)
    wanted = body(x, memory, tgt_mask=masks["self"], memory_mask=masks["cross"])
    with lw.apply(body, lines_of_addition(), positions="on"):
        assert torch.allclose(body(x, memory), wanted, atol=1e-6)
    with pytest.raises(InputError, match="TransformerDecoder takes embeddings; pass the module"):
        lw.capture(body, "addition", length=4)


class Padded(TorchPair):
    def forward(self, source, target):
        closed = torch.zeros(source.shape, dtype=torch.bool)
        closed[0, 0] = True
        x = self.body(self.embed(source), self.embed(target), memory_key_padding_mask=closed)
        return self.head(x)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Padded, "must be padded to one width; a padding mask closes some keys"),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4), 1),
            "takes embeddings; pass",
        ),
        (
            lambda: nn.Sequential(
                nn.TransformerDecoderLayer(16, 4), nn.TransformerDecoderLayer(16, 2)
            ),
            r"got \[2, 4\]",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_layers_of_torch_that_can_not_be_captured(model, says):
    made = model()
    with pytest.raises(InputError, match=says):
        lw.capture(made, "addition", length=4, tokens=IDS, problems=4)
    assert changed(made) == []


def test_torch_has_to_be_told_its_positions():
    model = pair()
    with pytest.raises(InputError, match="makes positions of its own; name the module that does"):
        lw.apply(model, lines_of_addition(), tokens=IDS)
    assert changed(model) == []


# --- Hugging Face transformers ---


def hugging_face(name):
    import transformers as hf

    torch.manual_seed(0)
    ids = {"vocab_size": SIZE, "bos_token_id": 14, "eos_token_id": 2, "pad_token_id": 0}
    start = {"decoder_start_token_id": 14}
    makers = {
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)
        ),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                **ids,
            )
        ),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **start, **ids)
        ),
        "bart": lambda: hf.BartForConditionalGeneration(
            hf.BartConfig(
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=64,
                forced_eos_token_id=None,
                tie_word_embeddings=False,
                **start,
                **ids,
            )
        ),
    }
    model = makers[name]().eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(5)  # so that attention differs from uniform
    return model


FAMILIES = ["gpt2", "llama", "t5", "bart"]


def test_an_encoder_may_have_other_heads():
    import transformers as hf

    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": SIZE}
    config = hf.BartConfig(encoder_attention_heads=2, decoder_attention_heads=4, **sizes)
    model, (source, target) = hf.BartForConditionalGeneration(config).eval(), batch()
    assert (
        lw.capture(model, "addition", length=4, tokens=IDS, problems=2).weights["self"].shape[1]
        == 4
    )
    with lw.apply(model, lines_of_addition(), tokens=IDS), torch.no_grad():
        assert model(input_ids=source, decoder_input_ids=target).logits.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_of_hugging_face_models_is_that_of_their_eager_path(name):
    model, (source, target) = hugging_face(name), batch()
    before = model.config._attn_implementation
    maps = lw.capture(model, "addition", length=4, tokens=IDS, problems=8)
    assert model.config._attn_implementation == before
    assert changed(model) == []
    model.set_attn_implementation("eager")
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            out = model(input_ids=source, decoder_input_ids=target, output_attentions=True)
            found = {"cross": out.cross_attentions, "self": out.decoder_attentions}
        else:
            out = model(input_ids=torch.cat([source, target], 1), output_attentions=True)
            found = {
                "cross": [one[:, :, 11:, :11] for one in out.attentions],
                "self": [one[:, :, 11:, 11:] for one in out.attentions],
            }
    for site, layers in found.items():
        wanted = torch.stack([one.mean(0) for one in layers])
        assert torch.allclose(maps.weights[site], wanted, atol=1e-5)
        assert wanted.std(dim=-1).amax() > 0.01


def generate(model, source, target, **options):
    prompt = source if model.config.is_encoder_decoder else torch.cat([source, target[:, :1]], 1)
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": None, **options}
    return model.generate(prompt, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_generate_with_its_cache_writes_the_same_and_past_the_tables_end(name):
    model, (source, target) = hugging_face(name), batch(40, 4)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        found = [
            generate(model, source, target, max_new_tokens=30, use_cache=use)
            for use in (True, False)
        ]
    assert torch.equal(*found)
    assert len(set(found[0][0, -30:].tolist())) > 1
    assert changed(model) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_of_hugging_face_models_follow_from_what_their_lines_read(name):
    """Two layers of lines reach two columns back: a digit further off changes nothing."""
    model, (source, target) = hugging_face(name), batch(40, 2)
    far, near = source.clone(), source.clone()
    far[:, 41 - 1 - 20] = 3 + (far[:, 41 - 1 - 20] - 3 + 5) % 10  # the digit of a in column 20
    near[:, 41 - 1 - 29] = 3 + (near[:, 41 - 1 - 29] - 3 + 5) % 10

    def last(ids):
        if model.config.is_encoder_decoder:
            return model(input_ids=ids, decoder_input_ids=target[:, :31]).logits[:, 30]
        return model(input_ids=torch.cat([ids, target[:, :31]], 1)).logits[:, -1]

    with lw.apply(model, lines_of_addition(), tokens=IDS), torch.no_grad():
        assert torch.allclose(last(source), last(far), atol=1e-5)
        assert not torch.allclose(last(source), last(near), atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_learned_positions_end_where_their_table_does(name):
    model, (source, target) = hugging_face(name), batch(40, 2)
    applied = lw.apply(model, lines_of_addition(), tokens=IDS, positions="on")
    with applied, pytest.raises(InputError, match="end after 64 tokens, here are 8"):
        generate(model, source, target, max_new_tokens=3)
    assert changed(model) == []


def test_padding_is_refused():
    model, (source, target) = hugging_face("gpt2"), batch()
    mask = torch.ones(8, 12, dtype=torch.int64)
    mask[0, 0] = 0
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        with pytest.raises(
            InputError, match="padded to one width; attention_mask closes some tokens"
        ):
            generate(model, source, target, attention_mask=mask, max_new_tokens=2)
        with pytest.raises(InputError, match="the bias needs input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, 32))


def test_models_whose_layers_ask_for_no_attention_function():
    model = hugging_face("gpt2")
    before = copy.copy(vars(model.transformer.h[1].attn))
    model.transformer.h[1].attn.forward = lambda x, **kwargs: (x, None)
    for act in (
        lambda: lw.capture(model, "addition", length=4, tokens=IDS, problems=2),
        lambda: generate_applied(model),
    ):
        with pytest.raises(
            InputError, match="can't be captured: 1 of its 2 attention layers did not ask"
        ):
            act()
    del model.transformer.h[1].attn.forward
    assert vars(model.transformer.h[1].attn).keys() == before.keys()
    assert changed(model) == []


def generate_applied(model):
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        generate(model, *batch(), max_new_tokens=1)


def test_two_models_do_not_share_what_is_applied():
    one, other = hugging_face("gpt2"), hugging_face("gpt2")
    ids = torch.cat(batch(), 1)
    wanted = other(input_ids=ids).logits
    with lw.apply(one, lines_of_addition(), tokens=IDS):
        assert torch.equal(other(input_ids=ids).logits, wanted)
        assert not torch.allclose(one(input_ids=ids).logits, wanted)


# --- x-transformers ---

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
        ({"attn_selective": True}, "attention with selective does not read along a bias alone"),
    ],
)
def test_x_transformers_attention_that_a_bias_does_not_decide(xt, options, says):
    with pytest.raises(InputError, match=says):
        lw.apply(wrapped(xt, **options), lines_of_addition(), tokens=IDS)


def test_x_transformers_parts_without_ids(xt):
    with pytest.raises(InputError, match="Decoder takes no token ids; pass a TransformerWrapper"):
        lw.apply(xt.Decoder(dim=32, depth=1, heads=4), lines_of_addition(), tokens=IDS)
