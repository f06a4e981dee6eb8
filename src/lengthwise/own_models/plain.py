"""Models that follow our protocol: their own `forward` takes the bias and returns attention.

```python
def forward(self, ids, bias=None, positions=True, return_attention=False): ...
```

`ids` is `[problem, token]`, problem and answer in one sequence; `bias` a tensor `[head, query, key]`
for each layer, added to the scores in the place of the causal mask. With `return_attention` also a
list of each layer's weights `[problem, head, query, key]` is returned. An encoder-decoder has the
arguments `source` and `target` in the place of `ids`; its `bias` and weights are, of each layer, a
dictionary with `self` and `cross`.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lengthwise.errors import InputError
from lengthwise.own_models.adapter import Adapter, Undo, after_pass, before_pass, quiet, readable
from lengthwise.own_models.reading import Kind, Reading
from lengthwise.own_models.tokens import Tokens


class OwnModel(Protocol):
    """What a model in one sequence must offer; `positions` only where it has some."""

    def forward(
        self,
        ids: Tensor,
        bias: list[Tensor] | None = None,
        positions: bool = True,
        return_attention: bool = False,
    ) -> Any:
        """Logits `[problem, token, id]`; with attention a pair of them and a list of weights."""
        ...


def offers_bias(model: nn.Module) -> bool:
    """Whether a model's `forward` has the arguments of the protocol."""
    return {"bias", "return_attention"} <= set(inspect.signature(model.forward).parameters)


class Plain(Adapter):
    """A model whose `forward` follows the protocol.

    Args:
        tokens: its ids.

    Raises:
        InputError: where what it returns is not what the protocol says.
    """

    def __init__(self, module: nn.Module, tokens: Tokens) -> None:
        self.module = module
        self._signature = inspect.signature(module.forward)
        self._names = set(self._signature.parameters)
        self.kind: Kind = "encoder-decoder" if {"source", "target"} <= self._names else "decoder"
        self._positions: bool | None = None
        self.layers, self.heads = self._probe(tokens)

    def _probe(self, tokens: Tokens) -> tuple[int, int]:
        """Ask one small problem: layers and heads follow from what the model returns."""
        layout = tokens.format.at(1)
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        source = tokens.of(torch.zeros(1, layout.source_length, dtype=torch.int64))
        target = tokens.ids[[layout.vocabulary.start]][None]
        ids = (
            [source, target] if self.kind == "encoder-decoder" else [torch.cat([source, target], 1)]
        )
        name = type(self.module).__name__
        try:
            self._signature.bind(*ids, return_attention=True)
        except TypeError as error:
            raise InputError(
                f"{name}.forward must take ids alone, or with them any of bias=None, positions=True, "
                f"return_attention=False: {error}"
            ) from error
        with quiet(self.module), readable(self.module, source.shape[1]):
            found = self.module(*(one.to(device) for one in ids), return_attention=True)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], list)):
            raise InputError(
                f"{name} must return logits and a list of each layer's weights when "
                f"return_attention=True; got {type(found).__name__}"
            )
        weights = found[1]
        one = weights[0] if weights else None
        one = one.get("self") if isinstance(one, dict) else one
        if not isinstance(one, Tensor) or one.dim() != 4:
            shape = list(one.shape) if isinstance(one, Tensor) else one
            raise InputError(
                f"{name} must return weights [problem, head, query, key] of each layer; got {shape}"
            )
        return len(weights), one.shape[1]

    def attach(self, reading: Reading) -> list[Undo]:
        wants, positions = reading.attention is not None, self._positions

        def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
            bound = self._signature.bind(*args, **kwargs)
            given = bound.arguments
            given["bias"] = self._bias(reading, given)
            if positions is not None:
                given["positions"] = positions
            if wants:
                given["return_attention"] = True
            return bound.args, bound.kwargs

        def after(module: nn.Module, args: tuple, output: Any) -> Any:
            if not wants:
                return None
            logits, weights = output
            assert reading.attention is not None
            for layer, one in enumerate(weights):
                for site, own in one.items() if isinstance(one, dict) else [("self", one)]:
                    reading.attention[site, layer] = own
            return logits

        return [before_pass(self.module, before), after_pass(self.module, after)]

    def _bias(self, reading: Reading, given: dict[str, Any]) -> list[Any]:
        ids = given["source"] if self.kind == "encoder-decoder" else next(iter(given.values()))
        like = next(self.module.parameters(), torch.zeros((), device=ids.device))
        layers = range(self.layers)
        if self.kind == "decoder":
            reading.begin(reading.tokens.source_length(ids))
            n = ids.shape[1]
            return [reading.at("self", layer, n, n, like) for layer in layers]
        source, target = given["source"], given["target"]
        reading.begin(source.shape[1])
        rows, keys = target.shape[1], source.shape[1]
        return [
            {
                "self": reading.at("self", layer, rows, rows, like),
                "cross": reading.at("cross", layer, rows, keys, like),
                "encoder": reading.at("encoder", layer, keys, keys, like),
            }
            for layer in layers
        ]

    def without_positions(self) -> list[Undo]:
        if "positions" not in self._names:
            raise InputError(
                f"{type(self.module).__name__}.forward has no argument positions; name the module "
                f"that makes them, such as positions=model.wpe, or positions='on' where there are none"
            )
        self._positions = False
        return [partial(setattr, self, "_positions", None)]

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        return self.called(source, target)
