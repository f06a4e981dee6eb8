"""Models of Hugging Face transformers, decoder-only and encoder-decoder, through its attention interface.

Our attention function is registered under a name (`ALL_ATTENTION_FUNCTIONS.register`) and asked for by
`set_attn_implementation`; it finds what a layer may read on the layer itself, so that models do not
share state. The model's own masks are not made then, causality being part of the bias; a padding mask
is refused. T5's position bias arrives at the function, and counts unless positions are off. The
library's caches work: queries go on from what the cache holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, PreTrainedModel

from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter, Undo, after_pass, before_pass, silence
from lengthwise.own_models.reading import Kind, Place, Reading

_NAME, _SEAT = "lengthwise", "_lengthwise_seat"

# On a cache, the tokens of the problem that it holds; a copy of the cache has it, too.
_SOURCE = "_lengthwise_source"

# Settings by which whole layers are left out in training, at random.
_DROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")

# What modules of cross-attention are called, and those that make positions.
_CROSS = ("crossattention", "encoder_attn", "EncDecAttention", "cross_attn")
_POSITIONS = ("wpe", "embed_positions", "rotary_emb", "position_embeddings")


@dataclass
class _Seat:
    """What one attention module may read."""

    reading: Reading
    place: Place
    layer: int
    positions: bool
    used: bool = False

    def __deepcopy__(self, memo: object) -> _Seat:
        return self  # with the reading that the hooks know


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `[problem, head, token, channel]` under the bias of the module's seat."""
    seat: _Seat = getattr(module, _SEAT)
    seat.used = True
    for name in ("softcap", "s_aux"):
        if others.get(name) is not None:
            raise InputError(
                f"{type(module).__name__} changes attention scores ({name}); its attention can't be "
                f"taken over"
            )
    if key.shape[1] != query.shape[1]:
        # Several heads of queries share one of keys.
        times = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(times, dim=1) for one in (key, value))
    bias = seat.reading.at(seat.place, seat.layer, query.shape[2], key.shape[2], query)
    if bias is not None:
        # Of an encoder, which may have other heads, all read the same.
        bias = bias[None, :1] if seat.place == "encoder" else bias[None]
    if position_bias is not None and seat.positions:
        bias = position_bias if bias is None else position_bias + bias
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if seat.reading.attention is None:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale
        )
        return output.transpose(1, 2).contiguous(), None
    scores = query @ key.transpose(2, 3) * scale
    weights = (scores if bias is None else scores + bias).softmax(dim=-1, dtype=torch.float32)
    if seat.place != "encoder":
        seat.reading.attention[seat.place, seat.layer] = weights
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), weights


class HuggingFace(Adapter):
    """A model with a language head of Hugging Face transformers.

    Args:
        module: the model, such as `GPT2LMHeadModel`, `LlamaForCausalLM`, `T5ForConditionalGeneration`.

    Raises:
        InputError: for a model without attention that the library's interface reaches.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.module: Any = module
        self.kind: Kind = "encoder-decoder" if module.config.is_encoder_decoder else "decoder"
        encoder = set(module.get_encoder().modules()) if self.kind == "encoder-decoder" else set()
        self._seats: list[tuple[nn.Module, Place, int]] = []
        counts: dict[str, int] = {}
        for name, part in module.named_modules():
            attention = [m for m in part.modules() if type(m).__name__.endswith("Attention")]
            if attention != [part]:  # it is none, or holds others
                continue
            cross = name.rpartition(".")[2] in _CROSS
            place: Place = "encoder" if part in encoder else "cross" if cross else "self"
            self._seats.append((part, place, counts.get(place, 0)))
            counts[place] = counts.get(place, 0) + 1
        self.layers = counts.get("self", 0)
        # Of BART the other name is the encoder's.
        names = ("decoder_attention_heads", "num_attention_heads")
        heads = next(filter(None, (getattr(module.config, name, None) for name in names)), None)
        if not self.layers or heads is None:
            raise InputError(
                f"the attention of {type(module).__name__} can't be captured: it has none"
            )
        self.heads = int(heads)
        self._without = False

    def attach(self, reading: Reading) -> list[Undo]:
        model = self.module
        AttentionInterface.register(_NAME, attend)
        configs = {
            id(part.config): part.config
            for part in model.modules()
            if isinstance(part, PreTrainedModel)
        }
        before = [(config, config._attn_implementation_internal) for config in configs.values()]

        def restore() -> None:
            for config, name in before:
                config._attn_implementation_internal = name
            for part, _, _ in self._seats:
                vars(part).pop(_SEAT, None)

        encoder = model.get_encoder() if self.kind == "encoder-decoder" else None
        seats = [_Seat(reading, place, layer, not self._without) for _, place, layer in self._seats]
        for (part, _, _), seat in zip(self._seats, seats, strict=True):
            vars(part)[_SEAT] = seat
        undo: list[Undo] = [restore]
        try:
            model.set_attn_implementation(_NAME)
        except (ImportError, KeyError, ValueError):
            restore()
        if model.config._attn_implementation != _NAME:
            restore()
            raise InputError(
                f"the attention of {type(model).__name__} can't be captured: it does not follow the "
                f"attention interface of transformers"
            )
        check = self._reach()
        undo += [
            before_pass(model, _begin(self, reading, check)),
            after_pass(model, _keep(reading)),
        ]

        def all_used(module: nn.Module, args: tuple, output: Any) -> None:
            if module.training and any(getattr(module.config, one, 0) for one in _DROPS):
                return  # whole layers are left out at random
            own = [seat for seat in seats if (seat.place == "encoder") == (module is encoder)]
            idle = sum(not seat.used for seat in own)
            if idle:
                raise InputError(
                    f"the attention of {type(model).__name__} can't be captured: {idle} of its {len(own)} "
                    f"attention layers did not ask for an attention function"
                )

        undo.append(after_pass(model, all_used))

        def reaches(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            ids = args[0] if args else kwargs.get("input_ids")
            if ids is not None:
                check(ids.shape[1])

        if encoder is not None:
            # `generate` calls it by itself, before the first pass of the whole.
            undo += [before_pass(encoder, reaches), after_pass(encoder, all_used)]
        return undo

    def _reach(self) -> Callable[[int], None]:
        """What refuses more tokens than there are places for."""
        name, without = type(self.module).__name__, self._without
        tables = [one for one in self._position_modules() if isinstance(one, nn.Embedding)]
        ends = [one.num_embeddings - getattr(one, "offset", 0) for one in tables]
        # BERT and its kin ask this table for a type of each token, whatever their positions are.
        types = (part._buffers.get("token_type_ids") for part in self.module.modules())
        last = [one.shape[-1] for one in types if one is not None]

        def check(tokens: int) -> None:
            if ends and not without and tokens > min(ends):
                raise InputError(
                    f"positions of {name} end after {min(ends)} tokens, here are {tokens}; "
                    f"positions='off' switches them off"
                )
            if last and tokens > min(last):
                raise InputError(
                    f"{name} tells types of tokens as far as its max_position_embeddings, {min(last)}, "
                    f"here are {tokens}; make it with a larger one"
                )

        return check

    def _position_modules(self) -> list[nn.Module]:
        found = self.module.named_modules()
        return [part for name, part in found if name.rpartition(".")[2] in _POSITIONS]

    def without_positions(self) -> list[Undo]:
        modules = self._position_modules()
        relative = hasattr(self.module.config, "relative_attention_num_buckets")
        if not modules and not relative:
            raise InputError(
                f"it is not known how {type(self.module).__name__} makes positions; name the "
                f"modules that do, such as positions=model.transformer.wpe, or positions='on' where "
                f"there are none"
            )
        self._without = True
        return [partial(setattr, self, "_without", False), *silence(modules, spread=True)]

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        if self.kind == "encoder-decoder":
            found = self.module(input_ids=source, decoder_input_ids=target, use_cache=False)
        else:
            both = torch.cat([source, target], dim=1)
            found = self.module(input_ids=both, use_cache=False)
        if getattr(found, "logits", None) is None:
            raise InputError(
                f"{type(self.module).__name__} returns no logits of each token; pass the model with its "
                f"language head, such as GPT2LMHeadModel"
            )
        return found.logits[:, -target.shape[1] :]


def _begin(adapter: HuggingFace, reading: Reading, check: Callable[[int], None]) -> Any:
    """Tells the reading, before each pass of the model, which problem it is and where its queries go
    on."""
    name, kind = type(adapter.module).__name__, adapter.kind
    signature = inspect.signature(adapter.module.forward)

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        bound = signature.bind(*args, **kwargs).arguments
        given = {**bound.pop("kwargs", {}), **bound}
        for mask_name in ("attention_mask", "decoder_attention_mask"):
            mask = given.get(mask_name)
            if mask is not None and mask.dim() == 2 and bool((mask == 0).any()):
                raise InputError(
                    f"problems of one batch must be padded to one width; {mask_name} closes some tokens "
                    f"(generate makes one where the pad token is among them)"
                )
        cache = given.get("past_key_values")
        first = 0 if cache is None else int(cache.get_seq_length())
        held = getattr(cache, _SOURCE, None) if first else None
        if first and held is None:
            raise InputError(
                f"a cache that {name} filled before the bias was applied does not fit it; begin again"
            )
        if kind == "decoder":
            ids = given.get("input_ids")
            if ids is None:
                raise InputError("the bias needs input_ids, to see where the problem ends")
            length = held or reading.tokens.source_length(ids)
            total = first + ids.shape[1]
        else:
            encoded, ids = given.get("encoder_outputs"), given.get("input_ids")
            if (source := ids if encoded is None else encoded[0]) is None:
                raise InputError(
                    "the bias needs input_ids or encoder_outputs, to see how long the problem is"
                )
            length = source.shape[1]
            rows = given.get("decoder_input_ids")
            total = max(length, first + (0 if rows is None else rows.shape[1]))
        check(total)
        reading.begin(length, first)
        if cache is not None:
            vars(cache)[_SOURCE] = length

    return before


def _keep(reading: Reading) -> Any:
    """Notes on a cache that a pass has made which problem it holds: many may be decoded in turn."""

    def after(module: nn.Module, args: tuple, output: Any) -> None:
        values = output.values() if isinstance(output, dict) else output
        for one in values if isinstance(values, Iterable) else ():
            if isinstance(one, Cache):
                vars(one)[_SOURCE] = reading.source_length

    return after
