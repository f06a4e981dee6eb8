"""What one query reads, wherever it is: tracks in coordinates, and tracks through whole matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lengthwise.bias.base import SITES, Site
from lengthwise.errors import InputError, shorten
from lengthwise.problems.layout import ANSWER, COLUMN, COLUMNS, ROW, Places, Span, axes_of, site_of
from lengthwise.tasks.near import LAST, SHEET

Direction = Literal["diagonal", "anti-diagonal", "vertical", "everywhere"]
WHOLE = "whole"
_FARTHEST = 2**31

_TERM = re.compile(r"(?P<sign>[+-]?)(?:(?:(?P<factor>\d+)\*)?(?P<axis>[a-z]+)|(?P<constant>\d+))")
_TRACK = re.compile(r"(?P<segment>[^][\s]+)(?:\[(?P<place>[^][]*)\](?:\.(?P<field>\w+))?)?")


@dataclass(frozen=True, order=True)
class Affine:
    """A whole number that follows from a query's coordinates: `c`, `c-1`, `r+c`, `2*r-1`, `7`.

    Attributes:
        factors: of each axis that has a say, by its name.
        constant: what is added.
    """

    factors: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    @classmethod
    def parse(cls, text: str) -> Affine:
        """Read what `str` gives.

        Raises:
            ValueError: for other text.
        """
        factors: dict[str, int] = {}
        constant, end, bare = 0, 0, text.replace(" ", "")
        while end < len(bare):
            term = _TERM.match(bare, end)
            if term is None or (end and not term["sign"]):
                break
            value = int(term["factor"] or term["constant"] or 1) * (
                -1 if term["sign"] == "-" else 1
            )
            if term["axis"]:
                factors[term["axis"]] = factors.get(term["axis"], 0) + value
            else:
                constant += value
            end = term.end()
        if not bare or end < len(bare):
            raise ValueError(f"{shorten(text)!r} is no place such as c, c-1 or 2*r+c")
        if max(map(abs, [constant, *factors.values()])) > _FARTHEST:
            raise ValueError(f"an offset lies within {_FARTHEST} columns, got {shorten(text)}")
        return cls(tuple(sorted((a, f) for a, f in factors.items() if f)), constant)

    def __str__(self) -> str:
        terms = [
            f"{'-' if factor < 0 else '+'}{'' if abs(factor) == 1 else f'{abs(factor)}*'}{axis}"
            for axis, factor in self.factors
        ]
        if self.constant or not terms:
            terms.append(f"{self.constant:+d}")
        return "".join(terms).removeprefix("+")

    def of(self, coordinates: Mapping[str, Tensor]) -> Tensor:
        """The number of each query, int64 `[query]`."""
        if not self.factors:
            return torch.full_like(next(iter(coordinates.values())), self.constant)
        (axis, factor), *others = self.factors
        number = factor * coordinates[axis] + self.constant
        for axis, factor in others:
            number = number + factor * coordinates[axis]
        return number

    def moved(self, axis: str, steps: int) -> Affine:
        """The number of the query so many steps further along an axis."""
        return Affine(self.factors, self.constant + steps * dict(self.factors).get(axis, 0))


@dataclass(frozen=True, order=True)
class Track:
    """The token of a segment at coordinates that follow from the query's own: `a[c-1]`, `answer[c-2]`, `+`.

    A query that writes column c reads along `a[c]` the digit of that column, along `a[c-1]` that of
    the column before; `answer[c-1]` is its own token, written last. Where a token lies is for the layout to
    know: one track serves natural, interleaved and reversed sources. Where there is no such token, nothing
    is read.

    Attributes:
        segment: a segment of the source, `answer`, or of a worksheet `sheet`, and `last`, the token before.
        place: a number for each of its axes; a symbol, or an operand of one digit, has none.
        field: of a cell of a sheet, which is read; a separator stands for the first.
    """

    segment: str
    place: tuple[Affine, ...] = ()
    field: str = ""

    @classmethod
    def parse(cls, text: str) -> Track:
        """Read what `str` gives.

        Raises:
            ValueError: for other text.
        """
        match = _TRACK.fullmatch(text)
        if match is None:
            raise ValueError(f"{shorten(text)!r} is no line such as a[c-1]")
        if match["place"] is None:
            return cls(text)
        place = tuple(map(Affine.parse, match["place"].split(",")))
        return cls(match["segment"], place, match["field"] or "")

    @classmethod
    def along(cls, segment: str, offset: int = 0) -> Track:
        """The column of a segment so far from the query's own: `along("a", -1)` is `a[c-1]`."""
        return cls(segment, (Affine(((COLUMN, 1),), offset),))

    def __str__(self) -> str:
        place = f"[{','.join(map(str, self.place))}]" if self.place else ""
        return self.segment + place + (f".{self.field}" if self.field else "")

    @property
    def site(self) -> Site:
        """Where it is read."""
        return site_of(self.segment)

    @property
    def offset(self) -> int | None:
        """How far from the query's own column; None of what does not move with it step by step."""
        moves = len(self.place) == 1 and self.place[0].factors == ((COLUMN, 1),)
        return self.place[0].constant if moves else None

    def moved(self, steps: int) -> Track:
        """What the query so many columns further reads along it."""
        place = tuple(number.moved(COLUMN, steps) for number in self.place)
        return Track(self.segment, place, self.field)

    def keys(self, places: Places, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The key of each query, int64 `[query]`, and whether there is one, bool `[query]`."""
        return places.locate(self, queries)

    def check(self, places: Places) -> None:
        """Refuse a layout that lacks what is read.

        Raises:
            InputError: when it does.
        """
        _span(self.segment, self.site, places)
        token = f"a token of {self.segment} in {places.task.name}"
        axes = places.axes(self.segment)
        if len(axes) != len(self.place):
            wanted = f"{self.segment}[{', '.join(axes)}]" if axes else self.segment
            raise InputError(f"the bias reads {self}, but {token} is named like {wanted}")
        fields = [one.name for one in places.task.fields] if self.segment == SHEET else [""]
        if self.field not in fields:
            some = ", ".join(filter(None, fields)) or "no"
            raise InputError(f"the bias reads {self}, but {token} is named by one of {some} fields")
        known = axes_of(places.task)
        for number in self.place:
            for axis, _ in number.factors:
                if axis not in known:
                    raise InputError(
                        f"the bias reads {self}, but a query of {places.task.name} has the coordinates "
                        f"{', '.join(known)}, no {axis}"
                    )

    def reads_all(self, places: Places) -> Span | None:
        """The segment of which a query reads every key; None, for it reads one."""
        return None

    def words(self) -> str:
        """What is read, in a few words."""
        if self.segment == LAST:
            return "the symbol written last"
        if not self.place:
            return f"the symbol {self.segment!r}"
        if self.segment == SHEET or self.place[1:] or self.place[0].factors == ((ROW, 1),):
            return _near(self)
        if self.offset is None:
            return f"the token {self}"
        if self.segment == ANSWER:
            back = -self.offset
            if back <= 0:
                return "a symbol that is not written yet"
            return (
                "the symbol written last" if back == 1 else f"the symbol written {back} steps ago"
            )
        return f"the digit of {self.segment} in {_column(self.offset)}"


@dataclass(frozen=True)
class MatrixTrack:
    """A line through a matrix of attention, as the paper draws them: one key for each query, or all.

    With keys at positions `[start, stop)`, query i reads the key at

    - diagonal: start + i + offset,
    - anti-diagonal: stop - 1 - (i + offset),
    - vertical: start + offset, the same for every query,

    where that lies inside; `everywhere` is all of them. Where a digit lies there depends on the width,
    so a proof can't speak of them.

    Attributes:
        site: `self` or `cross`.
        direction, offset: as above.
        segment: `whole` for the whole sequence, or a segment; a stride apart, i and offset count its keys.
    """

    site: Site
    direction: Direction
    offset: int = 0
    segment: str = WHOLE

    def __str__(self) -> str:
        everywhere = self.direction == "everywhere"
        return f"{self.segment} {self.direction}{'' if everywhere else f' {self.offset:+d}'}"

    def _span(self, places: Places) -> Span:
        if self.segment == WHOLE:
            return Span(0, places.keys(self.site), True)
        return _span(self.segment, self.site, places)

    def keys(self, places: Places, queries: Tensor) -> tuple[Tensor, Tensor]:
        """As `Track.keys`."""
        span = self._span(places)
        if self.direction == "diagonal":
            position = span.start + span.stride * (queries + self.offset)
        elif self.direction == "anti-diagonal":
            position = span.stop - 1 - span.stride * (queries + self.offset)
        else:
            offset = self.offset if self.direction == "vertical" else 0
            position = torch.zeros_like(queries) + span.start + span.stride * offset
        inside = (position >= span.start) & (position < span.stop)
        return position.where(inside, 0), inside

    def check(self, places: Places) -> None:
        """As `Track.check`."""
        self._span(places)

    def reads_all(self, places: Places) -> Span | None:
        """As `Track.reads_all`; the segment where it does."""
        return self._span(places) if self.direction == "everywhere" else None

    def words(self) -> str:
        """As `Track.words`."""
        if self.direction == "everywhere":
            return "every key" if self.segment == WHOLE else f"every key of {self.segment}"
        of = "whole sequence" if self.segment == WHOLE else self.segment
        return f"the {self.direction} at offset {self.offset:+d} of the {of}"


# What a query begins with, whatever it reads: the symbol written last.
OWN_TOKEN = Track.along(ANSWER, -1)

AnyTrack = Track | MatrixTrack


def _span(segment: str, site: Site, places: Places) -> Span:
    anchors = places.anchors(site)
    if segment not in anchors:
        raise InputError(
            f"the bias reads segment {segment!r}, which {places.task.name} does not have"
        )
    return anchors[segment]


def _near(track: Track) -> str:
    """What is read on a sheet, or along its rows."""
    if any(len(number.factors) != 1 or number.factors[0][1] != 1 for number in track.place):
        return f"the token {track}"
    if track.segment != SHEET and not track.place[1:]:
        return f"the digit of {track.segment} of {_row(track.place[0].constant)}"
    row, column = (number.constant for number in track.place)
    if track.segment != SHEET:
        if row == -1 and track.place[0].factors == ((ROW, 1),):
            return f"in the first row, the digit of {track.segment} in {_beside(column)}"
        return f"in the first column, the digit of {track.segment} of {_row(row)}"
    return f"the {track.field} in {_beside(column)} of {_row(row)}"


def _row(steps: int) -> str:
    if steps == 0:
        return "this row"
    where = "above" if steps < 0 else "below"
    return f"the row {where}" if abs(steps) == 1 else f"the row {abs(steps)} {where}"


def _beside(steps: int) -> str:
    if steps == 0:
        return "this column"
    if abs(steps) == 1:
        return "the next column" if steps > 0 else "the previous column"
    return f"the column {abs(steps)} {'further' if steps > 0 else 'before'}"


def _column(offset: int) -> str:
    if offset == 0:
        return "the column being written"
    distance = "the column" if abs(offset) == 1 else f"{abs(offset)} columns"
    return f"{distance} {'before' if offset < 0 else 'after'} it"


def track_row(track: AnyTrack) -> dict[str, Any]:
    """A track as JSON values."""
    return {"reads": str(track)} if isinstance(track, Track) else asdict(track)


def read_track(row: Mapping[str, Any]) -> AnyTrack:
    """A track from JSON values, its types checked.

    Raises:
        ValueError: for other values.
    """
    if set(row) == {"reads"}:
        if not isinstance(row["reads"], str):
            raise ValueError(f"a line reads a text such as 'a[c-1]', not {row['reads']!r}")
        return Track.parse(row["reads"])
    names = {"site", "segment", "direction", "offset"}
    if set(row) != names:
        raise ValueError(
            f"a line has the key 'reads', or the keys {sorted(names)}, not {sorted(row)}"
        )
    if row["site"] not in SITES or row["direction"] not in get_args(Direction):
        raise ValueError(f"site {row['site']!r} or direction {row['direction']!r} is unknown")
    if type(row["offset"]) is not int or not isinstance(row["segment"], str):
        raise ValueError("offset must be a whole number, segment a text")
    if abs(row["offset"]) > _FARTHEST:
        raise ValueError(f"an offset lies within {_FARTHEST} keys, got {row['offset']}")
    return MatrixTrack(**row)


def in_coordinates(track: AnyTrack, places: Places) -> AnyTrack:
    """A track of `lengthwise-bias/1`, in coordinates where it moves with the column being written.

    There all lines were stated in directions: columns of an operand as anti-diagonals, in a reversed source
    as diagonals, and those of the answer as diagonals, with the query's own token at offset 0.
    """
    if isinstance(track, Track) or track.segment in (WHOLE, COLUMNS):
        return track
    span = places.anchors(track.site).get(track.segment)
    if span is None:
        return track
    if not span.grows:
        still = track.direction == "vertical" and not track.offset
        return Track(track.segment) if still else track
    if track.direction != ("anti-diagonal" if span.backwards else "diagonal"):
        return track
    return Track.along(track.segment, track.offset + span.first)
