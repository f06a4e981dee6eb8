"""What an output can depend on, and every case of it: no settings, no models."""

from lengthwise.locality.cone import Cone, NotApplicableError, Reach, join, reach_of, window_reach
from lengthwise.locality.contexts import Batch, Contexts

__all__ = [
    "Batch",
    "Cone",
    "Contexts",
    "NotApplicableError",
    "Reach",
    "join",
    "reach_of",
    "window_reach",
]
