"""Turing machines as files: TOML, read and checked.

```
name = "binary increment"
symbols = ["0", "1", "_"]
blank = "_"
start = "right"
halting = ["done"]

[transitions.right]
0 = "0 R right"
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

from lengthwise.files import from_toml

LEFT, STAY, RIGHT = -1, 0, 1
_MOVES = {"L": LEFT, "N": STAY, "R": RIGHT}
_KEYS = {
    *("name", "source", "example", "symbols", "blank", "start", "halting", "halts_on_missing"),
    "transitions",
}

# Symbols and states together: cells are told apart by numbers of eight bits.
_MOST = 200


@dataclass(frozen=True)
class Machine:
    """A Turing machine.

    Attributes:
        name: of it.
        example: a tape to start from, as `TuringMachine.parse` reads it.
        symbols: of the tape, one character each.
        blank: which of them a new cell holds.
        states: those in which it goes on.
        halting: those in which it has halted.
        start: which of `states` it starts in.
        table: of each state and symbol what is written, the move and the next state, by their numbers;
            halting states, numbered after the others, have none.
    """

    name: str
    example: str
    symbols: tuple[str, ...]
    blank: int
    states: tuple[str, ...]
    halting: tuple[str, ...]
    start: int
    table: Mapping[tuple[int, int], tuple[int, int, int]] = field(hash=False)

    @cached_property
    def every_state(self) -> tuple[str, ...]:
        """Those in which it goes on, then those in which it has halted."""
        return (*self.states, *self.halting)


def shipped() -> dict[str, str]:
    """The machines that come with the package: the text of each, by its name."""
    folder = resources.files("lengthwise.tasks") / "machines"
    files = [one for one in folder.iterdir() if one.name.endswith(".toml")]
    return {
        one.name.removesuffix(".toml"): one.read_text("utf-8") for one in sorted(files, key=str)
    }


@lru_cache(maxsize=64)
def read_machine(text: str) -> Machine:
    """Read a machine: the name of one that is shipped, or TOML.

    Raises:
        ValueError: in one line, for what is none.
    """
    known = {} if "\n" in text else shipped()
    if "\n" not in text and ("/" in text or text.endswith(".toml")):
        raise ValueError(f"there is no file {text[:200]!r} for machine")
    if "\n" not in text and text not in known:
        raise ValueError(f"machine is a TOML file, or one of {', '.join(known)}, not {text[:60]!r}")
    try:
        values = from_toml(known.get(text, text))
    except ValueError as error:
        raise ValueError(f"the machine is no TOML: {error}") from error
    return _checked(values)


def _checked(values: dict[str, Any]) -> Machine:
    strange = sorted(set(values) - _KEYS)
    if strange:
        raise ValueError(f"a machine has no {strange[0]!r}; it has {', '.join(sorted(_KEYS))}")
    symbols = _texts(values, "symbols")
    halting = _texts(values, "halting", least=0)
    blank, start = values.get("blank"), values.get("start")
    rows = values.get("transitions")
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError("a machine has a table [transitions.STATE] for each of its states")
    if any(len(symbol) != 1 or symbol in "().;^$" or symbol.isspace() for symbol in symbols):
        raise ValueError("symbols of a machine are single characters, none of ( ) . ; ^ $")
    if blank not in symbols:
        raise ValueError(f"blank {blank!r} is none of the symbols {', '.join(symbols)}")
    states, missing = tuple(rows), values.get("halts_on_missing", False)
    if not isinstance(missing, bool):
        raise ValueError("halts_on_missing is true or false")
    if missing and not halting:
        halting = ("halted",)
    if start not in states:
        raise ValueError(f"start {start!r} is no state with transitions; {', '.join(states)} are")
    both = sorted({*states} & {*halting})
    if both or not halting:
        raise ValueError(
            f"state {both[0]!r} halts and goes on" if both else "a machine has halting states"
        )
    if not all(state.replace("_", "").isalnum() for state in (*states, *halting)):
        raise ValueError("names of states are letters, digits and _")
    if len(symbols) * (2 + len(states) + len(halting)) > _MOST:
        raise ValueError(f"symbols x (states + 2) is at most {_MOST} here")
    numbers = {state: number for number, state in enumerate((*states, *halting))}
    table = {}
    for state, row in rows.items():
        for symbol, says in row.items():
            if symbol not in symbols:
                raise ValueError(f"[transitions.{state}] has the symbol {symbol!r}, which is none")
            parts = says.split() if isinstance(says, str) else []
            if len(parts) != 3 or parts[0] not in symbols or parts[1] not in _MOVES:
                raise ValueError(
                    f"transitions.{state}.{symbol} is written like '{symbols[0]} R {state}' (what is "
                    f"written; L, R or N; the next state), got {says!r}"
                )
            if parts[2] not in numbers:
                raise ValueError(f"transitions.{state}.{symbol} leads to {parts[2]!r}, no state")
            table[numbers[state], symbols.index(symbol)] = (
                symbols.index(parts[0]),
                _MOVES[parts[1]],
                numbers[parts[2]],
            )
    for state in states:
        for number, symbol in enumerate(symbols):
            key = numbers[state], number
            if key not in table:
                if not missing:
                    raise ValueError(
                        f"transitions.{state} has none for {symbol!r}; say halts_on_missing = true where "
                        f"the machine halts there"
                    )
                table[key] = number, STAY, numbers[halting[0]]
    name, example = values.get("name", "machine"), values.get("example", symbols[0] * 3)
    return Machine(
        *(str(name), str(example), symbols, symbols.index(blank)),
        *(states, halting, numbers[start], table),
    )


def _texts(values: dict[str, Any], key: str, least: int = 1) -> tuple[str, ...]:
    found = values.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise ValueError(f"{key} of a machine is a list of texts, got {found!r}")
    if len(found) < least or len(set(found)) < len(found):
        raise ValueError(f"{key} of a machine is a list of different texts, got {found!r}")
    return tuple(found)
