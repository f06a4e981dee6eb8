"""Tasks: one file per family, one line per task in `TASKS`."""

from lengthwise.tasks.addition import Addition
from lengthwise.tasks.copy import Copy
from lengthwise.tasks.decrement import Decrement
from lengthwise.tasks.framing import FRAME, add_frame
from lengthwise.tasks.nx1 import TimesDigit
from lengthwise.tasks.running import ModularSum, Parity
from lengthwise.tasks.subtraction import Subtraction
from lengthwise.tasks.successor import Successor
from lengthwise.tasks.transducer import DIGITS, Segment, Transducer

TASKS: dict[str, type[Transducer]] = {
    task.name: task
    for task in (
        Successor,
        Addition,
        TimesDigit,
        Parity,
        Subtraction,
        Decrement,
        Copy,
        ModularSum,
    )
}

__all__ = ["DIGITS", "FRAME", "TASKS", "Segment", "Transducer", "add_frame"]
