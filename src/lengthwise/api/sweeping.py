"""Sweeps from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lengthwise.arguments import as_flag, as_folder, as_number, as_path, as_text, as_whole, refuse
from lengthwise.errors import InputError
from lengthwise.progress.cells import CellsDisplay
from lengthwise.sweeps.grid import load_plan, make_plan
from lengthwise.sweeps.pools import choose_pool
from lengthwise.sweeps.results import Sweep
from lengthwise.sweeps.sweep import run_sweep


def sweep(
    grid: str | Path | Mapping[str, Any],
    *,
    out: Path | str,
    settings: Mapping[str, Any] | None = None,
    cases: Iterable[Mapping[str, Any]] = (),
    prove: bool = True,
    stages: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    ray: str | None = None,
    slurm: str | None = None,
    gpus: float = 0.0,
    minutes: int | None = None,
    retry: bool = False,
    progress: bool | None = None,
) -> Sweep:
    """Train and measure every combination of settings, each a cell of its own.

    ```python
    swept = lw.sweep({"task": ["successor", "addition"], "seed": range(3)}, out="runs/seeds")
    swept.curve.to_frame()
    ```

    Args:
        grid: a list for each of `task`, `method` (`abc`, or one of
            `lengthwise.settings.methods.METHODS`), `seed` and dotted settings; or the TOML file of a sweep,
            which has all of it.
        out: the folder of the sweep. What is there is kept, and cells that are done are not done again.
        settings: of all cells.
        cases: settings that go together, each with its `name`; every cell is of one of them.
        prove: whether `abc` proves its models where a proof applies.
        stages: whether each stage of `abc` is handed out by itself.
        workers: cells at once; by default one for each core, or as many as the cluster has room for.
        threads: of each worker.
        ray: the address of a Ray cluster, or `local` to start one (the extra `ray`).
        slurm: a partition (the extra `slurm`).
        gpus: of each cell, on a cluster.
        minutes: of each job of Slurm, at most.
        retry: begin cells again that failed before.
        progress: True shows what the command shows, on stderr.

    Returns:
        The sweep: its `curve` has all scores, `of("failed")` the cells that failed, `report` is a page.

    Raises:
        InputError: for settings that can't be, before anything runs; for a folder of something else.
    """
    folder = as_folder("out", out)
    if isinstance(grid, Mapping):
        tables: dict[str, Any] = {"grid": grid, "settings": settings or {}, "case": [*cases]}
        plan = make_plan({**tables, "prove": prove, "stages": stages})
    elif isinstance(grid, str | os.PathLike):
        if settings or [*cases]:
            raise InputError(
                "the file of a sweep has its own settings and cases; give none besides"
            )
        plan = load_plan(as_path("grid", grid, "sweep.toml"))
    else:
        refuse("grid", "a dictionary of lists, such as {'seed': [0, 1]}, or a TOML file", grid)
    make_pool, _ = choose_pool(
        folder,
        workers=None if workers is None else as_whole("workers", workers, 1),
        threads=None if threads is None else as_whole("threads", threads, 1),
        ray=None if ray is None else as_text("ray", ray, "auto"),
        slurm=None if slurm is None else as_text("slurm", slurm, "gpu"),
        gpus=as_number("gpus", gpus),
        minutes=None if minutes is None else as_whole("minutes", minutes, 2),
    )
    shown = progress is not None and as_flag("progress", progress)
    with CellsDisplay(shown) as display:
        return run_sweep(
            plan, folder, make_pool, retry=as_flag("retry", retry), watch=display.watch
        )
