"""What defines a task besides its base: a table of the settings, with the task's own names and defaults."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from lengthwise.arguments import as_text, as_whole
from lengthwise.errors import InputError, shorten, unknown
from lengthwise.files import from_toml, read_text
from lengthwise.tasks import ALL_TASKS

# What the table is called in the settings.
TABLE = "parameters"


class Chosen(dict[str, Any]):
    """The values of all parameters of a task, or of all settings of a method; they stay as they are.

    Attributes:
        given: the names of those that were set, rather than filled in.
    """

    def __init__(self, values: Mapping[str, Any] = {}, given: Iterable[str] = ()) -> None:
        super().__init__(values)
        self.given = frozenset(given)


def parameter_names() -> set[str]:
    """Those of all tasks."""
    return {name for task in ALL_TASKS.values() for name in task.parameters}


def fill(task: str, given: object) -> Chosen:
    """A task's parameters, with its own defaults for those that are not given, or are None.

    Raises:
        InputError: for what is no table, a name that the task does not know, a value that is not of the
            type of its default, and a number below 1, or of those that may be 0 below that.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{TABLE} is a table of names and values, got {given!r}")
    defaults, chosen = ALL_TASKS[task].parameters, {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in defaults:
            raise InputError(_stranger(task, str(name)))
        default = defaults[name]
        if isinstance(default, str):
            chosen[name] = as_text(f"{name} of {task}", value, shorten(default))
        else:
            least = 0 if name in getattr(ALL_TASKS[task], "from_zero", ()) else 1
            chosen[name] = as_whole(f"{name} of {task}", value, least)
    return Chosen({**defaults, **chosen}, chosen)


def _stranger(task: str, name: str) -> str:
    """What is said of a name that is no parameter of the task."""
    takers = [other for other, kind in ALL_TASKS.items() if name in kind.parameters]
    if takers:
        return f"{task} takes no {name}; {', '.join(takers)} {'do' if takers[1:] else 'does'}"
    return unknown(f"setting in [{TABLE}]", name, ALL_TASKS[task].parameters or parameter_names())


def gather(values: Mapping[str, Any], settings: Container[str]) -> dict[str, Any]:
    """Settings with all parameters in their table; they may be given beside it, too, without its name.

    Args:
        values: nested settings, which stay as they are.
        settings: names that are settings and no parameters, whatever a task calls its own.

    Raises:
        InputError: where one has two values.
    """
    table = values.get(TABLE, {})
    if not isinstance(table, Mapping):
        return dict(values)
    table, others = dict(table), {key: value for key, value in values.items() if key != TABLE}
    for name in sorted(parameter_names() & others.keys()):
        if name in settings:
            continue
        value = others.pop(name)
        if value is not None and table.setdefault(name, value) != value:
            raise _contradiction(name, value, f"{TABLE}.{name}", table[name])
    return {**others, TABLE: table} if table or TABLE in values else others


def gather_assignments(
    assignments: Iterable[tuple[str, Any]], settings: Container[str]
) -> list[tuple[str, Any]]:
    """Settings by their dotted names, with their values, where all parameters have the name of their table.

    A text is that of a file where it names one.

    Raises:
        InputError: where one is given by both of its names, with two values.
    """
    gathered, known = [], parameter_names()
    said: dict[str, tuple[str, Any]] = {}
    for key, value in assignments:
        for name, inner in value.items() if key == TABLE and isinstance(value, Mapping) else ():
            before, other = said.setdefault(f"{TABLE}.{name}", (f"{TABLE}.{name}", inner))
            if other != inner:
                raise _contradiction(before, other, f"{TABLE}.{name}", inner)
        full = f"{TABLE}.{key}" if key in known and key not in settings else key
        if full.startswith(f"{TABLE}."):
            before, other = said.setdefault(full, (key, value))
            if before != key and other != value:
                raise _contradiction(before, other, key, value)
            value = content(full.removeprefix(f"{TABLE}."), value, Path())
        gathered.append((full, value))
    return gathered


def _contradiction(first: str, value: Any, second: str, other: Any) -> InputError:
    return InputError(
        f"{first}={value} and {second}={other} contradict each other; give one of them"
    )


def content(name: str, value: Any, *folders: Path) -> Any:
    """The text of the file that a parameter names; the value itself where it names none.

    Args:
        name: of the parameter.
        value: what is given for it; only where the task wants a text it may be a path, which has a `/` or a
            suffix.
        folders: where the file may lie, in this order.

    Raises:
        InputError: for a file that can't be read.
    """
    of_text = any(isinstance(task.parameters.get(name), str) for task in ALL_TASKS.values())
    if not of_text or not isinstance(value, str) or not ("/" in value or Path(value).suffix):
        return value
    for folder in folders:
        path = folder / os.path.expanduser(value)
        if os.path.isfile(path):  # which takes any text; that of a task may be no path at all
            try:
                return read_text(path)
            except OSError as error:
                raise InputError(f"{TABLE}.{name}: can't read {path}: {error.strerror}") from error
            except ValueError as error:
                raise InputError(f"{TABLE}.{name}: {path}: {error}") from error
    return value


def key_and_value(assignment: str) -> tuple[str, Any]:
    """The setting that `KEY=VALUE` names, and its value.

    Raises:
        InputError: for a text that is none.
    """
    key, separator, text = assignment.partition("=")
    if not separator or not key:
        raise InputError(f"--set takes KEY=VALUE, got {assignment!r}")
    return key.strip(), as_value(text.strip())


def as_value(text: str) -> Any:
    """A value as TOML reads it; anything else is text."""
    try:
        values = from_toml(f"value = {text}")
    except ValueError:
        return text
    # A text of several lines may set more than one value.
    return values["value"] if len(values) == 1 else text
