"""Calibration speed: 8 heads to 1000 x 2000, against the paper's algorithm as plain loops."""

from __future__ import annotations

import statistics
from functools import partial
from itertools import product
from typing import Any, get_args

from torch import Tensor

from lengthwise.bench.models import hand_bias, hand_tracks
from lengthwise.bench.results import Bench, alternate, seconds
from lengthwise.bias import CLOSED, OWN_TOKEN, SITES, Site
from lengthwise.calibration import KAPPA_CROSS, KAPPA_SELF, Policy, calibrate
from lengthwise.calibration.maps import AttentionMaps, candidates
from lengthwise.problems.format import Format
from lengthwise.problems.layout import Layout

_HEADS, _LAYERS, _LENGTH = 8, 2, 6


def hand_maps() -> AttentionMaps:
    """Maps of a model that reads what `hand_bias` opens and, faintly, everything else."""
    format = Format("addition")
    layout = format.at(_LENGTH + format.task.growth)
    bias, rows = hand_bias(format.name, _HEADS), range(layout.target_length)
    weights: dict[Site, Tensor] = {}
    for site in SITES:
        reads = (bias.dense(site, 0, layout, rows) > CLOSED).float() * 9
        weights[site] = (reads / reads.sum(dim=-1, keepdim=True).clamp(min=1) * 5).softmax(dim=-1)
        weights[site] = weights[site].expand(_LAYERS, -1, -1, -1).contiguous()
    needed = {*hand_tracks(format.name), OWN_TOKEN}
    knockout = {track: 1.0 if track in needed else 0.0 for track in candidates(layout, _LENGTH)}
    return AttentionMaps(format, _LENGTH, layout.width, 512, weights, 1.0, knockout)


def loop_bias(maps: Tensor, kappa: float, queries: int, keys: int) -> list[list[list[float]]]:
    """The paper's algorithm, cell by cell: average lines, drop off, extend, merge.

    Args:
        maps: `[head, query, key]`.
        kappa: the drop-off threshold.
        queries, keys: the size to extend to.

    Returns:
        The bias `[head][query][key]`, without the causal mask.
    """
    out = []
    for head in maps.double().tolist():
        bias = [[CLOSED] * keys for _ in range(queries)]
        for direction in (1, -1, 0):
            cells: dict[int, list[float]] = {}
            for i, row in enumerate(head):
                for j, weight in enumerate(row):
                    cells.setdefault(_line(direction, i, j, len(row)), []).append(weight)
            means = {line: sum(weights) / len(weights) for line, weights in cells.items()}
            threshold = statistics.mean(means.values()) + kappa * statistics.pstdev(means.values())
            top = max(means.values())
            for i in range(queries):
                for j in range(keys):
                    mean = means.get(_line(direction, i, j, keys))
                    if mean is not None and mean > threshold:
                        bias[i][j] = max(bias[i][j], mean - top)
        if all(cell == CLOSED for row in bias for cell in row):
            bias = [[0.0] * keys for _ in range(queries)]
        out.append(bias)
    return out


def _line(direction: int, i: int, j: int, keys: int) -> int:
    """The line that a cell lies on; anti-diagonals are aligned at the right edge."""
    return j - i if direction == 1 else keys - 1 - j - i if direction == -1 else j


def run(bench: Bench, *, width: int = 1000) -> None:
    """Calibration and layout of a bias, both sites; the plain loops run once.

    Args:
        width: digits to extend to; the source is twice as long.
    """
    maps = hand_maps()
    layout = maps.format.at(width)
    rows, keys = layout.target_length, layout.source_length
    note = f"{_HEADS} heads, cross {rows} x {keys} and self {rows} x {rows}"
    spent = 0.0
    # The last is what the plain loops make, too.
    for policy, form in product(get_args(Policy), ("open_keys", "dense")):
        bench.say(f"{policy}, {form}")
        (times,) = alternate([partial(_work, maps, policy, layout, form)], bench.repeats)
        spent = bench.add(f"{policy}: lines, then {form}", times, "s", note)
    bench.say("plain loops")
    kappas: dict[Site, float] = {"cross": KAPPA_CROSS, "self": KAPPA_SELF}
    slow = sum(
        seconds(partial(loop_bias, maps.weights[site][-1], kappas[site], rows, layout.keys(site)))
        for site in SITES
    )
    bench.add("paper: plain Python loops", slow, "s", f"{note}; once")
    bench.add("paper: ratio to loops", slow / spent, "x", "dense, at equal size")


def _work(maps: AttentionMaps, policy: Policy, layout: Layout, form: str) -> list[Any]:
    """Calibrate, then lay the bias out at both sites."""
    bias = calibrate(maps, policy=policy)
    lay_out = bias.open_keys if form == "open_keys" else bias.dense
    return [lay_out(site, 0, layout, range(layout.target_length)) for site in SITES]
