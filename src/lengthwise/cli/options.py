"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Seed = Annotated[int | None, typer.Option(help="Seed of weights and problems.", show_default="0")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")]
RunDevice = Annotated[
    str | None, typer.Option("--device", help="auto, cpu or cuda.", show_default="the run's")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. model.width=128."),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write; a new one in runs/ by default.")]
Length = Annotated[
    int | None, typer.Option(help="Digits of the longest training operand.", show_default="6")
]
Lengths = Annotated[
    str | None,
    typer.Option(
        help="Digits to evaluate, separated by commas.", show_default="6,10,20,60,200,1000"
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(help="Problems of each length.", show_default="1000, and 200 past 100 digits"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
Force = Annotated[bool, typer.Option("--force", help="Start over where a run exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ShowWork = Annotated[
    bool,
    typer.Option("--show-work", help="Also show what was written: for parity, the scratchpad."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or one made by abc.")]
TaskOrFile = Annotated[
    str,
    typer.Argument(
        metavar="TASK|CONFIG",
        help="A task (successor, addition, nx1, parity, ...) or a .toml file.",
    ),
]


def parse_lengths(text: str | None) -> list[int] | None:
    """The value of `--lengths`; None where it is not given.

    Raises:
        InputError: for anything but whole numbers from 1 up.
    """
    from lengthwise.config import InputError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    # Ten digits and more are beyond every limit, and past a few thousand `int` refuses them.
    if not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise InputError(
            f"--lengths takes whole numbers from 1 up, such as 6,60,1000; got {shown!r}"
        )
    return [int(part) for part in parts]
