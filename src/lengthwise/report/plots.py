"""Pictures of results: accuracy, attention, biases, training, mistakes.

Every function draws a `Figure` of its own, never through pyplot, so nothing global changes. With a
path the picture is written there (the suffix names the format, PNG without one) and the path is
returned; without one the figure itself is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lengthwise.bias import CLOSED, SITES, CalibratedBias, MatrixBias
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.evaluation.mistakes import Mistakes
from lengthwise.problems.layout import Layout
from lengthwise.report.canvas import (
    SHADES,
    Panels,
    ShownFigure,
    colours_of,
    finish,
    label_ends,
    length_axis,
    matrix_grid,
    name_cells,
    new_figure,
    percent_axis,
    set_title,
)
from lengthwise.report.summary import digits

# Up to so many lengths of mistakes a panel of bars for each; more share one picture of shades.
_MOST_PANELS = 8
_STYLES: dict[str, tuple[Any, str]] = {"uniform": ("-", "o"), "carry": ("--", "D")}


def length_curve(
    curve: LengthCurve, path: Path | str | None = None, *, trained: int | None = None
) -> ShownFigure | Path:
    """Draw accuracy against length: one line per method and suite, on a logarithmic axis.

    A line is the mean over seeds; a point with its 95 % Wilson interval is one seed.

    Args:
        path: where to write the picture.
        trained: digits that the models were trained on, at most; shaded.

    Raises:
        InputError: when the curve holds no scores, or the suffix of `path` is no picture format.
    """
    series: dict[tuple[str, str, str], list[Score]] = {}
    several = len({score.task for score in curve}) > 1
    bases = len({score.base for score in curve}) > 1
    for score in curve:
        task = f"{score.task} " * several + f"in base {score.base}, " * bases
        series.setdefault((task, score.method, score.suite), []).append(score)
    if not series:
        raise InputError("a curve without scores can't be drawn")
    figure, (axes,) = new_figure(6.8, 4.0)
    colours = colours_of([task + method for task, method, _ in series])
    ends = []
    for (task, method, suite), scores in series.items():
        colour = colours[task + method]
        line, marker = _STYLES.get(suite, (":", "s"))
        fill = colour if suite == "uniform" else "white"
        means = mean_by_length(scores)
        label = f"{task}{method}, {suite}"
        axes.plot(list(means), list(means.values()), line, color=colour, linewidth=1.8, label=label)
        points = axes.errorbar(
            [score.length for score in scores],
            [score.accuracy for score in scores],
            yerr=[
                [max(0.0, score.accuracy - score.low) for score in scores],
                [max(0.0, score.high - score.accuracy) for score in scores],
            ],
            fmt=marker,
            color=colour,
            markerfacecolor=fill,
            markersize=5.5 if suite == "uniform" else 7.5,
            capsize=3,
            elinewidth=1.1,
            zorder=3 if suite == "uniform" else 2.5,
        )
        points.set_label("")
        sample = Line2D([], [], color=colour, linestyle=line, marker=marker, markerfacecolor=fill)
        ends.append((list(means.values())[-1], label, sample))
    length_axis(axes, sorted({score.length for score in curve}), trained)
    percent_axis(axes)
    axes.set_ylabel("problems answered right")
    seeds = len({score.seed for score in curve})
    what = ", ".join(dict.fromkeys(score.task for score in curve))
    note = "one seed" if seeds == 1 else f"line: mean of {seeds} seeds, points: each seed"
    set_title(axes, f"{what}: exact match against length", f"{note}; bars: 95 % Wilson intervals")
    label_ends(axes, ends)
    return finish(figure, path)


def mean_by_length(scores: Iterable[Score]) -> dict[int, float]:
    """Length to the mean accuracy over seeds, shortest first."""
    found: dict[int, list[float]] = {}
    for score in sorted(scores, key=lambda score: score.length):
        found.setdefault(score.length, []).append(score.accuracy)
    return {length: sum(shares) / len(shares) for length, shares in found.items()}


def attention_maps(maps: AttentionMaps, path: Path | str | None = None) -> ShownFigure | Path:
    """Draw attention maps: a row of panels for each layer and site, a column for each head.

    In a panel each row of cells is one query, named by the symbol that it writes; each column is
    one key.

    Raises:
        InputError: when the suffix of `path` is no picture format.
    """
    layers = len(maps.weights["cross"])
    rows: list[Panels] = [
        (f"layer {layer}", maps.layout, site, maps.weights[site][layer])
        for layer in range(layers)
        for site in SITES
    ]
    title = (
        f"Attention of the {maps.task} model, averaged over {maps.problems} problems "
        f"of {digits(maps.length)}"
    )
    return finish(attention_grid(rows, title, maps.joint), path)


def attention_grid(rows: Sequence[Panels], title: str, joint: bool = False) -> ShownFigure:
    """Shares of attention, as `matrix_grid` lays them out."""
    bar, numbers = "share of attention", PercentFormatter(1.0)
    return matrix_grid(rows, title, SHADES, (0.0, 1.0), bar, numbers, joint)


def bias_map(
    bias: CalibratedBias | MatrixBias,
    layout: Layout,
    path: Path | str | None = None,
    *,
    joint: bool = False,
) -> ShownFigure | Path:
    """Draw which keys a calibrated bias leaves open, in panels like those of `attention_maps`.

    Closed keys are light grey. Layers that read the same share a row of panels.

    Args:
        layout: the task at the width to draw.
        path: where to write the picture.
        joint: whether it is a decoder's, whose one attention reads problem and answer.

    Raises:
        ValueError: when the layout lacks a segment that the bias names.
        InputError: when the suffix of `path` is no picture format.
    """
    rows: list[Panels] = []
    for layer in range(bias.layers or 1):
        for site in SITES:
            dense = bias.dense(site, layer, layout, range(layout.target_length))
            rows.append((f"layer {layer}" if bias.layers else "every layer", layout, site, dense))
    title = f"Bias for {bias.task}: keys left open, operands padded to {layout.width} digits"
    return finish(bias_grid(rows, title, joint), path)


def bias_grid(rows: Sequence[Panels], title: str, joint: bool = False) -> ShownFigure:
    """What a bias adds, as `matrix_grid` lays it out; closed keys are light grey."""
    values = torch.cat([dense[dense > CLOSED] for _, _, _, dense in rows])
    least, most = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
    shown: list[Panels] = [
        (where, layout, site, dense.where(dense > CLOSED, torch.nan))
        for where, layout, site, dense in rows
    ]
    colours = LinearSegmentedColormap.from_list("open", ["#A6D5F0", "#0072B2"])
    bar = "added to the logits of open keys" if most > least else None
    return matrix_grid(shown, title, colours, (least - 1e-9, most), bar, joint=joint)


def training_curves(
    metrics_by_label: Mapping[str, Sequence[Mapping[str, Any]]], path: Path | str | None = None
) -> ShownFigure | Path:
    """Draw validation loss (logarithmic) and exact match against seconds of training.

    Args:
        metrics_by_label: for each model the rows of `Run.metrics()`; one without rows is left out.
        path: where to write the picture.

    Raises:
        ValueError: when there are no rows at all.
        InputError: when the suffix of `path` is no picture format.
    """
    drawn = {label: rows for label, rows in metrics_by_label.items() if rows}
    if not drawn:
        raise ValueError("training curves need at least one row of metrics")
    figure, (loss, right) = new_figure(10.0, 3.6, columns=2)
    colours = colours_of(list(drawn))
    loss.set_yscale("log")
    loss.set_ylabel("nats per symbol")
    percent_axis(right)
    right.set_ylabel("problems answered right")
    # A loss of exactly 0 has no place on a logarithmic axis.
    for axes, name, key, least in (
        (loss, "Validation loss", "validation_loss", 1e-8),
        (right, "Exact match", "exact_match", 0.0),
    ):
        ends = []
        for label, rows in drawn.items():
            style: dict[str, Any] = {"color": colours[label], "marker": "o", "markersize": 3.5}
            values = [max(row[key], least) for row in rows]
            axes.plot([row["seconds"] for row in rows], values, linewidth=1.6, label=label, **style)
            ends.append((values[-1], label, Line2D([], [], **style)))
        set_title(axes, name, "on validation problems, which are never trained on")
        axes.set_xlabel("training time, seconds")
        axes.set_xlim(left=0)
        label_ends(axes, ends)
    return finish(figure, path)


def mistake_histogram(
    mistakes: Sequence[Mistakes], path: Path | str | None = None, *, task: str = ""
) -> ShownFigure | Path:
    """Draw how often each symbol of the answers is wrong, by its place: significance 0, 1, ..., the end.

    Few lengths get a panel of bars each; many a picture of shades, a row for each length.

    Args:
        path: where to write the picture; without it the figure is returned.
        task: its name, for the title.

    Raises:
        ValueError: when there are no counts.
        InputError: when the suffix of `path` is no picture format.
    """
    if not mistakes:
        raise ValueError("a histogram of mistakes needs at least one length")
    draw = _bars if len(mistakes) <= _MOST_PANELS else _shades
    return finish(draw(mistakes, task), path)


def _bars(mistakes: Sequence[Mistakes], task: str) -> ShownFigure:
    figure, panels = new_figure(7.5, 2.3 * len(mistakes) + 0.3, rows=len(mistakes))
    for axes, one in zip(panels, mistakes, strict=True):
        places = range(len(one.wrong))
        shares = [wrong / one.n for wrong in one.wrong]
        colours = ["#0072B2"] * (len(shares) - 1) + ["#D55E00"]
        axes.bar(places, shares, width=0.8, color=colours)
        axes.set_ylim(0, max(0.05, 1.1 * max(shares)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(-0.6, len(one.wrong) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("answers wrong there")
        set_title(
            axes,
            f"{task} at {one.length} digits, {one.suite}".strip(),
            f"greedy decoding of {one.n} problems; the last bar is the end token",
        )
    panels[-1].set_xlabel("significance of the digit (0 is written first)")
    return figure


def _shades(mistakes: Sequence[Mistakes], task: str) -> ShownFigure:
    widest = max(len(one.wrong) for one in mistakes)
    shares = np.full((len(mistakes), widest), np.nan)
    for row, one in enumerate(mistakes):
        shares[row, : len(one.wrong)] = [wrong / one.n for wrong in one.wrong]
    figure, (axes,) = new_figure(8.5, min(12.0, 2.5 + 0.1 * len(mistakes)), rows=1)
    axes.grid(False)
    image = axes.imshow(
        shares, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
    )
    several = len({one.suite for one in mistakes}) > 1
    labels = [f"{one.length} {one.suite}" if several else str(one.length) for one in mistakes]
    name_cells(axes.yaxis, labels)
    axes.set_ylabel("digits of each operand")
    axes.set_xlabel("significance of the digit (0 is written first; the last is the end token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor("#E5E5E5")
    title = f"{task}: answers wrong at each place, greedy decoding".removeprefix(": ")
    axes.set_title(title, loc="left", fontsize=12)
    share = PercentFormatter(1.0, decimals=0)
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, format=share, label="answers wrong there")
    return figure
