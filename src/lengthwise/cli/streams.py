"""Standard streams that are missing, full, or can't show every character."""

from __future__ import annotations

import os
import sys

_NAMES = ("stdin", "stdout", "stderr")


def prepare_streams() -> None:
    """Give missing streams the null device, so that no file of ours gets their number, and let the
    others show a character that they lack by its number.

    `sys.stdin` stays None where it was missing: who wants to read must hear of it.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
        if number and getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
        stream = getattr(sys, name)
        if number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> OSError | None:
    """Write out what is held back; what can't be is dropped, and the first error returned.

    The interpreter would try again as it ends, and then complain itself.
    """
    first = None
    for number, name in enumerate(_NAMES[1:], start=1):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except OSError as error:
            first = first or error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
    return first
