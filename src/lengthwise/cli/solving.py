"""The command that answers expressions: given as arguments, or line by line from a file or a pipe."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, print_json, say
from lengthwise.errors import InputError
from lengthwise.files import UTF8_MARK, check_encoding

if TYPE_CHECKING:
    from lengthwise.runs.answer import Answer
    from lengthwise.runs.run import Run

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
    run: options.RunFolder,
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
    show_work: options.ShowWork = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw the sheet of one expression into a file, .png or .svg."),
    ] = None,
    own_method: options.OwnMethod = None,
    attention: options.Attention = None,
    device: options.RunDevice = None,
    own_task: options.OwnTask = None,
    as_json: options.Json = False,
) -> None:
    """Answer expressions, each on its own line.

    From a file or stdin, answers come in order while it works. What is no expression, and what the model
    wrote no answer to, is reported on stderr and answered by an empty line, a blank line by a blank one.
    The exit code is 2 if there was an expression that is none, else 1 if an answer is missing.

    Example: lengthwise solve runs/addition 987654321987654321987654321+1
    """
    from lengthwise.runs.sheets import SheetAnswer
    from lengthwise.settings.assignments import with_options

    expressions = expressions or []
    options.refuse_unknown_options(context, [str(run), *expressions])
    if (file is None) == (not expressions):
        raise InputError("solve takes expressions, or --file with one expression a line")
    ways = with_options([], decode=decode, attention=attention)
    opened = options.open_run(run, own_task, device=device, set=ways)
    if expressions == ["-"]:
        file = Path("-")
    if picture is not None and (file is not None or len(expressions) > 1):
        raise InputError("--picture draws the sheet of one expression")
    if picture is not None and not opened.config.is_sheet:
        raise InputError(f"--picture draws sheets; {opened.config.task} is written in one row")
    if str(file) == "-" and sys.stdin is None:
        raise InputError("stdin is closed, so there are no lines to read; name a file with --file")
    if file is None:
        rows = [_Row(number, text) for number, text in enumerate(expressions, start=1)]
        for row in rows:
            row.error = _objection(opened, row.text)
        _answer(opened, [row for row in rows if row.error is None])
        sheet = rows[0].answer.sheet if isinstance(rows[0].answer, SheetAnswer) else None
        if picture is not None and sheet is not None:
            from lengthwise.report.sheet_plots import sheet_picture

            say(f"Picture: {sheet_picture(sheet, picture)}")
        if as_json:
            print_json([{"expression": row.text, **row.result(show_work)} for row in rows])
        elif len(rows) > 1 or rows[0].answer is not None:
            for row in rows:
                print(row.lines(show_work))
        for row in rows:
            row.complain(row.text if len(rows) > 1 else "")
        raise typer.Exit(max((row.exit_code for row in rows), default=0))
    with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as source:
        raise typer.Exit(_answer_lines(opened, source, as_json, show_work))


def _answer(
    run: Run, rows: list[_Row], on_progress: Callable[[int, int], object] | None = None
) -> None:
    """Answer rows."""
    for row, answer in zip(rows, run.answers([row.text for row in rows], on_progress), strict=True):
        row.answer, row.error = answer, None if answer.complete else answer.text


def _answer_lines(run: Run, source: BinaryIO, as_json: bool, show_work: bool) -> int:
    """Answer every line; return the exit code."""
    code, progress, before = 0, _Progress(), "[\n "
    for batch in read_batches(source):
        rows = [_read(run, number, line) for number, line in batch]
        asked = [row for row in rows if row.text and row.error is None]
        _answer(run, asked, progress.decoding)
        for row in rows:
            row.complain(f"line {row.number}")
            code = max(code, row.exit_code)
            if not as_json:
                print(row.lines(show_work))
            elif row.text or row.error is not None:  # one array, without blank lines
                record = {"line": row.number, "expression": row.text, **row.result(show_work)}
                print(before, json.dumps(record), sep="", end="")
                before = ",\n "
        sys.stdout.flush()
        progress.lines = rows[-1].number
    if as_json:
        print("[]" if before.startswith("[") else "\n]")
    return code


@dataclass
class _Row:
    """A line: its number, its text, and what became of it."""

    number: int
    text: str = ""
    answer: Answer | None = None
    error: str | None = None

    @property
    def exit_code(self) -> int:
        """2 for what is no expression, 1 where the model wrote no answer."""
        return 0 if self.error is None else 2 if self.answer is None else 1

    def complain(self, place: str) -> None:
        """Say on stderr what is wrong, and where."""
        if self.error is not None:
            say(f"{place}: {self.error}" if place else self.error)

    def result(self, show_work: bool) -> dict[str, str | None]:
        """What became of it, as JSON values."""
        wrong: dict[str, str | None] = {} if self.error is None else {"error": self.error}
        if self.answer is None:
            return wrong
        work = {"work": self.answer.work} if show_work or wrong else {}
        return {"answer": None if wrong else self.answer.text, **wrong, **work}

    def lines(self, show_work: bool) -> str:
        """The answer, and what the model wrote; what has none leaves its line empty."""
        answer = self.answer.text if self.answer and self.error is None else ""
        if not show_work or not self.answer or not self.answer.shown:
            return answer
        return f"{answer}\n{self.answer.shown}"


def _read(run: Run, number: int, line: bytes | None) -> _Row:
    """A line as text, and what is wrong where it is no expression."""
    if line is None:
        return _Row(number, error=f"longer than {LONGEST_LINE:,} bytes")
    try:
        row = _Row(number, line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        return _Row(number, error=f"byte {error.start + 1} is not UTF-8")
    row.error = _objection(run, row.text) if row.text else None
    return row


def _objection(run: Run, text: str) -> str | None:
    """What is wrong with an expression, or why it is too long for the model; None where it can be asked.

    Raises:
        InputError: when there is no model yet.
    """
    from lengthwise.runs.parts import check_reach

    model = run.model
    try:
        parts = run.parse(text)
        if not run.config.is_sheet:
            check_reach(model, run.layout(max(len(part) for part in parts)))
    except InputError as error:
        return str(error)
    return None


def read_batches(source: BinaryIO) -> Iterator[list[tuple[int, bytes | None]]]:
    """Lines with their numbers, from 1, in batches: what is there, up to the look-ahead.

    A slow pipe is answered as it comes; of a file only so much is read as is answered next. A line
    longer than `LONGEST_LINE` is None.

    Raises:
        InputError: when the text is in UTF-16.
    """
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


class _Progress:
    """A message every few seconds."""

    def __init__(self) -> None:
        self.lines, self.last = 0, time.monotonic()

    def decoding(self, done: int, of: int) -> None:
        """Called while a batch is decoded."""
        if time.monotonic() - self.last >= _EVERY:
            self.last = time.monotonic()
            say(f"{self.lines:,} lines answered, and {done / max(of, 1):.0%} of the next batch")
