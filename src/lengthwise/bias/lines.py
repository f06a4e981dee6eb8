"""A calibrated bias: a few lines per head, each anchored to a segment and defined at every width."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias.base import CLOSED, SITES, OpenKeys, Places, Site, causal
from lengthwise.errors import InputError
from lengthwise.files import check_format, read_text, write_text
from lengthwise.layout import Layout, Span
from lengthwise.tasks import Transducer

Direction = Literal["diagonal", "anti-diagonal", "vertical", "everywhere"]
WHOLE = "whole"
FORMAT = "lengthwise-bias/1"
_FARTHEST = 2**31
_READING: dict[Site, str] = {"cross": "reading the problem", "self": "reading the answer so far"}


@dataclass(frozen=True)
class Track:
    """A line through a segment: one key for each row.

    With a segment at positions `[start, stop)`, row i reads the key at

    - diagonal: start + i + offset,
    - anti-diagonal: stop - 1 - (i + offset),
    - vertical: start + offset, the same for every row,

    where that lies inside the segment; `everywhere` is all of the segment. In a segment whose keys lie
    a stride apart, i and offset count those keys. At `cross`, the
    anti-diagonal of an operand with offset 0 is the digit of the column being written, with offset -1
    that of the column before. At `self`, the diagonal with offset 0 is the row's own token: the digit
    that was written last.

    Attributes:
        site: `self` or `cross`.
        segment: a segment of the source, `answer` at `self`, or `whole` for the whole sequence.
        direction: as above.
        offset: as above.
    """

    site: Site
    segment: str
    direction: Direction
    offset: int = 0

    def keys(self, span: Span, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The key of each row, int64 `[row]`, and whether it lies in the segment, bool `[row]`.

        The bounds of the span may be tensors `[row]`: rows of problems of several widths.
        """
        if self.direction == "diagonal":
            position = span.start + span.stride * (rows + self.offset)
        elif self.direction == "anti-diagonal":
            position = span.stop - 1 - span.stride * (rows + self.offset)
        else:
            # `everywhere` has one key for each row only in a segment of one symbol: that symbol.
            offset = self.offset if self.direction == "vertical" else 0
            position = torch.zeros_like(rows) + span.start + span.stride * offset
        inside = (position >= span.start) & (position < span.stop)
        return position.where(inside, 0), inside

    def words(self) -> str:
        """What the line reads, in a few words."""
        column = _column(self.offset)
        if self.direction == "everywhere":
            return "every key" if self.segment == WHOLE else f"every key of {self.segment}"
        if self.segment == WHOLE:
            return f"the {self.direction} at offset {self.offset:+d} of the whole sequence"
        if self.site == "self" and self.direction != "diagonal":
            return f"the {self.direction} at offset {self.offset:+d} of the {self.segment}"
        if self.site == "self":
            back = 1 - self.offset
            return "the symbol written last" if back == 1 else f"the symbol written {back} rows ago"
        if self.direction == "anti-diagonal":
            return f"the digit of {self.segment} in {column}"
        if self.direction == "diagonal":
            return f"the digit of {self.segment} at the row's own place from the left, {self.offset:+d}"
        return (
            f"the symbol {self.segment!r}"
            if self.offset == 0
            else f"key {self.offset} of {self.segment}"
        )


@dataclass(frozen=True)
class Line(Track):
    """A track that one head may read along.

    Attributes:
        layer: the decoder layer, or None for every layer.
        head: the attention head.
        value: what the line adds to the logits.
    """

    layer: int | None = None
    head: int = 0
    value: float = 0.0

    @property
    def track(self) -> Track:
        """The line without its head, layer and value."""
        return Track(self.site, self.segment, self.direction, self.offset)

    @classmethod
    def of(cls, track: Track, head: int, layer: int | None = None, value: float = 0.0) -> Line:
        """The line of one head on a track."""
        return cls(track.site, track.segment, track.direction, track.offset, layer, head, value)


def _column(offset: int) -> str:
    if offset == 0:
        return "the column being written"
    distance = "the column" if abs(offset) == 1 else f"{abs(offset)} columns"
    return f"{distance} {'before' if offset < 0 else 'after'} it"


class CalibratedBias:
    """Lines per head; every key that is on no line is closed. Self-attention stays causal.

    Where lines of a head cross, the larger value counts. A head without a line at a site reads
    nothing there, and contributes nothing.

    Args:
        task: name of the task that it was calibrated for.
        heads: attention heads.
        lines: the lines.

    Raises:
        ValueError: for a line with a head that does not exist.
    """

    def __init__(self, task: str, heads: int, lines: Iterable[Line]) -> None:
        self.task, self.heads = task, heads
        self.lines = tuple(dict.fromkeys(lines))
        for line in self.lines:
            if not 0 <= line.head < heads:
                raise ValueError(f"a line names head {line.head}, but the bias has {heads} heads")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CalibratedBias)
            and (self.task, self.heads) == (other.task, other.heads)
            and set(self.lines) == set(other.lines)
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, never a key

    def at(self, site: Site, layer: int, layout: Places) -> list[tuple[Line, Span]]:
        """The lines of one layer at one site, each with the place of its segment.

        Raises:
            ValueError: when the layout lacks a segment that a line names.
        """
        spans = {WHOLE: Span(0, layout.keys(site), True), **layout.anchors(site)}
        chosen = [ln for ln in self.lines if ln.site == site and ln.layer in (None, layer)]
        for line in chosen:
            if line.segment not in spans:
                raise ValueError(
                    f"the bias reads segment {line.segment!r}, which {layout.task.name} does not have"
                )
        return [(line, spans[line.segment]) for line in chosen]

    def dense(self, site: Site, layer: int, layout: Layout, rows: range) -> Tensor:
        """See `AttentionBias.dense`."""
        keys = layout.keys(site)
        bias = torch.full((self.heads, len(rows), keys), CLOSED)
        queries = torch.arange(rows.start, rows.stop)
        for line, span in self.at(site, layer, layout):
            head = bias[line.head]
            if line.direction == "everywhere":
                head[:, span.start : span.stop : span.stride].clamp_(min=line.value)
                continue
            position, inside = line.keys(span, queries)
            cells = (torch.arange(len(rows))[inside], position[inside])
            head[cells] = head[cells].clamp(min=line.value)
        return bias + causal(keys, rows) if site == "self" else bias

    def open_keys(self, site: Site, layer: int, layout: Layout, rows: range) -> OpenKeys | None:
        """See `AttentionBias.open_keys`; None when a head may read a whole segment that grows."""
        return self.open_at(site, layer, layout, torch.arange(rows.start, rows.stop))

    def open_at(self, site: Site, layer: int, layout: Places, queries: Tensor) -> OpenKeys | None:
        """As `open_keys`, for any rows `[query]`, also of problems of several widths."""
        lines = self.at(site, layer, layout)
        if any(line.direction == "everywhere" and span.grows for line, span in lines):
            return None
        per_head = [[pair for pair in lines if pair[0].head == head] for head in range(self.heads)]
        slots = max(1, *(len(pairs) for pairs in per_head))
        index = torch.zeros(self.heads, len(queries), slots, dtype=torch.int64)
        value = torch.full((self.heads, len(queries), slots), CLOSED)
        for head, pairs in enumerate(per_head):
            # Largest value first: where lines cross, the later one is dropped.
            pairs = sorted(pairs, key=lambda pair: -pair[0].value)
            for slot, (line, span) in enumerate(pairs):
                position, inside = line.keys(span, queries)
                if site == "self":
                    inside = inside & (position <= queries)
                if slot:
                    taken = (index[head, :, :slot] == position[:, None]) & (
                        value[head, :, :slot] > CLOSED
                    )
                    inside = inside & ~taken.any(dim=1)
                index[head, :, slot] = position.where(inside, 0)
                value[head, :, slot] = torch.where(inside, line.value, CLOSED)
        return OpenKeys(index, value)

    def transferred(self, source: Transducer, target: Transducer) -> CalibratedBias:
        """The same lines for another task whose problems are laid out alike.

        Args:
            source: the task that the bias was calibrated for.
            target: the task that is to use it; its segments stand for those of `source`, in their order.

        Raises:
            ValueError: when the segments of the two are not of the same kinds.
        """
        kinds = [[segment.kind for segment in task.segments] for task in (source, target)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"the bias reads {source.name} problems ({', '.join(kinds[0])}); those of {target.name} "
                f"are laid out otherwise ({', '.join(kinds[1])})"
            )
        pairs = zip(source.segments, target.segments, strict=True)
        names = {own.name: other.name for own, other in pairs}
        lines = [
            replace(line, segment=names.get(line.segment, line.segment)) for line in self.lines
        ]
        return CalibratedBias(target.name, self.heads, lines)

    def explain(self) -> str:
        """The bias in words: for each head, what it reads."""
        out = [f"Calibrated bias for {self.task}: {self.heads} heads"]
        before = None
        for site, heads, words in self.readings():
            if site != before:
                out.append(f"  {_READING[site]} ({site}-attention)")
            out.append(f"    {heads} {words}")
            before = site
        return "\n".join(out)

    def readings(self) -> list[tuple[Site, str, str]]:
        """For each site, which heads read what: `("cross", "heads 0, 2 read", "the digit of a in ...")`."""
        found: list[tuple[Site, str, str]] = []
        for site in ("cross", "self"):
            readers: dict[str, list[int]] = {}
            for head in range(self.heads):
                lines = [ln for ln in self.lines if ln.site == site and ln.head == head]
                for layer in dict.fromkeys(line.layer for line in lines):
                    words = [
                        line.words() + (f" ({line.value:+.2f})" if line.value else "")
                        for line in lines
                        if line.layer == layer
                    ]
                    if len(words) > 6:
                        words[5:] = [f"{len(words) - 5} lines more"]
                    where = "" if layer is None else f"in layer {layer} "
                    readers.setdefault(where + ", and ".join(words), []).append(head)
                if not lines:
                    readers.setdefault("nothing", []).append(head)
            for words, heads in readers.items():
                many = len(heads) > 1
                who = (
                    f"heads {', '.join(map(str, heads))} read" if many else f"head {heads[0]} reads"
                )
                found.append((site, who, words))
        return found

    __str__ = explain

    def __repr__(self) -> str:
        tracks = len({line.track for line in self.lines})
        return f"CalibratedBias({self.task}: {tracks} lines for {self.heads} heads)"

    def _repr_html_(self) -> str:
        from lengthwise.report.notebook import lines_html

        return lines_html(self)

    def to_json_lines(self) -> str:
        """One JSON object a line: a header, then the lines of the bias."""
        header = {
            "format": FORMAT,
            "task": self.task,
            "heads": self.heads,
            "lines": len(self.lines),
        }
        rows = [header, *(asdict(line) for line in self.lines)]
        return "".join(json.dumps(row) + "\n" for row in rows)

    def save(self, path: Path | str) -> None:
        """Write the bias as JSON lines; the file appears whole or not at all.

        Raises:
            InputError: where `path` is no path, or a folder.
        """
        write_text(as_file("path", path, "bias.jsonl"), self.to_json_lines())

    @classmethod
    def load(cls, path: Path | str) -> CalibratedBias:
        """Read a bias.

        Raises:
            InputError: in one sentence, when the file can't be read or is not a bias.
        """
        path = as_file("path", path, "bias.jsonl")
        try:
            texts = read_text(path).splitlines()
            rows = [_object(text, place) for place, text in enumerate(texts, start=1)]
            header, lines = rows[0], rows[1:]
            check_format(header["format"], FORMAT)
            heads = header["heads"]
            if type(heads) is not int or heads < 1 or not isinstance(header["task"], str):
                raise ValueError("its header lacks a task or a number of heads")
            bias = cls(header["task"], heads, [_line(row) for row in lines])
            if header["lines"] != len(lines):
                raise ValueError(f"its header says {header['lines']} lines, it has {len(lines)}")
            return bias
        except OSError as error:
            raise InputError(f"can't read bias {path}: {error.strerror}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is not a calibrated bias: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it is empty"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)


def _object(text: str, place: int) -> dict:
    """One line of the file."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"line {place} is not JSON") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {place} is not an object")
    return row


def _line(row: dict) -> Line:
    """A line from JSON, its types checked."""
    names = {field.name for field in fields(Line)}
    if set(row) != names:
        raise ValueError(f"a line has the keys {sorted(row)}, not {sorted(names)}")
    whole = all(type(row[name]) is int for name in ("head", "offset"))
    if row["site"] not in SITES or row["direction"] not in get_args(Direction):
        raise ValueError(f"site {row['site']!r} or direction {row['direction']!r} is unknown")
    if (
        not whole
        or not isinstance(row["segment"], str)
        or type(row["layer"]) not in (int, type(None))
    ):
        raise ValueError("head, offset and layer must be whole numbers, segment a text")
    if abs(row["offset"]) > _FARTHEST:
        raise ValueError(f"an offset lies within {_FARTHEST} keys, got {row['offset']}")
    if type(row["value"]) not in (int, float) or not -1e6 < row["value"] < 1e6:
        raise ValueError(f"value must be a finite number, got {row['value']!r}")
    return Line(**{**row, "value": float(row["value"])})
