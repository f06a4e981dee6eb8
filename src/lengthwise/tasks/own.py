"""A task of a user's own: what its class must offer, checked before anything is made of it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from lengthwise.errors import InputError
from lengthwise.own_code import check_class, told
from lengthwise.tasks.transducer import Segment, Transducer
from lengthwise.tasks.worksheet import LARGEST_TABLE, Worksheet

KINDS = (Transducer, Worksheet)

_NAME = re.compile(r"[a-z][a-z0-9_]*")

# Sights at which the rule of a sheet is asked where it has too many to ask it at all.
_ASKED = 20_000


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
    for key in ("segments", "example", *_needed(kind)):
        if not hasattr(task, key):
            raise InputError(f"{label} lacks {key}, which every task has")
    _check_common(task, label)
    if isinstance(task, Worksheet):
        _check_sheet(task, label)
    else:
        for key, least in (("growth", 0), ("states", 1)):
            value = getattr(task, key)
            if type(value) is not int or value < least:
                raise InputError(
                    f"{key} of {label} is a whole number from {least} up, got {value!r}"
                )
    return kind


def _needed(kind: type) -> tuple[str, ...]:
    return ("axes", "follows") if issubclass(kind, Worksheet) else ("growth",)


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
        if one.kind == "symbol" and (len(one.text) != 1 or one.text in task.letters):
            raise InputError(f"symbol {one.text!r} of {label} is one character, and no digit")
    example = task.example
    if not (isinstance(example, tuple) and len(example) == 2):
        raise InputError(f"example of {label} is an expression and its answer, got {example!r}")
    defaults = type(task).parameters
    if not isinstance(defaults, dict) or not all(type(v) in (int, str) for v in defaults.values()):
        raise InputError(f"parameters of {label} are names with numbers or texts, got {defaults!r}")


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
        InputError: where it fails, or writes what is none of the task's symbols.
    """
    if isinstance(task, Worksheet):
        if task.sights <= LARGEST_TABLE:
            _ = task.table
    elif has_rule(task):
        _ = task.tables


def has_rule(task: Any) -> bool:
    """Whether a task has a rule, rather than problems with answers alone."""
    return getattr(task, "ruled", True)


def rule_digest(task: Any) -> str:
    """Sixteen hexadecimal digits that tell a task's rule from every other one."""
    shown = [task.base, [(s.name, s.kind, s.text) for s in task.segments], task.letters]
    if isinstance(task, Worksheet):
        shown += [task.follows, task.tokens, sorted(task.axes.items()), task.separators]
        data = _table_of(task)
    elif has_rule(task):
        shown += [task.growth, task.states, task.start_state, task.writes]
        shown += [sorted(task.final_states) if task.final_states is not None else None]
        next_state, written = task.tables
        data = next_state.astype(np.int64).tobytes() + written.tobytes()
    else:
        data = task.file_digest.encode()
    return hashlib.sha256(repr(shown).encode() + data).hexdigest()[:16]


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
