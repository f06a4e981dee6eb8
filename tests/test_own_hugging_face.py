"""Models of Hugging Face transformers: capture and apply are exact."""

import copy

import pytest
import torch
import torch.nn.functional as F

import lengthwise as lw
from lengthwise.errors import InputError
from own_model_samples import (
    HEADS,
    IDS,
    SIZE,
    batch,
    changed,
    lines_of_addition,
)


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


def tiny(kind, **options):
    """Another model of the library, by the name of its class."""
    import transformers as hf

    torch.manual_seed(0)
    config = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 64,
        "bos_token_id": 14,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **options,
    }
    model = getattr(hf, kind)
    return model(model.config_class(**config)).eval()


FAMILIES = ["gpt2", "llama", "t5", "bart"]


@pytest.mark.trains
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


# --- other models of the library ---

SIDES = {
    f"{side}_{name}": size
    for side in ("encoder", "decoder")
    for name, size in (("layers", 2), ("attention_heads", HEADS), ("ffn_dim", 64))
}
PAIR = {"d_model": 32, "decoder_start_token_id": 14, "forced_eos_token_id": None, **SIDES}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("OPTForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 32}),  # its table takes a mask
        ("MarianMTModel", PAIR),  # its table takes a shape
        ("MistralForCausalLM", {"num_key_value_heads": 1, "sliding_window": None}),
        ("Qwen3ForCausalLM", {"num_key_value_heads": 2, "head_dim": 8}),
    ],
)
def test_other_models_write_with_a_cache_what_they_write_without(kind, options):
    model, (source, target) = tiny(kind, **options), batch(40, 2)
    if kind == "MarianMTModel":
        model.config.num_hidden_layers = 2
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        found = [
            generate(model, source, target, max_new_tokens=12, use_cache=use)
            for use in (True, False)
        ]
    assert torch.equal(*found)
    assert changed(model) == []


def test_a_cache_of_a_sliding_window_is_refused():
    model = tiny("MistralForCausalLM", num_key_value_heads=2, sliding_window=4)
    source, target = batch()
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        generate(model, source, target, max_new_tokens=3, use_cache=False)
        with pytest.raises(InputError, match="a cache kept 4 of 13 tokens"):
            generate(model, source, target, max_new_tokens=3)
    assert changed(model) == []


def test_caches_of_several_problems_are_decoded_in_turn():
    model, prompts = hugging_face("llama"), [torch.cat(batch(n), 1)[:, : 2 * n + 4] for n in (4, 9)]
    with lw.apply(model, lines_of_addition(), tokens=IDS), torch.no_grad():
        wanted = [
            model.generate(
                ids, do_sample=False, eos_token_id=None, pad_token_id=None, max_new_tokens=6
            )
            for ids in prompts
        ]
        caches, ids = [None, None], list(prompts)
        for _ in range(6):
            for i in range(2):
                new = ids[i] if caches[i] is None else ids[i][:, -1:]
                found = model(new, past_key_values=caches[i], use_cache=True)
                caches[i] = copy.deepcopy(found.past_key_values)
                ids[i] = torch.cat([ids[i], found.logits[:, -1:].argmax(-1)], 1)
    for one, other in zip(ids, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [{"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}, {"num_beams": 3}],
)
def test_other_ways_to_generate(options):
    model, (source, target) = hugging_face("llama"), [one[:1] for one in batch(9)]
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        without = {"num_beams": options.get("num_beams", 1), "use_cache": False}
        wanted = generate(model, source, target, max_new_tokens=9, **without)
        assert torch.equal(generate(model, source, target, max_new_tokens=9, **options), wanted)


def test_half_precision():
    model, (source, target) = hugging_face("llama").to(torch.bfloat16), batch(9, 2)
    assert lw.capture(model, "addition", length=4, tokens=IDS, problems=2).weights[
        "self"
    ].dtype == (torch.float32)
    with lw.apply(model, lines_of_addition(), tokens=IDS), torch.no_grad():
        logits = model(torch.cat([source, target], 1)).logits
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_a_cache_of_before_does_not_fit():
    model, ids = hugging_face("llama"), torch.cat(batch(), 1)
    before = model(ids, use_cache=True).past_key_values
    with (
        lw.apply(model, lines_of_addition(), tokens=IDS),
        pytest.raises(InputError, match="filled before the bias was applied does not fit it"),
    ):
        model(ids[:, -1:], past_key_values=before)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_deep_copy_has_the_bias_of_its_own(name):
    model, (source, target) = hugging_face(name), batch()
    other = batch(9)
    applied = lw.apply(model, lines_of_addition(), tokens=IDS)
    wanted = [generate(model, *one, max_new_tokens=6) for one in ((source, target), other)]
    copied = copy.deepcopy(model)
    generate(model, *other, max_new_tokens=2)
    assert torch.equal(generate(copied, source, target, max_new_tokens=6), wanted[0])
    applied.remove()
    assert torch.equal(generate(copied, *other, max_new_tokens=6), wanted[1])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_goes_back_to_the_pass_that_it_repeats(reentrant):
    model, found = hugging_face("llama").train(), []
    long, short = torch.cat(batch(9), 1), torch.cat(batch(4), 1)
    for on in (False, True):
        model.zero_grad()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant}) if on else None
        with lw.apply(model, lines_of_addition(), tokens=IDS):
            loss = model(long, use_cache=False).logits.logsumexp(-1).sum()
            with torch.no_grad():
                model(short, use_cache=False)
            loss.backward()
        found.append(model.model.layers[0].self_attn.v_proj.weight.grad.clone())
    assert torch.allclose(*found, rtol=1e-4)
    with lw.apply(model, lines_of_addition(), tokens=IDS):
        long, short = long[:, :25], F.pad(short, (0, 25 - short.shape[1]), value=5)
        passes = [model(ids, use_cache=False).logits.sum() for ids in (long, short)]
        with pytest.raises(InputError, match="can't tell passes of 25 queries and 25 keys apart"):
            sum(passes).backward()


def test_layers_that_training_leaves_out_at_random():
    model = tiny("BartForConditionalGeneration", **PAIR, decoder_layerdrop=0.999)
    source, target = batch()
    with lw.apply(model.train(), lines_of_addition(), tokens=IDS):
        assert model(input_ids=source, decoder_input_ids=target).logits.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("LlamaModel", {}, "LlamaModel returns no logits of each token; pass the model with its"),
        ("GPTJForCausalLM", {"rotary_dim": 4}, "does not follow the attention interface"),
        ("MambaForCausalLM", {}, "can't be captured: it has none"),
        ("Gemma2ForCausalLM", {"head_dim": 8}, "changes attention scores .softcap.; its attention"),
    ],
)
def test_other_models_that_can_not_be_captured(kind, options, says):
    model = tiny(kind, **options)
    before = model.config._attn_implementation
    acts = [lambda: lw.capture(model, "addition", length=4, tokens=IDS, problems=2)]
    if kind == "GPTJForCausalLM":  # said before how it makes positions
        acts.append(lambda: lw.apply(model, lines_of_addition(), tokens=IDS))
    for act in acts:
        with pytest.raises(InputError, match=says) as raised:
            act()
        assert "\n" not in str(raised.value)
    assert model.config._attn_implementation == before
    assert changed(model) == []


def test_tables_of_token_types_end():
    model, (source, target) = tiny("BertLMHeadModel", is_decoder=True), batch(40, 2)
    applied = lw.apply(model, lines_of_addition(), tokens=IDS)
    with applied, pytest.raises(InputError, match=r"types of tokens as far as .* 64, here are 8"):
        generate(model, source, target, max_new_tokens=3)
