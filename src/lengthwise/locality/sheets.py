"""What a query of a sheet sees along some lines, and what it must write: every case of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from lengthwise.bias import CalibratedBias, Track
from lengthwise.locality.cone import NotApplicableError
from lengthwise.locality.patches import FIRST_COLUMN, FIRST_ROW, TooManyError, sights_of
from lengthwise.tasks.framing import START
from lengthwise.tasks.near import BEFORE, CLOSED, LAST, SHEET, Near, Symbol
from lengthwise.tasks.worksheet import Worksheet

LAST_TOKEN = Track(LAST)

# Where a record says what must be written.
WRITES = "writes"


def near_of(track: Track, task: Worksheet) -> Near | None:
    """A track as the rule of a task would name it; None for one that no rule could.

    Of the sheet, rules see what is written before: cells above, and those before in the row.
    """
    try:
        near = Near.parse(str(track))
    except ValueError:
        return None
    if str(near) != str(track):
        return None  # its axes are in another order
    if near.segment == SHEET:
        if near.row is None or near.column is None:
            return None
        written = near.row < 0 or (near.row == 0 and near.column <= 0)
        return near if written and near.field in [field.name for field in task.fields] else None
    if near.segment not in task.axes:
        return near
    return near if task.axis(near.segment).steps(near) is not None else None


def cone_of_sheet(task: Worksheet, bias: CalibratedBias, layers: int) -> tuple[Track, ...]:
    """The tokens that an output depends on, besides symbols of the source: those of all lines.

    Lines of the first layer may read any token that is written before; those of later layers, whose tokens
    know of others, the query's own alone.

    Raises:
        NotApplicableError: for other lines.
    """
    found: dict[Track, None] = {}
    lasts = {(line.head, line.layer) for line in bias.lines if line.track == LAST_TOKEN}
    for line in bias.lines:
        track = line.track
        if not isinstance(track, Track) or near_of(track, task) is None:
            raise NotApplicableError(
                f"head {line.head} reads {track.words()}, which is not near the cell being written"
            )
        late = layers > 1 if line.layer is None else line.layer > 0
        if track.site == "self" and track != LAST_TOKEN and late:
            raise NotApplicableError(
                f"head {line.head} reads {track.words()} in a layer past the first, where it knows of "
                f"other cells; the proof of sheets takes such lines in the first layer alone"
            )
        places = {(line.head, layer) for layer in (line.layer, None, 0)}
        if track.site == "self" and track != LAST_TOKEN and lasts & places:
            raise NotApplicableError(
                f"head {line.head} reads the token before and {track.words()}, which may be one token, "
                f"read once; what a query sees along its lines does not tell that"
            )
        found[track] = None
    return tuple(sorted(found.keys() - {LAST_TOKEN}))


@dataclass(frozen=True)
class Sights:
    """Every case of what a query sees.

    Attributes:
        task: the worksheet.
        tracks: what is seen, as texts; `last` is the last.
        tokens: uint8 `[track, case]`; closed where there is none.
        wanted: what must be written in each case, uint8 `[case]`.
        unclear: cases that do not tell it, by their number, with all that may have to be written.
    """

    task: Worksheet
    tracks: tuple[str, ...]
    tokens: np.ndarray
    wanted: np.ndarray
    unclear: dict[int, list[int]]

    def __len__(self) -> int:
        return len(self.wanted)

    def record(self, case: int) -> str:
        """A case as JSON: what is seen along each track, null for nothing, and what must be written."""
        writes = self.task.tokens[self.wanted[case]]
        return json.dumps({**self._seen(case, None), WRITES: writes})

    def words(self, case: int) -> str:
        """What a query sees in a case."""
        return ", ".join(f"{track} {text}" for track, text in self._seen(case, "nothing").items())

    def _seen(self, case: int, nothing: str | None) -> dict[str, str | None]:
        """The text that is seen along each track in a case."""
        seen = zip(self.tracks, self.tokens[:, case].tolist(), strict=True)
        texts = self.task.tokens
        return {track: nothing if token == CLOSED else texts[token] for track, token in seen}


class SheetContexts:
    """The sights of a worksheet along some tracks.

    Args:
        tracks: besides the token before, which every query sees.

    Raises:
        NotApplicableError: where they are too many to look at.
    """

    def __init__(self, task: Worksheet, tracks: Iterable[Track]) -> None:
        self.task, self.tracks = task, tuple(track for track in tracks if track != LAST_TOKEN)

    @cached_property
    def sights(self) -> Sights:
        """All of them, in an order that is always the same."""
        task = self.task
        nears = [near for track in self.tracks if (near := near_of(track, task)) is not None]
        own = [Near(SHEET, 0, 0, field.name) for field in task.fields]
        before = Near(SHEET, 0, -1, task.fields[-1].name)
        beside = [near for near in nears if near.segment in (SHEET, *task.axes) and near not in own]
        try:
            relation = sights_of(task, [*beside, before])
        except TooManyError as error:
            lines = ", ".join(map(str, self.tracks))
            raise NotApplicableError(f"{error}, of the lines {lines}") from error
        place = {name: number for number, name in enumerate(relation.names)}
        found: dict[tuple[int, ...], set[int]] = {}
        for row in relation.rows:
            cell = [self._token(row[place[name]], field) for field, name in enumerate(own)]
            others = [self._see(near, row, place) for near in nears]
            fields = 1 if isinstance(row[place[own[0]]], str) else len(own)
            for field in range(fields):
                # Of the cell itself only what is written already is seen.
                hidden = set(own[field:])
                seen = [CLOSED if n in hidden else t for n, t in zip(nears, others, strict=True)]
                lasts = [cell[field - 1]] if field else self._lasts(row, place, before)
                for last in lasts:
                    found.setdefault((*seen, last), set()).add(cell[field])
        cases = sorted(found)
        return Sights(
            task,
            (*map(str, self.tracks), LAST),
            np.array(cases, np.uint8).T.reshape(len(self.tracks) + 1, -1),
            np.array([min(found[case]) for case in cases], np.uint8),
            {n: sorted(found[case]) for n, case in enumerate(cases) if len(found[case]) > 1},
        )

    def _see(self, near: Near, row: tuple, place: dict[Near, int]) -> int:
        """The token that is seen somewhere."""
        if near.segment == SHEET:
            names = [field.name for field in self.task.fields]
            return self._token(row[place[near]], names.index(near.field))
        if near.segment in self.task.axes:
            digit = row[place[near]]
            return CLOSED if digit is None else self.task.first_digit(near.segment) + digit
        return self.task.token(near.segment)

    def _lasts(self, row: tuple, place: dict[Near, int], before: Near) -> list[int]:
        """What may be written before a cell's first field."""
        task = self.task
        if not row[place[FIRST_COLUMN]]:
            return [self._token(row[place[before]], len(task.fields) - 1)]
        if row[place[FIRST_ROW]]:
            return [task.token(START)]
        if Near(BEFORE) in place:
            return [task.token(row[place[Near(BEFORE)]])]
        return [task.token(text) for text in task.separators]

    def _token(self, symbol: Symbol, field: int) -> int:
        if symbol is None:
            return CLOSED
        return (
            self.task.token(symbol)
            if isinstance(symbol, str)
            else self.task.first_token[field] + symbol
        )

    def suffice(self) -> bool:
        """Whether what a query sees always tells what it must write."""
        return not self.sights.unclear

    def __len__(self) -> int:
        return len(self.sights)


@lru_cache(maxsize=8)
def contexts_along(task: Worksheet, tracks: tuple[Track, ...]) -> SheetContexts:
    """`SheetContexts`, enumerated once: calibration, its account and the proof ask for the same."""
    return SheetContexts(task, tracks)


def tell_apart(task: Worksheet, tracks: Sequence[Track]) -> bool:
    """As `SheetContexts.suffice`; false where there are too many cases to look at."""
    try:
        return contexts_along(task, tuple(sorted({*tracks} - {LAST_TOKEN}))).suffice()
    except NotApplicableError:
        return False
