"""The policy `paper`: Algorithm 1 of the paper, lines through whole matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from lengthwise.bias import SITES, CalibratedBias, Line, MatrixTrack, Site
from lengthwise.bias.tracks import Direction
from lengthwise.calibration.maps import AttentionMaps

KAPPA_CROSS, KAPPA_SELF = 4.5, 0.87

DIRECTIONS: tuple[Direction, ...] = ("diagonal", "anti-diagonal", "vertical")


def drop_off(maps: AttentionMaps, kappas: dict[Site, float]) -> CalibratedBias:
    """Algorithm 1, on the last layer's maps, for all layers.

    Choices where text and code of the paper differ, or are silent: lines are averaged, not summed,
    and the largest is subtracted (text); all rows count (text; the code masks some); sigma is that
    of the population; the set of directions is the diagonal, the anti-diagonal and the vertical;
    the causal mask is always kept (the code drops it where a bias is loaded).
    """
    heads = maps.weights["cross"].shape[1]
    lines: list[Line] = []
    for site in SITES:
        last = maps.weights[site][-1]
        kept = [
            line
            for direction in DIRECTIONS
            for line in _drop_off(last, site, direction, kappas[site])
        ]
        transparent = set(range(heads)) - {line.head for line in kept}
        lines += kept + [
            Line(MatrixTrack(site, "everywhere"), head) for head in sorted(transparent)
        ]
    return CalibratedBias(maps.format, heads, lines)


def line_means(maps: Tensor, direction: str) -> tuple[Tensor, Tensor]:
    """The mean of every line of one direction through a whole matrix.

    Args:
        maps: `[head, query, key]`.
        direction: `diagonal` and `vertical` count offsets from the left edge, `anti-diagonal` from the
            right (paper, section 5).

    Returns:
        Offsets int64 `[line]`, as in `MatrixTrack`, and means `[head, line]`.
    """
    heads, queries, keys = maps.shape
    row, column = torch.arange(queries)[:, None], torch.arange(keys)
    offset = {
        "diagonal": column - row,
        "anti-diagonal": keys - 1 - column - row,
        "vertical": column.expand(queries, keys),
    }[direction]
    first = int(offset.min())
    index = (offset - first).flatten()
    count = torch.bincount(index)
    sums = torch.zeros(heads, len(count), dtype=torch.float64)
    sums.index_add_(1, index, maps.flatten(1).double())
    return torch.arange(first, first + len(count)), sums / count


def _drop_off(maps: Tensor, site: Site, direction: Direction, kappa: float) -> list[Line]:
    """The lines of one direction whose mean is beyond mu + kappa sigma, head by head."""
    offsets, means = line_means(maps, direction)
    threshold = means.mean(dim=1) + kappa * means.std(dim=1, correction=0)
    kept = []
    for head, line in (means > threshold[:, None]).nonzero().tolist():
        value = (means[head, line] - means[head].max()).item()
        track = MatrixTrack(site, direction, int(offsets[line]))
        kept.append(Line(track, head, value=value))
    return kept
