"""Any Turing machine: a tape, to the tape on which the machine halts; a row for each step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from lengthwise.errors import InputError
from lengthwise.tasks.framing import END
from lengthwise.tasks.machine import LEFT, RIGHT, Machine, read_machine
from lengthwise.tasks.near import Cell, Field, Symbol, number
from lengthwise.tasks.transducer import Segment
from lengthwise.tasks.worksheet import Worksheet, sheet_settings

# Shares of random tapes that hold no head, and that hold another one past the first.
_HEADLESS, _TWO = 0.1, 0.2


class TuringMachine(Worksheet):
    """`01011` is 01100 for the machine `increment`: the tape after each step, until the machine halts.

    A cell is a symbol with what the cell knows of the head: it is further right or nowhere (`1`), here in
    some state (`(carry)1`), or further left (`1.`). So no row has two heads, and that is seen cell by cell:
    of several in the tape that is given the first counts. The head starts at the first symbol in the start
    state, or where the tape says (`01(carry)011`).

    The tape ends on the left, where a move to the left stays. It grows by a cell when the head leaves it on
    the right. The row below one in which the machine has halted ends at the head: there is the end. A tape
    without a head ends as it is.
    """

    name = "turing_machine"
    segments = (Segment("tape", "operand"),)
    axes: ClassVar = {"tape": "r-1,c"}
    from_left: ClassVar = frozenset(("tape",))
    numbers = False
    endless = True
    varies = True
    bases = (2,)
    follows = (
        "tape[r-1,c]",
        *(f"sheet[r-1,{place}].cell" for place in ("c-1", "c", "c+1")),
        "sheet[r,c-1].cell",
    )
    parameters: ClassVar = {"machine": "increment"}
    example = ("01011", "01100")
    settings: ClassVar = sheet_settings((7, 6), (8, 12), "7x6", "8x12", "20x20", "100x100")

    def __init__(self, base: int | None = None, machine: str = "increment") -> None:
        super().__init__(base)
        self.machine: Machine = read_machine(machine)
        self.example = self.machine.example, type(self).example[1]

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        own = self.machine
        # Before the head or without one, with the head, past the head.
        texts = [
            *own.symbols,
            *(f"({state}){symbol}" for state in own.every_state for symbol in own.symbols),
            *(f"{symbol}." for symbol in own.symbols),
        ]
        shown = tuple(text.removesuffix(".") for text in texts)
        return (Field("cell", len(texts), tuple(texts), shown),)

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Symbols, and the first value past the head."""
        symbols = len(self.machine.symbols)
        return symbols, symbols * (1 + len(self.machine.every_state))

    def texts(self, operand: str) -> tuple[str, ...]:
        own = self.machine
        return self.fields[0].texts[: len(own.symbols) * (1 + len(own.states))]

    def _head(self, cell: Symbol) -> tuple[int, int] | None:
        """State and symbol under the head, where it is in a cell."""
        symbols, past = self._sizes
        if not isinstance(cell, int) or not symbols <= cell < past:
            return None
        return divmod(cell - symbols, symbols)

    def _moved(self, cell: Symbol) -> tuple[int, int, int] | None:
        """What the machine writes, where it goes and its next state, where the head is in a cell."""
        head = self._head(cell)
        return None if head is None else self.machine.table.get(head)

    def _coming(self, cell: Symbol, way: int) -> int | None:
        """The state in which the head comes out of a cell beside, by a move that way, where it does."""
        move = self._moved(cell)
        return None if move is None or move[1] != way else move[2]

    def cell(self, *seen: Symbol) -> Cell:
        given, left, own, right, before = seen
        symbols, past = self._sizes
        if own is None and left is None:  # the first row
            if given is None:
                return END if isinstance(before, int) and before < symbols else ";"
            return (self._copy(number(given), before),)
        if own is None:
            return ";"
        comes = self._coming(left, RIGHT)
        if not isinstance(own, int):
            return ";" if comes is None else (symbols * (1 + comes) + self.machine.blank,)
        head, symbol = self._head(own), own % symbols
        if head is not None:
            move = self._moved(own)
            if move is None:
                return END  # the machine has halted
            symbol, way, state = move
            if way == RIGHT:
                return (symbol,)
            if way == LEFT and left is not None:
                return (past + symbol,)
            return (symbols * (1 + state) + symbol,)
        if comes is None and own < symbols:
            comes = self._coming(right, LEFT)
        return (own,) if comes is None else (symbols * (1 + comes) + symbol,)

    def _copy(self, given: int, before: Symbol) -> int:
        """A cell of the first row: as given, and past the first head none."""
        symbols, past = self._sizes
        if before is None or (isinstance(before, int) and before < symbols):
            return given
        return past + given % symbols

    def admit(
        self, rng: np.random.Generator, operands: list[np.ndarray], *, begin: bool = False
    ) -> list[np.ndarray]:
        """A head in some state somewhere, now and then none, or a second one."""
        (tape,) = operands
        symbols, states = len(self.machine.symbols), len(self.machine.states)
        tape, kinds = tape % symbols, rng.random(len(tape))
        for share in (1.0,) if begin else (1 - _HEADLESS, _TWO):
            place = rng.integers(0, 1 if begin else tape.shape[1], len(tape))
            state = rng.integers(0, states, len(tape))
            if begin:
                state[:] = self.machine.start
            chosen = np.flatnonzero(kinds < share)
            at = chosen, place[chosen]
            tape[at] = symbols * (1 + state[chosen]) + tape[at] % symbols
        return [tape]

    def parse(self, expression: str) -> list[list[str]]:  # type: ignore[override]
        own, text = self.machine, "".join(expression.split())
        hint = f"{own.name} takes tapes like {own.example!r}; (state) stands before the head"
        found, position = [], 0
        for match in re.finditer(r"(?:\((\w+)\))?(.)", text):
            state, symbol = match.groups()
            if state is not None and state not in own.states:
                raise InputError(f"{own.name} has no state {state!r} to start from; {hint}")
            if symbol not in own.symbols:
                raise InputError(
                    f"unexpected {symbol!r} at position {match.start(2) + 1} of {text[:40]!r}; {hint}"
                )
            found.append(symbol if state is None else f"({state}){symbol}")
            position = match.end()
        if not found or position != len(text):
            raise InputError(f"{text[:40]!r} is no tape; {hint}")
        if not any("(" in cell for cell in found):
            found[0] = f"({own.states[own.start]}){found[0]}"
        return [found]

    def room(self, columns: int, rows: int) -> tuple[int, int]:
        return columns + rows + 1, rows - 1

    def answer(self, rows: list[np.ndarray]) -> list[int]:
        """The row in which the machine halted; the one below it ends at the head."""
        halted = [self._head(int(v)) for v in rows[-1][:, 0]]
        whole = any(head is not None and head not in self.machine.table for head in halted)
        return rows[-1 if whole or not rows[1:] else -2][:, 0].tolist()

    def read(self, answer: Sequence[int]) -> str:
        own = self.machine
        tape = "".join(own.symbols[value % len(own.symbols)] for value in answer)
        return tape.rstrip(own.symbols[own.blank]) or own.symbols[own.blank]
