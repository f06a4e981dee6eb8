"""A calibrated bias: a few lines per head, stated in coordinates and so defined at every width."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias.base import CLOSED, OpenKeys, Site, causal
from lengthwise.bias.tracks import AnyTrack, Track, in_coordinates, read_track, track_row
from lengthwise.errors import InputError
from lengthwise.files import check_format, read_text, write_text
from lengthwise.problems.format import Format, OfFormat
from lengthwise.problems.layout import Layout, Places

FORMAT, EARLIER = "lengthwise-bias/2", "lengthwise-bias/1"
_READING: dict[Site, str] = {"cross": "reading the problem", "self": "reading the answer so far"}


@dataclass(frozen=True, init=False)
class Line:
    """A track that one head may read along.

    Attributes:
        track: what is read; a text such as `a[c-1]` is parsed.
        head: the attention head.
        layer: the decoder layer, or None for every layer.
        value: what the line adds to the logits.

    Raises:
        ValueError: for a text that is no track.
    """

    track: AnyTrack
    head: int = 0
    layer: int | None = None
    value: float = 0.0

    def __init__(
        self, track: AnyTrack | str, head: int = 0, layer: int | None = None, value: float = 0.0
    ) -> None:
        track = Track.parse(track) if isinstance(track, str) else track
        vars(self).update(track=track, head=head, layer=layer, value=value)

    @property
    def site(self) -> Site:
        """Where the head reads: `self` or `cross`."""
        return self.track.site

    def to_dict(self) -> dict[str, Any]:
        """The line as JSON values."""
        return {
            **track_row(self.track),
            "layer": self.layer,
            "head": self.head,
            "value": self.value,
        }


def is_local(bias: object) -> TypeGuard[CalibratedBias]:
    """Whether every query reads a few keys alone, whatever the width: a calibrated bias that is `local`."""
    return isinstance(bias, CalibratedBias) and bias.local


class CalibratedBias(OfFormat):
    """Lines per head; every key that is on no line is closed. Self-attention stays causal.

    Where lines of a head cross, the larger value counts. A head without a line at a site reads
    nothing there, and contributes nothing. Two are equal when they have the same task, heads and lines.

    Args:
        format: of the problems that it was calibrated for; of a task's name, as by default.
        heads: attention heads.

    Raises:
        ValueError: for a line with a head that does not exist, or a task that is none.
    """

    def __init__(self, format: Format | str, heads: int, lines: Iterable[Line]) -> None:
        self.format, self.heads = Format.of(format), heads
        self.lines = tuple(dict.fromkeys(lines))
        # Of a file of the format before: its text, and its lines as they stand there.
        self._earlier: tuple[str, list[Line]] | None = None
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

    @property
    def local(self) -> bool:
        """Whether a query reads a few keys, at every width, and of the answer a fixed way back."""
        return all(
            isinstance(line.track, Track)
            and (line.site == "cross" or line.track.offset is not None)
            for line in self.lines
        )

    @property
    def layers(self) -> int | None:
        """The decoder layers up to the last that a line names, or None where every line is of all."""
        return max((line.layer + 1 for line in self.lines if line.layer is not None), default=None)

    @property
    def earlier(self) -> bool:
        """Whether it was read from a file of the format before."""
        return self._earlier is not None

    def at(self, site: Site, layer: int, places: Places) -> list[Line]:
        """The lines of one layer at one site.

        Raises:
            InputError: when the layout lacks what a line reads.
        """
        chosen = [ln for ln in self.lines if ln.site == site and ln.layer in (None, layer)]
        for line in chosen:
            line.track.check(places)
        return chosen

    def backs(self, layer: int, places: Places) -> dict[int, set[int]]:
        """How far back one layer of self-attention reads, 0 for the query's own token, and which heads do.

        What is not written yet is closed, and left out.
        """
        found: dict[int, set[int]] = {}
        for line in self.at("self", layer, places):
            offset = line.track.offset
            if offset is not None and offset < 0:
                found.setdefault(-1 - offset, set()).add(line.head)
        return found

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """See `AttentionBias.dense`."""
        keys = layout.keys(site)
        bias = torch.full((self.heads, len(queries), keys), CLOSED)
        query = torch.arange(queries.start, queries.stop)
        for line in self.at(site, layer, layout):
            head = bias[line.head]
            if span := line.track.reads_all(layout):
                head[:, span.start : span.stop : span.stride].clamp_(min=line.value)
                continue
            position, inside = line.track.keys(layout, query)
            cells = (torch.arange(len(queries))[inside], position[inside])
            head[cells] = head[cells].clamp(min=line.value)
        return bias.add_(causal(keys, queries)) if site == "self" else bias

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys | None:
        """See `AttentionBias.open_keys`; None when a head may read a whole segment that grows."""
        return self.open_at(site, layer, layout, torch.arange(queries.start, queries.stop))

    def open_at(self, site: Site, layer: int, places: Places, queries: Tensor) -> OpenKeys | None:
        """As `open_keys`, for any queries `[query]`, also of problems of several widths."""
        lines = self.at(site, layer, places)
        if any(span.grows for line in lines if (span := line.track.reads_all(places))):
            return None
        per_head = [[line for line in lines if line.head == head] for head in range(self.heads)]
        slots = max(1, *map(len, per_head))
        index = torch.zeros(self.heads, len(queries), slots, dtype=torch.int64)
        value = torch.full((self.heads, len(queries), slots), CLOSED)
        # Heads often read along the same tracks.
        keys = {track: track.keys(places, queries) for track in {line.track for line in lines}}
        for head, own in enumerate(per_head):
            # Largest value first: where lines cross, the later one is dropped.
            for slot, line in enumerate(sorted(own, key=lambda line: -line.value)):
                position, inside = keys[line.track]
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

    def bound(self, format: Format) -> CalibratedBias:
        """The same bias for problems of the same task in another format.

        The format before named directions, whose meaning depends on how the source is laid out.
        """
        lines = self.lines
        if self._earlier is not None:
            places = format.at(format.task.growth + 1)
            lines = [
                replace(line, track=in_coordinates(line.track, places)) for line in self._earlier[1]
            ]
        bias = CalibratedBias(format, self.heads, lines)
        bias._earlier = self._earlier
        return bias

    def transferred(self, target: Format | str) -> CalibratedBias:
        """The same lines for another task whose problems have segments of the same kinds.

        Args:
            target: the format that is to use it; its segments stand for those of this one, in their order.
                Of a task's name all else is as here, its base where the task allows it.

        Raises:
            ValueError: when the segments of the two are not of the same kinds.
        """
        if isinstance(target, str):
            bases = Format(target).task.bases
            base = self.format.base if self.format.base in bases else bases[0]
            target = replace(self.format, name=target, base=base, parameters={})
        if self.format.is_sheet or target.is_sheet:
            raise ValueError(
                f"the bias reads {self.task} problems, and lines of sheets serve their own task alone"
            )
        own, there = self.format.task.segments, target.task.segments
        kinds, others = ([segment.kind for segment in each] for each in (own, there))
        if kinds != others:
            raise ValueError(
                f"the bias reads {self.task} problems ({', '.join(kinds)}); those of {target.name} are "
                f"laid out otherwise ({', '.join(others)})"
            )
        names = {mine.name: theirs.name for mine, theirs in zip(own, there, strict=True)}

        def renamed(track: AnyTrack) -> AnyTrack:
            return replace(track, segment=names.get(track.segment, track.segment))

        lines = [replace(line, track=renamed(line.track)) for line in self.lines]
        return CalibratedBias(target, self.heads, lines)

    def explain(self) -> str:
        """The bias in words: for each head, what it reads."""
        out = [f"Calibrated bias for {self.task}: {self.heads} heads"]
        before = None
        for site, heads, words in self.readings():
            if site != before:
                out.append(f"  {_READING[site]}")
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
                        _words(line.track) + (f" ({line.value:+.2f})" if line.value else "")
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
                s, read = ("s", "read") if len(heads) > 1 else ("", "reads")
                found.append((site, f"head{s} {', '.join(map(str, heads))} {read}", words))
        return found

    __str__ = explain

    def __repr__(self) -> str:
        tracks = len({line.track for line in self.lines})
        return f"CalibratedBias({self.task}: {tracks} lines for {self.heads} heads)"

    def to_json_lines(self) -> str:
        """One JSON object a line: a header, then the lines of the bias.

        Of a bias that an earlier version wrote, what it wrote: weights and certificates are bound to that.
        """
        if self._earlier is not None:
            return self._earlier[0]
        header = {
            "format": FORMAT,
            "task": self.format.to_dict(),
            "heads": self.heads,
            "lines": len(self.lines),
        }
        rows = [header, *(line.to_dict() for line in self.lines)]
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
            text = read_text(path)
            rows = [_object(row, place) for place, row in enumerate(text.splitlines(), start=1)]
            header, lines = rows[0], rows[1:]
            earlier = header["format"] == EARLIER
            if not earlier:
                check_format(header["format"], FORMAT)
            heads = header["heads"]
            if type(heads) is not int or heads < 1 or not isinstance(header["task"], dict | str):
                raise ValueError("its header lacks a task or a number of heads")
            bias = cls(Format.read(header["task"]), heads, [_line(row) for row in lines])
            if header["lines"] != len(lines):
                raise ValueError(f"its header says {header['lines']} lines, it has {len(lines)}")
            if earlier:
                bias._earlier = text, list(bias.lines)
                return bias.bound(bias.format)
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
    others = {name: row.pop(name, None) for name in ("head", "layer", "value")}
    track, (head, layer, value) = read_track(row), others.values()
    if type(head) is not int or type(layer) not in (int, type(None)):
        raise ValueError("head and layer must be whole numbers")
    if type(value) not in (int, float) or not -1e6 < value < 1e6:
        raise ValueError(f"value must be a finite number, got {value!r}")
    return Line(track, head, layer, float(value))


def _words(track: AnyTrack) -> str:
    """What is read, in coordinates and in words; a symbol's name says both."""
    words = track.words()
    return f"{track}, {words}" if isinstance(track, Track) and track.place else words
