"""The model: positions, attention, layers, decoding."""

from lengthwise.model.attention import plan_attention
from lengthwise.model.decoding import Decode, decode_streams, decode_with_cache, greedy_decode
from lengthwise.model.positions import POSITIONS
from lengthwise.model.transformer import Transformer
from lengthwise.model.window import Streams, Windows, has_windows

__all__ = [
    "POSITIONS",
    "Decode",
    "Streams",
    "Transformer",
    "Windows",
    "decode_streams",
    "decode_with_cache",
    "greedy_decode",
    "has_windows",
    "plan_attention",
]
