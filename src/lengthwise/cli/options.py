"""The options that commands share."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lengthwise.errors import InputError, shorten

if TYPE_CHECKING:
    from lengthwise.runs.run import Run

Seed = Annotated[int | None, typer.Option(help="Seed of weights and problems.", show_default="0")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")]
RunDevice = Annotated[
    str | None, typer.Option("--device", help="auto, cpu or cuda.", show_default="the run's")
]
Attention = Annotated[
    str | None,
    typer.Option(
        help="How attention is computed: auto, dense or lines.",
        show_default="the settings'",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. model.width=128."),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write; a new one in runs/ by default.")]
Length = Annotated[
    int | None,
    typer.Option(
        help="Digits of the longest training operand.", show_default="6, in base 2 to 4 more"
    ),
]
Lengths = Annotated[
    str | None,
    typer.Option(
        help="Digits to evaluate, such as 6,60,1000 or 1-60.", show_default="6,10,20,60,200,1000"
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(
        help="Of sheets: columns and rows to evaluate, such as 20x20,1000x3.",
        show_default="3x3,6x6,20x20,100x100",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Problems of each length.",
        show_default="1000; 200 past 100 digits, 20 from 10,000, 4 from 100,000",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1, help="Processes of this machine that share the work, a thread each: the same result."
    ),
]
CellsAtOnce = Annotated[
    int | None, typer.Option(min=1, help="Cells at once.", show_default="one for each core")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Force = Annotated[bool, typer.Option("--force", help="Start over where a run exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ShowWork = Annotated[
    bool,
    typer.Option("--show-work", help="Also show what was written: for parity, the scratchpad."),
]


def _name_task(given: str | None) -> str | None:
    """Make the task of a file known before the run is opened that was trained on it."""
    if given is not None:
        from lengthwise.tasks.given import settings_of

        if settings_of(given) is None:
            raise InputError(
                f"--task takes the file of a task of your own, such as my_task.py, got {given!r}"
            )
    return given


def open_run(folder: Path, named: str | None, **options: Any) -> Run:
    """The run of a command, opened as `Run.open` does with the options.

    Raises:
        InputError: as `Run.open`, and for one that was trained on another task than that of `--task`.
    """
    from lengthwise.runs.run import Run

    run = Run.open(folder, **options)
    if named is not None and (wanted := name_of(named)) not in (None, run.config.task):
        raise InputError(f"{run.path} was trained on {run.config.task}; {named} is {wanted}")
    return run


def name_of(given: str | None) -> str | None:
    """What the task of a file is called; None where none is given."""
    from lengthwise.tasks.given import settings_of

    named = {} if given is None else settings_of(given) or {}
    return named.get("task")


def _name_method(given: str | None) -> str | None:
    """Make the method of a file known likewise."""
    if given is not None:
        from lengthwise.settings.own_methods import use_method

        use_method(given)
    return given


OwnTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="FILE",
        callback=_name_task,
        help="The code of the task, my_task.py, where the run was trained on one of your own.",
    ),
]
OwnMethod = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="FILE",
        callback=_name_method,
        help="The code of the method, my_method.py, where the run was trained with one of your own.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one made by abc.")]
TaskOrFile = Annotated[
    str,
    typer.Argument(
        metavar="TASK|FILE",
        help="A task (successor, addition, nx1, ...), one of your own (my_task.py, a table .toml, "
        "problems .jsonl), or settings (.toml, .ini).",
    ),
]


def refuse_unknown_options(context: typer.Context, words: list[str]) -> None:
    """For a command whose arguments may begin with a dash: what begins like a long option is one.

    Raises:
        InputError: for the first.
    """
    known = [name for option in context.command.params for name in option.opts]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name[2:3].isalpha() and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"No such option: {name}{hint}")


_MOST_LENGTHS = 10_000


def parse_sizes(text: str | None) -> list[str] | None:
    """The value of `--sizes`; None where it is not given. `20` is `20x20`.

    Raises:
        InputError: for anything but sizes.
    """
    if text is None:
        return None
    from lengthwise.problems.sizes import Size

    try:
        return [str(Size.parse(part)) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--sizes: {error}") from error


def parse_lengths(text: str | None) -> list[int] | None:
    """The value of `--lengths`; None where it is not given. `1-60` is every length from 1 to 60.

    Raises:
        InputError: for anything but whole numbers from 1 up, and ranges of them.
    """
    if text is None:
        return None
    shown = repr(shorten(text, 40))
    lengths: list[int] = []
    for part in text.split(","):
        # Ten digits and more are beyond every limit, and past a few thousand `int` refuses them.
        ends = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last:
            raise InputError(
                f"--lengths takes whole numbers from 1 up, such as 6,60,1000 or 1-60; got {shown}"
            )
        if last - first >= _MOST_LENGTHS:
            raise InputError(f"--lengths takes at most {_MOST_LENGTHS} lengths, got {shown}")
        lengths += range(first, last + 1)
    return lengths
