"""Running the command line: what a person can mend becomes one line and an exit code.

Exit codes: 0 done, 1 the answer is no, 2 bad input (one clear line, no traceback).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import typer
from typer.exceptions import TyperException

# Each adds its commands to the app.
from lengthwise.cli import (  # noqa: F401
    checking,
    converting,
    demo,
    evaluating,
    exporting,
    proving,
    reproducing,
    solving,
    sweeping,
)
from lengthwise.cli.commands import app, main_process
from lengthwise.cli.streams import flush_streams, prepare_streams
from lengthwise.errors import unknown
from lengthwise.training.interrupts import STOP_SIGNALS, uninterrupted

# What the parser returns after Ctrl-C.
_INTERRUPTED = 130

# Columns of a terminal.
_WIDE_ENOUGH_FOR_BOXES = 80


def main() -> None:
    """Run the command line; turn what a person can mend into one line and an exit code."""
    prepare_streams()
    # Threads that wait by spinning for long cost another process on the same cores its time: two
    # proofs at once take three times as long (docs/log.md, "two halves of a batch"). The setting is
    # read when torch is loaded, which no command has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # The parser takes it for a number, or ends with a traceback.
    if not os.environ.get("TERMINAL_WIDTH", "1").isdecimal():
        del os.environ["TERMINAL_WIDTH"]
    # Boxes would cut the names of options there.
    if shutil.get_terminal_size().columns < _WIDE_ENOUGH_FOR_BOXES:
        app.rich_markup_mode = None
    # Asked to end, a command ends as after Ctrl-C, and the processes that it started with it.
    for kind in STOP_SIGNALS:
        if signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code."""
    code = _run(arguments)
    error = flush_streams()
    # A reader that has gone (`| head`) had what it wanted.
    if error is None or isinstance(error, BrokenPipeError):
        return code
    return code or _fail(f"can't write the results: {error.strerror}")


def _run(arguments: list[str]) -> int:
    try:
        result = app(arguments, standalone_mode=False)
        return _interrupted(arguments) if result == _INTERRUPTED else int(result or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except TyperException as error:
        # Without a command the parser prints its help, and raises an error without a message.
        return _fail(_usage(error)) if error.format_message() else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except (SystemExit, BrokenPipeError):
        # The parser's end, or ours, when nobody reads our output any more (`| head`).
        return 0
    except OSError as error:
        # Of two names the second is the one that was asked for; the first is our temporary file.
        place = error.filename2 or error.filename
        where = f" {place}" if place else ""
        return _fail(f"{error.strerror or error}{where}")
    except Exception as error:
        with uninterrupted():
            return _known(error, _command(arguments))


# What an interrupted command keeps, and how it goes on; of the others there is nothing to keep.
_GO_ON = {
    "abc": "what was finished is kept, and --resume continues it",
    "demo": "the next demo starts over",
    "train": "what was finished is kept, and --resume continues it",
    "prove": "the same command goes on from there",
    "reproduce": "cells that are done are kept; the same command goes on",
    "sweep": "cells that are done are kept; the same command goes on",
    "evaluate": "what was measured to the end is kept where the run can be written",
}


def _interrupted(arguments: list[str]) -> int:
    advice = _GO_ON.get(_command(arguments))
    return _fail(f"interrupted; {advice}" if advice else "interrupted")


def _command(arguments: list[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _known(error: Exception, command: str) -> int:
    from lengthwise.calibration import NoLinesError
    from lengthwise.own_code import own_error
    from lengthwise.proof import NotApplicableError
    from lengthwise.settings.config import InputError
    from lengthwise.training.processes import ProcessLostError
    from lengthwise.training.trainer import NotInterpolatedError

    if isinstance(error, ProcessLostError):  # the first may be the one that has gone
        return _fail(str(error), code=1, everywhere=True)
    if isinstance(error, InputError | NotApplicableError):
        return _fail(str(error))
    if isinstance(error, NotInterpolatedError | NoLinesError | FloatingPointError):
        return _fail(str(error), code=1)
    # torch has no error of its own for memory on the CPU.
    lacking = ("allocate memory", "out of memory")
    if isinstance(error, MemoryError) or any(words in str(error) for words in lacking):
        if command in ("abc", "demo", "train", "reproduce", "sweep"):
            return _fail(
                "not enough memory; a smaller training.batch_size, model.width or data.length needs less"
            )
        return _fail("not enough memory for problems of this size; make them shorter or fewer")
    said = own_error(error)
    if said is not None:
        return _fail(said)
    raise error


def _usage(error: TyperException) -> str:
    """The parser's message, with the nearest command where one was mistyped."""
    message = error.format_message()
    if message.startswith("No such command"):
        given = message.split("'")[1]
        known = [command.name or "" for command in app.registered_commands]
        return unknown("command", given, known)
    return " ".join(message.split())


def _fail(message: str, code: int = 2, everywhere: bool = False) -> int:
    # What a stranger's file says must not reach the terminal as a command to it.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    line = f"lengthwise: {shown}"
    _tell_torchrun(line)
    if everywhere or main_process():
        # The terminal may be what has gone.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr)
    return code


def _tell_torchrun(line: str) -> None:
    """Let torchrun's summary, the last that it prints, end with our line."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    extra = {"py_callstack": line, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(path).write_text(
            json.dumps({"message": {"message": line, "extraInfo": extra}}), encoding="utf-8"
        )
