"""The command that answers expressions: given as arguments, or line by line from a file or a pipe."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lengthwise.cli.commands import app, print_json
from lengthwise.cli.options import (
    Attention,
    Json,
    RunDevice,
    RunFolder,
    ShowWork,
    assign,
    refuse_unknown_options,
)
from lengthwise.files import UTF8_MARK, check_encoding

if TYPE_CHECKING:
    from lengthwise.run import Run

# Lines that are looked ahead, and their bytes: what is answered together, and so what may wait.
AHEAD_LINES, AHEAD_BYTES = 4096, 2_000_000

# Bytes of a line: more than any expression that is taken.
LONGEST_LINE = 1 << 25

# Seconds between messages of progress.
_EVERY = 5.0


# An expression that begins with a dash is one, if a bad one.
@app.command("solve", context_settings={"ignore_unknown_options": True})
def solve_command(
    context: typer.Context,
    run: RunFolder,
    expressions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXPRESSION...]", help="Or - to read lines from stdin."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read one expression a line from a file; - is stdin.")
    ] = None,
    decode: Annotated[
        str | None, typer.Option(help="auto, parallel or sequential.", show_default="the run's")
    ] = None,
    show_work: ShowWork = False,
    attention: Attention = None,
    device: RunDevice = None,
    as_json: Json = False,
) -> None:
    """Answer expressions, each on its own line.

    From a file or stdin, answers come in order while it works. A line that is no expression is reported on
    stderr with its number and answered by an empty line, a blank line by a blank one; the exit code is 2
    if there was any such line.

    Example: lengthwise solve runs/addition 987654321987654321987654321+1
    """
    from lengthwise.config import InputError
    from lengthwise.run import Run

    expressions = expressions or []
    refuse_unknown_options(context, [str(run), *expressions])
    if (file is None) == (not expressions):
        raise InputError("solve takes expressions, or --file with one expression a line")
    opened = Run.open(run, device=device, set=assign(decode=decode, attention=attention))
    if expressions == ["-"]:
        file = Path("-")
    if str(file) == "-" and sys.stdin is None:
        raise InputError("stdin is closed, so there are no lines to read; name a file with --file")
    if file is None:
        rows = [_Row(number, text) for number, text in enumerate(expressions, start=1)]
        _answer(opened, rows)
        if as_json:
            print_json([{"expression": row.text, **row.result(show_work)} for row in rows])
        else:
            for row in rows:
                print(row.lines(show_work))
        return
    with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as source:
        bad = _answer_lines(opened, source, as_json, show_work)
    if bad:
        raise typer.Exit(2)


def _answer(
    run: Run, rows: list[_Row], on_progress: Callable[[int, int], object] | None = None
) -> None:
    """Answer rows."""
    for row, answer in zip(rows, run.answers([row.text for row in rows], on_progress), strict=True):
        row.answer, row.work = answer.text, answer.work


def _answer_lines(run: Run, source: BinaryIO, as_json: bool, show_work: bool) -> int:
    """Answer every line; return how many could not be answered."""
    bad, progress = 0, _Progress()
    with (_json_rows if as_json else _plain_rows)(show_work) as put:
        for batch in read_batches(source):
            rows = [_read(run, number, line) for number, line in batch]
            asked = [row for row in rows if row.text and row.error is None]
            _answer(run, asked, progress.decoding)
            for row in rows:
                if row.error is not None:
                    bad += 1
                    _say(f"line {row.number}: {row.error}")
                put(row)
            sys.stdout.flush()
            progress.lines = rows[-1].number
    return bad


@dataclass
class _Row:
    """A line: its number, its text, and what became of it."""

    number: int
    text: str = ""
    answer: str = ""
    work: str = ""
    error: str | None = None

    def result(self, show_work: bool) -> dict[str, str]:
        """What became of it, as JSON values."""
        if self.error is not None:
            return {"error": self.error}
        return {"answer": self.answer} | ({"work": self.work} if show_work else {})

    def lines(self, show_work: bool) -> str:
        """The answer, and what the model wrote; what has none leaves its line empty."""
        if not show_work or not self.work:
            return self.answer
        return f"{self.answer}\n  written {self.work}, least significant digit first"


def _read(run: Run, number: int, line: bytes | None) -> _Row:
    """A line as text, and what is wrong where it is no expression."""
    from lengthwise.config import InputError

    if line is None:
        return _Row(number, error=f"longer than {LONGEST_LINE:,} bytes")
    try:
        row = _Row(number, line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        return _Row(number, error=f"byte {error.start + 1} is not UTF-8")
    try:
        if row.text:
            run.parse(row.text)
    except InputError as error:
        row.error = str(error)
    return row


def read_batches(source: BinaryIO) -> Iterator[list[tuple[int, bytes | None]]]:
    """Lines with their numbers, from 1, in batches: what is there, up to the look-ahead.

    A slow pipe is answered as it comes; of a file only so much is read as is answered next. A line
    longer than `LONGEST_LINE` is None.

    Raises:
        InputError: when the text is in UTF-16.
    """
    from lengthwise.config import InputError

    read = getattr(source, "read1", source.read)
    batch: list[tuple[int, bytes | None]] = []
    rest, length, number, held = [], 0, 0, 0  # of the line that has begun; of the batch
    while part := read(1 << 16):
        if not number and not length:
            part = part.removeprefix(UTF8_MARK)
            try:
                check_encoding(part[:4])  # of the first two characters
            except ValueError as error:
                raise InputError(f"{getattr(source, 'name', 'the input')}: {error}") from error
        *ends, last = part.split(b"\n")
        for end in ends:
            number, length = number + 1, length + len(end)
            line = b"".join([*rest, end]).removesuffix(b"\r") if length <= LONGEST_LINE else None
            batch.append((number, line))
            rest, length, held = [], 0, held + length
            if len(batch) >= AHEAD_LINES or held >= AHEAD_BYTES:
                yield batch
                batch, held = [], 0
        length += len(last)
        rest = [*rest, last] if length <= LONGEST_LINE else []
        if batch and not _has_more(source):
            yield batch
            batch, held = [], 0
    if length:
        line = b"".join(rest).removesuffix(b"\r") if length <= LONGEST_LINE else None
        batch.append((number + 1, line))
    if batch:
        yield batch


def _has_more(source: BinaryIO) -> bool:
    """Whether a read would return at once."""
    try:
        if os.name == "nt":  # there `select` is for sockets; a pipe or console may wait
            return stat.S_ISREG(os.fstat(source.fileno()).st_mode)
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError):  # no file of the operating system
        return True


@contextmanager
def _plain_rows(show_work: bool) -> Iterator[Callable[[_Row], None]]:
    """An answer a line."""
    yield lambda row: print(row.lines(show_work))


@contextmanager
def _json_rows(show_work: bool) -> Iterator[Callable[[_Row], None]]:
    """One array, written row by row; blank lines are left out."""
    begun = False

    def put(row: _Row) -> None:
        nonlocal begun
        if not row.text and row.error is None:
            return
        record = {"line": row.number, "expression": row.text, **row.result(show_work)}
        print(",\n " if begun else "[\n ", json.dumps(record), sep="", end="")
        begun = True

    yield put
    print("\n]" if begun else "[]")


class _Progress:
    """A message every few seconds."""

    def __init__(self) -> None:
        self.lines, self.last = 0, time.monotonic()

    def decoding(self, done: int, of: int) -> None:
        """Called while a batch is decoded."""
        if time.monotonic() - self.last >= _EVERY:
            self.last = time.monotonic()
            _say(f"{self.lines:,} lines answered, and {done / max(of, 1):.0%} of the next batch")


def _say(text: str) -> None:
    print(f"lengthwise: {text}", file=sys.stderr, flush=True)
