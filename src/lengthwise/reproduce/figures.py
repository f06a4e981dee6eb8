"""The paper's figures, drawn from the cells of its tables."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bias import SITES, CalibratedBias
from lengthwise.calibration.maps import average_attention, capture, kept_maps
from lengthwise.evaluation.curve import Score
from lengthwise.problems.layout import Layout
from lengthwise.report.canvas import Panels, finish
from lengthwise.report.paper_figures import accuracy_panels, direction_panels
from lengthwise.report.plots import attention_grid, bias_grid, bias_map
from lengthwise.reproduce.cells import PROTOCOLS, TABLE_TASKS, Budget, Cell, config_of
from lengthwise.reproduce.runner import MODEL, Record, folder_of
from lengthwise.runs.parts import make_bias
from lengthwise.runs.run import Run

# Digits at which heat maps of models trained on six are drawn, and width of drawn biases.
_LONGER, _DRAWN_WIDTH = 12, 12


def draw_figures(records: list[Record], budget: Budget, out: Path) -> list[Path]:
    """Draw what the measured cells allow: accuracy, attention, directions, biases, window masks.

    Returns:
        The pictures, PNG, in `out/figures`.
    """
    folder, drawn = out / "figures", []
    folder.mkdir(parents=True, exist_ok=True)
    first = {task: config_of(Cell(task, "vanilla", "short", 0), budget) for task in TABLE_TASKS}
    trained = {task: config.data.length for task, config in first.items()}
    for protocol in PROTOCOLS:
        scores: dict[str, dict[str, list[Score]]] = {}
        for record in records:
            cell = record.cell
            known = cell.task in TABLE_TASKS and cell.source is None and record.scores
            if known and cell.protocol == protocol:
                rows = scores.setdefault(cell.task, {})
                rows.setdefault(cell.row, []).extend(record.scores)
        if scores:
            path = folder / f"accuracy-{protocol}.png"
            drawn.append(accuracy_panels(scores, trained, protocol, path))
    for task in TABLE_TASKS:
        drawn += _of_task(task, records, out, folder)
    # The hand-drawn windows of width 1 (paper, figure 11): one operand, and two that are interleaved.
    windows: list[Panels] = []
    for task in ("successor", "addition"):
        config = config_of(Cell(task, "window1", "short", 0), budget)
        layout = config.layout(8)
        for site in SITES:
            dense = make_bias(config).dense(site, 0, layout, range(layout.target_length))
            windows.append((task, layout, site, dense[:1]))
    figure = bias_grid(windows, "Windows of width 1: keys that every head leaves open")
    drawn.append(finish(figure, folder / "windows.png"))
    return drawn


def _of_task(task: str, records: list[Record], out: Path, folder: Path) -> list[Path]:
    """Attention on longer problems, directions, and calibrated biases of one task, first seed."""
    drawn = []
    done = {record.cell for record in records if record.scores}
    vanilla = Cell(task, "vanilla", "short", 0)
    if vanilla in done:
        run = Run.open(folder_of(vanilla, out) / MODEL)
        length = run.config.data.length
        rows: list[Panels] = []
        for n in (length, max(_LONGER, 2 * length)):
            shown = average_attention(run, n)
            for site in reversed(SITES):
                rows.append((f"{n} digits", run.layout(n), site, shown[site][-1]))
        title = f"Attention of the vanilla {task} model, last layer: trained on at most {length}"
        figure = attention_grid(rows, f"{title} digits")
        drawn.append(finish(figure, folder / f"attention-{task}.png"))
        path = folder / f"directions-{task}.png"
        drawn.append(direction_panels(kept_maps(run) or capture(run), path))
    for row in ("abc", "abc_paper"):
        cell = Cell(task, row, "short", 0)
        if cell in done:
            run = Run.open(folder_of(cell, out) / MODEL)
            if isinstance(run.bias, CalibratedBias):
                layout = Layout(run.task, max(_DRAWN_WIDTH, run.config.width))
                path = folder / f"bias-{task}-{row}.png"
                drawn.append(bias_map(run.bias, layout, path))
    return drawn
