"""From matrices to lines: which heads of a `MatrixBias` are lines, and what is left beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lengthwise.bias.base import CLOSED, SITES, Site
from lengthwise.bias.lines import CalibratedBias, Line
from lengthwise.bias.matrix import MatrixBias
from lengthwise.bias.tracks import MatrixTrack, Track
from lengthwise.problems.layout import ANSWER, Layout
from lengthwise.tasks import FRAME

# A line passes through at least this share of the rows; shorter runs of open cells are chance.
_LEAST_ROWS = 0.5


@dataclass(frozen=True)
class Rest:
    """Open cells of one head that lie on no line.

    Attributes:
        site, layer, head: whose they are; layer None for every layer.
        cells: rows and keys, in the keys of the matrices.
        edge: whether all lie in the first or the last row, where a line through the whole matrix
            leaves its segment: they carry no digit.
    """

    site: Site
    layer: int | None
    head: int
    cells: tuple[tuple[int, int], ...]
    edge: bool


@dataclass(frozen=True)
class Traced:
    """What `trace_lines` found.

    Attributes:
        lines: the lines, anchored to segments, so defined at every width.
        rest: what they leave out.
        spans: where segments lie in the keys of `cross`, as in `MatrixBias`.
    """

    lines: CalibratedBias
    rest: tuple[Rest, ...]
    spans: dict[str, tuple[int, int]]

    @property
    def exact(self) -> bool:
        """Whether the heads are lines, save perhaps a few cells in the first and last row."""
        return all(rest.edge for rest in self.rest)

    def describe_rest(self) -> list[str]:
        """What the lines leave out, in sentences: heads with the same cells together."""
        groups: dict[tuple, list[int]] = {}
        for rest in self.rest:
            groups.setdefault((rest.site, rest.layer, rest.edge, rest.cells), []).append(rest.head)
        sentences = []
        for (site, layer, edge, cells), heads in groups.items():
            who = f"head{'s' if len(heads) > 1 else ''} {', '.join(map(str, heads))} of {site}-attention"
            where = "" if layer is None else f" in layer {layer}"
            shown = ", ".join(
                f"row {row} at key {key}{self._symbol(site, key)}" for row, key in cells[:4]
            )
            more = f" and {len(cells) - 4} more" if len(cells) > 4 else ""
            what = (
                "differs from its lines in the first or last row alone"
                if edge
                else "off every line"
            )
            sentences.append(f"{who}{where}: {what}: {shown}{more}")
        return sentences

    def _symbol(self, site: Site, key: int) -> str:
        """The symbol that a key holds at any width, where it is one."""
        for name, (start, stop) in self.spans.items():
            if site == "cross" and stop == start + 1 and key == start:
                return f" ({name!r})"
        return ""


def trace_lines(bias: MatrixBias) -> Traced:
    """Read matrices as lines: columns of operands and of the answer, symbols, everything.

    A track of one head is a line where every cell of it is open, at no less than its usual value. Where
    all keys are open with one value, the head is transparent: one line `everywhere`.
    """
    layout = replace(bias.format, frame="tokens").at(bias.width)
    queries, heads = range(layout.target_length), range(bias.heads)
    lines: list[Line] = []
    layers: list[tuple[Site, int, int | None, Tensor]] = []
    for site, matrices in bias.matrices.items():
        for index in range(len(matrices)):
            layer = None if len(matrices) == 1 else index
            dense = bias.dense(site, index, layout, queries)
            layers.append((site, index, layer, dense))
            for head in heads:
                lines += _trace(dense[head], site, head, layer, layout)
    for site in SITES:
        if site not in bias.matrices:
            lines += [Line(MatrixTrack(site, "everywhere"), head) for head in heads]
    traced = CalibratedBias(replace(bias.format, frame="none"), bias.heads, lines)
    rest = []
    for site, index, layer, dense in layers:
        keys = bias.keys(site, layout).tolist()
        differ = dense != traced.dense(site, index, layout, queries)
        for head in heads:
            if cells := differ[head].nonzero().tolist():
                edge = all(row in (0, layout.width) for row, _ in cells)
                cells = tuple((row, keys[key]) for row, key in cells)
                rest.append(Rest(site, layer, head, cells, edge))
    return Traced(traced, tuple(rest), bias.spans)


def tracks(site: Site, layout: Layout) -> list[Track]:
    """Every track that a line of a matrix may be."""
    if site == "self":
        return [Track.along(ANSWER, -back) for back in range(1, layout.width + 1)]
    found = []
    for name, span in layout.source_spans.items():
        if span.grows:
            offsets = range(-layout.width + 1, layout.width)
            found += [Track.along(name, offset) for offset in offsets]
        elif name not in FRAME:
            found.append(Track(name))
    return found


def _trace(matrix: Tensor, site: Site, head: int, layer: int | None, layout: Layout) -> list[Line]:
    """The lines of one head `[query, key]`."""
    rows = torch.arange(len(matrix))
    visible = matrix
    if site == "self":
        visible = matrix[rows[:, None] >= rows]
    if len(values := visible.unique()) == 1 and values.item() > CLOSED:
        return [Line(MatrixTrack(site, "everywhere"), head, layer, values.item())]
    found = []
    for track in tracks(site, layout):
        keys, inside = track.keys(layout, rows)
        cells = matrix[rows[inside], keys[inside]]
        if len(cells) < _LEAST_ROWS * layout.width or bool((cells == CLOSED).any()):
            continue
        value = cells.median().item()
        if bool((cells >= value).all()):
            found.append(Line(track, head, layer, value))
    return found
