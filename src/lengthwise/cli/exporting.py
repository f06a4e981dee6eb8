"""The command that writes problems for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, print_json, show
from lengthwise.errors import InputError


@app.command("export")
def export_command(
    task: options.TaskOrFile,
    form: Annotated[
        str, typer.Option("--format", help="jsonl; or clrs-text, questions and answers.")
    ] = "jsonl",
    count: Annotated[int, typer.Option(min=0, help="How many problems.")] = 1000,
    split: Annotated[
        str, typer.Option(help="train, validation or test; no two share a problem.")
    ] = "train",
    lengths: Annotated[
        str | None,
        typer.Option(help="Digits, such as 6,60 or 1-60.", show_default="those of training"),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Of sheets: columns x rows, such as 20x20,100x3.",
            show_default="those of training",
        ),
    ] = None,
    suite: Annotated[str, typer.Option(help="uniform; carry, or of sheets hard.")] = "uniform",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the problems.")] = 0,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="With what a right model writes, or without.")
    ] = True,
    set_: options.Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write.", show_default="stdout")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write problems of a task with their true answers, one JSON value a line.

    Problem i follows from the options and i alone; problems have the lengths or sizes in turn.

    Example: lengthwise export multiplication --sizes 3x3,20x20 --count 100 --split test --out test.jsonl
    """
    from lengthwise.api.problems import problems
    from lengthwise.files import write_with
    from lengthwise.interop.records import rows
    from lengthwise.runs.folder import check_output

    if lengths is not None and sizes is not None:
        raise InputError("--lengths and --sizes both say how large problems are; give one of them")
    if out is not None:
        check_output(out)
        if out.is_dir():
            raise InputError(f"--out takes a file; {out} is a folder")
    asked = options.parse_lengths(lengths) or options.parse_sizes(sizes)
    chosen = problems(task, asked, split, seed, count=count, suite=suite, set=set_ or ())
    found = rows(chosen, form, work)
    if out is not None:

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                file.writelines(_lines(found))

        write_with(out, write)
        said = {"file": str(out), "problems": count, "format": form, "split": split, "seed": seed}
        return show(as_json, said, f"{count:,} problems: {out}")
    if as_json:
        return print_json([*found])
    sys.stdout.writelines(_lines(found))


def _lines(found: Iterable[dict[str, Any]]) -> Iterable[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
