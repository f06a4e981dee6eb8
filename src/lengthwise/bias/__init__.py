"""Biases: what is added to attention logits, as one kind of object."""

from lengthwise.bias.base import CLOSED, SITES, AttentionBias, Causal, OpenKeys, Site
from lengthwise.bias.lines import WHOLE, CalibratedBias, Line, Track

__all__ = [
    "CLOSED",
    "SITES",
    "WHOLE",
    "AttentionBias",
    "CalibratedBias",
    "Causal",
    "Line",
    "OpenKeys",
    "Site",
    "Track",
]
