"""Models of x-transformers: `TransformerWrapper`, also in `AutoregressiveWrapper`, and `XTransformer`.

The library takes `attn_bias` for self-attention alone, the same in all layers. Hooks hand it to each
layer's `Attend`, of self- and of cross-attention, so that every layer has its own. What else it computes
for positions there (ALiBi, T5's buckets) counts unless positions are off. While attention is captured, its
fused path is not taken.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from x_transformers import AutoregressiveWrapper, TransformerWrapper, XTransformer
from x_transformers.attend import Attend
from x_transformers.x_transformers import Attention, AttentionLayers

from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter, Undo, after_pass, before_pass, take_back
from lengthwise.own_models.reading import Kind, Place, Reading

# What changes scores after a bias is added, mixes heads, or adds keys that are no tokens.
_CHANGES = (
    "softclamp_logits",
    "cog_signed",
    "selective",
    "inverted_attention",
    "head_learned_sink",
    "add_zero_kv",
    "cope",
    "post_softmax_talking_heads",
)

_ENDLESS = 2**31


class XTransformers(Adapter):
    """A model of x-transformers, whatever wraps it.

    Raises:
        InputError: for attention that a bias can't decide alone, and layers with other numbers of heads.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        encoder = None
        if isinstance(module, XTransformer):
            encoder, net = module.encoder, module.decoder.net
        else:
            net = module.net if isinstance(module, AutoregressiveWrapper) else module
        if not isinstance(net, TransformerWrapper):
            raise InputError(
                f"{type(module).__name__} takes no token ids; pass a TransformerWrapper, an "
                f"AutoregressiveWrapper or an XTransformer"
            )
        self.net, self.encoder = net, encoder
        self.kind: Kind = "decoder" if encoder is None else "encoder-decoder"
        self._seats = [*_seats(net.attn_layers, "self")]
        if encoder is not None:
            self._seats += _seats(encoder.attn_layers, "encoder")
        heads = {one.heads for one, _, _ in self._seats}
        if len(heads) != 1:
            raise InputError(f"layers must have one number of heads, got {sorted(heads)}")
        self.heads = heads.pop()
        self.layers = sum(place == "self" for _, place, _ in self._seats)
        wrappers = [part for part in (net, encoder) if part is not None]
        if any(part.num_memory_tokens for part in wrappers) or any(
            one.num_mem_kv for one, _, _ in self._seats
        ):
            raise InputError(
                "memory tokens and memory keys are read by every query; a bias can't close them"
            )
        for one, _, _ in self._seats:
            for name in _CHANGES:
                if getattr(one.attend, name, None):
                    raise InputError(f"attention with {name} does not read along a bias alone")
        self._without = False

    def attach(self, reading: Reading) -> list[Undo]:
        def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if self.kind == "decoder":
                ids: Tensor = args[0] if args else kwargs["x"]
                reading.begin(reading.tokens.source_length(ids))
            else:
                reading.begin(kwargs["context"].shape[1])

        undo: list[Undo] = [before_pass(self.net, begin)]
        for attention, place, layer in self._seats:
            undo += self._hook(reading, attention.attend, place, layer)
        return undo

    def _hook(self, reading: Reading, attend: Attend, place: Place, layer: int) -> list[Undo]:
        wants, without = reading.attention is not None and place != "encoder", self._without

        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
            query, key = args[0], args[1]
            mask = kwargs.get("mask")
            if mask is not None and not bool(mask.all()):
                raise InputError(
                    "problems of one batch must be padded to one width; a padding mask closes some keys"
                )
            rows, keys = query.shape[-2], key.shape[-2]
            if place == "self":
                # What a cache holds comes before.
                reading.first = keys - rows
            found = reading.at(place, layer, rows, keys, query)
            own = None if without else kwargs.get("attn_bias")
            if found is not None:
                found = found[None] if own is None else own + found
            return args, {**kwargs, "mask": None, "attn_bias": own if found is None else found}

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            assert reading.attention is not None
            reading.attention[place, layer] = output[1].post_softmax_attn

        undo: list[Undo] = [before_pass(attend, before)]
        if wants:
            undo.append(partial(setattr, attend, "flash", attend.flash))
            attend.flash = False
            undo.append(after_pass(attend, after))
        return undo

    def without_positions(self) -> list[Undo]:
        undo: list[Undo] = []
        try:
            for net in (self.net, self.encoder):
                if net is not None:
                    undo += self._still(net)
        except BaseException:
            take_back(undo)
            raise
        for wrapper in self.module.modules():
            if isinstance(wrapper, AutoregressiveWrapper):
                # `generate` cuts off what is longer than the table of positions.
                undo.append(partial(setattr, wrapper, "max_seq_len", wrapper.max_seq_len))
                wrapper.max_seq_len = _ENDLESS
        self._without = True
        return [partial(setattr, self, "_without", False), *undo]

    def _still(self, net: TransformerWrapper) -> list[Undo]:
        layers = net.attn_layers
        if layers.polar_pos_emb is not None:
            raise InputError(
                "it is not known how to switch polar positions off; positions='on' keeps them"
            )
        undo: list[Undo] = []
        if isinstance(net.pos_emb, nn.Module):
            table = net.pos_emb
            vars(table)["forward"] = lambda x, *args, **kwargs: torch.zeros((), device=x.device)
            undo.append(partial(vars(table).pop, "forward"))
        if layers.rotary_pos_emb is not None:
            undo.append(after_pass(layers.rotary_pos_emb, _no_angle))
        return undo

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        if self.encoder is not None:
            memory = self.encoder(source, return_embeddings=True)
            return self.net(target, context=memory)
        return self.net(torch.cat([source, target], dim=1))[:, source.shape[1] :]


def _seats(layers: AttentionLayers, own: Place) -> list[tuple[Any, Place, int]]:
    """Each attention of a stack, where it reads, and its number there."""
    found: list[tuple[Any, Place, int]] = []
    counts = {"a": 0, "c": 0}
    parts: Any = layers.layers
    for kind, layer in zip(layers.layer_types or (), parts, strict=True):
        if kind in counts:
            if not isinstance(layer[1], Attention):
                raise InputError(
                    f"{type(layer[1]).__name__} takes over a layer's attention and reads past the bias "
                    f"(is it shift_tokens?)"
                )
            found.append((layer[1], own if kind == "a" else "cross", counts[kind]))
            counts[kind] += 1
    return found


def _no_angle(module: nn.Module, args: tuple, output: Any) -> Any:
    """Rotary positions all at the angle 0."""
    angles, scale = output
    return torch.zeros_like(angles), torch.ones_like(scale) if isinstance(scale, Tensor) else 1.0
