"""Running the command line: what a person can mend becomes one line and an exit code.

Exit codes: 0 done, 1 the answer is no, 2 bad input (one clear line, no traceback).
"""

from __future__ import annotations

import difflib
import os
import signal
import sys

import typer
from typer.exceptions import TyperException

# Each adds its commands to the app.
from lengthwise.cli import (  # noqa: F401
    converting,
    demo,
    evaluating,
    proving,
    reproducing,
    solving,
)
from lengthwise.cli.commands import app, main_process

# What the parser returns after Ctrl-C.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; turn what a person can mend into one line and an exit code."""
    # Threads that wait by spinning for long cost another process on the same cores its time: two
    # proofs at once take three times as long (docs/log.md, "two halves of a batch"). The setting is
    # read when torch is loaded, which no command has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Asked to end, a command ends as after Ctrl-C, and the processes that it started with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        result = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        return _interrupted() if result == _INTERRUPTED else int(result or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except TyperException as error:
        # Without a command the parser prints its help, and raises an error without a message.
        return _fail(_usage(error)) if error.format_message() else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except SystemExit:
        # The parser's end when nobody reads our output any more (`| head`): there is nothing to say.
        return 0
    except OSError as error:
        # Of two names the second is the one that was asked for; the first is our temporary file.
        place = error.filename2 or error.filename
        where = f" {place}" if place else ""
        return _fail(f"{error.strerror or error}{where}")
    except Exception as error:
        return _known(error)


def _interrupted() -> int:
    return _fail(
        "interrupted; what was finished is kept, and --resume continues it; a proof and cells of a "
        "table go on with the same command"
    )


def _known(error: Exception) -> int:
    from lengthwise.calibration import NoLinesError
    from lengthwise.config import InputError
    from lengthwise.proof import NotApplicableError
    from lengthwise.training import NotInterpolatedError

    if isinstance(error, InputError | NotApplicableError):
        return _fail(str(error))
    if isinstance(error, NotInterpolatedError | NoLinesError | FloatingPointError):
        return _fail(str(error), code=1)
    # torch has no error of its own for memory on the CPU.
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return _fail("not enough memory for problems of this size; make them shorter or fewer")
    raise error


def _usage(error: TyperException) -> str:
    """The parser's message, with the nearest command where one was mistyped."""
    message = error.format_message()
    if message.startswith("No such command"):
        given = message.split("'")[1]
        known = sorted(command.name or "" for command in app.registered_commands)
        near = difflib.get_close_matches(given, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        return f"unknown command {given!r}{hint} known: {', '.join(known)}"
    return " ".join(message.split())


def _fail(message: str, code: int = 2) -> int:
    if main_process():
        print(f"lengthwise: {' '.join(message.split())}", file=sys.stderr)
    return code
