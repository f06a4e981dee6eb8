"""What is said of input that can't be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

# Characters of a message; a longer one repeats what somebody gave, and nobody reads that.
_LONGEST = 1500


class InputError(ValueError):
    """What a person gave can't be used; the message says what was given and what is allowed."""

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(str(message), _LONGEST))


class NoProblemsError(ValueError):
    """A split holds no problem of the length asked for."""


def library(name: str, advice: str) -> Any:
    """A library that an extra brings, imported.

    Raises:
        InputError: where it is not installed; the message is `advice`.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(advice) from error


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """`unknown task 'adition'; did you mean 'addition'? known: ...`"""
    names, given = sorted(known), shorten(given)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {given!r}{hint} known: {', '.join(names)}"


def shorten(text: str, most: int = 60) -> str:
    """A text without its middle, where it has more than so many characters."""
    if len(text) <= most:
        return text
    kept = (most - 3) // 2
    return f"{text[:kept]}...{text[-kept:]}"
