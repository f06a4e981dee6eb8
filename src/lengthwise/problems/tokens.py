"""What every token of a problem is told by: its segment and its coordinates, as layouts alone know them.

Position schemes (`lengthwise.methods`) number tokens by these. What is said of a token follows from the
tokens before it, so that a growing answer is numbered as the whole one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lengthwise.problems.layout import ANSWER, COLUMN, ROW, Layout, axes_of
from lengthwise.problems.sheets import SheetLayout
from lengthwise.tasks import FRAME, Worksheet
from lengthwise.tasks.near import SHEET


@dataclass(frozen=True)
class Extent:
    """How far the problems of one layout reach.

    Attributes:
        source, target: tokens of the source, and rows that are written at most.
        along: of each axis, how many coordinates there are from 0 on.
    """

    source: int
    target: int
    along: Mapping[str, int]

    @property
    def tokens(self) -> int:
        """Of source and target as one sequence."""
        return self.source + self.target


@dataclass(frozen=True)
class Tokens:
    """The tokens of the source, or those that the rows of the target read.

    Row i of the target reads the token before the one that it writes: of one row of columns that of column
    i - 1. The start token is in column -1, before the first; of sheets also a separator, which is in the
    row that begins after it.

    Attributes:
        place: in source and target as one sequence, int64 `[position]`.
        names: the segments; what is written is called `answer`, of sheets `sheet`.
        segment: which of them, int64 `[problem, position]`; -1 for the start token and separators.
        coordinates: of each axis of the problems int64 `[problem, position]`; one may stand for all.
        known: where a token has that coordinate, bool `[problem, position]`; elsewhere it means nothing.
        operator: which are symbols such as `+`, bool `[position]`.
        field: of cells, int64 `[problem, position]`.
        extent: of the layout.
    """

    place: Tensor
    names: tuple[str, ...]
    segment: Tensor
    coordinates: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    operator: Tensor
    field: Tensor
    extent: Extent


def extent_of(layout: Layout | SheetLayout) -> Extent:
    """How far the problems of a layout reach."""
    along = {COLUMN: layout.width} if isinstance(layout, Layout) else {}
    if isinstance(layout, SheetLayout):
        # Row and column are at most the limits; behind the last row's separator begins one more.
        columns, rows = layout.limits["columns"] + 1, layout.limits["rows"] + 2
        along = dict.fromkeys(axes_of(layout.task), rows) | {COLUMN: columns}
    return Extent(layout.source_length, layout.target_length, along)


def source_tokens(layout: Layout | SheetLayout, device: torch.device | str = "cpu") -> Tokens:
    """The tokens of the source; the same for all problems of the layout."""
    task, length = layout.task, layout.source_length
    axes, names = axes_of(task), tuple(segment.name for segment in task.segments)
    spans = layout.source_spans if isinstance(layout, SheetLayout) else layout.anchors("cross")
    segment, operator = torch.full((length,), -1), torch.zeros(length, dtype=torch.bool)
    coordinates = {axis: torch.zeros(1, length, dtype=torch.int64) for axis in axes}
    known = {axis: torch.zeros(1, length, dtype=torch.bool) for axis in axes}
    for number, one in enumerate(task.segments):
        span = spans[one.name]
        at = torch.arange(int(span.start), int(span.stop), span.stride)
        segment[at] = number
        operator[at] = one.kind == "symbol" and one.text not in FRAME
        if one.kind == "symbol":
            continue
        own = torch.arange(len(at)).flip(0) if span.backwards else torch.arange(len(at))
        lies = {COLUMN: own}
        if isinstance(task, Worksheet) and span.grows:
            axis = task.axis(one.name)
            lies = {axis.counter: own}
            if axis.edge is not None:
                other = axis.names[1 - axis.names.index(axis.counter)]
                lies[other] = torch.full_like(own, -1)
        for axis, numbers in lies.items():
            coordinates[axis][0, at], known[axis][0, at] = numbers, True
    return Tokens(
        *(torch.arange(length).to(device), names, segment[None].to(device)),
        {axis: numbers.to(device) for axis, numbers in coordinates.items()},
        {axis: flags.to(device) for axis, flags in known.items()},
        *(operator.to(device), torch.zeros(1, length, dtype=torch.int64, device=device)),
        extent_of(layout),
    )


def target_tokens(layout: Layout | SheetLayout, read: Tensor) -> Tokens:
    """The tokens that rows of the target read.

    Args:
        read: the tokens, int64 `[problem, row]`, the start token first.
    """
    if isinstance(layout, SheetLayout):
        return _sheet_tokens(layout, read)
    rows, device = read.shape[1], read.device
    row = torch.arange(rows, device=device)
    # A task that writes a fixed number of symbols writes no columns.
    known = torch.full((1, rows), layout.task.writes is None, device=device)
    known[0, :1] = True
    never = torch.zeros(rows, dtype=torch.bool, device=device)
    return Tokens(
        *(layout.source_length + row, (ANSWER,), (row > 0).long()[None] - 1),
        *({COLUMN: row[None] - 1}, {COLUMN: known}, never, torch.zeros_like(row)[None]),
        extent_of(layout),
    )


def _sheet_tokens(layout: SheetLayout, read: Tensor) -> Tokens:
    task, rows = layout.task, read.shape[1]
    place = torch.arange(rows, device=read.device)

    def counts(kinds: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Which of the tokens are of some kinds, and how many were so far."""
        tokens = torch.tensor([task.token(text) for text in kinds], device=read.device)
        found = torch.isin(read, tokens)
        found[:, 0] = False  # the start token
        return found, found.cumsum(dim=1)

    closing, row = counts(task.separators)
    begins = torch.where(closing, place, 0).cummax(dim=1).values
    within = place - begins - 1  # -1 for what stands before a row's first token
    coordinates = {ROW: row, COLUMN: within.div(len(task.fields), rounding_mode="floor")}
    coordinates |= {name: counts(kinds)[1] for name, kinds in task.counters.items()}
    # What stands behind the end fills a batch up.
    known = (read == layout.vocabulary.end).cumsum(dim=1) == 0
    coordinates = {axis: numbers.where(known, 0) for axis, numbers in coordinates.items()}
    return Tokens(
        *(layout.source_length + place, (SHEET,), ((within >= 0) & known).long() - 1),
        *(coordinates, dict.fromkeys(coordinates, known)),
        *(torch.zeros_like(known[0]), within.clamp(min=0) % len(task.fields)),
        extent_of(layout),
    )
