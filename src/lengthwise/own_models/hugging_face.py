"""Models of Hugging Face transformers, decoder-only and encoder-decoder, through its attention interface.

Our attention function is registered under a name (`ALL_ATTENTION_FUNCTIONS.register`) and asked for by
`set_attn_implementation`; it finds what a layer may read on the layer itself, so that models do not
share state. The model's own masks are not made then, causality being part of the bias; a padding mask
is refused. T5's position bias arrives at the function, and counts unless positions are off. The
library's caches work: queries go on from what the cache holds.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter, Undo, silence
from lengthwise.own_models.reading import Kind, Place, Reading

_NAME, _SEAT = "lengthwise", "_lengthwise_seat"

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
            if not _attends(part):
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
        begin = _begin(self, reading)
        undo.append(model.register_forward_pre_hook(begin, with_kwargs=True).remove)

        def all_used(module: nn.Module, args: tuple, output: Any) -> None:
            own = [seat for seat in seats if (seat.place == "encoder") == (module is encoder)]
            idle = sum(not seat.used for seat in own)
            if idle:
                raise InputError(
                    f"the attention of {type(model).__name__} can't be captured: {idle} of its {len(own)} "
                    f"attention layers did not ask for an attention function"
                )

        undo.append(model.register_forward_hook(all_used).remove)
        if encoder is not None:
            # `generate` calls it by itself, before the first pass of the whole.
            undo.append(encoder.register_forward_pre_hook(self._reaches, with_kwargs=True).remove)
            undo.append(encoder.register_forward_hook(all_used).remove)
        return undo

    def _reaches(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is not None:
            self.check_reach(ids.shape[1])

    def check_reach(self, tokens: int) -> None:
        """Refuse what is longer than the tables of absolute positions.

        Raises:
            InputError: for it, unless positions are off.
        """
        tables = [one for one in self._position_modules() if isinstance(one, nn.Embedding)]
        ends = [one.num_embeddings - getattr(one, "offset", 0) for one in tables]
        if ends and not self._without and tokens > min(ends):
            raise InputError(
                f"positions of {type(self.module).__name__} end after {min(ends)} tokens, here are "
                f"{tokens}; positions='off' switches them off"
            )

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

        def on() -> None:
            self._without = False

        return [on, *silence(modules)]

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        if self.kind == "encoder-decoder":
            return self.module(input_ids=source, decoder_input_ids=target, use_cache=False).logits
        both = torch.cat([source, target], dim=1)
        return self.module(input_ids=both, use_cache=False).logits[:, source.shape[1] :]


def _attends(part: nn.Module) -> bool:
    """Whether it is attention itself, not what holds it."""
    parts = [m for m in part.modules() if type(m).__name__.endswith("Attention")]
    return parts == [part]


def _begin(adapter: HuggingFace, reading: Reading) -> Any:
    """Tells the reading, before each pass of the model, which problem it is and where its queries go
    on."""
    signature = inspect.signature(adapter.module.forward)

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        bound = signature.bind(*args, **kwargs).arguments
        given = {**bound.pop("kwargs", {}), **bound}
        for name in ("attention_mask", "decoder_attention_mask"):
            mask = given.get(name)
            if mask is not None and mask.dim() == 2 and bool((mask == 0).any()):
                raise InputError(
                    f"problems of one batch must be padded to one width; {name} closes some tokens "
                    f"(generate makes one where the pad token is among them)"
                )
        cache = given.get("past_key_values")
        first = 0 if cache is None else int(cache.get_seq_length())
        if adapter.kind == "decoder":
            ids = given.get("input_ids")
            if ids is None:
                raise InputError("the bias needs input_ids, to see where the problem ends")
            length = reading.source_length if first else reading.tokens.source_length(ids)
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
        adapter.check_reach(total)
        reading.begin(length, first)

    return before
