"""One self-contained HTML page about a sweep: all curves, with intervals, and which cells are missing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lengthwise.evaluation.curve import LengthCurve, Score, wilson
from lengthwise.files import write_text
from lengthwise.report import plots, summary
from lengthwise.report.page import picture, render
from lengthwise.report.summary import Row, listed, percent

# Lines that one picture can show; more go into further pictures.
_LINES = 6

# Cells that the page names: of those without results, and of all.
_MOST = 500

# Scores whose numbers lie in the page; results.csv has them all.
_MOST_SCORES = 20_000


def write_sweep_report(
    out: Path,
    *,
    title: str,
    groups: Sequence[tuple[str, int, int, LengthCurve]],
    cells: Sequence[dict[str, Any]],
    results: Iterable[dict[str, Any]],
) -> Path:
    """Write the page.

    Args:
        out: the HTML file.
        title: how far the sweep is, in a few words.
        groups: of each task: its name, its base, digits that it was trained on, and its scores, whose
            method is the name of their line.
        cells: the rows of cells.csv.
        results: the rows of results.csv.
    """
    missing = [cell for cell in cells if cell["state"] != "done"]
    # What failed is what a reader must know of.
    missing.sort(key=lambda cell: cell["state"] != "failed")
    with tempfile.TemporaryDirectory() as pictures:
        shown = [
            _group(Path(pictures) / f"{number}", *group) for number, group in enumerate(groups)
        ]
    page = render(
        "sweeps.html.j2",
        title=title,
        standing=_standing(cells),
        missing=missing[:_MOST],
        left_out=len(missing) - len(missing[:_MOST]),
        groups=shown,
        cells=cells[:_MOST],
        data={"format": "lengthwise-sweep-report/1", "results": [*islice(results, _MOST_SCORES)]},
    )
    write_text(out, page)
    return out


def _standing(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What became of the cells, in sentences."""
    done = [cell for cell in cells if cell["state"] == "done"]
    said = []
    if unable := [cell for cell in done if not cell["interpolates"]]:
        some = [cell["cell"] for cell in unable[:3]]
        more = [f"{len(unable) - 3} more"] if len(unable) > 3 else []
        said.append(
            f"{len(unable)} of {len(done)} measured cells do not interpolate: {listed(some + more)}."
        )
    if asked := [cell for cell in done if cell["proven"] is not None]:
        proven = sum(cell["proven"] for cell in asked)
        said.append(f"{proven} of {len(asked)} models that a proof speaks about are proven.")
    return said


def _group(
    pictures: Path, task: str, base: int, trained: int, curve: LengthCurve
) -> dict[str, Any]:
    """What the page says about one task."""
    name = task if base == 10 else f"{task} in base {base}"
    labels = list(dict.fromkeys(score.method for score in curve))
    drawn = []
    for first in range(0, len(labels), _LINES):
        some = labels[first : first + _LINES]
        part = LengthCurve(score for score in curve if score.method in some)
        drawn.append(
            picture(
                pictures / f"length-{first}.png",
                partial(plots.length_curve, part, trained=trained),
                f"Exact match of {name} against length: {listed(some)}. The table below has the numbers.",
                "A line is the mean over seeds; each point is one cell, with its 95 % Wilson interval. "
                "Lengths that were trained on are shaded.",
            )
        )
    return {"name": name, "pictures": drawn, "rows": mean_rows(curve)}


def mean_rows(curve: LengthCurve) -> list[Row]:
    """Rows of model, suite and length; seeds, their mean and least, problems answered right, interval."""
    found: dict[tuple, list[Score]] = {}
    for score in curve:
        key = (score.method, score.suite, (score.extent, score.size))
        found.setdefault(key, []).append(score)
    suites = list(dict.fromkeys(score.suite for score in curve))
    methods = list(dict.fromkeys(score.method for score in curve))
    rows = []
    order = sorted(found, key=lambda key: (methods.index(key[0]), suites.index(key[1]), key[2]))
    for key in order:
        scores = found[key]
        shares = [score.accuracy for score in scores]
        correct, n = sum(s.correct for s in scores), sum(s.n for s in scores)
        reach = summary.interval(*wilson(correct, n))
        seeds = len({score.seed for score in scores})
        mean = percent(sum(shares) / len(shares))
        cells = (str(seeds), mean, percent(min(shares)), f"{correct} of {n}", reach)
        rows.append(Row((key[0], key[1], key[2][1]), cells))
    return rows
