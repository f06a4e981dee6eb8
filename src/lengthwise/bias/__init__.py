"""Biases: what is added to attention logits, as one kind of object."""

from lengthwise.bias.base import CLOSED, SITES, AttentionBias, Causal, OpenKeys, Site
from lengthwise.bias.lines import WHOLE, CalibratedBias, Line, Track
from lengthwise.bias.matrix import MatrixBias
from lengthwise.bias.tracing import Rest, Traced, trace_lines

__all__ = [
    "CLOSED",
    "SITES",
    "WHOLE",
    "AttentionBias",
    "CalibratedBias",
    "Causal",
    "Line",
    "MatrixBias",
    "OpenKeys",
    "Rest",
    "Site",
    "Traced",
    "Track",
    "trace_lines",
]
