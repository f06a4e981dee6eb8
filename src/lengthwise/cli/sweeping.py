"""The command that runs many cells."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lengthwise.cli import options
from lengthwise.cli.commands import app, show
from lengthwise.errors import InputError


@app.command("sweep")
def sweep_command(
    file: Annotated[
        Path, typer.Argument(help="A TOML file: a grid, settings and cases; docs/scale.md.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, or to go on in.")],
    workers: options.CellsAtOnce = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of each worker.", show_default="cores / workers"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="On a Ray cluster; `local` starts one here."),
    ] = None,
    slurm: Annotated[
        str | None, typer.Option(metavar="PARTITION", help="On Slurm, a job for each cell.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="On a cluster: GPUs of each cell.")] = 0.0,
    minutes: Annotated[
        int | None,
        typer.Option(min=2, help="On Slurm: of each job, at most.", show_default="a day"),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Begin cells again that failed.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list the cells, and about how long they take."),
    ] = False,
    done_only: Annotated[
        bool, typer.Option("--done", help="Run nothing; write what the cells that are done say.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train and measure every combination of settings: one table and one report of all of them.

    Cells that are done are kept and skipped: stop it with Ctrl-C, and run it again to go on.
    Exit code 0: all cells are done. 1: some failed. 2: it could not be begun.

    Example: lengthwise sweep configs/sweeps/small.toml --out runs/small
    """
    from lengthwise.progress.cells import CellsDisplay
    from lengthwise.sweeps.estimate import estimate
    from lengthwise.sweeps.grid import load_plan
    from lengthwise.sweeps.pools import choose_pool
    from lengthwise.sweeps.sweep import open_sweep, run_sweep, write_page

    if dry_run and done_only:
        raise InputError("--dry-run lists what is to be done, --done writes what is: choose one")
    plan = load_plan(file)
    make_pool, count = choose_pool(
        *(out, workers, threads),
        ray=ray,
        slurm=slurm,
        gpus=gpus,
        minutes=minutes,
    )
    sweep = open_sweep(plan, out)
    if dry_run:
        left = estimate(
            *(sweep, count or 1, threads or 1),
            retry=retry,
            say=lambda words: print(words, file=sys.stderr),
        )
        cells = [
            {
                "cell": s.cell.name,
                "state": s.state,
                "seconds": left.seconds.get(s.cell.alike) if s.state != "done" else None,
            }
            for s in sweep.standings
        ]
        values = {"cells": cells, "left": left.left, "seconds": round(left.worker / (count or 1))}
        lines = [f"{c['cell']}  {c['state']}" for c in cells]
        return show(as_json, values, "\n".join([*lines, str(left)]))
    if done_only:
        if not sweep.of("done"):
            raise InputError(f"no cell in {out} is done; leave --done out to run them")
        sweep.save()
        write_page(sweep)
    else:
        if sweep.of("done"):
            print(f"{sweep}", file=sys.stderr)
        with CellsDisplay() as display:
            sweep = run_sweep(plan, out, make_pool, retry=retry, watch=display.watch)
    failed = sweep.of("failed")
    for standing in failed:
        print(f"lengthwise: {standing.cell.name} failed: {standing.failure}", file=sys.stderr)
    if failed:
        print(f"lengthwise: {len(failed)} failed; --retry begins them again", file=sys.stderr)
    files = [str(out / "results.csv"), str(out / "cells.csv"), str(sweep.report)]
    states = {state: len(sweep.of(state)) for state in ("done", "failed", "begun", "missing")}
    show(as_json, {"folder": str(out), **states, "files": files}, "\n".join([f"{sweep}.", *files]))
    raise typer.Exit(1 if failed else 0)
