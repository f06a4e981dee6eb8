"""Pictures in the manner of the paper's figures: all methods, directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lengthwise.calibration.maps import AttentionMaps
from lengthwise.calibration.paper import DIRECTIONS, line_means
from lengthwise.evaluation.curve import Score
from lengthwise.report.canvas import (
    INK,
    SHADES,
    draw_cells,
    finish,
    length_axis,
    new_canvas,
    new_figure,
    percent_axis,
)
from lengthwise.report.plots import mean_by_length

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


def accuracy_panels(
    scores: Mapping[str, Mapping[str, Sequence[Score]]],
    trained: Mapping[str, int],
    protocol: str,
    path: Path,
) -> Path:
    """Accuracy against length, one panel a task, one line a method (paper, figures 1 and 7).

    Args:
        scores: of each task and row; a line is the mean of all seeds, a dot one seed.
        trained: digits that each task was trained on, at most.
        protocol: `short` or `padded`.
        path: the picture.
    """
    figure, grid = new_figure(4.2 * len(scores), 3.9, columns=len(scores))
    drawn = {}
    for axes, (task, rows) in zip(grid, scores.items(), strict=True):
        for row, own in rows.items():
            colour, dashes = _STYLES.get(row, ("#777777", "-"))
            means = mean_by_length(own)
            (drawn[row],) = axes.plot(
                list(means), list(means.values()), dashes, color=colour, linewidth=1.8
            )
            seeds = [score.length for score in own], [score.accuracy for score in own]
            axes.plot(*seeds, ".", color=colour, markersize=5)
        measured = sorted({score.length for own in rows.values() for score in own})
        length_axis(axes, measured, trained.get(task))
        percent_axis(axes)
        axes.set_title(task, loc="left", fontsize=12, color=INK)
    grid[0].set_ylabel("problems answered right")
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside right upper", frameon=False, fontsize=9
    )
    words = {
        "short": "padded in training only as far as the answers need",
        "padded": "padded in training to the width of the longest test problem",
    }
    figure.suptitle(
        f"Exact match against length; {words[protocol]}", x=0.01, ha="left", fontsize=12
    )
    return finish(figure, path)


def direction_panels(maps: AttentionMaps, path: Path) -> Path:
    """The directions along which the last layer's maps are averaged, and the means (figure 3)."""
    attention = maps.weights["cross"][-1]
    figure = new_canvas(4.3 * len(DIRECTIONS), 5.2)
    grid = figure.subplots(2, len(DIRECTIONS))
    for column, direction in enumerate(DIRECTIONS):
        offsets, values = line_means(attention, direction)
        top, bottom = grid[0][column], grid[1][column]
        # The best of the lines that cross at least half of the rows; short ones are corners.
        crossed = torch.tensor(
            [len(_line(direction, int(one), *attention.shape[1:])) for one in offsets]
        )
        long = values.where(crossed * 2 >= attention.shape[1], -1.0)
        head = int(long.amax(dim=1).argmax())
        shades = {"cmap": SHADES, "vmin": 0, "vmax": 1, "aspect": "auto"}
        draw_cells(top, attention[head], maps.layout, "cross", named=column == 0, **shades)
        best = int(long[head].argmax())
        keys = _line(direction, int(offsets[best]), *attention[head].shape)
        top.plot([k for _, k in keys], [q for q, _ in keys], color="#D55E00", linewidth=1.6)
        top.set_title(f"{direction}: head {head}", loc="left", fontsize=11, color=INK)
        colours = ["#D55E00" if i == best else "#0072B2" for i in range(len(offsets))]
        bottom.bar(offsets.tolist(), values[head].tolist(), color=colours)
        bottom.set_xlabel("offset of the line")
        bottom.spines[["top", "right"]].set_visible(False)
    grid[1][0].set_ylabel("mean attention along the line")
    figure.suptitle(f"{maps.task}: cross-attention of the last layer, line by line", fontsize=12)
    return finish(figure, path)


def _line(direction: str, offset: int, queries: int, keys: int) -> list[tuple[int, int]]:
    """The cells `(query, key)` of a line through a whole matrix."""
    place = {
        "diagonal": lambda row: row + offset,
        "anti-diagonal": lambda row: keys - 1 - row - offset,
        "vertical": lambda row: offset,
    }[direction]
    return [(row, place(row)) for row in range(queries) if 0 <= place(row) < keys]
