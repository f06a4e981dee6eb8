"""Models made of `torch.nn`'s Transformer parts: decoder layers, or encoder layers under a causal mask.

A module of decoder layers is called with the ids of problem and answer, `model(source, target)`; one
of encoder layers alone with one sequence of both, `model(ids)`. Ids are batch first, and so are its
logits.

Hooks that take keyword arguments hand each `nn.MultiheadAttention` its own mask, layer by layer. What
else the model says of masks is set aside: `is_causal=True` would drop the bias silently, and torch's
fast path of evaluation, which makes NaN of a float mask, is not taken by layers with hooks.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter, Undo, after_pass, before_pass
from lengthwise.own_models.reading import Kind, Place, Reading

_EMBEDDED = (
    nn.Transformer,
    nn.TransformerDecoder,
    nn.TransformerEncoder,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoderLayer,
)


def holds_layers(module: nn.Module) -> bool:
    """Whether a module has layers of torch's Transformer."""
    return any(
        isinstance(part, nn.TransformerDecoderLayer | nn.TransformerEncoderLayer)
        for part in module.modules()
    )


class TorchLayers(Adapter):
    """A module that holds `nn.TransformerDecoderLayer`s, or `nn.TransformerEncoderLayer`s alone.

    Raises:
        InputError: for attention whose keys are not the tokens alone, and layers with other numbers of
            heads.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        decoder = [m for m in module.modules() if isinstance(m, nn.TransformerDecoderLayer)]
        encoder = [m for m in module.modules() if isinstance(m, nn.TransformerEncoderLayer)]
        self.kind: Kind = "encoder-decoder" if decoder else "decoder"
        if self.kind == "decoder":
            self._refuse_embedded()
        self._rows: list[Any] = decoder or encoder
        self._encoder = encoder if decoder else []
        self.layers = len(self._rows)
        attention = [m for m in module.modules() if isinstance(m, nn.MultiheadAttention)]
        heads = {one.num_heads for one in attention}
        if len(heads) != 1:
            raise InputError(f"layers must have one number of heads, got {sorted(heads)}")
        if any(one.bias_k is not None or one.add_zero_attn for one in attention):
            raise InputError("attention with bias_k or add_zero_attn has keys that are no tokens")
        self.heads = heads.pop()

    def attach(self, reading: Reading) -> list[Undo]:
        undo: list[Undo] = []
        if self.kind == "decoder":

            def ids(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
                reading.begin(reading.tokens.source_length(_first(args, kwargs)))

            undo.append(before_pass(self.module, ids))
        for layer, block in enumerate(self._rows):
            if self.kind == "encoder-decoder":
                undo.append(before_pass(block, _memory(reading, block)))
                undo += self._hook(reading, block.multihead_attn, "cross", layer)
            undo += self._hook(reading, block.self_attn, "self", layer)
        for layer, block in enumerate(self._encoder):
            undo += self._hook(reading, block.self_attn, "encoder", layer)
        return undo

    def _hook(
        self, reading: Reading, attention: nn.MultiheadAttention, place: Place, layer: int
    ) -> list[Undo]:
        wants = reading.attention is not None and place != "encoder"

        def before(
            module: nn.MultiheadAttention, args: tuple, kwargs: dict[str, Any]
        ) -> tuple[tuple, dict[str, Any]]:
            query, key = (
                args[i] if len(args) > i else kwargs[n] for i, n in enumerate(("query", "key"))
            )
            padding = kwargs.get("key_padding_mask")
            if padding is not None and bool((padding != 0).any()):
                raise InputError(
                    "problems of one batch must be padded to one width; a padding mask closes some keys"
                )
            batched = query.dim() == 3
            axis = 1 if batched and module.batch_first else 0
            found = reading.at(place, layer, query.shape[axis], key.shape[axis], query)
            if found is not None:
                if batched:
                    # [problem x head, query, key], as nn.MultiheadAttention takes it.
                    found = found.repeat(query.shape[1 - axis], 1, 1)
                kwargs = {
                    **kwargs,
                    "attn_mask": found,
                    "is_causal": False,
                    "key_padding_mask": None,
                }
            if wants:
                kwargs = {**kwargs, "need_weights": True, "average_attn_weights": False}
            return args, kwargs

        def after(module: nn.MultiheadAttention, args: tuple, output: Any) -> None:
            assert reading.attention is not None
            weights: Tensor = output[1]
            reading.attention[place, layer] = weights if weights.dim() == 4 else weights[None]

        undo: list[Undo] = [before_pass(attention, before)]
        if wants:
            undo.append(after_pass(attention, after))
        return undo

    def without_positions(self) -> list[Undo]:
        raise InputError(
            f"{type(self.module).__name__} makes positions of its own; name the module that does, "
            f"such as positions=model.positions, or positions='on' where there are none"
        )

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        self._refuse_embedded()
        return self.called(source, target)

    def _refuse_embedded(self) -> None:
        if isinstance(self.module, _EMBEDDED):
            raise InputError(
                f"{type(self.module).__name__} takes embeddings; pass the module that holds it and "
                f"takes token ids"
            )


def _first(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else next(iter(kwargs.values()))


def _memory(reading: Reading, block: nn.TransformerDecoderLayer) -> Any:
    """Tells the reading how long the problem is, from what a decoder layer is given."""
    signature = inspect.signature(block.forward)

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        memory: Tensor = signature.bind(*args, **kwargs).arguments["memory"]
        first = memory.dim() == 3 and block.self_attn.batch_first
        reading.begin(memory.shape[1 if first else 0])

    return before
