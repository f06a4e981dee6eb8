"""The receptive cone: the few symbols that one output of a calibrated model depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lengthwise.bias import CLOSED, OWN_TOKEN, SITES, CalibratedBias, Line, Track, Window
from lengthwise.problems.format import Format
from lengthwise.problems.layout import COLUMNS, Layout


class NotApplicableError(RuntimeError):
    """The model is none that this proof can speak about; the message names the reason."""


@dataclass(frozen=True)
class Cone:
    """The tokens that the output of a query depends on.

    Attributes:
        reads: of the source and of the answer, in the query's coordinates: `a[c-1]`, `answer[c-1]`, `d`.
            Symbols, which are the same in every problem, are left out.
        period: of the positions; column and width modulo it matter. 1 where positions tell nothing.
    """

    reads: tuple[Track, ...]
    period: int = 1

    def __str__(self) -> str:
        return ", ".join(map(str, self.reads))

    @property
    def columns(self) -> dict[int, set[str]]:
        """The segments of which a column is read, by its distance from the query's own."""
        found: dict[int, set[str]] = {}
        for track in self.reads:
            if track.offset is not None:
                found.setdefault(track.offset, set()).add(track.segment)
        return found

    @property
    def constants(self) -> set[str]:
        """The operands of one digit that are read."""
        return {track.segment for track in self.reads if not track.place}


@dataclass(frozen=True)
class Reach:
    """What a query reads in one layer.

    Attributes:
        queries: those whose states it reads, by their distance; ascending, the last is 0, its own.
        reads: tokens of the source, as in `Cone`.
    """

    queries: tuple[int, ...]
    reads: tuple[Track, ...]


def reach_of(bias: CalibratedBias, layer: int, layout: Layout) -> Reach:
    """What a query reads in one layer.

    Raises:
        NotApplicableError: for a line that does not move with the column being written.
    """
    symbols = {segment.name for segment in layout.task.segments if segment.kind == "symbol"}
    own, cross = ([_local(ln) for ln in bias.at(site, layer, layout)] for site in SITES)
    # The token of column c - 1 is what the query of column c begins with.
    queries = {0, *(track.offset + 1 for track in own if track.offset is not None)}
    return Reach(
        tuple(sorted(query for query in queries if query <= 0)),
        tuple(sorted({track for track in cross if track.segment not in symbols})),
    )


def window_reach(bias: Window, format: Format) -> Reach:
    """What a row reads through a window, in any layer: found from its open keys at small widths.

    A window moves with the row and with the right end of what it counts from, so that a few widths show all
    of it. Besides digits of columns near the one being written, it may open symbols beside the operands
    in rows near an end. Which it opens must follow from the columns that are missing there, which
    a row's context tells.

    Raises:
        NotApplicableError: where the window reads something else.
    """
    widths = range(1, 2 * bias.window + 7)
    layouts = [format.at(width) for width in widths]
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
                    f"{format.alignment!r}, data.input_order {format.input_order!r}) a window opens "
                    f"other keys than digits near the column being written; the proof needs one operand, "
                    f"or interleaved ones, least significant digit last"
                )
    moving = {name for name, _ in reads}
    constants = [s.name for s in layouts[0].task.operands if not s.grows and s.name not in moving]
    tracks = [*(Track.along(*read) for read in reads), *map(Track, constants)]
    return Reach(tuple(range(-bias.window, 1)), tuple(sorted(tracks)))


def _open_in(bias: Window, layout: Layout) -> list[set[int]]:
    """The keys of the source that each row may read."""
    found = bias.open_keys("cross", 0, layout, range(layout.target_length))
    pairs = zip(found.index[0], found.value[0], strict=True)
    return [set(index[value > CLOSED].tolist()) for index, value in pairs]


def _columns_of(layout: Layout) -> dict[int, list[tuple[str, int]]]:
    """For each key that is a digit of a column: the operand and the column."""
    found: dict[int, list[tuple[str, int]]] = {}
    columns = torch.arange(layout.width)
    for name, span in layout.anchors("cross").items():
        if span.grows and name != COLUMNS:
            keys, _ = layout.find(name, [columns])
            for column, key in enumerate(keys.tolist()):
                found.setdefault(key, []).append((name, column))
    return found


def join(reaches: Iterable[Reach], period: int = 1) -> Cone:
    """The cone of a query after some layers, first to last."""
    queries, reads = {0}, set()
    for reach in reversed(list(reaches)):
        reads |= {track.moved(query) for query in queries for track in reach.reads}
        queries |= {query + back for query in queries for back in reach.queries}
    reads |= {OWN_TOKEN.moved(query) for query in queries}
    return Cone(tuple(sorted(reads)), period)


def _local(line: Line) -> Track:
    """The track of a line that the proof understands; raise where it is another."""
    track = line.track
    if isinstance(track, Track) and (not track.place or track.offset is not None):
        return track
    raise NotApplicableError(
        f"head {line.head} reads {track.words()} ({line.site}-attention), which does not move with the "
        f"column being written"
    )
