"""What people pass to functions, made what functions work with: one or many, text or path, any number.

Each function takes the argument's name first, for the error. What can't be used is an `InputError` that
names the argument, what was given and what would do.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lengthwise.errors import InputError, shorten, unknown

# More than anyone asks for at once; keeps an endless range from being listed.
_MOST = 10_000


def refuse(name: str, wanted: str, given: object) -> NoReturn:
    """Raise the error: `lengths takes whole numbers from 1 up; got 'x'`."""
    if isinstance(given, str):
        shown = repr(shorten(str(given)))
    else:
        shown = shorten(" ".join(reprlib.repr(given).split()))
    raise InputError(f"{name} takes {wanted}; got {shown}")


def as_whole(name: str, given: object, least: int = 0, most: int | None = None) -> int:
    """A whole number, of any integer type (numpy's and torch's too).

    Raises:
        InputError: for what is none, or is less than `least` or more than `most`; for floats and text that
            look like one, too.
    """
    wanted = f"a whole number from {least} up, such as {max(least, 6)}"
    try:
        # A truth value would pass for 0 or 1.
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = None
    if number is None or number < least:
        refuse(name, wanted, given)
    if most is not None and number > most:
        raise InputError(f"{name} must be at most {most}, got {number}")
    return number


def as_wholes(name: str, given: object) -> list[int]:
    """One or several whole numbers from 1 up: a number, a list, a range, an array, ...

    Raises:
        InputError: for what holds something else, nothing, or more than anyone asks for.
    """
    wanted = "whole numbers from 1 up, such as 60, [6, 60] or range(1, 61)"
    many = _many(name, given, wanted)
    try:
        numbers = [as_whole(name, one, 1) for one in many]
    except InputError:
        numbers = []
    if not numbers:
        refuse(name, wanted, given)
    return numbers


def as_number(name: str, given: object) -> float:
    """A finite number, 0 or more.

    Raises:
        InputError: for what is none.
    """
    real = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not real or not math.isfinite(number := float(given)) or number < 0:  # type: ignore[arg-type]
        refuse(name, "a number from 0 up", given)
    return number


def as_flag(name: str, given: object) -> bool:
    """True or False.

    Raises:
        InputError: for everything else: the text "no" would count as true.
    """
    if not isinstance(given, bool | np.bool_):
        refuse(name, "True or False", given)
    return bool(given)


def as_text(name: str, given: object, example: str) -> str:
    """A text.

    Raises:
        InputError: for everything else.
    """
    if not isinstance(given, str):
        refuse(name, f"text, such as {example!r}", given)
    return str(given)


def as_texts(name: str, given: object, example: str, most: int | None = _MOST) -> list[str]:
    """One text or several.

    Raises:
        InputError: for what holds something else.
    """
    wanted = f"text, such as {example!r}, or several"
    many = _many(name, given, wanted, most)
    if not all(isinstance(one, str) for one in many):
        refuse(name, wanted, given)
    return [str(one) for one in many]


def as_choice(name: str, given: object, known: Iterable[str]) -> str:
    """One of a few words.

    Raises:
        InputError: for another, with the nearest.
    """
    known = tuple(known)
    if not isinstance(given, str):
        refuse(name, f"one of {', '.join(map(repr, known))}", given)
    if given not in known:
        raise InputError(unknown(name, given, known))
    return str(given)


def as_choices(name: str, given: object, known: Iterable[str]) -> list[str]:
    """One of a few words, or several.

    Raises:
        InputError: for others, and for none.
    """
    known = tuple(known)
    chosen = as_texts(name, given, known[0])
    if not chosen:
        refuse(name, f"at least one of {', '.join(map(repr, known))}", given)
    return [as_choice(name.removesuffix("s"), one, known) for one in chosen]


def as_path(name: str, given: object, example: str) -> Path:
    """A path: text, a path, or what has one as its `path`, as a run has its folder. `~` is the home.

    Raises:
        InputError: for everything else.
    """
    held = given if isinstance(given, str | os.PathLike) else getattr(given, "path", None)
    if isinstance(held, str | os.PathLike):
        text = os.fspath(held)
        if isinstance(text, str) and text and "\0" not in text:
            return Path(os.path.expanduser(text))
    refuse(name, f"a path, such as {example!r}", given)


def as_folder(name: str, given: object, example: str = "runs/addition") -> Path:
    """The path of a folder, which need not be there.

    Raises:
        InputError: where it is a file.
    """
    path = as_path(name, given, example)
    if path.is_file():
        raise InputError(f"{name} takes a folder, such as {example!r}; {path} is a file")
    return path


def as_file(name: str, given: object, example: str) -> Path:
    """The path of a file, which need not be there.

    Raises:
        InputError: where it is a folder.
    """
    path = as_path(name, given, example)
    if path.is_dir():
        raise InputError(
            f"{name} takes a file, such as {str(path / example)!r}; {path} is a folder"
        )
    return path


def as_assignments(name: str, given: object) -> list[str]:
    """Settings as the command line writes them: `"training.max_steps=5"`, several, or a mapping.

    Raises:
        InputError: for everything else.
    """
    example = "training.max_steps=5"
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [f"{key}={_as_toml(key, value)}" for key, value in _flat(name, given)]
    return as_texts(name, given, example)


def _flat(name: str, values: Mapping) -> Iterable[tuple[str, Any]]:
    """A mapping's keys, dotted where it holds others, with their values."""
    for key, value in values.items():
        if not isinstance(key, str) or not key:
            refuse(name, "settings by their names, such as {'training.max_steps': 5}", values)
        if isinstance(value, Mapping):
            yield from ((f"{key}.{rest}", inner) for rest, inner in _flat(name, value))
        else:
            yield key, value


def _as_toml(key: str, value: Any) -> str:
    """A value as a settings file writes it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple | range):
        return f"[{', '.join(_as_toml(key, one) for one in value)}]"
    refuse(key, "a number, a text, True or False, or a list of them", value)


def _many(name: str, given: object, wanted: str, most: int | None = _MOST) -> list[Any]:
    """What is given, as a list: of one, unless it is a collection."""
    if given is None or isinstance(given, Mapping):
        refuse(name, wanted, given)
    if isinstance(given, str | bytes):
        return [given]
    try:
        values = iter(given)  # type: ignore[call-overload]  # that is the question
    except TypeError:  # an array without axes has an iterator that refuses
        return [given]
    found = list(values if most is None else islice(values, most + 1))
    if most is not None and len(found) > most:
        raise InputError(f"{name} takes at most {most:,} values at once")
    if isinstance(given, set | frozenset):
        with contextlib.suppress(TypeError):  # what has no order
            found.sort()
    return found
