"""Biases: what is added to attention logits, as one kind of object."""

from collections.abc import Callable
from typing import Protocol

from lengthwise.bias.alibi import Alibi, Cross
from lengthwise.bias.base import (
    CLOSED,
    SITES,
    AttentionBias,
    Causal,
    LearnedTables,
    OpenKeys,
    Site,
    SomeSite,
    encoder_bias,
    relative_index,
)
from lengthwise.bias.lines import CalibratedBias, Line, is_local
from lengthwise.bias.matrix import MatrixBias
from lengthwise.bias.relative import T5, Shaw
from lengthwise.bias.tracing import Rest, Traced, trace_lines
from lengthwise.bias.tracks import (
    OWN_TOKEN,
    WHOLE,
    Affine,
    AnyTrack,
    MatrixTrack,
    Track,
    in_coordinates,
    read_track,
    track_row,
)
from lengthwise.bias.window import Sides, Window


class Options(Protocol):
    """The settings that biases are made from: `ModelSettings` has them."""

    @property
    def heads(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def window_sides(self) -> Sides: ...
    @property
    def alibi_cross(self) -> Cross: ...
    @property
    def t5_buckets(self) -> int: ...
    @property
    def t5_distance(self) -> int: ...
    @property
    def shaw_distance(self) -> int: ...


# The biases that settings name (`model.bias`); a calibrated one comes from a file instead.
BIASES: dict[str, Callable[[Options], AttentionBias]] = {
    "causal": lambda model: Causal(model.heads),
    "window": lambda model: Window(model.heads, model.window, model.window_sides),
    "alibi": lambda model: Alibi(model.heads, model.alibi_cross),
    "t5": lambda model: T5(model.heads, model.t5_buckets, model.t5_distance),
    "shaw": lambda model: Shaw(model.heads, model.shaw_distance),
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
    "AnyTrack",
    "AttentionBias",
    "CalibratedBias",
    "Causal",
    "LearnedTables",
    "Line",
    "MatrixBias",
    "MatrixTrack",
    "OpenKeys",
    "Rest",
    "Shaw",
    "Sides",
    "Site",
    "SomeSite",
    "Traced",
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
