"""Pictures in the manner of the paper's figures: all methods, heat maps, directions, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

from lengthwise.bias import CLOSED, Site
from lengthwise.layout import Layout
from lengthwise.report.canvas import (
    INK,
    SHADES,
    ShownFigure,
    finish,
    key_labels,
    length_axis,
    name_cells,
    new_canvas,
    percent_axis,
    row_labels,
)

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
    figure = new_canvas(4.2 * len(shares), 3.9)
    grid = figure.subplots(1, len(shares), squeeze=False)[0]
    drawn = {}
    for axes, (task, rows) in zip(grid, shares.items(), strict=True):
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
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
    return _written(figure, path)


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
    rows: list[tuple[int, Site]] = [(length, site) for length in maps for site in sites]
    heads = maps[rows[0][0]]["cross"].shape[1]
    figure = new_canvas(2.6 * heads + 0.8, 2.1 * len(rows) + 0.5)
    grid = figure.subplots(len(rows), heads, squeeze=False)
    image = None
    for (length, site), panels in zip(rows, grid, strict=True):
        matrices = maps[length][site][-1]
        for head, axes in enumerate(panels):
            image = axes.imshow(matrices[head].numpy(), cmap=SHADES, vmin=0, vmax=1, aspect="auto")
            _name_cells(axes, layouts[length], site, rows=head == 0)
            if head == 0:
                axes.set_ylabel(f"{length} digits\n{site}-attention", fontsize=9)
            if panels is grid[0]:
                axes.set_title(f"head {head}", fontsize=10)
    assert image is not None
    figure.colorbar(image, ax=grid, shrink=0.4, pad=0.01).set_label("share of attention")
    figure.suptitle(f"{title} digits", fontsize=12, color=INK)
    return _written(figure, path)


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
        top.imshow(attention[head].numpy(), cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        _name_cells(top, layout, "cross", rows=column == 0)
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
    return _written(figure, path)


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
        axes.imshow((bias > CLOSED).float().numpy(), cmap=SHADES, vmin=0, vmax=1.6)
        _name_cells(axes, layout, site, rows=True)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
    figure.suptitle("Windows of width 1: keys left open", x=0.01, ha="left", fontsize=12, color=INK)
    return _written(figure, path)


def _name_cells(axes: Axes, layout: Layout, site: Site, *, rows: bool) -> None:
    """Name the keys below, and at the left the symbols that the rows write."""
    name_cells(axes.xaxis, key_labels(layout, site), rotation=90)
    name_cells(axes.yaxis, row_labels(layout) if rows else [])


def _line(direction: str, offset: int, queries: int, keys: int) -> list[tuple[int, int]]:
    """The cells `(query, key)` of a line through a whole matrix."""
    place = {
        "diagonal": lambda row: row + offset,
        "anti-diagonal": lambda row: keys - 1 - row - offset,
        "vertical": lambda row: offset,
    }[direction]
    return [(row, place(row)) for row in range(queries) if 0 <= place(row) < keys]


def _written(figure: ShownFigure, path: Path) -> Path:
    written = finish(figure, path)
    assert isinstance(written, Path)
    return written
