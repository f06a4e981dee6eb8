"""What an output can depend on, and every case of it: no settings, no models."""

from lengthwise.locality.cone import Cone, NotApplicableError, Reach, join, reach_of, window_reach
from lengthwise.locality.contexts import Batch, Contexts
from lengthwise.locality.known import KnownContexts
from lengthwise.locality.sheets import SheetContexts, Sights, cone_of_sheet
from lengthwise.locality.sights import Sight, look, look_alikes, write_out

__all__ = [
    "Batch",
    "Cone",
    "Contexts",
    "KnownContexts",
    "NotApplicableError",
    "Reach",
    "SheetContexts",
    "Sight",
    "Sights",
    "cone_of_sheet",
    "join",
    "look",
    "look_alikes",
    "reach_of",
    "window_reach",
    "write_out",
]
