"""The command that measures the paper's tables and figures again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, show
from lengthwise.errors import InputError

if TYPE_CHECKING:
    from lengthwise.reproduce import Cell


@app.command("reproduce")
def reproduce_command(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="TARGET...", help="table1, table3, transfer, figures, or all."),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="smoke: tiny models, minutes. standard: the default model, three seeds, hours. "
            "full: the paper's model size, for a GPU."
        ),
    ] = "standard",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="runs/reproduce-BUDGET")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Only these rows, such as abc,rope, and what they begin with."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Only one of the two: short or padded.")
    ] = None,
    workers: options.CellsAtOnce = None,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only say how many cells remain, and how long they take."),
    ] = False,
    done_only: Annotated[
        bool,
        typer.Option("--done", help="Measure nothing; write what the cells that are done say."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure the paper's tables and figures again, beside its numbers.

    Cells that are done are kept and skipped: stop it with Ctrl-C, and run it again to go on.

    Example: lengthwise reproduce table1 --budget smoke
    """
    import os

    from lengthwise import reproduce
    from lengthwise.arguments import as_choice
    from lengthwise.reproduce.runner import Record, Remaining, check_budget, finished

    if estimate and done_only:
        raise InputError("--estimate says what remains, --done writes what is done: choose one")
    as_choice("budget", budget, reproduce.BUDGETS)
    for target in targets:
        as_choice("target", target, (*reproduce.TARGETS, "all"))
    chosen = list(reproduce.TARGETS) if "all" in targets else list(dict.fromkeys(targets))
    folder = out or Path(f"runs/reproduce-{budget}")
    size = reproduce.BUDGETS[budget]
    of_targets = (cell for target in chosen for cell in reproduce.cells_of(target, size))
    # Short cells first, whatever table they are of: most results with the least time.
    cells = sorted(
        dict.fromkeys(of_targets), key=lambda cell: (cell.protocol == "padded", cell.seed)
    )
    todo = _only(cells, rows, protocol)
    count = workers or os.cpu_count() or 1
    check_budget(folder, budget)
    left = reproduce.remaining(todo, size, folder, count)
    if estimate:
        values = {"cells": left.cells, "done": left.done, "seconds": round(left.seconds)}
        return show(as_json, values, left)
    print(left, file=sys.stderr)

    def done(record: Record, after: Remaining) -> None:
        scores = ", ".join(f"{s.length}: {s.accuracy:.1%}" for s in record.scores)
        what = record.note if not record.scores else f"{scores} {record.note}".rstrip()
        print(f"{record.cell.name} ({record.seconds:.0f} s): {what}. {after}", file=sys.stderr)

    if not done_only:
        reproduce.measure(todo, budget, folder, workers=count, on_progress=done)
    records = finished(cells, folder)
    if not records:
        raise InputError(f"no cell in {folder} is done; leave --done out to measure them")
    written: list[Path] = []
    for target in chosen:
        if target == "figures":
            written += reproduce.draw_figures(records, size, folder)
        else:
            written += reproduce.write_tables(target, records, folder)
    names = [str(path) for path in written]
    values = {"folder": str(folder), "cells": len(records), "files": names}
    show(as_json, values, "\n".join(names))


def _only(cells: list[Cell], rows: str | None, protocol: str | None) -> list[Cell]:
    """The cells of some rows and of one protocol, and those that they begin with.

    Raises:
        InputError: for rows that no table has, and for none.
    """
    from lengthwise.arguments import as_choice, as_choices
    from lengthwise.reproduce.cells import PROTOCOLS, ROWS

    wanted = as_choices("rows", [*ROWS] if rows is None else rows.split(","), ROWS)
    of = PROTOCOLS if protocol is None else (as_choice("protocol", protocol, PROTOCOLS),)
    chosen = {cell for cell in cells if cell.row in wanted and cell.protocol in of}
    while more := {cell.needs for cell in chosen if cell.needs} - chosen:
        chosen |= more
    if not chosen:
        raise InputError(
            f"no cell of these targets is of the rows {rows} and the protocol {protocol}"
        )
    return [cell for cell in cells if cell in chosen]
