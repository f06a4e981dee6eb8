"""The receptive cone: the few symbols that one output of a calibrated model depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lengthwise.bias import CLOSED, AttentionBias, CalibratedBias, Line, MatrixBias, Track, Window
from lengthwise.config import Config
from lengthwise.layout import COLUMNS, Layout
from lengthwise.model.positions import POSITIONS


class NotApplicableError(RuntimeError):
    """The model is none that this proof can speak about; the message names the reason."""


@dataclass(frozen=True)
class Cone:
    """What a row that writes column i depends on, relative to i.

    Attributes:
        rows: rows whose own tokens matter, 0 for the row itself, -1 for the one before, ...; the token
            of row i + r is the digit written in column i + r - 1.
        reads: digits of operands that matter, (operand, column): 0 for the column being written.
        constants: operands of one digit that matter.
        period: of the positions; row and width modulo it matter. 1 where positions tell nothing.
    """

    rows: tuple[int, ...]
    reads: tuple[tuple[str, int], ...]
    constants: tuple[str, ...] = ()
    period: int = 1

    @property
    def first(self) -> int:
        """The earliest column that matters."""
        return min([row - 1 for row in self.rows] + [column for _, column in self.reads])

    @property
    def last(self) -> int:
        """The latest column that matters; the one being written, or one after it."""
        return max([0] + [column for _, column in self.reads])


@dataclass(frozen=True)
class Reach:
    """What a row reads in one layer.

    Attributes:
        rows: rows whose states it reads, and its own, as in `Cone`; ascending, so that 0 is the last.
        reads, constants: as in `Cone`.
    """

    rows: tuple[int, ...]
    reads: tuple[tuple[str, int], ...]
    constants: tuple[str, ...]


def receptive_cone(config: Config, bias: AttentionBias) -> Cone:
    """Work the cone out from the lines of all layers, or from a window.

    Raises:
        NotApplicableError: for tasks that are not local, for positions that know where a row is, for a
            bias that is neither lines nor a window, and for those that do not move with the column written.
    """
    return join(receptive_reaches(config, bias), period_of(config))


def period_of(config: Config) -> int:
    """The period of the model's positions; 1 where they tell nothing.

    Raises:
        NotApplicableError: for positions without a period.
    """
    scheme = POSITIONS[config.model.positions].with_period(config.model.period)
    if scheme.kind == "none":
        return 1
    # Turned queries and keys see distances, which the width moves: no period of `rotate` is known here.
    if scheme.kind == "add" and scheme.period is not None:
        return scheme.period
    cyclic = [name for name, scheme in POSITIONS.items() if scheme.kind == "add" and scheme.period]
    raise NotApplicableError(
        f"position scheme {config.model.positions!r} tells every row where it is, so that rows are "
        f"not alike; the proof needs 'none' or positions with a period ({', '.join(cyclic)})"
    )


def receptive_reaches(config: Config, bias: AttentionBias) -> list[Reach]:
    """What a row reads in each layer, first to last.

    Raises:
        NotApplicableError: as `receptive_cone`.
    """
    if config.make_task().writes is not None:
        raise NotApplicableError(
            f"an answer of {config.task} depends on all of the problem, however long that is; the proof "
            f"needs outputs that depend on a bounded part of it"
        )
    period_of(config)
    if config.model.encoder_layers:
        raise NotApplicableError(
            "an encoder tells every key of the problem about all others; the proof needs "
            "model.encoder_layers = 0"
        )
    if isinstance(bias, MatrixBias):
        raise NotApplicableError(
            "the bias is of fixed matrices, which end at their own width; `lengthwise convert` turns them "
            "into lines, which are defined at every length"
        )
    if not isinstance(bias, CalibratedBias | Window):
        raise NotApplicableError(
            f"the {type(bias).__name__} bias lets a row read ever more keys; the proof needs a calibrated "
            f"bias (lengthwise abc, or train --bias) or a window"
        )
    layout = config.layout()
    if isinstance(bias, Window):
        return [_window_reach(bias, config)] * config.model.layers
    return [reach_of(bias, layer, layout) for layer in range(config.model.layers)]


def reach_of(bias: CalibratedBias, layer: int, layout: Layout) -> Reach:
    """What a row reads in one layer.

    Raises:
        NotApplicableError: for a line that does not move with the column being written.
    """
    reads, constants = set(), set()
    kinds = {segment.name: segment.kind for segment in layout.task.segments}
    for line, span in bias.at("cross", layer, layout):
        _check(line, span.grows, layout)
        if span.grows:
            reads.add((line.segment, line.offset))
        elif kinds[line.segment] == "digit":
            constants.add(line.segment)
    own = [
        line.offset
        for line, span in bias.at("self", layer, layout)
        if _check(line, span.grows, layout)
    ]
    rows = {0, *(offset for offset in own if offset <= 0)}
    return Reach(tuple(sorted(rows)), tuple(sorted(reads)), tuple(sorted(constants)))


def _window_reach(bias: Window, config: Config) -> Reach:
    """What a row reads through a window, in any layer: found from its open keys at small widths.

    A window moves with the row and with the right end of what it counts from, so that a few widths show all
    of it. Besides digits of columns near the one being written, it may open symbols beside the operands
    in rows near an end. Which it opens must follow from the columns that are missing there, which
    a row's context tells.

    Raises:
        NotApplicableError: where the window reads something else.
    """
    widths = range(1, 2 * bias.window + 7)
    layouts = [config.layout(width) for width in widths]
    middle = layouts[-1].width // 2
    open_, columns = _open_in(bias, layouts[-1]), _columns_of(layouts[-1])
    reads = sorted((name, c - middle) for key in open_[middle] for name, c in columns.get(key, ()))
    beside: dict[tuple[bool, ...], list[str]] = {}
    for layout in layouts:
        columns = _columns_of(layout)
        for row, keys in enumerate(_open_in(bias, layout)):
            inside = tuple(0 <= row + offset < layout.width for _, offset in reads)
            read = {
                (name, row + offset) for name, offset in reads if 0 <= row + offset < layout.width
            }
            symbols = [
                name
                for name, span in layout.source_spans.items()
                if not span.grows and span.start in keys
            ]
            digits = {place for key in keys for place in columns.get(key, ())}
            if digits != read or beside.setdefault(inside, symbols) != symbols:
                raise NotApplicableError(
                    f"in problems of {layout.task.name} laid out like these (data.alignment "
                    f"{config.data.alignment!r}, data.input_order {layout.input_order!r}) a window opens "
                    f"other keys than digits near the column being written; the proof needs one operand, "
                    f"or interleaved ones, least significant digit last"
                )
    moving = {name for name, _ in reads}
    constants = [s.name for s in layouts[0].task.operands if not s.grows and s.name not in moving]
    return Reach(tuple(range(-bias.window, 1)), tuple(reads), tuple(sorted(constants)))


def _open_in(bias: Window, layout: Layout) -> list[set[int]]:
    """The keys of the source that each row may read."""
    found = bias.open_keys("cross", 0, layout, range(layout.target_length))
    pairs = zip(found.index[0], found.value[0], strict=True)
    return [set(index[value > CLOSED].tolist()) for index, value in pairs]


def _columns_of(layout: Layout) -> dict[int, list[tuple[str, int]]]:
    """For each key that is a digit of a column: the operand and the column."""
    found: dict[int, list[tuple[str, int]]] = {}
    for name, span in layout.anchors("cross").items():
        if span.grows and name != COLUMNS:
            track = Track("cross", name, layout.digit_direction)
            keys, _ = track.keys(span, torch.arange(layout.width))
            for column, key in enumerate(keys.tolist()):
                found.setdefault(key, []).append((name, column))
    return found


def join(reaches: Iterable[Reach], period: int = 1) -> Cone:
    """The cone of a row after some layers, first to last."""
    rows, reads, constants = {0}, set(), set()
    for reach in reversed(list(reaches)):
        reads |= {(name, row + column) for row in rows for name, column in reach.reads}
        constants |= set(reach.constants)
        rows |= {row + back for row in rows for back in reach.rows}
    return Cone(tuple(sorted(rows)), tuple(sorted(reads)), tuple(sorted(constants)), period)


def _check(line: Line, grows: bool, layout: Layout) -> bool:
    """Whether a line is one that the proof understands; raise where it is not."""
    moving = "diagonal" if line.site == "self" else layout.digit_direction
    # A line through all columns at once would meet another operand in every row.
    named = line.segment not in ("whole", COLUMNS)
    if named and (
        line.direction == moving if grows else line.direction == "vertical" and not line.offset
    ):
        return True
    raise NotApplicableError(
        f"head {line.head} reads {line.words()} ({line.site}-attention), which does not move with the "
        f"column being written"
    )
