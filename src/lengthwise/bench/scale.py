"""Sweeps, proofs, evaluations, trainings: how much two workers gain, and what the engine itself costs.

A worker is one thread. The cells of the first measurement train for a fixed number of steps; those of the
second do nothing, so that what is left is planning, handing out, records, tables and the page.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lengthwise.bench.processes import shared_training, shared_work
from lengthwise.bench.results import Bench, measured_process, seconds, wanted
from lengthwise.reproduce.cells import BUDGETS
from lengthwise.sweeps.grid import Plan, make_plan
from lengthwise.sweeps.jobs import Job
from lengthwise.sweeps.local import LocalPool
from lengthwise.sweeps.loop import Pool
from lengthwise.sweeps.sweep import run_sweep

_NOTHING = "lengthwise.sweeps.cell:do_nothing"

# What a process runs that is measured alone.
_CHILD = "import sys; from lengthwise.bench.scale import main; main(*sys.argv[1:])"


def run(
    bench: Bench,
    *,
    cells: int = 16,
    steps: int = 1500,
    many: int = 1000,
    ray: bool = True,
    base: int = 10,
    samples: int = 60_000,
    training: int = 400,
    turns: int = 3,
) -> None:
    """Sweep smoke cells on one worker, on two, on Ray; then cells that do nothing.

    Args:
        bench: the benchmark; each sweep is timed once. Notes say what a ratio was meant to be.
        cells: smoke cells, of the paper's smallest budget.
        steps: of each.
        many: cells that do nothing.
        ray: measure on Ray, too, where it is installed.
        base, samples: see `shared_work`.
        training, turns: see `shared_training`.
    """
    plan = _plan(cells, steps)
    note = f"{cells} smoke cells of {steps} steps, a thread each"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        shared_training(bench, out, steps=training, turns=turns)
        shared_work(bench, out, base=base, samples=samples)
        bench.say(f"{cells} smoke cells on one worker")
        one = seconds(lambda: run_sweep(plan, out / "one", lambda: LocalPool(1, 1)))
        bench.say(f"{cells} smoke cells on two workers")
        two = seconds(lambda: run_sweep(plan, out / "two", lambda: LocalPool(2, 1)))
        bench.add("one worker", one, "s", f"{note}, its start included")
        bench.add("two workers", two, "s", f"{note}, their start included")
        ratio = one / two
        bench.add("two workers to one", ratio, "x", f"{wanted([ratio], least=1.8)}; {note}")
        _, kept, disk = _size(out / "two")
        bench.add(
            "kept of a smoke cell", kept / cells / 2**10, "KiB", f"{disk / kept:.1f}x on disk"
        )
        kinds = ["local"]
        if ray and find_spec("ray") is not None:
            kinds.append("ray")
            bench.say(f"{cells} smoke cells on Ray, two workers")
            pool = _warm(out)
            on_ray = seconds(lambda: run_sweep(plan, out / "ray", lambda: pool))
            bench.add("two workers of Ray", on_ray, "s", f"{note}, its start aside")
            ratio = one / on_ray
            words = f"{wanted([ratio], least=1.6)}; {note}"
            bench.add("two workers of Ray to one of ours", ratio, "x", words)
        elif ray:
            bench.say("Ray is not installed (pip install 'lengthwise[ray]'); left out")
        _, memory = measured_process(["-c", "import lengthwise.sweeps.cell"])
        bench.add(
            "memory of a worker", memory, "MiB", "that has loaded what cells need, and no cell"
        )
        for kind in kinds:
            bench.say(f"{many:,} cells that do nothing, {kind}")
            _nothing(bench, out, kind, many)


def _plan(cells: int, steps: int) -> Plan:
    """Smoke cells that take the same time: they train for so many steps, whatever they answer."""
    # Assignments as the paper's tables have them, as texts; the last counts.
    settings: dict[str, Any] = {}
    for assignment in BUDGETS["smoke"].settings:
        key, _, text = assignment.partition("=")
        settings[key] = json.loads(text)
    settings |= {"task": "successor", "base": 3, "device": "cpu", "training.max_steps": steps}
    settings |= {"training.until": "max_steps", "evaluation.lengths": [3, 8]}
    return make_plan({"grid": {"seed": range(cells)}, "settings": settings})


def _warm(out: Path) -> Pool:
    """Two workers of Ray that have begun, and imported what cells need."""
    from lengthwise.sweeps.on_ray import RayPool

    pool, left = RayPool("local", 2, 1), 2
    for number in range(left):
        values = {"name": str(number), "hash": ""}
        pool.submit(Job(str(number), _NOTHING, out / f"warm-{number}", values))
    while left:
        left -= len(pool.wait(1.0))
    return pool


def _nothing(bench: Bench, out: Path, kind: str, many: int) -> None:
    """What a sweep of cells that do nothing costs, in a process of its own."""
    told, peaks = {}, {}
    for count in (1, many):
        folder = out / f"{kind}-{count}"
        _, peaks[count] = measured_process(["-c", _CHILD, str(folder), kind, str(count)])
        told = json.loads((folder / "told.json").read_text("utf-8"))
    note = f"{many:,} cells that do nothing, two workers, {kind}"
    bench.add(f"handed out and back, {kind}", told["rate"], "cells/s", f"{note}, their start aside")
    bench.add(f"from plan to page, {kind}", told["seconds"], "s", note)
    bench.add(f"planning, {kind}", 1000 * told["planning"] / many, "ms/cell", note)
    bench.add(f"tables and page, {kind}", 1000 * told["gathering"] / many, "ms/cell", note)
    more = 2**10 * (peaks[many] - peaks[1]) / max(1, many - 1)
    bench.add(f"memory for each cell, {kind}", more, "KiB", "of the process that hands out")
    bench.add(f"memory of that process, {kind}", peaks[many], "MiB", note)
    files, kept, disk = _size(out / f"{kind}-{many}" / "sweep")
    bench.add(f"kept of each cell, {kind}", kept / many, "bytes", f"{disk / kept:.1f}x on disk")
    bench.add(f"files of each cell, {kind}", files / many, "files", note)


def _size(folder: Path) -> tuple[int, int, int]:
    """Files below a folder, their bytes, and the bytes that they take on the disk with their folders."""
    files = kept = disk = 0
    for path in folder.rglob("*"):
        status = path.lstat()
        disk += getattr(status, "st_blocks", 0) * 512
        if path.is_file():
            files, kept = files + 1, kept + status.st_size
    return files, max(1, kept), disk


def main(folder: str, kind: str, count: str) -> None:
    """Sweep cells that do nothing, and write what it cost into FOLDER/told.json."""
    began, out, ends = time.perf_counter(), Path(folder), []
    plan = make_plan({"grid": {"seed": range(int(count))}})
    planned = time.perf_counter()
    pools: dict[str, Callable[[], Pool]] = {"local": lambda: LocalPool(2, 1)}
    if kind == "ray":
        pools["ray"] = lambda: _warm(out)

    def watch(ended: Any, state: Any) -> None:
        if ended is not None:
            ends.append(time.perf_counter())

    run_sweep(plan, out / "sweep", pools[kind], watch=watch, work=_NOTHING)
    over = time.perf_counter()
    told = {
        "seconds": over - began,
        "planning": planned - began,
        # The first of each worker waits for its start.
        "rate": (len(ends) - 3) / max(ends[-1] - ends[2], 1e-9) if len(ends) > 3 else 0.0,
        "gathering": over - ends[-1],
    }
    (out / "told.json").write_text(json.dumps(told), encoding="utf-8")
