"""Tasks: one file per family, one line per task in `TASKS`."""

from __future__ import annotations

from functools import lru_cache

from lengthwise.tasks.addition import Addition
from lengthwise.tasks.copy import Copy
from lengthwise.tasks.decrement import Decrement
from lengthwise.tasks.framing import FRAME, add_frame
from lengthwise.tasks.multi_addition import MultiAddition
from lengthwise.tasks.multiply_by import MultiplyBy
from lengthwise.tasks.nx1 import TimesDigit
from lengthwise.tasks.running import ModularSum, Parity, ParityClassification
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
        ParityClassification,
        Subtraction,
        Decrement,
        Copy,
        ModularSum,
        MultiAddition,
        MultiplyBy,
    )
}

_PRODUCT = (
    "multiplying two long numbers is out of reach: column i of N x M multiplication sums i products of "
    "digits, with a carry that grows with the length, so no bounded pattern of attention computes it at "
    "every length; 'nx1' multiplies by one digit, 'multiply_by' by a constant"
)

# Tasks that people ask for, and why there can be none.
OUT_OF_REACH = dict.fromkeys(("nxm", "nxn", "multiplication", "multiply"), _PRODUCT)


@lru_cache(maxsize=64)
def make_task(name: str, base: int | None = None, **parameters: int | str) -> Transducer:
    """The task of a name; equal arguments share one, with its tables.

    Args:
        name: a key of `TASKS`.
        base: the base, by default the task's own.
        parameters: what else defines it, for tasks that have `parameters`.

    Raises:
        ValueError: for a base or a parameter that is not allowed.
    """
    return TASKS[name](base, **parameters)


__all__ = [
    "DIGITS",
    "FRAME",
    "OUT_OF_REACH",
    "TASKS",
    "Segment",
    "Transducer",
    "add_frame",
    "make_task",
]
