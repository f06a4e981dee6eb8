"""Biases: what is added to attention logits, as one kind of object."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from lengthwise.bias.alibi import Alibi
from lengthwise.bias.base import (
    CLOSED,
    SITES,
    AttentionBias,
    Causal,
    LearnedModules,
    LearnedTables,
    OpenKeys,
    Site,
    SomeSite,
    encoder_bias,
    relative_index,
)
from lengthwise.bias.fire import Fire
from lengthwise.bias.hard_alibi import HardAlibi
from lengthwise.bias.kerple import KerpleLog, KerplePower
from lengthwise.bias.lines import CalibratedBias, Line, is_local
from lengthwise.bias.matrix import MatrixBias
from lengthwise.bias.relative import T5, Shaw
from lengthwise.bias.tracing import trace_lines
from lengthwise.bias.tracks import (
    OWN_TOKEN,
    WHOLE,
    Affine,
    MatrixTrack,
    Track,
    in_coordinates,
    read_track,
    track_row,
)
from lengthwise.bias.window import Sides, Window
from lengthwise.methods import Bias


@dataclass(frozen=True)
class Named:
    """A bias that settings name. Call it with those of the model (`ModelSettings`) to get one.

    Attributes:
        kind: its class.
        settings: the settings that count with it alone: the arguments of the class, after the heads.
    """

    kind: Callable[..., AttentionBias]
    settings: tuple[str, ...] = ()

    def __call__(self, model: Any) -> AttentionBias:
        return self.kind(model.heads, *(getattr(model, name) for name in self.settings))


@dataclass(frozen=True)
class OfMethod:
    """A bias that is a method's, whose settings are a table of their own (`bias.hidden`).

    Attributes:
        method: its class.
    """

    method: type[Bias]
    settings: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any) -> AttentionBias:
        return self.method().bias(model.heads)


# The biases that settings name (`model.bias`); a calibrated one comes from a file instead.
BIASES: dict[str, Named | OfMethod] = {
    "causal": Named(Causal),
    "window": Named(Window, ("window", "window_sides")),
    "alibi": Named(Alibi, ("alibi_cross",)),
    "t5": Named(T5, ("t5_buckets", "t5_distance")),
    "shaw": Named(Shaw, ("shaw_distance",)),
    "fire": OfMethod(Fire),
    "kerple_log": OfMethod(KerpleLog),
    "kerple_power": OfMethod(KerplePower),
    "hard_alibi": OfMethod(HardAlibi),
}

__all__ = [
    "BIASES",
    "CLOSED",
    "OWN_TOKEN",
    "SITES",
    "T5",
    "WHOLE",
    "Affine",
    "Alibi",
    "AttentionBias",
    "CalibratedBias",
    "Causal",
    "Fire",
    "HardAlibi",
    "KerpleLog",
    "KerplePower",
    "LearnedModules",
    "LearnedTables",
    "Line",
    "MatrixBias",
    "MatrixTrack",
    "OfMethod",
    "OpenKeys",
    "Shaw",
    "Sides",
    "Site",
    "SomeSite",
    "Track",
    "Window",
    "encoder_bias",
    "in_coordinates",
    "is_local",
    "read_track",
    "relative_index",
    "trace_lines",
    "track_row",
]
