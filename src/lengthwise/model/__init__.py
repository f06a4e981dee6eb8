"""The network: positions, layers and the one loop over them, and the views of what they read."""

from lengthwise.model.attention import plan_attention
from lengthwise.model.positions import POSITIONS
from lengthwise.model.transformer import Transformer

__all__ = ["POSITIONS", "Transformer", "plan_attention"]
