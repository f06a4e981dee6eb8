"""Tasks: one file per family, one line per task in `TASKS` (one pass) or in `WORKSHEETS`.

Those of a user's own join them when they are named (`register`) or, installed, when they are asked for.
"""

from __future__ import annotations

from collections import ChainMap
from functools import lru_cache

from lengthwise.errors import InputError
from lengthwise.own_code import from_packages, load_from_package
from lengthwise.tasks.addition import Addition
from lengthwise.tasks.base_conversion import BaseConversion
from lengthwise.tasks.cellular_automaton import CellularAutomaton
from lengthwise.tasks.copy import Copy
from lengthwise.tasks.dataset import Dataset
from lengthwise.tasks.decrement import Decrement
from lengthwise.tasks.division import Division
from lengthwise.tasks.framing import FRAME, add_frame
from lengthwise.tasks.multi_addition import MultiAddition
from lengthwise.tasks.multiplication import Multiplication
from lengthwise.tasks.multiply_by import MultiplyBy
from lengthwise.tasks.near import Field
from lengthwise.tasks.nx1 import TimesDigit
from lengthwise.tasks.own import KINDS, check_letters, prepared
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

# Where installed packages declare tasks of theirs, by name.
ENTRY_POINTS = "lengthwise.tasks"

# Those of the package, whose names no other may take.
_OURS = frozenset(ALL_TASKS)


def is_own(name: str) -> bool:
    """Whether a task is not the package's."""
    return name not in _OURS


def register(kind: type) -> type:
    """Make a class of a user's own a task that is known by its name, in the place of one that was before.

    Raises:
        InputError: for what is no task, and for the name of one of the package's.
    """
    if kind in ALL_TASKS.values():
        return kind
    name = prepared(kind).name
    if not is_own(name) or name in ALIASES:
        raise InputError(
            f"{kind.__name__} is called {name}, as a task of the package; give it another name"
        )
    for known in (TASKS, WORKSHEETS):
        known.pop(name, None)
    home: dict[str, type] = WORKSHEETS if issubclass(kind, Worksheet) else TASKS  # type: ignore[assignment]
    home[name] = kind
    make_task.cache_clear()
    return kind


def find_task(name: str) -> type[Transducer] | type[Worksheet] | None:
    """The task of a name: one that is known, or that an installed package declares; else None.

    Raises:
        InputError: for a package whose task can't be imported.
    """
    if name not in ALL_TASKS:
        point = from_packages(ENTRY_POINTS).get(name)
        if point is not None:
            found = load_from_package(point, KINDS, "task")
            if "name" not in vars(found):
                found.name = name
            register(found)
    return ALL_TASKS.get(name)


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
        InputError: for a task of a user's own whose symbols are digits of the base.
    """
    task = ALL_TASKS[name](base, **parameters)
    if is_own(name):
        check_letters(task)
    return task


__all__ = [
    "ALIASES",
    "ALL_TASKS",
    "DIGITS",
    "FRAME",
    "KINDS",
    "TASKS",
    "WORKSHEETS",
    "Dataset",
    "Field",
    "Segment",
    "Transducer",
    "Worksheet",
    "add_frame",
    "find_task",
    "is_own",
    "make_task",
    "register",
]
