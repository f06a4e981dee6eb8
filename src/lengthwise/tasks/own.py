"""A task of a user's own: what its class must offer, checked before anything is made of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from lengthwise.errors import InputError
from lengthwise.own_code import check_class, told
from lengthwise.tasks.framing import FRAME
from lengthwise.tasks.transducer import Segment, Transducer
from lengthwise.tasks.worksheet import LARGEST_TABLE, Worksheet

KINDS = (Transducer, Worksheet)

_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Sights at which the rule of a sheet is asked where it has too many to ask it at all.
_ASKED = 20_000

# Rows of a table that are asked a second time, at most.
_AGAIN = 100_000

# What follows from `step`, and is what proofs speak about: a class can't say otherwise.
_FOLLOWS = ("answer", "stepped", "tables", "propagating")


def prepared(kind: type) -> type:
    """A class of a user's own as a task: with a name, and all that a task must offer.

    Its name is the one that it has, or its class's in small letters: `TimesThree` is `times_three`.

    Raises:
        InputError: in one sentence, for the first thing that is missing or wrong.
    """
    label = getattr(kind, "__name__", str(kind))
    check_class(kind, KINDS, "task", label)
    if "name" not in vars(kind):
        kind.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", label).lower()
    name = kind.name
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InputError(f"name of {label} is small letters, digits and _, got {name!r}")
    try:
        task = kind()
    except Exception as error:
        raise InputError(f"{label}() can't be made: {told(error)}") from error
    needed = ("axes", "follows") if isinstance(task, Worksheet) else ("growth",)
    for key in ("segments", "example", *needed):
        if not hasattr(task, key):
            raise InputError(f"{label} lacks {key}, which every task has")
    _check_common(task, label)
    check_letters(task)
    if isinstance(task, Worksheet):
        _check_sheet(task, label)
    else:
        for key in _FOLLOWS if has_rule(task) else ():
            if getattr(kind, key) is not getattr(Transducer, key):
                raise InputError(f"{label} defines {key}, which follows from step; leave it out")
        for key, least in (("growth", 0), ("states", 1)):
            value = getattr(task, key)
            if type(value) is not int or value < least:
                raise InputError(
                    f"{key} of {label} is a whole number from {least} up, got {value!r}"
                )
    return kind


def _check_common(task: Any, label: str) -> None:
    segments = task.segments
    if not isinstance(segments, tuple) or not all(isinstance(one, Segment) for one in segments):
        raise InputError(f"segments of {label} is a tuple of Segment, got {segments!r}")
    names = [one.name for one in segments]
    if len(set(names)) < len(names):
        raise InputError(f"segments of {label} have names of their own, got {', '.join(names)}")
    if not any(one.grows for one in segments):
        raise InputError(f"{label} has no operand that grows: Segment('a', 'operand')")
    for one in segments:
        if one.kind not in ("operand", "digit", "symbol"):
            raise InputError(
                f"segment {one.name} of {label} is an operand, a digit or a symbol, not {one.kind!r}"
            )
        if one.kind == "symbol" and len(one.text) != 1:
            raise InputError(f"symbol {one.text!r} of {label} is one character")
    example = task.example
    if not (isinstance(example, tuple) and len(example) == 2):
        raise InputError(f"example of {label} is an expression and its answer, got {example!r}")
    defaults = type(task).parameters
    if not isinstance(defaults, dict) or not all(type(v) in (int, str) for v in defaults.values()):
        raise InputError(f"parameters of {label} are names with numbers or texts, got {defaults!r}")


def check_letters(task: Any) -> None:
    """Refuse characters that do not tell digits and symbols apart; in a larger base there are more digits.

    Raises:
        InputError: for them.
    """
    letters = task.letters
    if isinstance(task, Transducer):
        if not isinstance(letters, str) or not len(letters) == len(set(letters)) == task.base:
            raise InputError(
                f"letters of {task.name} are a text of {task.base} different characters, one for each "
                f"digit, got {letters!r}"
            )
        strange = [c for c in letters if c.isspace() or c in FRAME]
        if strange:
            raise InputError(
                f"digit {strange[0]!r} of {task.name} is white space, or stands for a start or an end"
            )
    for one in task.segments:
        if one.kind == "symbol" and (
            one.text in letters or one.text in FRAME or one.text.isspace()
        ):
            raise InputError(
                f"symbol {one.text!r} of {task.name} is a digit in base {task.base}, white space, or "
                f"stands for a start or an end"
            )


def _check_sheet(task: Worksheet, label: str) -> None:
    try:
        _ = task.tokens, task.alphabets
        for segment in task.operands:
            task.axis(segment.name)
    except KeyError as error:
        raise InputError(f"axes of {label} lack the operand {error}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{label}: {error}") from error


def check_rule(task: Any) -> None:
    """Ask a rule all that it may be asked, as far as its table is small.

    Raises:
        InputError: where it fails, writes what is none of the task's symbols, or is no function.
    """
    if isinstance(task, Worksheet):
        if task.sights <= LARGEST_TABLE:
            _ = task.table
    elif has_rule(task):
        _ask_again(task)


def _ask_again(task: Transducer) -> None:
    """Ask a rule once more, the other way round: one that draws, or that remembers, is no rule."""
    next_state, written = task.tables
    for place in range(next_state.size - 1, -1, -(1 + next_state.size // _AGAIN)):
        index = tuple(map(int, np.unravel_index(place, next_state.shape)))
        if task.stepped(*index) != (next_state[index], written[index]):
            raise InputError(
                f"the rule of {task.name} gives another result when it is asked again, where state "
                f"{index[0]} reads {[*index[1:]]}; step must be a function of these alone"
            )


def has_rule(task: Any) -> bool:
    """Whether a task has a rule, rather than problems with answers alone."""
    return getattr(task, "ruled", True)


def lost_digits(task: Any) -> str | None:
    """Why answers may be longer than the columns that they get (`growth`); None where they are not.

    From every state that a problem can lead to, zeros must in the end write nothing but zeros. That is of
    answers that are read as numbers; others, and sheets, have no such limit.
    """
    if isinstance(task, Worksheet) or not has_rule(task) or task.writes is not None:
        return None
    if type(task).read is not Transducer.read:
        return None
    next_state, written = task.tables
    for digits in np.ndindex(*[task.base] * len(task.fixed)):
        column: list[Any] = [slice(None)] * len(task.operands)
        for place, digit in zip(task.fixed, digits, strict=True):
            column[place] = digit
        zero = tuple(0 if isinstance(one, slice) else one for one in column)
        reached, frontier = set[int](), {int(task.start_state)}
        while frontier:
            rows = next_state[(sorted(frontier), *column)]
            frontier = set(rows.ravel().tolist()) - reached
            reached |= frontier
        for _ in range(task.growth):
            reached = {int(next_state[(state, *zero)]) for state in reached}
        if task.final_states is not None:
            reached &= task.final_states
        seen = set[int]()
        while reached - seen:
            seen |= reached
            if any(written[(state, *zero)] for state in reached):
                return (
                    f"answers of {task.name} in base {task.base} can have more digits than its growth, "
                    f"{task.growth}, leaves them, and lose those; `lengthwise check-task` shows one"
                )
            reached = {int(next_state[(state, *zero)]) for state in reached}
    return None


def rule_digest(task: Any) -> str:
    """Sixteen hexadecimal digits that tell a task's rule from every other one.

    They bind the segments, the digits and the whole table of the rule; of a class that reads or writes
    problems in a way of its own (`read`, `parse`, `texts`, `objection`, `admit`) also what these make of
    some problems, always the same ones. Of a sheet whose table is too large they bind 20,000 cells.
    """
    shown = [task.base, [(s.name, s.kind, s.text) for s in task.segments], task.letters]
    if isinstance(task, Worksheet):
        shown += [task.follows, task.tokens, sorted(task.axes.items()), task.separators]
        data = _table_of(task)
    elif has_rule(task):
        shown += [task.growth, task.states, task.start_state, task.writes]
        shown += [sorted(task.final_states) if task.final_states is not None else None]
        next_state, written = task.tables
        data = next_state.astype(np.int64).tobytes() + written.tobytes()
        if type(task).read is not Transducer.read:  # then an answer is what it says
            some = np.random.default_rng(0).integers(0, task.base, (64, 8), np.uint8)
            readings = [_or_refused(lambda row: str(task.read(row)), row) or "" for row in some]
            data += repr(readings).encode()
    else:
        data = task.file_digest.encode()
    if has_rule(task) and (own := _own_ways(task)):
        data += repr(own).encode()
    return hashlib.sha256(repr(shown).encode() + data).hexdigest()[:16]


def _own_ways(task: Any) -> list[Any]:
    """What a class with ways of its own to write problems makes of some; nothing of one without."""
    kind = type(task)
    base: Any = Worksheet if isinstance(task, Worksheet) else Transducer
    found: list[Any] = []
    if kind.texts is not base.texts:
        found.append([_or_refused(task.texts, one.name) for one in task.operands])
    if (kind.parse, kind.objection) != (base.parse, base.objection):
        rng = np.random.default_rng(0)
        some = ["".join(_some_text(task, one, rng) for one in task.segments) for _ in range(64)]
        found.append([(text, _or_refused(task.parse, text)) for text in (task.example[0], *some)])
    if kind.admit is not base.admit and isinstance(task, Transducer):
        digits = np.random.default_rng(0).integers(
            0, task.base, (64, len(task.operands), 8), np.uint8
        )
        digits[:, task.fixed, 1:] = 0
        kept = _or_refused(task.admit, digits)
        found.append(kept.tolist() if isinstance(kept, np.ndarray) else kept)
    return found


def _some_text(task: Any, segment: Segment, rng: np.random.Generator) -> str:
    if segment.kind == "symbol":
        return segment.text
    letters = _or_refused(task.texts, segment.name) or [""]
    many = 1 if segment.kind == "digit" else int(rng.integers(1, 7))
    return "".join(letters[int(place)] for place in rng.integers(0, len(letters), many))


def _or_refused(method: Callable[..., Any], *given: Any) -> Any:
    """What a user's method gives, which may refuse what is none of its problems or answers."""
    try:
        return method(*given)
    except Exception:
        return None


def _table_of(task: Worksheet) -> bytes:
    if task.sights <= LARGEST_TABLE:
        return task.table.tobytes()
    # Always the same ones; what can't stand there may be refused.
    rng, found = np.random.default_rng(0), []
    for _ in range(_ASKED):
        seen = [values[rng.integers(len(values))][1] for values in task.alphabets]
        try:
            found.append(task.written(seen))
        except InputError:
            found.append(())
    return repr(found).encode()
