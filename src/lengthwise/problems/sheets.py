"""Worksheets as tokens and back: the source, what is written, and where each token lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lengthwise.problems.layout import COLUMN, ROW, At, Places, Span, axes_of, site_of
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks.framing import END, START
from lengthwise.tasks.near import CLOSED, LAST, SHEET
from lengthwise.tasks.worksheet import Worksheet

# Stands in targets behind the end of a shorter sheet; no loss counts it.
IGNORED = -100


class SheetVocabulary:
    """The tokens of a worksheet, each with its text."""

    def __init__(self, task: Worksheet) -> None:
        self.texts = task.tokens
        self.start, self.end = task.token(START), task.token(END)

    def __len__(self) -> int:
        return len(self.texts)


class SheetLayout:
    """Problems of one size as tokens.

    The source holds the segments from left to right, most significant digit first: `0123*45`. The target
    holds the sheet, row by row, in each cell one token for each field, least significant column first.

    Args:
        size: of the problems.

    Attributes:
        lengths: tokens of each operand.
        source_length: tokens of the source.
        target_length: of the sheet, the end among them; of the longest that may be, where sheets differ.
    """

    def __init__(self, task: Worksheet, size: Size) -> None:
        if size.columns < 1 or size.rows < 1:
            raise ValueError(f"a sheet has at least one column and one row, got {size}")
        self.task, self.size = task, size
        self.vocabulary = SheetVocabulary(task)
        self.lengths = {
            segment.name: size.of(task, segment.name) + task.zeros.get(segment.name, 0)
            for segment in task.operands
        }
        self.source_spans, position = {}, 0
        for segment in task.segments:
            length = self.lengths.get(segment.name, 1)
            grows = segment.name in self.lengths
            self.source_spans[segment.name] = Span(
                position,
                position + length,
                grows,
                backwards=grows and segment.name not in task.from_left,
            )
            position += length
        self.source_length = position

    def __repr__(self) -> str:
        return f"SheetLayout({self.task.name} in base {self.task.base}, {self.size})"

    @property
    def width(self) -> int:
        """The larger of the two sizes."""
        return self.size.longest

    @cached_property
    def target_length(self) -> int:
        if self.task.varies:
            return self.tokens_at_most
        zeros = np.zeros((1, len(self.task.operands), self.width), np.uint8)
        return self.batch(zeros)[1].shape[1] - 1

    keys = Places.keys

    @property
    def tokens_at_most(self) -> int:
        """Tokens of a sheet within the limits."""
        columns, rows = self.limits["columns"] + 1, self.limits["rows"] + 1
        return columns * rows * len(self.task.fields)

    @property
    def limits(self) -> dict[str, int]:
        """Columns and rows that a sheet may have: more than any right one."""
        columns, rows = self.task.room(self.size.columns, self.size.rows)
        return {"columns": columns, "rows": rows}

    def parts(self, operands: np.ndarray) -> list[np.ndarray]:
        """Digits `[problem, operand, place]` as one array for each operand, with the zeros before it."""
        found = []
        for place, segment in enumerate(self.task.operands):
            digits = np.zeros((len(operands), self.lengths[segment.name]), np.uint8)
            own = self.size.of(self.task, segment.name)
            digits[:, :own] = operands[:, place, :own]
            found.append(digits)
        return found

    def source(self, operands: np.ndarray) -> Tensor:
        """Source tokens, int64 `[problem, source position]`."""
        parts = dict(zip((s.name for s in self.task.operands), self.parts(operands), strict=True))
        pieces = [
            self._written(s.name, parts[s.name])
            if s.name in parts
            else np.full((len(operands), 1), self.task.token(s.text), np.int64)
            for s in self.task.segments
        ]
        return torch.from_numpy(np.concatenate(pieces, axis=1))

    def _written(self, operand: str, digits: np.ndarray) -> np.ndarray:
        """The tokens of an operand, from left to right."""
        tokens = digits.astype(np.int64) + self.task.first_digit(operand)
        return tokens if operand in self.task.from_left else tokens[:, ::-1]

    def batch(self, operands: np.ndarray) -> tuple[Tensor, Tensor]:
        """Source and target tokens of problems `[problem, operand, place]`, with the right sheets.

        Targets are int64 `[problem, token + 1]`, the start token first, the end last; where sheets are of
        different lengths, shorter ones are filled up with `IGNORED`.
        """
        written = true_sheets(self.task, self.parts(operands), **self.limits)
        tokens = [written.tokens(problem) for problem in range(len(operands))]
        target = np.full((len(tokens), 1 + max(map(len, tokens))), IGNORED, np.int64)
        target[:, 0] = self.vocabulary.start
        for row, own in zip(target, tokens, strict=True):
            row[1 : 1 + len(own)] = own
        return self.source(operands), torch.from_numpy(target)

    def text(self, tokens: Tensor) -> str:
        """Tokens as text."""
        return " ".join(self.vocabulary.texts[token] for token in tokens.tolist() if token >= 0)


def digit_at(
    task: Worksheet, segment: str, place: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor]:
    """Which digit of an operand stands at coordinates, and where that can be seen; None of a symbol."""
    everywhere = torch.ones((), dtype=torch.bool)
    if segment not in task.axes or not place:
        return (place[0] if place else None), everywhere
    axis = task.axis(segment)
    if axis.edge is None:
        return place[0], everywhere
    own = axis.names.index(axis.counter)
    return place[own], place[1 - own] == -1


class Sheets(Places):
    """Where the tokens of written sheets lie: of problems of any sizes, laid end to end.

    Query number t of a problem reads the token before, and writes token t. *Flat* numbers count the queries
    of all problems, or the source tokens of all.

    Args:
        groups: layouts, each with source tokens `[problem, source position]` and target tokens
            `[problem, token + 1]` of its problems.

    Attributes:
        source: tokens, int64 `[1, flat]`.
        inputs, wanted: tokens that the queries read and should write, int64 `[1, flat]`.
        row, column, field: of each query the coordinates of what it writes, int64 `[flat]`.
        counted: of each query what the task's own counters of rows say, by their letters.
        problem: of each query.
    """

    def __init__(self, groups: Sequence[tuple[SheetLayout, Tensor, Tensor]]) -> None:
        self.task = groups[0][0].task
        sources, inputs, wanted, coordinates, problems = [], [], [], [], []
        begins, first_queries, first_keys = [], [], []
        self._counts = [(layout, len(target)) for layout, _, target in groups]
        queries = keys = count = 0
        for _, source, target in groups:
            number, length = len(target), target.shape[1] - 1
            source, target = source.cpu(), target.cpu()
            counts, starts = self._count(target.numpy()[:, 1:])
            sources.append(source.reshape(-1))
            inputs.append(target[:, :-1].clamp(min=0).reshape(-1))
            wanted.append(target[:, 1:].reshape(-1))
            coordinates.append(counts)
            problems.append(np.repeat(np.arange(number), length) + count)
            begins.append(starts)
            first_queries.append(queries + length * np.arange(number))
            first_keys.append(keys + source.shape[1] * np.arange(number))
            queries, keys, count = queries + number * length, keys + source.numel(), count + number
        self.source, self.inputs, self.wanted = (
            torch.cat(parts)[None] for parts in (sources, inputs, wanted)
        )
        every = torch.from_numpy(np.concatenate(coordinates, axis=1))
        self.row, self.column, self.field, *counted = every
        self.counted = dict(zip(self.task.counters, counted, strict=True))
        self.problem = torch.from_numpy(np.concatenate(problems))
        rows = max(starts.shape[1] for starts in begins)
        # Where each row begins, in its own problem; then where what was written ends.
        self._begins = torch.from_numpy(
            np.concatenate(
                [np.pad(s, ((0, 0), (0, rows - s.shape[1])), mode="edge") for s in begins]
            )
        )
        self._first_query = torch.from_numpy(np.concatenate(first_queries))
        self._end_query = torch.cat([self._first_query[1:], torch.tensor([queries])])
        self._first_key = torch.from_numpy(np.concatenate(first_keys))
        self.source_length, self.target_length = keys, queries

    def _count(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every token `[problem, token]` row, column, field and what the task's own counters say, int64
        `[coordinate, flat]`; and where the rows of each problem begin, `[problem, row]`."""

        def above(kinds: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            """Which tokens are separators of some kinds, and how many of these stand before each."""
            closing = np.isin(tokens, [self.task.token(text) for text in kinds])
            return closing, np.cumsum(closing, axis=1) - closing

        closing, row = above(self.task.separators)
        place = np.arange(tokens.shape[1])
        before = np.where(closing, place + 1, 0)
        begin = np.maximum.accumulate(np.pad(before, ((0, 0), (1, 0)))[:, :-1], axis=1)
        within, fields = place - begin, len(self.task.fields)
        counts = [row, within // fields, within % fields]
        counts += [above(kinds)[1] for kinds in self.task.counters.values()]
        written = tokens != IGNORED
        starts = np.tile(written.sum(axis=1, keepdims=True), int(row.max()) + 2)
        problems, places = np.nonzero(written)
        np.minimum.at(starts, (problems, row[written]), places)
        return np.stack(counts).reshape(len(counts), -1), starts

    def anchors(self, site: str) -> dict[str, Span]:
        """See `Places`; only names and axes are of use here."""
        if site == "self":
            return dict.fromkeys((SHEET, LAST), Span(0, self.target_length, True))
        return self._counts[0][0].source_spans

    def axes(self, segment: str) -> tuple[str, ...]:
        if segment == SHEET:
            return ROW, COLUMN
        return self.task.axis(segment).names if segment in self.task.axes else ()

    def coordinates(self, queries: Tensor) -> dict[str, Tensor]:
        own = {name: counts[queries] for name, counts in self.counted.items()}
        return {ROW: self.row[queries], COLUMN: self.column[queries], **own}

    def find(self, segment: str, place: Sequence[Tensor], field: str = "") -> tuple[Tensor, Tensor]:
        """See `Places`: of all queries, in their order."""
        if segment == LAST:
            every = torch.arange(self.target_length)
            return every, torch.ones_like(every, dtype=torch.bool)
        if segment == SHEET:
            return self._find_cell(place[0], place[1], field)
        lengths, offsets = [], []
        for layout, number in self._counts:
            span = layout.source_spans[segment]
            lengths.append(torch.full((number,), span.stop - span.start))
            offsets.append(torch.full((number,), span.stop - 1 if span.backwards else span.start))
        length, offset = torch.cat(lengths)[self.problem], torch.cat(offsets)[self.problem]
        at, beside = digit_at(self.task, segment, place)
        at = torch.zeros_like(self.problem) if at is None else at
        inside = beside & (at >= 0) & (at < length)
        steps = at if segment in self.task.from_left else -at
        position = self._first_key[self.problem] + offset + steps
        return position.where(inside, 0), inside

    def seen(self, tracks: Sequence[At]) -> np.ndarray:
        """What the queries see along tracks, uint8 `[track, flat]`; closed where there is nothing."""
        queries, found = torch.arange(self.target_length), []
        for track in tracks:
            position, inside = self.locate(track, queries)
            own = site_of(track.segment) == "self"
            tokens = (self.inputs if own else self.source)[0, position]
            inside = inside & (position <= queries) if own else inside
            found.append(tokens.masked_fill(~inside, CLOSED).numpy().astype(np.uint8))
        return np.stack(found)

    def _find_cell(self, row: Tensor, column: Tensor, field: str) -> tuple[Tensor, Tensor]:
        number = [one.name for one in self.task.fields].index(field)
        fields, rows = len(self.task.fields), self._begins.shape[1]
        inside = (row >= 0) & (row < rows - 1) & (column >= 0)
        at = row.clamp(0, rows - 2)
        begin = self._begins[self.problem, at]
        stop = self._begins[self.problem, at + 1]
        place = begin + column * fields + number
        inside &= place < stop
        # The separator, the row's last token, is a first field; what stands past it is in the next row.
        # The query that reads a token is the one after it.
        position = self._first_query[self.problem] + place + 1
        inside &= position < self._end_query[self.problem]
        return position.where(inside, 0), inside


class Seen(Places):
    """Queries that are told by what they see alone, wherever that occurs.

    Args:
        tracks: what is seen, as texts; `last`, the token that the query reads, among them.
        tokens: of each query, uint8 `[track, query]`; closed where there is none.

    Attributes:
        source, inputs: tokens, int64 `[1, flat]`; the queries are the last of `inputs`, before them stand
            the tokens that they read.
        count: queries.
    """

    def __init__(self, task: Worksheet, tracks: Sequence[str], tokens: np.ndarray) -> None:
        self.task, self.count = task, tokens.shape[1]
        found = torch.from_numpy(tokens.astype(np.int64))
        self._open = dict(zip(tracks, found != CLOSED, strict=True))
        own = [
            track
            for track in tracks
            if site_of(track.partition("[")[0]) == "self" and track != LAST
        ]
        cross = [track for track in tracks if track not in (LAST, *own)]
        self._first = {
            track: place * self.count
            for site in ([*own, LAST], cross)
            for place, track in enumerate(site)
        }
        rows = dict(zip(tracks, found.masked_fill(found == CLOSED, 0), strict=True))
        nothing = torch.zeros(1, dtype=torch.int64)  # where no query reads the source
        self.inputs = torch.cat([rows[track] for track in (*own, LAST)])[None]
        self.source = torch.cat([rows[track] for track in cross] or [nothing])[None]
        self.source_length, self.target_length = self.source.shape[1], self.inputs.shape[1]

    def anchors(self, site: str) -> dict[str, Span]:
        """See `Places`; only names are of use here."""
        names = (SHEET, LAST) if site == "self" else [s.name for s in self.task.segments]
        return dict.fromkeys(names, Span(0, self.keys(site), True))

    axes = Sheets.axes

    def coordinates(self, queries: Tensor) -> dict[str, Tensor]:
        """See `Places`; none is known, only names."""
        return dict.fromkeys(axes_of(self.task), torch.zeros_like(queries))

    def locate(self, track: At, queries: Tensor) -> tuple[Tensor, Tensor]:
        """See `Places`: of the queries at the end; tokens that they read read themselves."""
        own, first = queries - (self.target_length - self.count), self._first[str(track)]
        if str(track) == LAST:
            return queries, torch.ones_like(queries, dtype=torch.bool)
        asked = own >= 0
        inside = asked & self._open[str(track)][own.clamp(min=0)]
        return (own + first).where(inside, 0), inside
