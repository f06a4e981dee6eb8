"""The one loop over layers, and what comes out of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from lengthwise.model.joint import Joint
from lengthwise.model.layers import Layer
from lengthwise.model.views import Rows, Source, View


@dataclass(frozen=True)
class Output:
    """What the model computed.

    Attributes:
        logits: `[batch, row, token]`.
        attention: per layer and site, weights `[batch, head, query, key]`; empty unless asked for.
    """

    logits: Tensor
    attention: list[dict[str, Tensor]]


def run(layers: Iterable[nn.Module], x: Tensor, view: View) -> Tensor:
    """What the last of some layers leaves, `[..., width]`, of what the first is given."""
    for layer, (own, cross) in zip(layers, view, strict=True):
        if isinstance(own, Rows) and isinstance(cross, Source) and not cast(Layer, layer).cross:
            x = cast(Layer, layer)(x, Joint(own, cross))
        else:
            x = cast(Layer, layer)(x, own, cross)
    return x
