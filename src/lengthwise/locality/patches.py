"""All sights that the cells of a worksheet can have: the least set that is closed under the rule.

What a cell sees are digits of the source, and cells that are written before it. Each of these cells has a
sight of its own, out of the same set, and holds what the rule gives for it. So the set is built from the
first cell of a sheet on: a sight joins it where sights that are in it already fit together to show it. Two
fit where they agree on all that both of them know; and what lies at the edges of rows, operands and the
sheet obeys a few facts (`_fits`). It may hold sights that no problem shows, and lacks none (docs/proof.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from lengthwise.tasks.framing import END
from lengthwise.tasks.near import BEFORE, SHEET, Near, Symbol
from lengthwise.tasks.worksheet import Worksheet

# Whether a row, or a column, is the first; what digit an operand has there, as far as it matters (None, 0,
# or 1 for all others); what kind of cell is there, or just whether it is no separator.
FIRST, SOME, KIND, CELL = "first?", "some?", "kind?", "cell?"  # no name of a field or an operand
FIRST_ROW, FIRST_COLUMN = Near(FIRST, row=0), Near(FIRST, column=0)

# Rows of a relation, at most: more are no task for this way.
LARGEST = 5_000_000


class TooManyError(RuntimeError):
    """More sights fit together than anyone can look at."""


@dataclass
class Relation:
    """What several things can be together.

    Attributes:
        names: the things.
        rows: a value of each, in the same order.
    """

    names: tuple[Near, ...]
    rows: set[tuple]

    def join(self, other: Relation) -> Relation:
        """What both allow: rows that agree in all names that they share."""
        shared = [name for name in other.names if name in self.names]
        more = [name for name in other.names if name not in self.names]
        mine = [self.names.index(name) for name in shared]
        theirs = [other.names.index(name) for name in shared]
        added = [other.names.index(name) for name in more]
        index: dict[tuple, list[tuple]] = defaultdict(list)
        for row in other.rows:
            index[tuple(row[i] for i in theirs)].append(tuple(row[i] for i in added))
        rows: set[tuple] = set()
        for row in self.rows:
            rows.update(row + rest for rest in index.get(tuple(row[i] for i in mine), ()))
            if len(rows) > LARGEST:
                raise TooManyError(f"more than {LARGEST:,} sights fit together")
        return Relation((*self.names, *more), rows)

    def project(self, names: Iterable[Near]) -> Relation:
        """What some of the things can be together."""
        names = tuple(names)
        places = [self.names.index(name) for name in names]
        return Relation(names, {tuple(row[i] for i in places) for row in self.rows})

    def keep(self, task: Worksheet) -> Relation:
        """Without rows that do not fit the facts of `_Facts`."""
        facts = _Facts(task, self.names)
        return Relation(self.names, {row for row in self.rows if facts.hold(row)})


class _Facts:
    """What is true at the edges, whatever the problem.

    An operand has a digit in its first place, and in all places up to its last, and no others; where zeros
    are written before it, its last digits are these. One that is row -1, or column -1, is seen in the first
    row, or column, alone. In a row, cells stand up to its separator, and each row above has a first cell or
    is its separator alone. Left of the first column is nothing. The end stands nowhere before.
    """

    def __init__(self, task: Worksheet, names: tuple[Near, ...]) -> None:
        self.checks = []
        place = {name: number for number, name in enumerate(names)}
        for segment in task.operands:
            axis, zeros = task.axis(segment.name), task.zeros.get(segment.name, 0)
            known: dict[int, list[int]] = defaultdict(list)
            for name, number in place.items():
                if name.segment == segment.name:
                    steps = name.column if axis.by_column else name.row
                    known[steps or 0].append(number)
            first = place.get(FIRST_COLUMN if axis.by_column else FIRST_ROW)
            edge = {"r": FIRST_ROW, "c": FIRST_COLUMN}.get(axis.edge or "")
            self.checks.append((known, zeros, first, None if edge is None else place.get(edge)))
        self.rows: list[tuple[list[tuple[int, str]], list[tuple[int, str]], int | None, int]] = []
        cells: dict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
        lead = task.fields[0].name
        for name, number in place.items():
            if name.segment == SHEET:
                how = "" if name.field == lead else KIND if name.field == KIND else CELL
                cells[name.row or 0, name.column or 0].append((number, how))
        for (row, column), here in cells.items():
            before = cells.get((row, column - 1))
            if before:
                self.rows.append((before, here, place.get(FIRST_COLUMN), column - 1))
        self.first_row, self.first_column = place.get(FIRST_ROW), place.get(FIRST_COLUMN)
        self.above = [here for (row, _), here in cells.items() if row < 0]
        self.left = [here for (_, column), here in cells.items() if column < 0]
        self.heads = [here for offset, here in cells.items() if offset == (-1, 0)]
        self.others = [here for offset, here in cells.items() if offset != (0, 0)]

    def hold(self, values: tuple) -> bool:
        """Whether they hold in a row of a relation."""
        for known, zeros, first, edge in self.checks:
            beside = edge is None or values[edge]
            at_first = beside and first is not None and values[first]
            digits = {}
            for steps, found in known.items():
                several = {some(values[n]) for n in found}
                if len(several) > 1:
                    return False
                digits[steps] = digit = several.pop()
                if not beside and digit is not None:
                    return False
                if at_first and (
                    digit is not None if steps < 0 else steps <= zeros and digit is None
                ):
                    return False
            for steps, digit in digits.items():
                after = digits.get(steps + 1)
                if steps >= 0 and digit is None and after is not None:
                    return False
                if digit and zeros and digits.get(steps + zeros, digit) is None:
                    return False
        for before, here, first, column in self.rows:
            left, right = _kinds(values, before), _kinds(values, here)
            if len(left) > 1 or len(right) > 1:
                return False
            if left == {"cell"}:
                if right == {None}:
                    return False
            elif left and right - {None}:
                # Only before the first cell of a row is there nothing.
                at_first = first is None or values[first] == (column == -1)
                if left != {None} or column >= 0 or not at_first:
                    return False
        if any(END in _kinds(values, here) for here in self.others):
            return False
        at_first = self.first_column is not None and values[self.first_column]
        if at_first and any(_kinds(values, here) - {None} for here in self.left):
            return False
        if self.first_row is None:
            return True
        if values[self.first_row]:
            return all(_kinds(values, here) <= {None} for here in self.above)
        if at_first:
            return all(None not in _kinds(values, here) for here in self.heads)
        return True


def _kinds(values: tuple, found: list[tuple[int, str]]) -> set:
    """What kinds of a cell are told: none, where no field but a later one is known, and that is closed."""
    return {
        values[n] if how == KIND else "cell" if how == CELL else kind_of(values[n])
        for n, how in found
        if how != CELL or values[n] is not None
    }


def some(digit: Symbol) -> Symbol:
    """0 stays what it is, and none; every other digit is 1."""
    return min(1, digit) if isinstance(digit, int) else digit


def _as_far(how: str, symbol: Symbol) -> Symbol:
    """What is kept of a symbol: all of it, or `some`, `kind_of`, or whether there is one."""
    if how == SOME:
        return some(symbol)
    if how == CELL:
        return None if symbol is None else "cell"
    return kind_of(symbol) if how == KIND else symbol


def kind_of(symbol: Symbol) -> str | None:
    """Whether a first field is that of a cell, or which separator; None where there is none."""
    return "cell" if isinstance(symbol, int) else symbol


@lru_cache(maxsize=16)
def patches(task: Worksheet) -> Relation:
    """Every sight of a cell with what is written there.

    Its names are `task.nears`, then the cell's own fields (of a separator or the end the first is that, the
    others are closed), and whether its row and its column are the first.

    Raises:
        TooManyError: for a rule whose sights are too many, or that sees further than one row up.
    """
    own = [Near(SHEET, 0, 0, field.name) for field in task.fields]
    names = (*task.nears, *own, FIRST_ROW, FIRST_COLUMN)
    wanted = (*task.nears, Near(SHEET, 0, -1, task.fields[-1].name))  # the token before
    found = Relation(names, set())
    seen: dict[tuple[int, int], set[tuple]] = {}
    while True:
        around = {d: _around(task, found, d, wanted) for d in _offsets(task)}
        if {d: one.rows for d, one in around.items()} == seen:
            return found
        seen = {d: one.rows for d, one in around.items()}
        every = Relation((FIRST_ROW, FIRST_COLUMN), set(product((True, False), repeat=2)))
        for one in around.values():
            every = every.join(one).keep(task)
        for near in task.nears:
            if near.segment == BEFORE:
                every = _with_before(task, every)
            elif near not in every.names:
                every = every.join(Relation((near,), _digits(task, near))).keep(task)
        places = [every.names.index(near) for near in task.nears]
        edges = [every.names.index(FIRST_ROW), every.names.index(FIRST_COLUMN)]
        written: dict[tuple, tuple] = {}
        for row in every.rows:
            sight = tuple(row[i] for i in places)
            if sight not in written:
                written[sight] = _cell(task, sight)
            found.rows.add((*sight, *written[sight], *(row[i] for i in edges)))


def _digits(task: Worksheet, near: Near) -> set[tuple]:
    """What a digit of an operand can be, and nothing."""
    return {(value,) for value in (None, *range(len(task.texts(near.segment))))}


def _with_before(task: Worksheet, every: Relation) -> Relation:
    """With what was written before the cell: in a row's first column any separator, or the start."""
    names = every.names
    left = names.index(Near(SHEET, 0, -1, task.fields[-1].name))
    row, column = names.index(FIRST_ROW), names.index(FIRST_COLUMN)
    rows: set[tuple] = set()
    for values in every.rows:
        if not values[column]:
            rows.add((*values, values[left]))
        elif values[row]:
            rows.add((*values, None))
        else:
            rows.update((*values, text) for text in task.separators)
    return Relation((*names, Near(BEFORE)), rows)


def _cell(task: Worksheet, sight: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    cell = task.cell(*sight)
    if isinstance(cell, str):
        return (cell, *[None] * (len(task.fields) - 1))
    return tuple(cell)


def _offsets(task: Worksheet) -> list[tuple[int, int]]:
    """The cells that a cell sees, and in the rows above those before them, whose kind tells their end."""
    seen = [(near.row or 0, near.column or 0) for near in task.nears if near.segment == SHEET]
    found = {(0, -1): None} | dict.fromkeys(seen)
    for row, column in seen:
        if row < -1:
            raise TooManyError(
                f"the rule sees {-row} rows up, and one is as far as sights are enumerated"
            )
        found |= dict.fromkeys((row, place) for place in range(min(0, column), column) if row)
    return sorted(found, reverse=True)


def _around(
    task: Worksheet, found: Relation, offset: tuple[int, int], wanted: Collection[Near]
) -> Relation:
    """What a cell knows of another, so far away: its symbols, and what both see.

    Args:
        found: the sights of the other.
        offset: where it is, in rows and columns.
        wanted: what is kept as it is; of all else, what kind it is.
    """
    row, column = offset
    lead, known = task.fields[0].name, {offset, *_offsets(task)}
    known |= {(up, -1) for up, place in known if up and place >= 0}  # above the cell before
    keep: list[tuple[int, Near, str]] = []
    for number, name in enumerate(found.names):
        moved = name.moved(row, column)
        if name.segment == BEFORE or _elsewhere(task, moved, row):
            continue
        if name.segment == FIRST:
            if moved in (FIRST_ROW, FIRST_COLUMN):
                keep.append((number, moved, ""))
        elif moved in wanted:
            keep.append((number, moved, ""))
            if moved.segment == SHEET and moved.field == lead:
                keep.append((number, Near(SHEET, moved.row, moved.column, KIND), KIND))
        elif name.segment != SHEET:
            keep.append((number, Near(moved.segment, moved.row, moved.column, SOME), SOME))
        elif name.field == lead and ((moved.row, moved.column) in known or moved.row == 0):
            keep.append((number, Near(SHEET, moved.row, moved.column, KIND), KIND))
        elif name.field != lead and (moved.row, moved.column) in known:
            keep.append((number, Near(SHEET, moved.row, moved.column, CELL), CELL))
    # Where it is in a row above, this is not the first row; where before it in its row, not the first
    # column.
    edge = FIRST_ROW if row else FIRST_COLUMN
    first_column = found.names.index(FIRST_COLUMN)
    names = (*(name for _, name, _ in keep), edge)
    rows = {
        (*(_as_far(how, values[n]) for n, _, how in keep), False)
        for values in found.rows
        # No column is before the first.
        if not (column > 0 and values[first_column])
    }
    if row == 0:
        kind = names.index(Near(SHEET, 0, column, KIND))
        rows = {values for values in rows if values[kind] == "cell"}
    return Relation(names, rows | _absent(task, found, names, offset))


def _elsewhere(task: Worksheet, moved: Near, row: int) -> bool:
    """Whether what another cell sees of an operand can't be told in the coordinates of this one."""
    if moved.segment not in task.axes:
        return False
    axis = task.axis(moved.segment)
    at = {"r": moved.row, "c": moved.column}.get(axis.edge or "", -1)
    return at != -1 or (row != 0 and axis.counter in task.counters)


def _absent(
    task: Worksheet, found: Relation, names: tuple[Near, ...], offset: tuple[int, int]
) -> set[tuple]:
    """The same where there is no such cell: nothing is known but that."""
    choices = []
    for name in names:
        here = (name.row or 0, name.column or 0) == offset and name.segment == SHEET
        if here:
            choices.append([None])
        elif name in (FIRST_ROW, FIRST_COLUMN):
            choices.append([True, False])
        elif name.field == SOME:
            choices.append([None, 0, 1])
        elif name.field == CELL:
            choices.append([None, "cell"])
        elif name.field == KIND:
            choices.append([None, "cell", *task.separators])
        elif name.segment == SHEET:
            own = found.names.index(Near(SHEET, 0, 0, name.field))
            choices.append(sorted({values[own] for values in found.rows} | {None}, key=str))
        else:
            choices.append([None, *range(len(task.texts(name.segment)))])
    every = set(product(*choices))
    # The cell just before it in its row is missing in the first column alone.
    return {v for v in every if v[-1]} if offset == (0, -1) else every


def sights_of(task: Worksheet, names: Collection[Near]) -> Relation:
    """What a cell can see at some places, with what is written there: `patches`, and more joined to it.

    Args:
        names: tokens near the cell, besides the rule's own.

    Raises:
        TooManyError: where that is too much.
    """
    every = patches(task)
    wanted = [*task.nears, *names]
    for near in dict.fromkeys(names):
        if near in every.names:
            continue
        if near.segment == SHEET:
            offset = near.row or 0, near.column or 0
            other = _around(task, patches(task), offset, wanted)
        else:
            other = Relation((near,), _digits(task, near))
        every = every.join(other).keep(task)
    return every
