"""A task that is a table rather than code: TOML that a person writes, or what a run keeps of a class.

```
name = "times_three"
digits = "01"
segments = ["a"]
growth = 2
example = ["101", "1111"]

[transitions.carry0]
0 = "0 carry0"
1 = "1 carry1"

[transitions.carry1]
0 = "1 carry0"
1 = "0 carry2"

[transitions.carry2]
0 = "0 carry1"
1 = "1 carry2"
```

The first state is where a problem begins. Of several operands a column is written as their digits, one
after the other, in the order of the segments: `"12" = "3 none"`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lengthwise.tasks.framing import FRAME
from lengthwise.tasks.transducer import DIGITS, Segment, Task, Transducer

_KEYS = {
    *("name", "digits", "segments", "growth", "writes", "final", "start", "example", "length"),
    "transitions",
}

# Rows of a table: more are of no use to a person, or to a proof.
_MOST = 1_000_000


class TableTask(Transducer):
    """A transducer whose `step` is looked up; its classes are made by `table_class`."""

    table: ClassVar[dict[tuple[int, ...], tuple[int, int]]]
    digits: ClassVar[str]

    def __init__(self, base: int | None = None, **parameters: int | str) -> None:
        known = {name: self.parameters[name] for name in parameters}
        if base not in (None, *self.bases) or parameters != known:
            raise ValueError(f"{self.name} is known as a table alone, in base {self.bases[0]}")
        super().__init__(base)
        vars(self).update(self.parameters)

    @property
    def letters(self) -> str:
        return self.digits

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return self.table[(state, *column)]


def table_class(values: Mapping[str, Any], name: str = "") -> type[TableTask]:
    """The task of a table.

    Args:
        values: as in the example above.
        name: of the task, where the values have none.

    Raises:
        ValueError: in one line, for the first thing that is wrong with it.
    """
    strange = sorted(set(values) - _KEYS)
    if strange:
        raise ValueError(f"a table has no {strange[0]!r}; it has {', '.join(sorted(_KEYS))}")
    digits = values.get("digits", DIGITS[:10])
    if not isinstance(digits, str) or not 2 <= len(set(digits)) == len(digits) <= len(DIGITS):
        raise ValueError(f"digits is a text of 2 to 36 different characters, got {digits!r}")
    if any(one in FRAME or one.isspace() for one in digits):
        raise ValueError(
            f"digits are no white space, and none of {' '.join(FRAME)}, got {digits!r}"
        )
    segments = _segments(values.get("segments"), digits)
    rows = values["transitions"]
    if not isinstance(rows, Mapping) or not rows:
        raise ValueError("a table has [transitions.STATE] for each of its states")
    start = values.get("start", next(iter(rows)))
    if start not in rows:
        raise ValueError(f"start {start!r} is no state; {', '.join(rows)} are")
    numbers = {state: number for number, state in enumerate(rows)}
    operands = [one for one in segments if one.kind != "symbol"]
    if len(rows) * len(digits) ** len(operands) > _MOST:
        raise ValueError(f"a table has at most {_MOST:,} rows")
    final = values.get("final")
    if final is not None and (not isinstance(final, list) or not set(final) <= set(rows)):
        raise ValueError(f"final is a list of states, got {final!r}")
    example = values.get("example")
    if not isinstance(example, list) or [type(one) for one in example] != [str, str]:
        raise ValueError(f'example is an expression and its answer, ["12", "24"], got {example!r}')
    made: dict[str, Any] = {
        "name": values.get("name", name),
        "digits": digits,
        "segments": segments,
        "bases": (len(digits),),
        "states": len(rows),
        "start_state": numbers[start],
        "growth": _whole(values, "growth", 0),
        "writes": _whole(values, "writes", 1) if values.get("writes") is not None else None,
        "final_states": None if final is None else frozenset(numbers[one] for one in final),
        "example": tuple(example),
        "length": _whole(values, "length", 1) if "length" in values else Transducer.length,
        "table": _rows(rows, numbers, digits, len(operands)),
        "__doc__": f"The task {values.get('name', name)}, as a table.",
    }
    return type(str(made["name"]).title().replace("_", ""), (TableTask,), made)


def _whole(values: Mapping[str, Any], key: str, least: int) -> int:
    value = values.get(key)
    if type(value) is not int or not least <= value <= _MOST:
        raise ValueError(f"{key} is a whole number from {least} to {_MOST:,}, got {value!r}")
    return value


def _segments(given: Any, digits: str) -> tuple[Segment, ...]:
    wanted = 'segments is a list such as ["a", "+", "b"], or ["a", "*", {digit = "d"}]'
    if not isinstance(given, list) or not given:
        raise ValueError(f"{wanted}, got {given!r}")
    found = []
    for one in given:
        if isinstance(one, dict) and list(one) == ["digit"] and isinstance(one["digit"], str):
            found.append(Segment(one["digit"], "digit"))
        elif isinstance(one, str) and len(one) == 1 and not one.isalnum():
            if one in digits or one in FRAME or one.isspace():
                raise ValueError(f"symbol {one!r} is a digit, or stands for a start or an end")
            found.append(Segment(one, "symbol"))
        elif isinstance(one, str) and one.isidentifier():
            found.append(Segment(one, "operand"))
        else:
            raise ValueError(f"{wanted}, got {one!r} in it")
    return tuple(found)


def _rows(
    given: Mapping[str, Any], numbers: Mapping[str, int], digits: str, width: int
) -> dict[tuple[int, ...], tuple[int, int]]:
    """`[state, digits]` to next state and digit."""
    found = {}
    for state, row in given.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"[transitions.{state}] is a table")
        for column, says in row.items():
            where = f"transitions.{state}.{column}"
            if len(column) != width or not set(column) <= set(digits):
                raise ValueError(
                    f"{where}: a column is {width} of the digits {digits}, one for each operand"
                )
            parts = says.split() if isinstance(says, str) else []
            if len(parts) != 2 or len(parts[0]) != 1 or parts[0] not in digits:
                raise ValueError(
                    f"{where} is written like '{digits[0]} {state}' (what is written, the next state), "
                    f"got {says!r}"
                )
            if parts[1] not in numbers:
                raise ValueError(f"{where} leads to {parts[1]!r}, no state")
            key = (numbers[state], *map(digits.index, column))
            found[key] = numbers[parts[1]], digits.index(parts[0])
        for column in map("".join, itertools.product(digits, repeat=width)):
            if column not in row:
                raise ValueError(f"transitions.{state} has a hole: nothing for {column!r}")
    return found


# What a class may define of its own and still be its table: all else changes more than the rule.
_IN_THE_TABLE = {"__init__", "step", "__repr__", "defaults", "letters"}


def as_table(task: Transducer) -> dict[str, Any] | None:
    """What `table_class` takes, of another task; None where the table is not all of it."""
    every = {**vars(Task), **vars(Transducer)}
    methods = {name for name, value in every.items() if callable(value)}
    methods |= {"operands", "growing", "fixed", "symbols", "tables", "propagating"}
    changed = {
        name for kind in type(task).__mro__ if kind not in Transducer.__mro__ for name in vars(kind)
    }
    rows = task.states * task.base ** len(task.operands)
    if changed & methods - _IN_THE_TABLE or rows > _MOST:
        return None
    names = [f"s{number}" for number in range(task.states)]
    letters, (next_state, written) = task.letters, task.tables
    transitions: dict[str, dict[str, str]] = {name: {} for name in names}
    for index in np.ndindex(written.shape):
        column = "".join(letters[digit] for digit in index[1:])
        says = f"{letters[written[index]]} {names[next_state[index]]}"
        transitions[names[index[0]]][column] = says
    segments: list[Any] = [
        {"digit": one.name} if one.kind == "digit" else one.name for one in task.segments
    ]
    if any(one.kind == "symbol" and one.character for one in task.segments):
        return None  # symbols of other names
    return {
        "name": task.name,
        "digits": letters,
        "segments": segments,
        "growth": task.growth,
        "writes": task.writes,
        "final": None if task.final_states is None else [names[s] for s in task.final_states],
        "start": names[task.start_state],
        "example": [*task.example],
        "length": task.length,
        "transitions": transitions,
    }
