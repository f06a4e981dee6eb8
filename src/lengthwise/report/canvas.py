"""What all pictures share: figures of their own, colours, axes, and files that appear whole.

Only this package imports matplotlib, and never through pyplot, so that nothing global changes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import Formatter, NullLocator, PercentFormatter
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias import Site
from lengthwise.files import write_with
from lengthwise.problems.layout import END, START, Layout
from lengthwise.runs.folder import CALIBRATED, VANILLA
from lengthwise.settings.config import InputError

# The palette of Okabe and Ito, which colour-blind readers can tell apart; past it, of Paul Tol ("muted").
_COLOURS = {CALIBRATED: "#0072B2", VANILLA: "#D55E00"}
_MORE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MORE_COLOURS += ("#882255", "#44AA99", "#999933", "#332288", "#DDCC77", "#AA4499")
INK, FAINT, CLOSED_COLOUR = "#333333", "#BBBBBB", "#F1F1F1"
SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", "#56B4E9", "#0072B2", "#00243A"])
DPI = 150
# In a notebook, where pictures appear dot by dot.
_SCREEN_DPI = 100


def key_labels(layout: Layout, site: Site) -> list[str]:
    """What each key at a site holds: `a2 a1 a0 + b2 b1 b0`, at `self` `^ s0 s1 s2`.

    The number is the significance of a digit: 0 is the last digit of an operand and the first that
    is written.
    """
    if site == "self":
        return [START, *(f"s{row}" for row in range(layout.target_length - 1))]
    labels, anchors = [""] * layout.source_length, layout.anchors(site)
    for segment in layout.task.segments:
        grows = anchors[segment.name].grows
        keys, _ = layout.find(segment.name, [torch.arange(layout.width)] if grows else [])
        for column, key in enumerate(keys.view(-1).tolist()):
            labels[key] = f"{segment.name}{column}" if grows else segment.name
    return labels


def name_cells(axis: Any, labels: list[str], rotation: int = 0) -> None:
    """Name the cells; every second or third where there are many."""
    every = max(1, math.ceil(len(labels) / 28))
    axis.set_ticks(range(0, len(labels), every), labels[::every], rotation=rotation, fontsize=6.5)
    axis.set_tick_params(length=1.5, pad=1.5, color=FAINT)


# A row of panels: what it is of, and matrices `[head, query, key]` with their layout and site.
Panels = tuple[str, Layout, Site, Tensor]


# What is read of one attention that reads both.
_READ: dict[Site, str] = {"cross": "reads the problem", "self": "reads the answer"}


def draw_cells(
    axes: Axes, matrix: Tensor, layout: Layout, site: Site, *, named: bool = True, **options: Any
) -> AxesImage:
    """Draw a matrix `[query, key]` with names of its keys, and, if `named`, of what its rows write."""
    image = axes.imshow(matrix.numpy(), **options)
    rows = [*(f"s{row}" for row in range(layout.target_length - 1)), END]
    name_cells(axes.xaxis, key_labels(layout, site), rotation=90)
    name_cells(axes.yaxis, rows if named else [])
    return image


def matrix_grid(
    rows: Sequence[Panels],
    title: str,
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
    bar: str | None,
    numbers: Formatter | None = None,
    joint: bool = False,
) -> ShownFigure:
    """A grid of panels, a column for each head; nan is a closed key.

    Args:
        rows: of panels.
        title: of all.
        colours, limits: of the values.
        bar: what the values are, for a bar of colours beside the grid; None for no bar.
        numbers: how the bar writes them.
        joint: whether one attention reads problem and answer; then panels are named by what is read.
    """
    heads = len(rows[0][3])
    queries = max(layout.target_length for _, layout, _, _ in rows)
    keys = max(queries, *(layout.source_length for _, layout, _, _ in rows))
    cell = min(0.15, 3.5 / keys)
    wide, tall = max(1.5, cell * keys) + 0.25, max(1.2, cell * queries) + 0.55
    figure = new_canvas(wide * heads + 1.4, tall * len(rows) + 0.6)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = figure.subplots(len(rows), heads, squeeze=False)
    options = {"cmap": colours, "vmin": limits[0], "vmax": limits[1]}
    for panels, (where, layout, site, matrices) in zip(grid, rows, strict=True):
        for head, axes in enumerate(panels):
            axes.set_facecolor(CLOSED_COLOUR)
            draw_cells(axes, matrices[head], layout, site, named=head == 0, **options)
            for span in layout.spans(site).values():
                if span.start:
                    axes.axvline(span.start - 0.5, color=FAINT, linewidth=0.6)
            for spine in axes.spines.values():
                spine.set_color(FAINT)
        what = _READ[site] if joint else f"{site}-attention"
        panels[0].set_ylabel(f"{where}\n{what}\nwrites", fontsize=9)
    for head, (top, bottom) in enumerate(zip(grid[0], grid[-1], strict=True)):
        top.set_title(f"head {head}", fontsize=10)
        bottom.set_xlabel("reads", fontsize=9)
    if bar is not None:
        beside: dict[str, Any] = {"ax": grid, "shrink": 0.5, "pad": 0.01, "aspect": 30}
        figure.colorbar(grid[0][0].images[0], label=bar, format=numbers, **beside)
    return figure


class ShownFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot and whatever matplotlib's backend."""

    def savefig(self, *args: Any, **options: Any) -> None:
        """As a figure's, but a person's matplotlibrc may ask for LaTeX, which need not be there."""
        for text in self.findobj(Text):
            text.set_usetex(False)  # type: ignore[attr-defined]  # findobj says Artist
        with rc_context({"text.usetex": False}):
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=_SCREEN_DPI, bbox_inches="tight", pad_inches=0.1)
        return out.getvalue()


def new_canvas(wide: float, tall: float) -> ShownFigure:
    """An empty figure of so many inches."""
    figure = ShownFigure((wide, tall), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(
    wide: float, tall: float, *, rows: int = 1, columns: int = 1
) -> tuple[ShownFigure, list[Axes]]:
    """A figure of plain axes, row by row."""
    figure = new_canvas(wide, tall)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def set_title(axes: Axes, title: str, note: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=12, color=INK)
    axes.text(0, 1.035, note, transform=axes.transAxes, fontsize=8.5, color="#555555")


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label; the two methods keep theirs in every picture."""
    rest = [label for label in dict.fromkeys(labels) if label not in _COLOURS]
    more = {label: _MORE_COLOURS[i % len(_MORE_COLOURS)] for i, label in enumerate(rest)}
    return {**_COLOURS, **more}


def percent_axis(axes: Axes) -> None:
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def length_axis(axes: Axes, lengths: list[int], trained: int | None) -> None:
    """A logarithmic axis with a tick at every measured length that leaves room for its number."""
    axes.set_xscale("log")
    first = lengths[0] if trained is None else 1
    last = max(lengths[-1], trained or 1)
    room = 0.05 * math.log(max(2.0, last / first))
    left, right = first / math.exp(room), last * math.exp(room)
    axes.set_xlim(left, right)
    ticks: list[int] = []
    for length in sorted({first, *lengths}, reverse=True):
        if not ticks or math.log(ticks[-1] / length) >= 0.06 * math.log(right / left):
            ticks.append(length)
    axes.set_xticks(ticks[::-1], [str(tick) for tick in ticks[::-1]])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("digits of each operand")
    if trained is not None:
        axes.axvspan(left, trained, color="#EDEDED", zorder=0)
        lengths_trained = "1 digit" if trained == 1 else f"1 to {trained} digits"
        axes.text(
            math.sqrt(left * trained),
            0.5,
            f"trained on\n{lengths_trained}",
            ha="center",
            va="center",
            fontsize=9,
            color="#555555",
        )


def label_ends(axes: Axes, ends: list[tuple[float, str, Line2D]]) -> None:
    """Write the name of each line at the right, at the height of its last value or near it."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [to_axes.transform((1.0, value))[1] for value, _, _ in ends]
    order = sorted(range(len(ends)), key=lambda i: (heights[i], -i))
    for i, height in zip(order, spread([heights[i] for i in order]), strict=True):
        _, text, sample = ends[i]
        sample.set_data([1.015, 1.035, 1.055], [height] * 3)
        sample.set(transform=axes.transAxes, clip_on=False, markevery=[1], markersize=5)
        axes.add_artist(sample)
        axes.text(
            1.065,
            height,
            text,
            transform=axes.transAxes,
            color=sample.get_color(),
            fontsize=9.5,
            va="center",
        )


def spread(heights: list[float], gap: float = 0.075) -> list[float]:
    """Move ascending heights apart to at least `gap`; the highest stays where there is room."""
    room = gap * np.arange(len(heights))
    up = np.maximum.accumulate(heights - room) + room
    ceiling = max([*heights, *room], default=0.0)
    return np.minimum(up, ceiling - room[::-1]).tolist()


def picture_format(path: Path) -> str:
    """The format that the suffix of a picture's path names; PNG without one.

    Raises:
        InputError: when it names none.
    """
    kind, known = path.suffix.lstrip(".").lower() or "png", FigureCanvasAgg.filetypes
    if kind not in known:
        raise InputError(f"can't write {path}: pictures end in {', '.join(sorted(known))}")
    return kind


@overload
def finish(figure: ShownFigure, path: None) -> ShownFigure: ...
@overload
def finish(figure: ShownFigure, path: Path | str) -> Path: ...
def finish(figure: ShownFigure, path: Path | str | None) -> ShownFigure | Path:
    """The figure, or the path of the picture, which appears whole or not at all."""
    if path is None:
        return figure
    path = as_file("path", path, "picture.png")
    kind = picture_format(path)
    write_with(
        path,
        lambda temporary: figure.savefig(
            temporary, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.1
        ),
    )
    return path
