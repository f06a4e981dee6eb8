"""A sweep from its plan to its tables and its page: what is there is kept, the rest is done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from lengthwise.errors import InputError
from lengthwise.files import check_format, from_json, read_text, write_text
from lengthwise.report.sweeps import write_sweep_report
from lengthwise.runs.folder import locked
from lengthwise.sweeps.cell import FAILED, STAGES
from lengthwise.sweeps.grid import ABC, Cell, Plan
from lengthwise.sweeps.jobs import Ended, Job
from lengthwise.sweeps.loop import Pool, State, Watch, run_jobs
from lengthwise.sweeps.results import Standing, Sweep, folder_of, gather, keep_failure, labelled
from lengthwise.version import __version__

SWEEP, FORMAT = "sweep.json", "lengthwise-sweep/1"
WORK, STAGE_WORK = "lengthwise.sweeps.cell:run_cell", "lengthwise.sweeps.cell:run_stage"


def open_sweep(plan: Plan, out: Path) -> Sweep:
    """How a plan's cells stand in a folder, which need not be there.

    Raises:
        InputError: when the folder holds something else, a broken record, or one of other settings.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder")
    path = out / SWEEP
    if path.exists():
        try:
            check_format(from_json(read_text(path)).get("format"), FORMAT)
        except (AttributeError, ValueError) as error:
            raise InputError(f"{path} is not of a sweep: {error}") from error
    elif out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise InputError(f"{out} exists and holds no sweep; choose another --out")
    return gather(plan, out)


def run_sweep(
    plan: Plan,
    out: Path,
    make_pool: Callable[[], Pool],
    *,
    retry: bool = False,
    watch: Watch = lambda ended, state: None,
    work: str = WORK,
) -> Sweep:
    """Do the cells that are not done, and write tables and page.

    Cells that failed before are left as they are, unless `retry`. When it is asked to stop, the tables hold
    what is done.

    Args:
        plan: the cells.
        out: the folder that keeps them.
        make_pool: makes who does them; called when there is something to do.
        retry: begin those again that failed.
        watch: hears what happens (`lengthwise.sweeps.loop`).
        work: the function that does a cell, `run_cell`.

    Raises:
        InputError: as `open_sweep`, and when another process writes the folder.
    """
    with locked(out):
        before = open_sweep(plan, out)
        told = {"format": FORMAT, "lengthwise": __version__, **plan.source}
        write_text(out / SWEEP, json.dumps(told, indent=1) + "\n")
        if retry:
            for standing in before.of("failed"):
                (standing.folder / FAILED).unlink(missing_ok=True)
            before = gather(plan, out)
        after = {standing.cell.name: standing for standing in before.standings}

        def heard(ended: Ended | None, state: State) -> None:
            if ended is not None and ended.name in state.failed:
                keep_failure(ended, after[ended.name.partition("/")[0]].folder)
            watch(ended, state)

        try:
            if before.of("begun", "missing"):
                jobs: list[Job] = []
                for standing in before.standings:
                    own = [*jobs_of(standing.cell, plan, out, work)]
                    # Of one that failed no stage is begun again.
                    jobs += own if standing.failure is None else [replace(own[-1], needs=None)]
                done = [job.name for job in jobs if _is_done(job, after)]
                failed = [Ended(s.cell.name, s.failure) for s in before.of("failed")]
                run_jobs(
                    jobs, make_pool(), done=done, failed=failed, took=took(before), watch=heard
                )
        finally:
            sweep = gather(plan, out)
            sweep.save()
        write_page(sweep)
        return sweep


def jobs_of(cell: Cell, plan: Plan, out: Path, work: str = WORK) -> Iterable[Job]:
    """The jobs of a cell: one, or of `abc` in stages one for each."""
    folder, need = folder_of(cell, out).resolve(), None
    values = {"name": cell.name, "method": cell.method, "hash": cell.hash, "given": cell.given}
    values |= {"files": cell.files} if cell.files else {}
    if plan.stages and cell.method == ABC:
        for stage in STAGES:
            name, alike = f"{cell.name}/{stage}", f"{cell.alike}/{stage}"
            yield Job(name, STAGE_WORK, folder, {**values, "stage": stage}, need, alike)
            need = name
    yield Job(cell.name, work, folder, {**values, "prove": plan.prove}, need, cell.alike)


def _is_done(job: Job, standings: dict[str, Standing]) -> bool:
    name, _, stage = job.name.partition("/")
    if standings[name].record is not None:
        return True
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = from_json(read_text(job.folder / f"{stage}.json"))
        return bool(stage) and told["hash"] == job.values["hash"]
    return False


def took(sweep: Sweep) -> dict[str, list[float]]:
    """Seconds that the cells of each kind took."""
    found: dict[str, list[float]] = {}
    for standing in sweep.of("done"):
        assert standing.record is not None
        found.setdefault(standing.cell.alike, []).append(standing.record.seconds)
    return found


def write_page(sweep: Sweep) -> Path:
    """One page about all cells: curves, intervals, and which are missing."""
    groups: dict[tuple[str, int], list[Standing]] = {}
    for standing in sweep.standings:
        config = standing.cell.config
        groups.setdefault((config.task, config.base), []).append(standing)
    return write_sweep_report(
        sweep.report,
        title=str(sweep),
        groups=[
            # Digits of the longest problems that all of them were trained on.
            (task, base, min(s.cell.config.longest for s in members), labelled(members))
            for (task, base), members in groups.items()
        ],
        cells=sweep.overview(),
        results=sweep.rows(),
    )
