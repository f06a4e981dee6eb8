"""Pictures of sheets: what a model reads near a cell, and one sheet with what a token is written from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import SheetMaps
from lengthwise.locality.sheets import LAST_TOKEN, cone_of_sheet, near_of
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.wavefront import true_sheets
from lengthwise.report.canvas import FAINT, INK, SHADES, ShownFigure, finish, new_canvas, new_figure
from lengthwise.tasks import Worksheet
from lengthwise.tasks.near import SHEET, Near
from lengthwise.tasks.transducer import DIGITS

# Lines that the model does not need are drawn too, up to so many in all.
_LINES = 14

_LIT, _OWN = "#F3C46B", "#56B4E9"

# Rows that are drawn: the first.
_ROWS = 7


def sheet_attention(maps: SheetMaps, path: Path | str | None = None) -> ShownFigure | Path:
    """Draw the attention along lines near the cell: a panel for each kind of token, a column for each head.

    Raises:
        InputError: when the suffix of `path` is no picture format.
    """
    task: Worksheet = maps.format.task
    others = sorted(maps.others, key=lambda item: -maps.weights[str(item.track)].max().item())
    tracks = [LAST_TOKEN, *(item.track for item in (*maps.found, *others))][:_LINES]
    needed = {item.track for item in maps.found}
    names = [str(track) for track in tracks]
    fields = [field.name for field in task.fields]
    wide = 0.34 * maps.layers * maps.heads * len(fields) + 3.6
    figure, panels = new_figure(wide, 0.26 * len(tracks) + 1.7, columns=len(fields))
    for number, (axes, field) in enumerate(zip(panels, fields, strict=True)):
        shares = np.stack([maps.weights[str(track)][number].flatten().numpy() for track in tracks])
        axes.grid(False)
        image = axes.imshow(shares, aspect="auto", cmap=SHADES, vmin=0, vmax=1)
        heads = [f"{layer}.{head}" for layer in range(maps.layers) for head in range(maps.heads)]
        axes.set_xticks(range(len(heads)), heads, fontsize=7, rotation=90)
        axes.set_yticks(range(len(names)), names if number == 0 else [], fontsize=8)
        for label, track in zip(axes.get_yticklabels(), tracks, strict=False):
            label.set_fontweight("bold" if track in needed else "normal")
        axes.set_title(f"writing a {field}", fontsize=10, color=INK, loc="left")
        axes.set_xlabel("layer.head", fontsize=8)
    figure.colorbar(image, ax=panels, shrink=0.8, format=PercentFormatter(1.0), label="attention")
    figure.suptitle(
        f"Attention of the {maps.task} model along lines, mean of {maps.problems} sheets of {maps.size}; "
        f"bold: lines that it needs",
        fontsize=11,
        color=INK,
    )
    return finish(figure, path)


def sheet_picture(sheet: Sheet, path: Path | str | None = None) -> ShownFigure | Path:
    """Draw a whole sheet: a row of it in each line, a shade for each symbol, and where a head is a dot.

    Raises:
        InputError: when the suffix of `path` is no picture format.
    """
    task, fields = sheet.task, [field.name for field in sheet.task.fields]
    place = fields.index(task.main or fields[0])
    texts = [[task.fields[place].text(value) for value in row[:, place]] for row in sheet.rows]
    symbols = sorted({text[-1] for row in texts for text in row})
    widest = max([1, *(len(row) + task.slant * r for r, row in enumerate(texts))])
    shades = np.full((max(1, len(texts)), widest), np.nan)
    heads = []
    for r, row in enumerate(texts):
        for c, text in enumerate(row):
            across = widest - 1 - c - task.slant * r if task.numbers else c
            shades[r, across] = symbols.index(text[-1])
            if text.startswith("("):
                heads.append((across, r))
    wide = min(12.0, max(4.0, 0.16 * widest + 1.6))
    figure, (axes,) = new_figure(wide, min(16.0, max(2.6, wide * len(texts) / widest)))
    axes.grid(False)
    most = max(1, len(symbols) - 1)
    image = axes.imshow(shades, aspect="auto", cmap=SHADES, vmin=-0.25 * most, vmax=1.2 * most)
    if heads:
        size = min(30.0, 4000.0 / len(texts))
        axes.scatter(*zip(*heads, strict=True), s=size, color=_LIT, linewidths=0)
    axes.set_xlabel("cell" if not task.numbers else "cell, the least significant on the right")
    axes.set_ylabel("row")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=axes, shrink=0.6, ticks=range(len(symbols)))
    bar.ax.set_yticklabels(symbols)
    return finish(figure, path)


def sheet_map(bias: CalibratedBias, path: Path | str | None = None) -> ShownFigure | Path:
    """Draw the sheet of a small problem as a grid, with what one token is written from lit.

    Raises:
        InputError: when the suffix of `path` is no picture format.
    """
    task: Worksheet = bias.format.task
    expression = task.example[0]
    if task.numbers:  # which are of another base
        most = task.base - 1
        digits = (DIGITS[min(int(one), most)] if one.isdecimal() else one for one in expression)
        expression = "".join(digits)
    parts = task.parse(expression)
    size = size_of(task, parts)
    if task.endless:
        size = Size(size.columns, _ROWS)
    layout: SheetLayout = bias.format.at(size)
    operands = layout.parts(digits_of(task, parts, size.longest))
    rows = true_sheets(task, operands, **layout.limits).values(0)[:_ROWS]
    row, column = len(rows) - 1, min(1, len(rows[-1]) - 1)
    reads = cone_of_sheet(task, bias, bias.layers or 1)
    widest = max(len(cells) + task.slant * r for r, cells in enumerate(rows))
    widest = max(widest, *(digits.shape[1] for digits in operands), 1)
    tall = len(rows) + len(task.operands)
    figure = new_canvas(0.8 * widest + 3.2, 0.75 * tall + 1.1)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-widest - 0.2, 2.6)
    axes.set_ylim(-tall - 0.1, 0.5)

    def across(column: int, row: int) -> float:
        """Where a cell lies: of numbers the first on the right, of lists on the left."""
        return -1.0 - column - task.slant * row if task.numbers else float(column - widest)

    lit = [near for track in reads if (near := near_of(track, task)) is not None]

    def box(x: float, y: float, text: str, colour: str | None, width: float = 0.9) -> None:
        axes.add_patch(
            Rectangle(
                (x, y), width, 0.62, facecolor=colour or "white", edgecolor=FAINT, linewidth=0.8
            )
        )
        axes.text(x + width / 2, y + 0.31, text, ha="center", va="center", fontsize=12, color=INK)

    for number, (segment, digits) in enumerate(zip(task.operands, operands, strict=True)):
        axis, texts = task.axis(segment.name), task.texts(segment.name)
        for place, digit in enumerate(digits[0]):
            own = column if axis.by_column else row
            near = axis.edge is None and any(
                n.segment == segment.name and place == (axis.steps(n) or 0) + own for n in lit
            )
            # As people write it, whichever digit is counted first.
            first = task.numbers and segment.name in task.from_left
            at = digits.shape[1] - 1 - place if first else place
            x = across(at, row if axis.by_column else 0)
            box(x, -0.75 - number, texts[digit], _LIT if near else None)
        axes.text(0.25, -0.45 - number, segment.name, fontsize=11, color=INK, va="center")
    for r, cells in enumerate(rows):
        y = -0.75 - len(task.operands) - r
        for c, values in enumerate(cells):
            x = across(c, r)
            each = 0.9 / len(values)
            for place, value in reversed(list(enumerate(values))):
                field = task.fields[place]
                near = Near(SHEET, r - row, c - column, field.name) in lit
                colour = _OWN if (r, c, place) == (row, column, 0) else _LIT if near else None
                if (r, c, place) == (row, column - 1, len(values) - 1):
                    colour = _LIT  # the token written last
                box(x + each * place, y, field.text(value), colour, each)
        axes.text(0.25, y + 0.31, f"row {r}", fontsize=10, color=INK, va="center")
    said = [*(f"{track}" for track in reads), "the token before"]
    fields = " and ".join(field.name for field in task.fields)
    holds = f": a cell holds {fields};" if len(task.fields) > 1 else ";"
    axes.set_title(
        f"{task.name}, {expression}{holds}\nblue is written from {', '.join(said)}",
        loc="left",
        fontsize=10,
        color=INK,
    )
    return finish(figure, path)
