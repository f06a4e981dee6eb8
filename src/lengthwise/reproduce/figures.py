"""The paper's figures, drawn from the cells of its tables."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bias import SITES, CalibratedBias
from lengthwise.calibration.maps import average_attention, capture, kept_maps
from lengthwise.calibration.paper import DIRECTIONS, line_means
from lengthwise.problems.layout import Layout
from lengthwise.report.paper_figures import (
    accuracy_panels,
    attention_panels,
    direction_panels,
    mask_panels,
)
from lengthwise.report.plots import bias_map
from lengthwise.reproduce.cells import TABLE_TASKS, Budget, Cell, config_of
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
    first = {task: Cell(task, "vanilla", "short", budget.seeds[0]) for task in TABLE_TASKS}
    trained = {task: config_of(cell, budget).data.length for task, cell in first.items()}
    for protocol in ("short", "padded"):
        own = [record for record in records if record.cell.source is None and record.scores]
        chosen = [r for r in own if r.cell.protocol == protocol and r.cell.task in TABLE_TASKS]
        if chosen:
            path = folder / f"accuracy-{protocol}.png"
            drawn.append(accuracy_panels(_shares(chosen), trained, protocol, path))
    for task in TABLE_TASKS:
        drawn += _of_task(task, records, out, folder)
    drawn.append(_window_masks(budget, folder / "windows.png"))
    return drawn


def _shares(records: list[Record]) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Task, row and length to the shares of all seeds."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for record in records:
        row = found.setdefault(record.cell.task, {}).setdefault(record.cell.row, {})
        for score in record.scores:
            row.setdefault(score.length, []).append(score.accuracy)
    return found


def _of_task(task: str, records: list[Record], out: Path, folder: Path) -> list[Path]:
    """Attention on longer problems, directions, and calibrated biases of one task, first seed."""
    drawn = []
    done = {record.cell for record in records if record.scores}
    vanilla = Cell(task, "vanilla", "short", 0)
    if vanilla in done:
        run = Run.open(folder_of(vanilla, out) / MODEL)
        length = run.config.data.length
        maps = {n: average_attention(run, n) for n in (length, max(_LONGER, 2 * length))}
        layouts = {n: run.layout(n) for n in maps}
        title = f"Attention of the vanilla {task} model, last layer: trained on at most {length}"
        path = folder / f"attention-{task}.png"
        drawn.append(attention_panels(maps, layouts, title, path))
        found = kept_maps(run) or capture(run)
        last = found.weights["cross"][-1]
        means = {direction: line_means(last, direction) for direction in DIRECTIONS}
        path = folder / f"directions-{task}.png"
        drawn.append(direction_panels(last, means, found.layout, task, path))
    for row in ("abc", "abc_paper"):
        cell = Cell(task, row, "short", 0)
        if cell in done:
            run = Run.open(folder_of(cell, out) / MODEL)
            if isinstance(run.bias, CalibratedBias):
                layout = Layout(run.task, max(_DRAWN_WIDTH, run.config.width))
                path = folder / f"bias-{task}-{row}.png"
                bias_map(run.bias, layout, path)
                drawn.append(path)
    return drawn


def _window_masks(budget: Budget, path: Path) -> Path:
    """The hand-drawn windows of width 1: one operand, and two that are interleaved."""
    panels = []
    for task in ("successor", "addition"):
        config = config_of(Cell(task, "window1", "short", 0), budget)
        layout = config.layout(8)
        for site in SITES:
            dense = make_bias(config).dense(site, 0, layout, range(layout.target_length))
            panels.append((f"{task}, {site}-attention", dense[0], layout, site))
    return mask_panels(panels, path)
