"""Models of torch.nn's layers: capture and apply are exact."""

import pytest
import torch
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.errors import InputError
from own_model_samples import (
    HEADS,
    IDS,
    LAYERS,
    TorchGPT,
    TorchPair,
    batch,
    causal,
    changed,
    lines_of_addition,
    settled,
)


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


class OneSequence(TorchPair):
    def forward(self, ids):
        return super().forward(ids, ids)


class Pairs(TorchPair):
    def forward(self, source, target):
        return super().forward(source, target), None


class PairsInOne(TorchGPT):
    def forward(self, ids):
        return super().forward(ids), None


class Buffered(TorchPair):
    def embed(self, ids):
        return self.wte(ids) + torch.zeros(8, 16)[: ids.shape[1]]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (OneSequence, r"is called model\(source, target\); its forward does not take that"),
        (Pairs, r"Pairs must return logits \[problem, token, id\], .*; got tuple"),
        (PairsInOne, r"PairsInOne must return logits \[problem, token, id\], .*; got tuple"),
        (Buffered, r"can't read problems of 11 tokens \(The size of tensor"),
    ],
)
def test_models_around_torch_layers_that_can_not_be_captured(make, says):
    model = make().train()
    with pytest.raises(InputError, match=says) as raised:
        lw.capture(model, "addition", length=4, tokens=IDS, problems=4)
    assert "\n" not in str(raised.value)
    assert changed(model) == []
    assert all(part.training for part in model.modules())
