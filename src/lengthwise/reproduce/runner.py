"""Measuring cells: several at once, each kept when it is done, the rest continued another time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lengthwise import evaluation
from lengthwise.bias import CalibratedBias
from lengthwise.calibration import NoLinesError
from lengthwise.evaluation.curve import Score
from lengthwise.files import from_json, read_text, write_text
from lengthwise.pipeline.attempts import calibrate_and_retrain
from lengthwise.pipeline.stages import Clock
from lengthwise.pipeline.until_proven import prove_and_drill
from lengthwise.proof import Certificate
from lengthwise.reproduce.cells import BUDGETS, Budget, Cell, config_of
from lengthwise.runs.folder import CERTIFICATE, CONFIG, locked
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.sweeps.jobs import Ended, Job, Say
from lengthwise.sweeps.local import LocalPool
from lengthwise.sweeps.loop import State, run_jobs
from lengthwise.training.trainer import NotInterpolatedError, train_run

CELLS, RECORD, BUDGET_FILE = "cells", "cell.json", "budget.json"
MODEL = "model"
WORK = "lengthwise.reproduce.runner:measure_cell"


@dataclass(frozen=True)
class Record:
    """What became of a cell.

    Attributes:
        cell: the cell.
        interpolates: whether the model met its criterion in training.
        steps: of that training.
        note: why there are no scores, or what else is to be said.
        seconds: of the cell, without those that it needs.
        scores: one for each length; empty where there was no model to measure.
        proven: whether the model is proven right at every length; the row `abc` trains until it is.
    """

    cell: Cell
    interpolates: bool
    steps: int
    note: str
    seconds: float
    scores: tuple[Score, ...]
    proven: bool = False

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a record.

        Raises:
            InputError: when it is broken.
        """
        try:
            values = from_json(read_text(path))
            cell = Cell(**values.pop("cell"))
            scores = tuple(Score(**score) for score in values.pop("scores"))
            return cls(cell=cell, scores=scores, **values)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} does not hold a cell: {error}; remove it") from error


@dataclass(frozen=True)
class Remaining:
    """How much of a target is still to be done.

    Attributes:
        cells: all of its cells.
        done: those that are measured.
        seconds: about how long the others take, with all workers.
    """

    cells: int
    done: int
    seconds: float

    def __str__(self) -> str:
        left = self.cells - self.done
        if not left:
            return f"All {self.cells} cells are done."
        minutes = max(1, round(self.seconds / 60))
        about = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        return f"{left} of {self.cells} cells remain, about {about}."


def folder_of(cell: Cell, out: Path) -> Path:
    """Where a cell is kept."""
    return out / CELLS / cell.name


def finished(cells: Iterable[Cell], out: Path) -> list[Record]:
    """The records of those cells that are done."""
    paths = [folder_of(cell, out) / RECORD for cell in cells]
    return [Record.load(path) for path in paths if path.exists()]


def remaining(cells: list[Cell], budget: Budget, out: Path, workers: int) -> Remaining:
    """Estimate from the cells that are done how long the others take."""
    done = {record.cell: record.seconds for record in finished(cells, out)}
    seconds = 0.0
    for cell in cells:
        if cell in done:
            continue
        alike = [s for c, s in done.items() if c.protocol == cell.protocol and c.row == cell.row]
        guess = budget.seconds * (budget.padded_times if cell.protocol == "padded" else 1)
        seconds += sum(alike) / len(alike) if alike else guess
    return Remaining(len(cells), len(done), seconds / workers)


def measure(
    cells: list[Cell],
    budget_name: str,
    out: Path,
    *,
    workers: int | None = None,
    on_progress: Callable[[Record, Remaining], None] | None = None,
) -> list[Record]:
    """Measure all cells that are not done yet, on one core each.

    Args:
        cells: from `cells_of`.
        budget_name: a key of `BUDGETS`.
        out: the folder that keeps them.
        workers: cells at once; by default one for each core.
        on_progress: called with each record, and what is left.

    Raises:
        InputError: when the folder was begun with another budget, or another process writes it; when a cell
            fails, after all others.
    """
    budget = BUDGETS[budget_name]
    workers = workers or os.cpu_count() or 1
    with locked(out):
        check_budget(out, budget_name)
        write_text(out / BUDGET_FILE, json.dumps({"budget": budget_name}) + "\n")
        done = {record.cell.name for record in finished(cells, out)}
        jobs = [_job(cell, budget_name, out) for cell in cells]
        by_name = {cell.name: cell for cell in cells}

        def heard(ended: Ended | None, state: State) -> None:
            if ended is not None and ended.name in state.done and on_progress is not None:
                record = Record.load(folder_of(by_name[ended.name], out) / RECORD)
                on_progress(record, remaining(cells, budget, out, workers))

        if done < by_name.keys():
            # Threads of one process would wait for those of the others (docs/log.md, "threads that wait").
            state = run_jobs(jobs, LocalPool(workers, 1), done=done, watch=heard)
            for ended in state.failed.values():
                more = f" (and {len(state.failed) - 1} more)" if len(state.failed) > 1 else ""
                raise InputError(f"{ended.name} failed{more}: {ended.error}")
    return finished(cells, out)


def _job(cell: Cell, budget_name: str, out: Path) -> Job:
    """A cell as the engine takes it."""
    folder, needs = folder_of(cell, out).resolve(), cell.needs
    values = {"cell": asdict(cell), "budget": budget_name, "out": str(out.resolve())}
    need = None if needs is None else needs.name
    return Job(cell.name, WORK, folder, values, need, f"{cell.protocol} {cell.row}")


def check_budget(out: Path, budget_name: str) -> None:
    """Cells of two budgets must never meet in one table.

    Raises:
        InputError: when the folder was begun with another.
    """
    path = out / BUDGET_FILE
    if path.exists():
        try:
            begun = from_json(read_text(path))["budget"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} does not name a budget: {error}; remove it") from error
        if begun != budget_name:
            raise InputError(f"{out} was begun with budget {begun!r}; choose another --out")


def measure_cell(folder: Path, values: dict[str, Any], say: Say) -> None:
    """The work of a cell's job: train it and measure it; its record is written last."""
    cell, budget, out = Cell(**values["cell"]), BUDGETS[values["budget"]], Path(values["out"])
    began = time.perf_counter()
    run, interpolates, note = _train(cell, budget, out)
    proven = run is not None and (run.path / CERTIFICATE).exists()
    scores: tuple[Score, ...] = ()
    if run is not None:
        base = run.config.base
        scores = tuple(
            score
            for length in budget.lengths
            for score in evaluation.measure(
                run,
                [length],
                suites=("uniform",),
                samples=min(base**length - base ** (length - 1), budget.samples),
            )
        )
    steps = 0 if run is None else read_metrics(run)[-1].step
    seconds = round(time.perf_counter() - began, 1)
    record = Record(cell, interpolates, steps, note, seconds, scores, proven)
    write_text(folder / RECORD, json.dumps(asdict(record), indent=1) + "\n")


def _train(cell: Cell, budget: Budget, out: Path) -> tuple[Run | None, bool, str]:
    """The model of a cell; whether it interpolates; why there is none."""
    config, path = config_of(cell, budget), folder_of(cell, out) / MODEL
    before = None if cell.needs is None else folder_of(cell.needs, out) / MODEL
    try:
        if before is None:
            return train_run(config, path, resume=True), True, ""
        if not (before / CONFIG).exists():
            return None, False, f"{cell.source} has no bias"
        origin = Run.open(before)
        if cell.source is None:
            _, bias, run = calibrate_and_retrain(config, path, origin, resume=True)
            if cell.row == "abc":
                run, proof = prove_and_drill(run, bias, Clock())
                return run, True, "" if isinstance(proof, Certificate) else str(proof)
            return run, True, ""
        assert isinstance(origin.bias, CalibratedBias)
        bias = origin.bias.transferred(config.format)
        return train_run(config.for_retraining(), path, bias=bias, resume=True), True, ""
    except NotInterpolatedError as error:
        return error.run, False, "does not interpolate"
    except NoLinesError as error:
        return None, False, str(error)
