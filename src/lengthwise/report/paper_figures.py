"""Pictures in the manner of the paper's figures: all methods, heat maps, directions, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lengthwise.bias import CLOSED, Site
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
from lengthwise.report.plots import attention_grid

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
    shares: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    trained: Mapping[str, int],
    protocol: str,
    path: Path,
) -> Path:
    """Accuracy against length, one panel a task, one line a method (paper, figures 1 and 7).

    Args:
        shares: task, row and length to the shares of all seeds; a line is their mean, a dot one seed.
        trained: digits that each task was trained on, at most.
        protocol: `short` or `padded`.
        path: the picture.
    """
    figure, grid = new_figure(4.2 * len(shares), 3.9, columns=len(shares))
    drawn = {}
    for axes, (task, rows) in zip(grid, shares.items(), strict=True):
        for row, by_length in rows.items():
            colour, dashes = _STYLES.get(row, ("#777777", "-"))
            lengths = sorted(by_length)
            means = [sum(by_length[n]) / len(by_length[n]) for n in lengths]
            (drawn[row],) = axes.plot(lengths, means, dashes, color=colour, linewidth=1.8)
            for length in lengths:
                seeds = by_length[length]
                axes.plot([length] * len(seeds), seeds, ".", color=colour, markersize=5)
        measured = sorted({length for by_length in rows.values() for length in by_length})
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


def attention_panels(
    maps: Mapping[int, Mapping[Site, Tensor]],
    layouts: Mapping[int, Layout],
    title: str,
    path: Path,
) -> Path:
    """Heat maps of the last layer, one row of panels for each length and site (paper, figures 2, 8, 9).

    Args:
        maps: length and site to mean attention `[layer, head, query, key]`.
        layouts: of each length.
        title: what is shown.
        path: the picture.
    """
    sites: tuple[Site, ...] = ("cross", "self")
    rows: list[Panels] = [
        (f"{length} digits", layouts[length], site, of_length[site][-1])
        for length, of_length in maps.items()
        for site in sites
    ]
    return finish(attention_grid(rows, f"{title} digits"), path)


def direction_panels(
    attention: Tensor,
    means: Mapping[str, tuple[Tensor, Tensor]],
    layout: Layout,
    task: str,
    path: Path,
) -> Path:
    """The directions along which attention is averaged, and the means (paper, figure 3).

    Args:
        attention: mean cross-attention of one layer `[head, query, key]`.
        means: direction to offsets `[line]` and means `[head, line]`.
        layout: of the maps.
        task: its name.
        path: the picture.
    """
    figure = new_canvas(4.3 * len(means), 5.2)
    grid = figure.subplots(2, len(means), squeeze=False)
    for column, (direction, (offsets, values)) in enumerate(means.items()):
        top, bottom = grid[0][column], grid[1][column]
        # The best of the lines that cross at least half of the rows; short ones are corners.
        crossed = torch.tensor(
            [len(_line(direction, int(one), *attention.shape[1:])) for one in offsets]
        )
        long = values.where(crossed * 2 >= attention.shape[1], -1.0)
        head = int(long.amax(dim=1).argmax())
        shades = {"cmap": SHADES, "vmin": 0, "vmax": 1, "aspect": "auto"}
        draw_cells(top, attention[head], layout, "cross", named=column == 0, **shades)
        best = int(long[head].argmax())
        keys = _line(direction, int(offsets[best]), *attention[head].shape)
        top.plot([k for _, k in keys], [q for q, _ in keys], color="#D55E00", linewidth=1.6)
        top.set_title(f"{direction}: head {head}", loc="left", fontsize=11, color=INK)
        colours = ["#D55E00" if i == best else "#0072B2" for i in range(len(offsets))]
        bottom.bar(offsets.tolist(), values[head].tolist(), color=colours)
        bottom.set_xlabel("offset of the line")
        bottom.spines[["top", "right"]].set_visible(False)
    grid[1][0].set_ylabel("mean attention along the line")
    figure.suptitle(f"{task}: cross-attention of the last layer, line by line", fontsize=12)
    return finish(figure, path)


def mask_panels(panels: Sequence[tuple[str, Tensor, Layout, Site]], path: Path) -> Path:
    """Which keys are open, one panel each (paper, figure 11).

    Args:
        panels: a title, a bias `[query, key]`, its layout and site.
        path: the picture.
    """
    wide = [max(2.4, 0.2 * bias.shape[1]) for _, bias, _, _ in panels]
    figure = new_canvas(sum(wide) + 1.0, 3.2)
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=wide)[0]
    for axes, (title, bias, layout, site) in zip(grid, panels, strict=True):
        shades = {"cmap": SHADES, "vmin": 0, "vmax": 1.6}
        draw_cells(axes, (bias > CLOSED).float(), layout, site, **shades)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
    figure.suptitle("Windows of width 1: keys left open", x=0.01, ha="left", fontsize=12, color=INK)
    return finish(figure, path)


def _line(direction: str, offset: int, queries: int, keys: int) -> list[tuple[int, int]]:
    """The cells `(query, key)` of a line through a whole matrix."""
    place = {
        "diagonal": lambda row: row + offset,
        "anti-diagonal": lambda row: keys - 1 - row - offset,
        "vertical": lambda row: offset,
    }[direction]
    return [(row, place(row)) for row in range(queries) if 0 <= place(row) < keys]
