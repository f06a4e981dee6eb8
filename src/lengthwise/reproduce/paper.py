"""What the paper reports: tables 1 and 3 of arXiv 2310.11984v3, shipped with the package."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Reported:
    """One number of the paper.

    Attributes:
        table: `table1` or `table3`.
        task: a task's name.
        model: the paper's row, such as `vanilla`, `abc` or `window1_cpi3`.
        length: digits, or None where the paper names none.
        accuracy: share of problems answered right, or None where it says so.
        note: where the number comes from, when not from the paper's own experiments.
    """

    table: str
    task: str
    model: str
    length: int | None
    accuracy: float | None
    note: str


def paper_results() -> list[Reported]:
    """All numbers of the two tables."""
    text = files("lengthwise.reproduce").joinpath("paper_results.csv").read_text("utf-8")
    return [
        Reported(
            table=row["source"],
            task=row["task"],
            model=row["model"],
            length=int(row["length"]) if row["length"] else None,
            accuracy=float(row["accuracy_percent"]) / 100 if row["accuracy_percent"] else None,
            note=row["note"],
        )
        for row in csv.DictReader(text.splitlines())
    ]
