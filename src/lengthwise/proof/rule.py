"""The rule of a task as a table: what a certificate binds, and what another program can check it by.

A task's name says nothing of its `step`. The table does: what is written for every state and column, what
the next state is, where a problem begins and where it may end.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lengthwise.files import write_text
from lengthwise.locality import NotApplicableError
from lengthwise.locality.patches import TooManyError, patches
from lengthwise.runs.folder import RULE
from lengthwise.tasks import DIGITS, Segment, Transducer, Worksheet
from lengthwise.tasks.framing import END
from lengthwise.tasks.near import CLOSED

FORMAT, SHEET_FORMAT = "lengthwise-rule/1", "lengthwise-sheet-rule/1"

# Rows of a table. Whatever has contexts within a proof's budget has fewer: 8 operands in base 3, 52,488.
LARGEST = 100_000

# Of sheets: multiplication in base 20 has 203,742.
LARGEST_SHEET = 250_000


def tabulate(task: Transducer) -> dict[str, Any]:
    """The rule as JSON values, always in the same order.

    Its keys are

    - format, and `task` and `base`, what the task is called;
    - segments: the source from left to right, name and kind of each (`tasks.Segment`), of a symbol its
      character;
    - start: the state before the first column;
    - growth: columns of zeros after the longest operand's last digit, before the end token;
    - writes: symbols of an answer, null for one in each column;
    - final: the states in which a problem may end, null for all;
    - table: `[state, digits, written, next state]` for every state that can occur and every column, whose
      digits are those of the segments that are no symbols.

    Raises:
        NotApplicableError: for a table of more than `LARGEST` rows.
        InputError: for a `step` that fails, writes no digit of the base, or leads to no state.
    """
    width = len(task.operands)
    table: list[tuple[int, tuple[int, ...], int, int]] = []
    reached, known = [task.start_state], {task.start_state}
    for state in reached:
        if len(reached) * task.base**width > LARGEST:
            raise NotApplicableError(
                f"the rule of {task.name} has a table of more than {LARGEST:,} rows (columns of {width} "
                f"digits in base {task.base}, {task.states} states), too many for a certificate to state"
            )
        for column in product(range(task.base), repeat=width):
            after, written = task.stepped(state, *column)
            table.append((state, column, written, after))
            if after not in known:
                known.add(after)
                reached.append(after)
    return {
        "format": FORMAT,
        "task": task.name,
        "base": task.base,
        "segments": [_segment(segment) for segment in task.segments],
        "start": task.start_state,
        "growth": task.growth,
        "writes": task.writes,
        "final": None if task.final_states is None else sorted(task.final_states),
        "table": sorted(table),
    }


def tabulate_sheet(task: Worksheet) -> dict[str, Any]:
    """As `tabulate`, of a worksheet.

    Its keys are

    - format, `task`, `base` and `segments`: as above, of an operand also its axis, and the zeros that are
      written before it; the tokens of its digits, if they are not those of the base; and `edge`, `r` where
      it is row -1, seen in the first row alone, `c` where it is column -1;
    - counters: where there are such, the separators that are counted by each letter that an axis may be;
    - tokens: the vocabulary, by which all else names them;
    - fields: of a cell, each with the tokens that may stand in it;
    - separators, and `end`, the token that ends a sheet;
    - follows: what a cell follows from, tokens near it;
    - table: `[sight, cell]`: for all that these may be, null where there is none, the tokens that are
      written: one for each field, or a separator or the end alone. Of a rule of more than `LARGEST_SHEET`
      sights for those alone that a cell can have (`lengthwise.locality.patches`); then `partial` is true.

    Raises:
        NotApplicableError: for a table of more than `LARGEST_SHEET` rows.
        InputError: for a `cell` that gives what is no cell.
    """
    partial = task.sights > LARGEST_SHEET
    table = sorted(_met_rows(task)) if partial else _all_rows(task)
    if len(table) > LARGEST_SHEET:
        raise NotApplicableError(
            f"the rule of {task.name} in base {task.base} has a table of {len(table):,} rows, more "
            f"than the {LARGEST_SHEET:,} that a certificate may state"
        )
    texts: dict[int, str | None] = {**dict(enumerate(task.tokens)), CLOSED: None}
    named = [
        [[texts[t] for t in sight], [texts[t] for t in cell if t != CLOSED]]
        for sight, cell in table
    ]
    return {
        "format": SHEET_FORMAT,
        "task": task.name,
        "base": task.base,
        "segments": [
            _segment(segment) if segment.kind == "symbol" else _operand(task, segment)
            for segment in task.segments
        ],
        **({"counters": {k: list(v) for k, v in task.counters.items()}} if task.counters else {}),
        **({"partial": True} if partial else {}),
        "tokens": list(task.tokens),
        "fields": [
            {"name": field.name, "tokens": task.tokens[first : first + field.size]}
            for field, first in zip(task.fields, task.first_token, strict=True)
        ],
        "separators": list(task.separators),
        "end": END,
        "follows": list(task.follows),
        "table": named,
    }


def _segment(segment: Segment) -> dict[str, Any]:
    text = {"text": segment.text} if segment.kind == "symbol" else {}
    return {"name": segment.name, "kind": segment.kind, **text}


def _operand(task: Worksheet, segment: Segment) -> dict[str, Any]:
    axis, texts = task.axis(segment.name), list(task.texts(segment.name))
    return {
        **_segment(segment),
        "axis": axis.counter,
        "zeros": task.zeros.get(segment.name, 0),
        **({} if texts == list(DIGITS[: task.base]) else {"tokens": texts}),
        **({} if axis.edge is None else {"edge": axis.edge}),
    }


Row = tuple[tuple[int, ...], tuple[int, ...]]


def _all_rows(task: Worksheet) -> list[Row]:
    """Every sight that alphabets allow, and what is written, as tokens."""
    found = []
    for index in np.ndindex(*(len(values) for values in task.alphabets)):
        sight = tuple(v[i][0] for v, i in zip(task.alphabets, index, strict=True))
        found.append((sight, tuple(task.table[(slice(None), *index)].tolist())))
    return found


def _met_rows(task: Worksheet) -> set[Row]:
    """The same of sights that a cell can have.

    Raises:
        NotApplicableError: where they are too many to enumerate.
    """
    try:
        relation = patches(task)
    except TooManyError as error:
        raise NotApplicableError(f"{error}, of the rule of {task.name}") from error
    tokens = [{symbol: token for token, symbol in values} for values in task.alphabets]
    places = [relation.names.index(near) for near in task.nears]
    found = set()
    for row in relation.rows:
        seen = [row[place] for place in places]
        sight = tuple(own[symbol] for own, symbol in zip(tokens, seen, strict=True))
        found.add((sight, task.written(seen)))
    return found


def rule_text(task: Transducer | Worksheet) -> str:
    """What `rule.json` holds: `tabulate` or `tabulate_sheet`, a row of the table in each line.

    Raises:
        NotApplicableError, InputError: as `tabulate`.
    """
    rule = tabulate_sheet(task) if isinstance(task, Worksheet) else tabulate(task)
    rows = ",\n  ".join(json.dumps(row) for row in rule.pop("table"))
    return f'{json.dumps(rule)[:-1]},\n "table": [\n  {rows}\n ]}}\n'


def save_rule(folder: Path, text: str) -> None:
    """Write `rule.json` into a folder; it appears whole or not at all."""
    write_text(folder / RULE, text)
