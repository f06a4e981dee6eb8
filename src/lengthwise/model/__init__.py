"""The model: positions, attention, layers, decoding."""

from lengthwise.model.attention import plan_attention
from lengthwise.model.decoding import greedy_decode
from lengthwise.model.positions import POSITIONS
from lengthwise.model.transformer import Transformer

__all__ = ["POSITIONS", "Transformer", "greedy_decode", "plan_attention"]
