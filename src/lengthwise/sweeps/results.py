"""What the cells of a sweep say together: two tidy tables, and which of them are missing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import from_json, read_text, write_csv, write_text
from lengthwise.sweeps.cell import FAILED, Record
from lengthwise.sweeps.grid import Cell, Plan
from lengthwise.sweeps.jobs import Ended

CELLS, RESULTS, OVERVIEW, REPORT = "cells", "results.csv", "cells.csv", "report.html"

# Of a score, in results.csv; what tells cells apart stands before them.
_SCORE = (
    *("task", "base", "method", "seed", "problem_seed", "suite", "length", "rows", "width"),
    *("split", "padding", "decoding", "n", "correct", "accuracy", "low", "high", "worst_loss"),
    "model",
)

# Of a record, in cells.csv.
_FACTS = ("interpolates", "proven", "steps", "seconds")


@dataclass(frozen=True)
class Standing:
    """A cell, and how it stands.

    Attributes:
        cell: the cell.
        folder: where it is.
        record: what became of it; None where it is not done.
        failure: why it failed; None where it did not.
        begun: whether its folder is there.
    """

    cell: Cell
    folder: Path
    record: Record | None
    failure: str | None
    begun: bool

    @property
    def state(self) -> str:
        """`done`, `failed`, `begun` or `missing`."""
        if self.record is not None:
            return "done"
        return "failed" if self.failure is not None else "begun" if self.begun else "missing"


@dataclass(frozen=True)
class Sweep:
    """A sweep, as far as it is done.

    Attributes:
        path: its folder.
        plan: its cells.
        standings: of each cell, in the plan's order.
    """

    path: Path
    plan: Plan
    standings: list[Standing]

    def of(self, *states: str) -> list[Standing]:
        """The cells that are in some states."""
        return [standing for standing in self.standings if standing.state in states]

    @property
    def curve(self) -> LengthCurve:
        """All scores."""
        return LengthCurve(
            score for s in self.standings if s.record is not None for score in s.record.scores
        )

    @property
    def report(self) -> Path:
        """The page about it, once it was written."""
        return self.path / REPORT

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r}: {self})"

    def __str__(self) -> str:
        states = [s.state for s in self.standings]
        others = [f"{states.count(s)} {s}" for s in ("failed", "begun", "missing") if s in states]
        return ", ".join([f"{states.count('done')} of {len(states)} cells done", *others])

    def records(self) -> list[dict[str, Any]]:
        """The rows of results.csv: one for each score, with what tells its cell from the others.

        They say nothing of time: a sweep that was interrupted gives the same bytes as one that was not.
        """
        return list(self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """`records`, one after the other."""
        for standing in self.of("done"):
            assert standing.record is not None
            # A score's method is that of its model: `vanilla` or `calibrated` of the method `abc`.
            axes = {**_axes(standing.cell), "cell_method": standing.cell.method}
            for score in standing.record.scores:
                values = {**vars(score), "accuracy": round(score.accuracy, 6)}
                own = {key: values[key] for key in _SCORE}
                yield {"cell": standing.cell.name, **axes, **own}

    def overview(self) -> list[dict[str, Any]]:
        """The rows of cells.csv: one for each cell, whatever became of it."""
        rows = []
        for s in self.standings:
            record, cell = s.record, s.cell
            own = {"task": cell.config.task, "method": cell.method, "seed": cell.config.seed}
            # Of a cell that is not done there are none.
            facts = {name: getattr(record, name, None) for name in _FACTS}
            facts |= {name: int(fact) for name, fact in facts.items() if isinstance(fact, bool)}
            note = s.failure if record is None else record.note
            named = {"cell": cell.name, **_axes(cell), **own, "state": s.state}
            rows.append({**named, **facts, "note": note})
        return rows

    def save(self) -> list[Path]:
        """Write results.csv and cells.csv.

        Returns:
            The two files.
        """
        axes = [key for key in self.plan.axes if key not in ("task", "method", "seed")]
        overview = self.overview()
        others = [key for key in overview[0] if key not in ("cell", *axes)]
        for name, rows, columns in (
            (RESULTS, self.rows(), ["cell", *axes, "cell_method", *_SCORE]),
            (OVERVIEW, overview, ["cell", *axes, *others]),
        ):
            # `base` may tell cells apart, and is of every score.
            names = list(dict.fromkeys(columns))
            lines = ([_field(row.get(column)) for column in names] for row in rows)
            write_csv(self.path / name, itertools.chain([names], lines))
        return [self.path / RESULTS, self.path / OVERVIEW]


def _axes(cell: Cell) -> dict[str, Any]:
    """What tells a cell apart, under names that columns of scores do not have."""
    return {key: v for key, v in cell.axes.items() if key not in ("task", "method", "seed")}


def _field(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if value is None else value


def folder_of(cell: Cell, out: Path) -> Path:
    """Where a cell is kept."""
    return out / CELLS / cell.name


def gather(plan: Plan, out: Path) -> Sweep:
    """How the cells of a plan stand in a folder.

    Raises:
        InputError: for a broken record, and for one of other settings.
    """
    return Sweep(out, plan, [standing_of(cell, folder_of(cell, out)) for cell in plan.cells])


def standing_of(cell: Cell, folder: Path) -> Standing:
    """How a cell stands."""
    record = Record.load(folder)
    if record is not None and record.hash != cell.hash:
        raise InputError(
            f"{folder} was made with other settings than cell {cell.name} has now; choose another --out, "
            f"or remove that folder"
        )
    failure = None if record is not None else failure_of(folder)
    return Standing(cell, folder, record, failure, folder.exists())


def failure_of(folder: Path) -> str | None:
    """Why a cell failed; None where it did not."""
    path = folder / FAILED
    try:
        return str(from_json(read_text(path))["error"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not say why a cell failed: {error}; remove it") from error


def keep_failure(ended: Ended, folder: Path) -> None:
    """Note beside a cell's run why it failed."""
    values = {"error": ended.error, "seconds": ended.seconds, "trace": ended.trace.splitlines()}
    write_text(folder / FAILED, json.dumps(values, indent=1) + "\n")


def labelled(standings: Iterable[Standing]) -> LengthCurve:
    """The scores of some cells, each with its method and what else tells it apart as its method's name.

    Of models that several cells have made alike, one counts.
    """
    scores, seen = [], set()
    for standing in standings:
        if standing.record is None:
            continue
        others = _axes(standing.cell).items()
        more = [str(value) if key == "case" else f"{key}={value}" for key, value in others]
        for score in standing.record.scores:
            label = ", ".join([score.method, *more])
            if (label, score.key) not in seen:
                seen.add((label, score.key))
                scores.append(replace(score, method=label))
    return LengthCurve(scores)
