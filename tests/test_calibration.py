"""Calibration: the paper's algorithm cell by cell, and our policy on maps drawn by hand."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import Multiple
from lengthwise.bias import (
    CLOSED,
    OWN_TOKEN,
    SITES,
    CalibratedBias,
    Causal,
    Line,
    MatrixTrack,
    Track,
)
from lengthwise.calibration import Evidence, NoLinesError, auto, calibrate, gather_evidence
from lengthwise.calibration.line_sets import enough
from lengthwise.calibration.maps import AttentionMaps, Knockout, candidates, real_rows
from lengthwise.calibration.paper import line_means
from lengthwise.locality import Contexts, join, reach_of
from lengthwise.problems.format import Format
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

DIRECTIONS = ("diagonal", "anti-diagonal", "vertical")

# Tasks each of whose rows writes a column.
LOCAL = sorted(name for name, task in TASKS.items() if task.writes is None)


def maps_of(task: str, width: int, weights: dict[str, Tensor], **changes) -> AttentionMaps:
    """Maps with these weights; without `knockout` no line matters."""
    length = changes.pop("length", width - 1)
    layout = Layout(TASKS[task](), width)
    knockout = dict.fromkeys(candidates(layout, length), 0.0) | changes.pop("knockout", {})
    return AttentionMaps(
        format=Format(task),
        length=length,
        width=width,
        problems=100,
        weights=weights,
        exact_match=1.0,
        knockout=knockout,
        **changes,
    )


def random_attention(heads: int, width: int, task: str, seed: int, layers: int = 2) -> dict:
    """Random attention weights, sharp here and there; self-attention is causal."""
    layout, random = Layout(TASKS[task](), width), torch.Generator().manual_seed(seed)
    later = torch.ones(width + 1, width + 1).triu(1).bool()
    found = {}
    for site in SITES:
        shape = (layers, heads, width + 1, layout.keys(site))
        logits = 3 * torch.randn(shape, generator=random)
        if site == "self":
            logits = logits.masked_fill(later, -math.inf)
        found[site] = logits.softmax(dim=-1)
    return found


# --- the paper's policy ---


def line_of(direction: str, row: int, column: int, keys: int) -> int:
    """The line that a cell lies on: from the left edge, for the anti-diagonal from the right."""
    return {
        "diagonal": column - row,
        "anti-diagonal": (keys - 1 - column) - row,
        "vertical": column,
    }[direction]


def lines_by_loop(matrix: list[list[float]], direction: str) -> dict[int, float]:
    """The mean of each line of a matrix, cell by cell."""
    cells: dict[int, list[float]] = {}
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            cells.setdefault(line_of(direction, row, column, len(values)), []).append(value)
    return {line: math.fsum(values) / len(values) for line, values in cells.items()}


def threshold_of(means: dict[int, float], kappa: float) -> float:
    """mu + kappa sigma over the lines of one direction."""
    mu = math.fsum(means.values()) / len(means)
    return mu + kappa * math.sqrt(math.fsum((d - mu) ** 2 for d in means.values()) / len(means))


def algorithm_1(matrix: list[list[float]], rows: int, keys: int, kappa: float) -> list[list[float]]:
    """The bias of one head at `rows` x `keys`, from its attention (paper, section 5)."""
    bias = [[-math.inf] * keys for _ in range(rows)]
    for direction in DIRECTIONS:
        means = lines_by_loop(matrix, direction)
        threshold, top = threshold_of(means, kappa), max(means.values())
        for row in range(rows):
            for column in range(keys):
                line = line_of(direction, row, column, keys)
                # A cell that continues no line of the map stays closed.
                if line in means and means[line] > threshold:
                    bias[row][column] = max(bias[row][column], means[line] - top)
    if all(value == -math.inf for row in bias for value in row):
        return [[0.0] * keys for _ in range(rows)]
    return bias


def margin(maps: AttentionMaps, site: str, kappa: float) -> float:
    """How near the mean of a line comes to its threshold, where rounding would decide."""
    means = [
        lines_by_loop(matrix, direction)
        for matrix in maps.weights[site][-1].tolist()
        for direction in DIRECTIONS
    ]
    return min(abs(mean - threshold_of(m, kappa)) for m in means for mean in m.values())


def check_paper(maps: AttentionMaps, width: int, kappa_cross: float, kappa_self: float) -> None:
    """The policy's bias at a width, against the loops."""
    bias = calibrate(maps, policy="paper", kappa_cross=kappa_cross, kappa_self=kappa_self)
    layout = Layout(TASKS[maps.task](), width)
    for site, kappa in (("cross", kappa_cross), ("self", kappa_self)):
        last = maps.weights[site][-1].tolist()
        found = bias.dense(site, 0, layout, range(width + 1))
        # From the last layer, for all layers.
        assert torch.equal(bias.dense(site, 5, layout, range(width + 1)), found)
        for head, matrix in enumerate(last):
            wanted = algorithm_1(matrix, width + 1, layout.keys(site), kappa)
            if site == "self":
                wanted = [
                    [value if key <= row else -math.inf for key, value in enumerate(values)]
                    for row, values in enumerate(wanted)
                ]
            torch.testing.assert_close(found[head], torch.tensor(wanted), atol=1e-6, rtol=0)


@settings(max_examples=60)
@given(
    task=st.sampled_from(LOCAL),
    heads=st.integers(1, 4),
    width=st.integers(2, 7),
    extra=st.integers(0, 6),
    seed=st.integers(0, 10**6),
    kappas=st.tuples(st.floats(0, 5), st.floats(0, 3)),
)
def test_paper_is_algorithm_1(task, heads, width, extra, seed, kappas):
    maps = maps_of(task, width, random_attention(heads, width, task, seed))
    assume(all(margin(maps, *pair) > 1e-9 for pair in zip(("cross", "self"), kappas, strict=True)))
    check_paper(maps, width + extra, *kappas)


@pytest.mark.parametrize("to", [5, 6, 20])
def test_paper_on_a_map_drawn_by_hand(to):
    # Width 5, two heads. Cross-attention of head 0: an anti-diagonal; of head 1: flat, transparent.
    cross = torch.full((1, 2, 6, 5), 0.2)
    own = torch.full((1, 2, 6, 6), 0.01)
    for row in range(5):
        cross[0, 0, row] = 0.05
        cross[0, 0, row, 4 - row] = 0.8
    cross[0, 0, 5] = 0.05
    for row in range(6):
        own[0, 0, row, row] = 0.9  # head 0: the diagonal
        own[0, 1, row, 0] = 0.7  # head 1: the first column
    maps = maps_of("successor", 5, {"cross": cross, "self": own})
    # Written down rather than computed. A corner is a line of one cell, and so stands out as well.
    bias = calibrate(maps, policy="paper", kappa_cross=2.0, kappa_self=2.0)
    assert set(bias.lines) == {
        Line(MatrixTrack("cross", "anti-diagonal", 0)),
        Line(MatrixTrack("cross", "diagonal", 4)),  # the corner (0, 4)
        Line(MatrixTrack("cross", "everywhere", 0), 1),
        Line(MatrixTrack("self", "diagonal", 0)),
        Line(MatrixTrack("self", "vertical", 0), 1),
        Line(MatrixTrack("self", "diagonal", -5), 1),  # the corner (5, 0)
        Line(MatrixTrack("self", "anti-diagonal", 5), 1),  # the corner (0, 0)
    }
    check_paper(maps, to, 2.0, 2.0)


def test_paper_extends_to_any_size():
    # An anti-diagonal seen at width 3 goes on at width 50, from the right edge.
    cross = torch.full((1, 1, 4, 3), 0.02)
    for row in range(3):
        cross[0, 0, row, 2 - row] = 0.95
    own = torch.eye(4)[None, None]
    maps = maps_of("successor", 3, {"cross": cross, "self": own})
    bias = calibrate(maps, policy="paper", kappa_cross=2.0, kappa_self=1.5)
    layout = Layout(TASKS["successor"](), 50)
    cross = bias.dense("cross", 0, layout, range(51))[0]
    assert cross.isfinite().nonzero().tolist() == [[row, 49 - row] for row in range(50)]
    own = bias.dense("self", 0, layout, range(51))[0]
    assert own.isfinite().nonzero().tolist() == [[row, row] for row in range(51)]


def test_paper_merges_directions_by_their_maximum():
    # Both a diagonal (0.5 and, below it, 0.4) and a column: values differ where they cross.
    own = torch.zeros(1, 1, 5, 5)
    for row in range(5):
        own[0, 0, row, row] = 0.5
        if row:
            own[0, 0, row, row - 1] = 0.4
    maps = maps_of("successor", 4, {"cross": torch.rand(1, 1, 5, 4), "self": own})
    bias = calibrate(maps, policy="paper", kappa_self=0.5)
    dense = bias.dense("self", 0, Layout(TASKS["successor"](), 4), range(5))[0]
    assert dense[2, 2] == 0
    assert dense[2, 1] == pytest.approx(-0.1, abs=1e-6)
    check_paper(maps, 4, 4.5, 0.5)


def test_papers_constants_are_the_defaults():
    maps = maps_of("addition", 6, random_attention(4, 6, "addition", 0))
    assert calibrate(maps, policy="paper") == calibrate(
        maps, policy="paper", kappa_cross=4.5, kappa_self=0.87
    )
    assert calibrate(maps, policy="paper") != calibrate(maps, policy="paper", kappa_self=0.5)
    assert calibrate(maps, policy="paper") != calibrate(maps, policy="paper", kappa_cross=1.0)


def test_paper_leaves_heads_without_lines_transparent_but_causal():
    maps = maps_of("addition", 3, random_attention(2, 3, "addition", 0))
    bias = calibrate(maps, policy="paper", kappa_cross=100.0, kappa_self=100.0)
    layout = Layout(TASKS["addition"](), 9)
    for site in SITES:
        dense, vanilla = (b.dense(site, 1, layout, range(10)) for b in (bias, Causal(2)))
        assert torch.equal(dense, vanilla)


@settings(max_examples=40)
@given(
    heads=st.integers(1, 3),
    queries=st.integers(1, 7),
    keys=st.integers(1, 9),
    direction=st.sampled_from(DIRECTIONS),
    seed=st.integers(0, 10**6),
)
def test_line_means_are_the_loop(heads, queries, keys, direction, seed):
    maps = torch.rand(heads, queries, keys, generator=torch.Generator().manual_seed(seed))
    offsets, means = line_means(maps, direction)
    assert offsets.dtype == torch.int64
    assert means.shape == (heads, len(offsets))
    assert len(set(offsets.tolist())) == len(offsets)
    for head in range(heads):
        found = dict(zip(offsets.tolist(), means[head].tolist(), strict=True))
        assert found == pytest.approx(lines_by_loop(maps[head].tolist(), direction), abs=1e-12)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from(DIRECTIONS))
def test_offsets_of_line_means_are_those_of_tracks(queries, keys, direction):
    offsets, _ = line_means(torch.zeros(1, queries, keys), direction)
    layout = Layout(TASKS["successor"](), keys)
    cells = set()
    for offset in offsets.tolist():
        line = Line(MatrixTrack("cross", direction, offset))
        bias = CalibratedBias("successor", 1, [line])
        dense = bias.dense("cross", 0, layout, range(queries))
        own = {tuple(cell) for cell in dense[0].isfinite().nonzero().tolist()}
        assert own, "every line has a cell"
        assert not own & cells, "lines of one direction never share a cell"
        cells |= own
    assert cells == set(itertools.product(range(queries), range(keys)))


# --- candidates and the rows that count ---


def meets_real_digit(track: Track, row: int, width: int, length: int) -> bool:
    """Whether a row meets a real digit along a track, from the docstrings."""
    if track.site == "self":
        return 1 <= row <= length and row + track.offset >= -1
    if not track.place:
        return row < length
    return 0 <= row + track.offset < length and row < width


@given(
    task=st.sampled_from(LOCAL),
    length=st.integers(1, 12),
    extra=st.integers(0, 8),
    offset=st.integers(-12, 12),
)
def test_real_rows(task, length, extra, offset):
    layout = Layout(TASKS[task](), length + 1 + extra)
    tracks = [
        Track.along("a", offset),
        Track.along("answer", -abs(offset) - 1),
    ]
    if task == "addition":
        tracks.append(Track.parse("+"))
    for track in tracks:
        rows = real_rows(track, layout, length)
        wanted = [
            r for r in range(layout.width) if meets_real_digit(track, r, layout.width, length)
        ]
        assert rows.tolist() == wanted
        # There the track lies inside its segment.
        _, inside = track.keys(layout, rows)
        assert inside.all()


def test_candidates_written_by_hand():
    found = candidates(Layout(TASKS["addition"](), 7), 6)
    wanted = [Track.along(s, o) for s in "ab" for o in (-2, -1, 0, 1)]
    wanted.append(Track.parse("+"))
    wanted += [Track.along("answer", o - 1) for o in (0, -1, -2)]
    assert set(found) == set(wanted)
    assert len(found) == len(wanted)


@given(task=st.sampled_from(LOCAL), length=st.integers(1, 30), extra=st.integers(1, 10))
def test_candidates_meet_nearly_all_rows(task, length, extra):
    layout = Layout(TASKS[task](), length + extra)
    found = set(candidates(layout, length))
    assert Track.parse("a[c]") in found
    assert OWN_TOKEN in found
    for offset in range(-length - 2, length + 3):
        tracks = [Track.along("a", offset)]
        if offset <= 0:
            tracks.append(Track.along("answer", offset - 1))
        for track in tracks:
            count = sum(
                meets_real_digit(track, r, layout.width, length) for r in range(layout.width)
            )
            assert (track in found) == (abs(offset) < length and count >= 0.8 * length)
    # Bounded, and in coordinates: nothing else.
    for track in found:
        track.check(layout)


def test_candidates_of_an_operand_of_one_digit():
    found = candidates(Layout(Multiple(), 7), 6)
    assert Track.parse("d") in found
    assert Track.parse("*") in found
    assert not any(t.segment == "d" and t.place for t in found)


@pytest.mark.parametrize(
    "track",
    [Track.parse("b[c-1]"), Track.parse("+"), OWN_TOKEN],
)
def test_knockout_closes_exactly_one_track(track):
    layout, rows = Layout(TASKS["addition"](), 4), range(5)
    bias = Knockout(Causal(2), track)
    closed = CalibratedBias("addition", 2, [Line(track, head) for head in range(2)])
    for site, layer in itertools.product(SITES, (0, 3)):
        before, after = (
            Causal(2).dense(site, layer, layout, rows),
            bias.dense(site, layer, layout, rows),
        )
        hit = closed.dense(site, layer, layout, rows).isfinite()
        assert hit.any() == (site == track.site)
        assert torch.equal(after, before.masked_fill(hit, CLOSED))
        assert torch.equal(bias.dense(site, layer, layout, range(2, 4)), after[:, 2:4])
        assert bias.open_keys(site, layer, layout, rows) is None
    assert bias.heads == 2


# --- our policy ---


def planted(
    lines: dict[tuple[int, int], list[tuple[Track, float]]],
    *,
    task: str = "addition",
    length: int = 6,
    width: int = 7,
    heads: int = 4,
    layers: int = 2,
    without: dict[Track, set[int]] | None = None,
) -> dict[str, Tensor]:
    """Attention that is uniform but for the tracks planted in (layer, head).

    A planted share is taken from the rest of the row; `without` names rows a track leaves out.
    """
    layout = Layout(TASKS[task](), width)
    found = {}
    for site in SITES:
        mask = Causal(1).dense(site, 0, layout, range(width + 1))[0]
        weights = mask.softmax(dim=-1).repeat(layers, heads, 1, 1)
        for (layer, head), tracks in lines.items():
            for row in range(width + 1):
                cells = {}
                for track, share in tracks:
                    if track.site != site or row in (without or {}).get(track, ()):
                        continue
                    (key,), (inside,) = track.keys(layout, torch.tensor([row]))
                    if inside and key <= (row if site == "self" else key):
                        cells[int(key)] = share
                rest = mask[row].isfinite().sum() - len(cells)
                if cells and rest:
                    weights[layer, head, row] = (1 - sum(cells.values())) / rest
                    weights[layer, head, row, mask[row].isinf()] = 0
                for key, share in cells.items():
                    weights[layer, head, row, key] = share if rest else share / sum(cells.values())
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        found[site] = weights
    return found


A, B = Track.parse("a[c]"), Track.parse("b[c]")
BEFORE_A, BEFORE_B = (Track.along(s, -1) for s in "ab")
AFTER_A = Track.parse("a[c+1]")
AFTER_B = Track.parse("b[c+1]")
PLUS = Track.parse("+")
BACK = Track.parse("answer[c-2]")


def tracks_of(bias: CalibratedBias, site: str | None = None) -> set[Track]:
    """The distinct tracks of a bias."""
    return {line.track for line in bias.lines if site in (None, line.site)}


def heads_of(bias: CalibratedBias, track: Track) -> set[int]:
    return {line.head for line in bias.lines if Line(track, line.head, line.layer) == line}


def needs(*tracks: Track, nats: float = 2.0) -> dict[Track, float]:
    """Knockout: closing one of these costs this much."""
    return dict.fromkeys(tracks, nats)


def test_auto_finds_the_planted_lines():
    # Spread over layers and heads, as a model with absolute positions does it.
    weights = planted({(0, 1): [(A, 0.6)], (1, 3): [(B, 0.5), (BACK, 0.9)]})
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A, B, BACK)), lines="all")
    assert tracks_of(bias) == {A, B, BACK, OWN_TOKEN}
    assert 1 in heads_of(bias, A)
    assert 3 in heads_of(bias, B)
    assert heads_of(bias, BACK) == {3}
    assert heads_of(bias, OWN_TOKEN) == {0, 1, 2}
    # Every layer reads them; open keys add nothing.
    assert {line.layer for line in bias.lines} == {None}
    assert {line.value for line in bias.lines} == {0.0}
    assert (bias.task, bias.heads) == ("addition", 4)


def test_auto_gives_each_head_one_line():
    weights = planted({(1, 0): [(A, 0.5), (B, 0.4)], (1, 2): [(B, 0.3), (BACK, 0.9)]})
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A, B, BACK)), lines="all")
    for site in SITES:
        assert sorted(line.head for line in bias.lines if line.site == site) == [0, 1, 2, 3]
    # Head 0 prefers A and has it; B goes to the next that reads it.
    assert 0 in heads_of(bias, A)
    assert 2 in heads_of(bias, B)


def test_auto_needs_attention_and_effect():
    planted_lines = {(0, 0): [(A, 0.6)], (0, 1): [(B, 0.6)], (1, 2): [(PLUS, 0.9)]}
    weights = planted(planted_lines)
    # B is looked at and does not matter; BEFORE_A matters and is not looked at.
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A, BEFORE_A)))
    assert tracks_of(bias, "cross") == {A}


def test_auto_ignores_symbols_without_effect_and_takes_those_with():
    weights = planted({(0, 0): [(A, 0.6)], (1, 2): [(PLUS, 1.0 - 1e-6)]})
    without = calibrate(maps_of("addition", 7, weights, knockout=needs(A)))
    assert tracks_of(without, "cross") == {A}
    with_need = calibrate(maps_of("addition", 7, weights, knockout=needs(A, PLUS)))
    assert tracks_of(with_need, "cross") == {A, PLUS}
    assert 2 in heads_of(with_need, PLUS)


@pytest.mark.parametrize("missing", [{0}, {3}, {5}, {0, 1, 2}])
def test_auto_ignores_lines_that_leave_out_rows(missing):
    weights = planted({(0, 0): [(A, 0.6)], (0, 1): [(B, 0.9)]}, without={B: missing})
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A, B)))
    assert tracks_of(bias, "cross") == {A}
    # With those rows it is one.
    weights = planted({(0, 0): [(A, 0.6)], (0, 1): [(B, 0.9)]})
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A, B)))
    assert tracks_of(bias, "cross") == {A, B}


def test_auto_is_not_moved_by_rows_of_padding():
    # Six digits padded to eleven: rows from 7 on write zeros, whatever their heads look at.
    lines = {(0, 0): [(A, 0.6)], (1, 1): [(B, 0.4), (BACK, 0.8)]}
    weights = planted(lines, width=11)
    maps = maps_of("addition", 11, weights, length=6, knockout=needs(A, B, BACK))
    noise = {site: tensor.clone() for site, tensor in weights.items()}
    random = torch.Generator().manual_seed(0)
    for tensor in noise.values():
        tensor[:, :, 8:] = torch.rand(tensor[:, :, 8:].shape, generator=random)
    noisy = maps_of("addition", 11, noise, length=6, knockout=needs(A, B, BACK))
    assert calibrate(noisy) == calibrate(maps)
    assert tracks_of(calibrate(noisy)) == {A, B, BACK, OWN_TOKEN}


def test_the_same_lines_at_any_padding():
    lines = {(0, 0): [(A, 0.6)], (1, 1): [(B, 0.4), (BACK, 0.8)]}
    found = [
        calibrate(
            maps_of(
                "addition",
                width,
                planted(lines, width=width),
                length=6,
                knockout=needs(A, B, BACK),
            )
        )
        for width in (7, 8, 15, 40)
    ]
    assert all(bias == found[0] for bias in found)


def test_without_lines_in_self_attention_heads_read_their_own_token():
    weights = planted({(0, 0): [(A, 0.6)]}, task="addition")
    bias = calibrate(maps_of("addition", 7, weights, knockout=needs(A)))
    assert [line for line in bias.lines if line.site == "self"] == [
        Line(OWN_TOKEN, head) for head in range(4)
    ]
    # Heads left over at cross-attention share the line.
    assert heads_of(bias, A) == {0, 1, 2, 3}


FIVE = [A, B, BEFORE_A, BEFORE_B, PLUS]


def five_lines(heads: int, layers: int) -> AttentionMaps:
    """Maps with five lines that all pass, the strongest first."""
    lines = {}
    for index, track in enumerate(FIVE):
        lines.setdefault((0, index % heads), []).append((track, 0.45 - 0.05 * index))
    weights = planted(lines, heads=heads, layers=layers)
    knockout = {track: 2.0 - 0.1 * index for index, track in enumerate(FIVE)}
    return maps_of("addition", 7, weights, knockout=knockout)


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_more_lines_than_heads_are_spread_over_layers(layers):
    bias = calibrate(five_lines(4, layers))
    cross = [line for line in bias.lines if line.site == "cross"]
    assert tracks_of(bias, "cross") == set(FIVE)
    assert {line.layer for line in cross} == set(range(layers))
    for layer in range(layers):
        # Each layer has one line to a head.
        assert sorted(line.head for line in cross if line.layer == layer) == [0, 1, 2, 3]


@pytest.mark.parametrize(("heads", "layers"), [(4, 1), (2, 2), (1, 1), (1, 3)])
def test_more_lines_than_all_heads_double_up(heads, layers):
    bias = calibrate(five_lines(heads, layers))
    cross = [line for line in bias.lines if line.site == "cross"]
    assert tracks_of(bias, "cross") == set(FIVE)
    counts = [
        sum((line.layer, line.head) == (layer, head) for line in cross)
        for layer in range(layers)
        for head in range(heads)
    ]
    # Every head has a line, and no layer more than its share.
    assert min(counts) >= 1
    for layer in range(layers):
        assert sum(counts[layer * heads : (layer + 1) * heads]) <= max(heads, -(-5 // layers))


@pytest.mark.parametrize("extra", [0, 1, 2, 3])
def test_extra_adds_exactly_one_line_each(extra):
    # After A and B come BEFORE_A, which matters a little, then BACK, then AFTER_A; OWN_TOKEN, which
    # every model reads, counts for none of them.
    weights = planted(
        {
            (0, 0): [(A, 0.6)],
            (0, 1): [(B, 0.6), (OWN_TOKEN, 0.9)],
            (0, 2): [(BEFORE_A, 0.6), (BACK, 0.9)],
            (0, 3): [(AFTER_A, 0.6)],
        }
    )
    knockout = needs(A, B) | {BEFORE_A: 0.004, BACK: 0.002, AFTER_A: 0.001, OWN_TOKEN: 0.003}
    maps = maps_of("addition", 7, weights, knockout=knockout)
    bias = calibrate(maps, lines="all", extra=extra)
    wanted = {A, B} | set([BEFORE_A, BACK, AFTER_A][:extra])
    assert tracks_of(bias) - {OWN_TOKEN} == wanted


def spread(*tracks: Track, layers: int = 2, task: str = "addition") -> AttentionMaps:
    """Maps in which each of these lines passes, the first the strongest."""
    lines = {}
    for index, track in enumerate(tracks):
        strength = 0.9 if track.site == "self" else 0.6
        lines.setdefault((0, index % 4), []).append((track, strength))
    weights = planted(lines, layers=layers, task=task)
    knockout = {track: 2.0 - 0.1 * index for index, track in enumerate(tracks)}
    return maps_of(task, 7, weights, knockout=knockout)


def test_a_line_to_spare_is_dropped():
    """The symbols written before tell nothing that the four digits don't, and make the cone deep."""
    maps = spread(A, B, BEFORE_A, BEFORE_B, BACK)
    assert tracks_of(calibrate(maps, lines="all")) == {A, B, BEFORE_A, BEFORE_B, BACK, OWN_TOKEN}
    assert calibrate(maps) == calibrate(spread(A, B, BEFORE_A, BEFORE_B))
    # It comes back first when the lines were too few.
    assert calibrate(maps, extra=1) == calibrate(maps, lines="all")


def test_however_strong_the_line_is():
    maps = spread(BACK, A, B, BEFORE_A, BEFORE_B)
    assert tracks_of(calibrate(maps)) == {A, B, BEFORE_A, BEFORE_B, OWN_TOKEN}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_lines_that_are_needed_stay_as_they_are(layers):
    maps = spread(A, B, BEFORE_A, BEFORE_B, layers=layers)
    assert calibrate(maps) == calibrate(maps, lines="all")


def test_the_row_before_is_kept_where_it_tells_the_carry():
    """It read its own column in the first layer."""
    maps = spread(A, B, BACK)
    assert calibrate(maps) == calibrate(maps, lines="all")
    # Then one more digit of the column before is to spare.
    assert tracks_of(calibrate(spread(A, B, BEFORE_A, BACK))) == {A, B, BACK, OWN_TOKEN}


def test_nothing_is_dropped_where_the_lines_do_not_tell_every_symbol():
    """One layer can't know the carry from the symbols written before."""
    maps = spread(A, B, BEFORE_A, BACK, layers=1)
    assert calibrate(maps) == calibrate(maps, lines="all")


@pytest.mark.parametrize("task", ["addition", "subtraction"])
def test_a_line_read_faintly_joins_where_the_others_leave_a_case_open(task):
    """A digit of the column before and the symbol written there: the carry, but where they are equal."""
    read = {
        (0, 0): [(A, 0.6)],
        (0, 1): [(B, 0.6)],
        (0, 2): [(BEFORE_A, 0.6)],
        (0, 3): [(AFTER_A, 0.6)],
    }
    faint = {(1, 0): [(BEFORE_B, 0.2)]}
    need = needs(A, B, BEFORE_A) | {AFTER_A: 0.005, BEFORE_B: 0.002}

    def maps(lines):
        weights = planted(read | lines, layers=2, task=task)
        return maps_of(task, 7, weights, knockout=need)

    order = [item.track for item in gather_evidence(maps(faint)) if item.strength < 1]
    assert order.index(AFTER_A) < order.index(BEFORE_B)
    # The one after is read more, and tells nothing.
    assert tracks_of(calibrate(maps(faint))) == {A, B, BEFORE_A, BEFORE_B, OWN_TOKEN}
    assert tracks_of(calibrate(maps(faint), lines="all")) == {A, B, BEFORE_A, OWN_TOKEN}
    # No line joins that is not read at all.
    assert tracks_of(calibrate(maps({}))) == {A, B, BEFORE_A, OWN_TOKEN}


@pytest.mark.parametrize("missing", [[BEFORE_B], [BEFORE_A, BEFORE_B]])
def test_a_line_that_attention_hides_joins_by_what_it_costs_to_close_it(missing):
    """Some query reads it less than a uniform head would; but the model can't do without it."""
    read = [track for track in (A, B, BEFORE_A, BEFORE_B) if track not in missing]
    weights = planted({(0, i): [(track, 0.6)] for i, track in enumerate(read)}, layers=1)
    needed = needs(*read) | dict.fromkeys(missing, 3.9) | {AFTER_A: 0.4, AFTER_B: 0.02}

    def found(knockout):
        return tracks_of(calibrate(maps_of("addition", 7, weights, knockout=knockout)))

    hidden = [
        item
        for item in gather_evidence(maps_of("addition", 7, weights, knockout=needed))
        if item.track in missing
    ]
    assert all(item.strength <= 0 for item in hidden)
    assert found(needed) == {A, B, BEFORE_A, BEFORE_B, OWN_TOKEN}
    # What costs nothing is no evidence: the definition of the task alone adds no line.
    assert found(needed | dict.fromkeys(missing, 0.02)) == {*read, OWN_TOKEN}


def test_a_proof_within_the_budget_comes_before_lines_that_are_read_plainly(monkeypatch):
    """Two digits and the symbols written before tell the carry, but see far; four digits see less."""
    lines = {(0, i): [(track, 0.6)] for i, track in enumerate((A, B))} | {(0, 2): [(BACK, 0.9)]}
    knockout = needs(A, B, BACK) | {BEFORE_A: 0.5, BEFORE_B: 0.4, AFTER_A: 0.3}
    maps = maps_of("addition", 7, planted(lines, layers=2), knockout=knockout)
    plain, small = {A, B, BACK, OWN_TOKEN}, {A, B, BEFORE_A, BEFORE_B, OWN_TOKEN}
    assert tracks_of(calibrate(maps)) == plain
    layers = [reach_of(calibrate(maps), layer, maps.layout) for layer in range(2)]
    bound = Contexts(maps.layout.task, join(layers)).bound()
    monkeypatch.setattr("lengthwise.calibration.auto.BUDGET", bound - 1)
    assert tracks_of(calibrate(maps)) == small
    monkeypatch.setattr("lengthwise.calibration.auto.BUDGET", bound)
    assert tracks_of(calibrate(maps)) == plain


def test_no_lines():
    weights = planted({(0, 0): [(A, 0.02 + 1 / 15)], (0, 1): [(BACK, 0.9)]})
    maps = maps_of("addition", 7, weights, knockout=needs(A, BACK, nats=0.5))
    text = (
        r"^no head of the addition model reads along a line; the nearest is the symbol written 2 steps "
        r"ago \(support 0\.\d\d, need 0\.50 nats\)\. Does the model interpolate\? It answers 100\.0% of "
        r"its training problems$"
    )
    with pytest.raises(NoLinesError, match=text):
        calibrate(maps)
    # A line more, and there is one.
    assert tracks_of(calibrate(maps, extra=1), "cross") == {A}


def test_evidence_is_the_loop():
    weights = random_attention(3, 7, "addition", 5)
    layout, length = Layout(TASKS["addition"](), 7), 6
    knockout = {t: 0.1 * (i % 10) for i, t in enumerate(candidates(layout, length))}
    maps = maps_of("addition", 7, weights, knockout=knockout)
    found = gather_evidence(maps)
    assert {item.track for item in found} == set(knockout)
    assert [item.strength for item in found] == sorted((e.strength for e in found), reverse=True)
    for item in found:
        track, site = item.track, item.track.site
        span = layout.spans(site)[track.segment]
        rows = [r for r in range(layout.width) if meets_real_digit(track, r, layout.width, length)]
        support = -math.inf
        preference = [-math.inf] * 3
        for layer, head in itertools.product(range(2), range(3)):
            shares, beyond = [], []
            for row in rows:
                key = span.start if site == "cross" else row + track.offset + 1
                if site == "cross" and track.place:
                    key = span.stop - 1 - row - track.offset
                share = weights[site][layer, head, row, key].item()
                uniform = 1 / (row + 1) if site == "self" else 1 / layout.source_length
                shares.append(share)
                beyond.append((share - uniform) / (1 - uniform))
            support = max(support, min(beyond))
            preference[head] = max(preference[head], sum(shares) / len(shares))
        assert item.support == pytest.approx(support, abs=1e-6)
        assert item.preference == pytest.approx(preference, abs=1e-6)
        assert item.need == pytest.approx(knockout[track])
        both = math.sqrt(max(support, 0) * item.need) / 0.08
        least = 0.5 if site == "self" else 0.03
        assert item.strength == pytest.approx(min(support / least, both), abs=1e-4)


def test_calibration_does_not_touch_the_maps():
    weights = random_attention(2, 5, "addition", 1)
    before = {site: tensor.clone() for site, tensor in weights.items()}
    maps = maps_of("addition", 5, weights, knockout=needs(A))
    for policy in ("auto", "paper"):
        calibrate(maps, policy=policy, extra=1)
    assert all(torch.equal(weights[site], before[site]) for site in SITES)


def test_a_task_that_is_not_local_has_no_lines():
    layout = Layout(TASKS["parity_classification"](), 6)
    assert candidates(layout, 6) == []
    weights = {"self": torch.ones(1, 2, 2, 2) / 2, "cross": torch.ones(1, 2, 2, 6) / 6}
    maps = AttentionMaps(Format("parity_classification"), 6, 6, 8, weights, 1.0, {})
    with pytest.raises(NoLinesError, match="depends on all of the problem"):
        calibrate(maps)
    # The paper's policy reads whatever lines there are.
    assert calibrate(maps, policy="paper").lines


def test_lines_that_are_missing_are_those_that_see_least():
    """Evidence as a model of subtraction in base 2 showed it (docs/log.md, 2026-11-26): the digit being
    written of b is hidden, and could be had two layers deep by way of lines that attention shows."""
    shown = [
        ("a[c]", 0.144, 40.21),
        ("b[c-1]", 0.037, 5.82),
        ("b[c+1]", 0.028, 0.16),
        ("b[c]", 0.013, 45.12),
        ("a[c-1]", 0.005, 6.49),
        ("answer[c-2]", 0.034, 3.92),
    ]
    evidence = [Evidence(Track.parse(text), *numbers, (0.0,) * 4) for text, *numbers in shown]
    maps = maps_of("subtraction", 7, random_attention(4, 7, "subtraction", 0))
    found = enough(evidence[:2], evidence, partial(auto._seen, maps))
    assert {str(item.track) for item in found} == {"a[c]", "a[c-1]", "b[c]", "b[c-1]"}
