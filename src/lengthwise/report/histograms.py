"""Pictures of mistakes: which symbols of the answers are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lengthwise.evaluation.mistakes import Mistakes
from lengthwise.report.canvas import finish, new_figure, set_title

# Up to so many lengths a panel of bars for each; more share one picture of shades.
_MOST_PANELS = 8
_BAR, _END_BAR = "#0072B2", "#D55E00"


def mistake_histogram(
    mistakes: Sequence[Mistakes], path: Path | str | None = None, *, task: str = ""
) -> Any:
    """Draw how often each symbol of the answers is wrong, by its place: significance 0, 1, ..., the end.

    Few lengths get a panel of bars each; many a picture of shades, a row for each length.

    Args:
        mistakes: the counts.
        path: where to write the picture; without it the figure is returned.
        task: its name, for the title.

    Raises:
        ValueError: when there are no counts.
        InputError: when the suffix of `path` is no picture format.
    """
    if not mistakes:
        raise ValueError("a histogram of mistakes needs at least one length")
    if len(mistakes) <= _MOST_PANELS:
        return finish(_bars(mistakes, task), path)
    return finish(_shades(mistakes, task), path)


def _bars(mistakes: Sequence[Mistakes], task: str) -> Any:
    figure, panels = new_figure(7.5, 2.3 * len(mistakes) + 0.3, rows=len(mistakes))
    for axes, one in zip(panels, mistakes, strict=True):
        places = range(len(one.wrong))
        shares = [wrong / one.n for wrong in one.wrong]
        bars = axes.bar(places, shares, width=0.8, color=_BAR)
        bars[-1].set_color(_END_BAR)
        axes.set_ylim(0, max(0.05, 1.1 * max(shares)))
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
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


def _shades(mistakes: Sequence[Mistakes], task: str) -> Any:
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
    every = max(1, len(labels) // 30)
    axes.set_yticks(range(0, len(labels), every), labels[::every], fontsize=7)
    axes.set_ylabel("digits of each operand")
    axes.set_xlabel("significance of the digit (0 is written first; the last is the end token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_facecolor("#E5E5E5")
    title = f"{task}: answers wrong at each place, greedy decoding".removeprefix(": ")
    axes.set_title(title, loc="left", fontsize=12)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.set_label("answers wrong there")
    return figure
