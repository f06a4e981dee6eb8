"""The paper's figures, drawn from the cells of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lengthwise.bias import SITES, CalibratedBias, MatrixTrack
from lengthwise.calibration import capture, kept_maps
from lengthwise.calibration.maps import AttentionMaps, average_attention
from lengthwise.calibration.paper import DIRECTIONS, line_means
from lengthwise.evaluation.curve import Score
from lengthwise.problems.layout import Layout
from lengthwise.report.canvas import (
    INK,
    SHADES,
    Panels,
    draw_cells,
    finish,
    length_axis,
    new_canvas,
    new_figure,
    percent_axis,
)
from lengthwise.report.plots import attention_grid, bias_grid, bias_map, mean_by_length
from lengthwise.reproduce.cells import PROTOCOLS, TABLE_TASKS, Budget, Cell, Protocol, config_of
from lengthwise.reproduce.runner import MODEL, Record, folder_of
from lengthwise.runs.parts import make_bias
from lengthwise.runs.run import Run

# Digits at which heat maps of models trained on six are drawn, and width of drawn biases.
_LONGER, _DRAWN_WIDTH = 12, 12

# Okabe and Ito's palette again, one colour a method; what shares a colour differs in its dashes.
_STYLES: dict[str, tuple[str, str]] = {
    "vanilla": ("#D55E00", "-"),
    "alibi": ("#CC79A7", "-"),
    "rope": ("#E69F00", "-"),
    "rpe": ("#000000", "-"),
    "abc": ("#0072B2", "-"),
    "abc_paper": ("#0072B2", ":"),
    "window1": ("#009E73", "-"),
    "window1_cpi3": ("#009E73", "--"),
    "nope_window1": ("#56B4E9", "-"),
}
_PADDED: dict[Protocol, str] = {
    "short": "only as far as the answers need",
    "padded": "to the width of the longest test problem",
}


def draw_figures(records: list[Record], budget: Budget, out: Path) -> list[Path]:
    """Draw what the measured cells allow: accuracy, attention, directions, biases, window masks.

    Returns:
        The pictures, PNG, in `out/figures`.
    """
    folder, drawn = out / "figures", []
    folder.mkdir(parents=True, exist_ok=True)
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
            drawn.append(_accuracy(scores, budget, protocol, path))
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
        maps = kept_maps(run) or capture(run)
        assert isinstance(maps, AttentionMaps)  # none of these tasks is of sheets
        drawn.append(_directions(maps, path))
    for row in ("abc", "abc_paper"):
        cell = Cell(task, row, "short", 0)
        if cell in done:
            run = Run.open(folder_of(cell, out) / MODEL)
            if isinstance(run.bias, CalibratedBias):
                layout = Layout(run.task, max(_DRAWN_WIDTH, run.config.width))
                path = folder / f"bias-{task}-{row}.png"
                drawn.append(bias_map(run.bias, layout, path, joint=run.config.model.joint))
    return drawn


def _accuracy(
    scores: Mapping[str, Mapping[str, Sequence[Score]]],
    budget: Budget,
    protocol: Protocol,
    path: Path,
) -> Path:
    """Accuracy against length, one panel a task, one line a method (paper, figures 1 and 7).

    Args:
        scores: of each task and row; a line is the mean of all seeds, a dot one seed.
        budget: what they were measured with.
        protocol: how they were padded.
    """
    figure, grid = new_figure(4.2 * len(scores), 3.9, columns=len(scores))
    drawn = {}
    for axes, (task, rows) in zip(grid, scores.items(), strict=True):
        for row, own in rows.items():
            colour, dashes = _STYLES.get(row, ("#777777", "-"))
            means = mean_by_length(own)
            line = list(means), list(means.values())
            (drawn[row],) = axes.plot(*line, dashes, color=colour, linewidth=1.8)
            seeds = [score.length for score in own], [score.accuracy for score in own]
            axes.plot(*seeds, ".", color=colour, markersize=5)
        measured = sorted({score.length for own in rows.values() for score in own})
        trained = config_of(Cell(task, "vanilla", protocol, 0), budget).data.length
        length_axis(axes, measured, trained)
        percent_axis(axes)
        axes.set_title(task, loc="left", fontsize=12, color=INK)
    grid[0].set_ylabel("problems answered right")
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside right upper", frameon=False, fontsize=9
    )
    title = f"Exact match against length; padded in training {_PADDED[protocol]}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return finish(figure, path)


def _directions(maps: AttentionMaps, path: Path) -> Path:
    """The directions along which the last layer's maps are averaged, and the means (figure 3)."""
    attention = maps.weights["cross"][-1]
    queries = torch.arange(attention.shape[1])
    figure = new_canvas(4.3 * len(DIRECTIONS), 5.2)
    grid = figure.subplots(2, len(DIRECTIONS))
    for column, direction in enumerate(DIRECTIONS):
        offsets, means = line_means(attention, direction)
        top, bottom = grid[0][column], grid[1][column]
        tracks = [MatrixTrack("cross", direction, offset) for offset in offsets.tolist()]
        lines = [track.keys(maps.layout, queries) for track in tracks]
        # The best of the lines that cross at least half of the rows; short ones are corners.
        crossed = torch.stack([inside.sum() for _, inside in lines])
        long = means.where(crossed * 2 >= len(queries), -1.0)
        head = int(long.amax(dim=1).argmax())
        shades = {"cmap": SHADES, "vmin": 0, "vmax": 1, "aspect": "auto"}
        draw_cells(top, attention[head], maps.layout, "cross", named=column == 0, **shades)
        best = int(long[head].argmax())
        keys, inside = lines[best]
        top.plot(keys[inside].numpy(), queries[inside].numpy(), color="#D55E00", linewidth=1.6)
        top.set_title(f"{direction}: head {head}", loc="left", fontsize=11, color=INK)
        colours = ["#D55E00" if i == best else "#0072B2" for i in range(len(offsets))]
        bottom.bar(offsets.tolist(), means[head].tolist(), color=colours)
        bottom.set_xlabel("offset of the line")
        bottom.spines[["top", "right"]].set_visible(False)
    grid[1][0].set_ylabel("mean attention along the line")
    figure.suptitle(f"{maps.task}: cross-attention of the last layer, line by line", fontsize=12)
    return finish(figure, path)
