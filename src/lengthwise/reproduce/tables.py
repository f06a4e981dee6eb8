"""The tables: tidy CSV, and Markdown with the paper's numbers beside ours."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from pathlib import Path

from lengthwise.evaluation.curve import wilson
from lengthwise.files import write_csv, write_text
from lengthwise.reproduce.cells import TABLE_TASKS, TABLES, Cell
from lengthwise.reproduce.runner import Record

_READ = "each seed (their mean; the 95 % Wilson interval of all problems); the paper"

_COLUMNS = (
    *("table", "task", "row", "source", "protocol", "seed"),
    *("interpolates", "proven", "steps", "seconds"),
    *("length", "width", "n", "correct", "accuracy", "low", "high", "paper"),
)


def write_tables(target: str, records: list[Record], out: Path) -> list[Path]:
    """Write TARGET.csv, one line for each cell and length, and TARGET.md.

    Returns:
        The two files.
    """
    written = [out / f"{target}.csv", out / f"{target}.md"]
    # Other cells are measured because these begin with them.
    chosen = [
        record
        for record in records
        if record.cell.row in TABLES[target][0]
        and (record.cell.task in TABLE_TASKS or record.cell.row in ("classification", "transfer"))
    ]
    write_csv(written[0], tidy(target, chosen))
    write_text(written[1], markdown(target, chosen))
    return written


@cache
def paper_results() -> dict[tuple[str, str, str, int | None], tuple[float | None, str]]:
    """Tables 1 and 3 of arXiv 2310.11984v3: table, task, row and digits to a share and its note.

    Digits are None where the paper names none, the share where it says so; the note is where a number comes
    from, when not from the paper's own experiments.
    """
    text = files("lengthwise.reproduce").joinpath("paper_results.csv").read_text("utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines()):
        length, share = row["length"], row["accuracy_percent"]
        key = row["source"], row["task"], row["model"], int(length) if length else None
        found[key] = float(share) / 100 if share else None, row["note"]
    return found


def reported(target: str, cell: Cell, length: int) -> tuple[float | None, str]:
    """The paper's share for a cell, and its note; None where it reports none."""
    row, task = cell.row, cell.task
    if task == "parity" and row == "vanilla":
        row = "scratchpad"  # the paper's name for it
    if row == "abc_paper":
        row = "abc"  # its numbers are of its own policy
    if row == "classification":
        task = "parity"
    found = paper_results()
    of_any_length = found.get((target, task, row, None), (None, ""))
    return found.get((target, task, row, length), of_any_length)


def tidy(target: str, records: list[Record]) -> list[tuple]:
    """The columns, and a row for each cell and length."""
    rows: list[tuple] = [_COLUMNS]
    for record in records:
        cell = record.cell
        for score in record.scores:
            paper, _ = reported(target, cell, score.length)
            rows.append(
                (
                    *(target, cell.task, cell.row, cell.source or "", cell.protocol, cell.seed),
                    *(int(record.interpolates), int(record.proven), record.steps, record.seconds),
                    *(score.length, score.width, score.n, score.correct),
                    *(round(score.accuracy, 6), score.low, score.high),
                    "" if paper is None else round(paper, 6),
                )
            )
    return rows


def markdown(target: str, records: list[Record]) -> str:
    """One row for each task, method and protocol; a cell holds ours, all seeds, and the paper's."""
    lengths = sorted({score.length for record in records for score in record.scores})
    head = ["task", "row", "protocol", "interpolates", "proven", *(f"{n} digits" for n in lengths)]
    lines = [f"Exact match in percent: {_READ}.\n"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        cell = record.cell
        groups.setdefault((cell.task, cell.row, cell.source, cell.protocol), []).append(record)
    for (task, row, source, protocol), members in groups.items():
        members = sorted(members, key=lambda record: record.cell.seed)
        name = f"{row} from {source}" if source else row
        able = sum(record.interpolates for record in members)
        proven = sum(record.proven for record in members)
        cells = [task, name, protocol, f"{able} of {len(members)}"]
        cells.append(f"{proven} of {len(members)}" if row == "abc" else "")
        cells += [_entry(target, members, length) for length in lengths]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _entry(target: str, members: list[Record], length: int) -> str:
    """`100, 99.9, 100 (mean 99.97; 99.9 to 100); paper 99.8`."""
    scores = [s for record in members for s in record.scores if s.length == length]
    paper, note = reported(target, members[0].cell, length)
    said = "" if paper is None else f"; paper {_percent(paper)}" + (" (other work)" if note else "")
    if not scores:
        return f"no model{said}"
    n, correct = sum(s.n for s in scores), sum(s.correct for s in scores)
    low, high = wilson(correct, n)
    seeds = ", ".join(_percent(score.accuracy) for score in scores)
    mean = sum(score.accuracy for score in scores) / len(scores)
    return f"{seeds} (mean {_percent(mean)}; {_percent(low)} to {_percent(high)}){said}"


def _percent(share: float) -> str:
    """Percent with up to two decimals; only exactly none and all are `0` and `100`."""
    text = f"{share * 100:.2f}"
    if share not in (0.0, 1.0) and text in ("0.00", "100.00"):
        return "<0.01" if share < 0.5 else ">99.99"
    return text.rstrip("0").rstrip(".")
