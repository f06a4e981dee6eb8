"""Tasks: one file per family, one line per task in `TASKS` (one pass) or in `WORKSHEETS`."""

from __future__ import annotations

from collections import ChainMap
from functools import lru_cache

from lengthwise.tasks.addition import Addition
from lengthwise.tasks.base_conversion import BaseConversion
from lengthwise.tasks.cellular_automaton import CellularAutomaton
from lengthwise.tasks.copy import Copy
from lengthwise.tasks.decrement import Decrement
from lengthwise.tasks.division import Division
from lengthwise.tasks.framing import FRAME, add_frame
from lengthwise.tasks.multi_addition import MultiAddition
from lengthwise.tasks.multiplication import Multiplication
from lengthwise.tasks.multiply_by import MultiplyBy
from lengthwise.tasks.near import Field
from lengthwise.tasks.nx1 import TimesDigit
from lengthwise.tasks.running import ModularSum, Parity, ParityClassification
from lengthwise.tasks.sorting import Sorting
from lengthwise.tasks.subtraction import Subtraction
from lengthwise.tasks.successor import Successor
from lengthwise.tasks.transducer import DIGITS, Segment, Transducer
from lengthwise.tasks.turing_machine import TuringMachine
from lengthwise.tasks.worksheet import Worksheet

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

WORKSHEETS: dict[str, type[Worksheet]] = {
    task.name: task
    for task in (
        Multiplication,
        Division,
        Sorting,
        BaseConversion,
        CellularAutomaton,
        TuringMachine,
    )
}

# Every task by its name, of either protocol.
ALL_TASKS = ChainMap[str, type[Transducer] | type[Worksheet]](TASKS, WORKSHEETS)  # type: ignore[arg-type]

# Names that people try for tasks that have another.
ALIASES = dict.fromkeys(("nxm", "nxn", "multiply"), "multiplication")


@lru_cache(maxsize=64)
def make_task(
    name: str, base: int | None = None, **parameters: int | str
) -> Transducer | Worksheet:
    """The task of a name; equal arguments share one, with its tables.

    Args:
        name: a key of `ALL_TASKS`.
        base: the base, by default the task's own.
        parameters: what else defines it, for tasks that have `parameters`.

    Raises:
        ValueError: for a base or a parameter that is not allowed.
    """
    return ALL_TASKS[name](base, **parameters)


__all__ = [
    "ALIASES",
    "ALL_TASKS",
    "DIGITS",
    "FRAME",
    "TASKS",
    "WORKSHEETS",
    "Field",
    "Segment",
    "Transducer",
    "Worksheet",
    "add_frame",
    "make_task",
]
