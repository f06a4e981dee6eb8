"""Tasks: one file per family, one line per task in `TASKS`."""

from lengthwise.tasks.addition import Addition
from lengthwise.tasks.successor import Successor
from lengthwise.tasks.transducer import DIGITS, Segment, Transducer

TASKS: dict[str, type[Transducer]] = {task.name: task for task in (Successor, Addition)}

__all__ = ["DIGITS", "TASKS", "Segment", "Transducer"]
