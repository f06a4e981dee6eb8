"""Parallel and sequential decoding through windows: the tokens of decoding with a cache, always."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import HEADS, LAYERS, biases, random_batch
from lengthwise.bias import CalibratedBias, Causal, Line, MatrixTrack, Track, is_local
from lengthwise.decoding import greedy as decoding
from lengthwise.decoding import parallel
from lengthwise.decoding import walks as sequential
from lengthwise.decoding.any_rows import AnyRows, Streams
from lengthwise.decoding.greedy import decode_streams, greedy_decode
from lengthwise.model import plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS
from test_decoding import CALIBRATED, make_lively

pytestmark = pytest.mark.trains

MODES = ("auto", "parallel", "sequential")
POSITIONS = ("none", "sinusoidal", "cyclic")  # not at all, from the start, back from the end

# Sizes at which every limit is met within a few rows.
SMALL = {
    (parallel, "BLOCK"): 16,
    (parallel, "_WALK"): 2,
    (parallel, "_ONWARD"): 8,
    (parallel, "ABREAST"): 3,
    (sequential, "ABREAST"): 3,
    (sequential, "STEPS"): 5,
    (sequential, "_ROWS"): 16,
    (decoding, "MANY"): 2,
}


@contextmanager
def small():
    """Every limit at its small size."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), value in SMALL.items():
            patch.setattr(module, name, value)
        yield


def make_streams(task: str, widths: list[int], seed: int = 0) -> Streams:
    """Random problems of these widths."""
    layouts = [Layout(TASKS[task](), width) for width in widths]
    sources = [random_batch(layout, 1, seed + i)[0][0] for i, layout in enumerate(layouts)]
    return Streams(layouts, [source.numpy().astype(np.uint8) for source in sources])


def answers(streams: Streams) -> list[list[int]]:
    first = streams.first.tolist()
    return [streams.written[a:b].tolist() for a, b in pairwise(first)]


def with_cache(model, bias, streams: Streams) -> list[list[int]]:
    """Each problem alone, over all keys, with a cache (test_decoding.py holds it to one without)."""
    out, starts = [], streams.source_first
    for problem, kind in enumerate(streams.kinds):
        source = streams.source[starts[problem] : starts[problem + 1]].astype(np.int64)
        source = torch.from_numpy(source)[None]
        out.append(greedy_decode(model, bias, streams.layouts[kind], source, "dense")[0].tolist())
    return out


@settings(max_examples=40)
@given(
    bias=biases(local=True),
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    positions=st.sampled_from(POSITIONS),
    end=st.sampled_from([-8.0, 0.0]),
    seed=st.integers(0, 99),
)
def test_all_ways_of_decoding_write_the_same(bias, widths, positions, end, seed):
    """Any lines that have windows, any widths side by side, models that know nothing, early ends."""
    model = make_lively(bias.task, end, positions)
    wanted = with_cache(model, bias, make_streams(bias.task, widths, seed))
    with small():
        for mode in MODES:
            streams = make_streams(bias.task, widths, seed)
            decode_streams(model, bias, streams, mode)
            assert answers(streams) == wanted


@pytest.mark.parametrize("positions", POSITIONS)
def test_blocks_and_walks_of_full_size(positions):
    widths = [300, 3, 2100, 1]
    model = make_lively("addition", positions=positions)
    wanted = with_cache(model, CALIBRATED, make_streams("addition", widths))
    for mode in MODES:
        streams = make_streams("addition", widths)
        decode_streams(model, CALIBRATED, streams, mode)
        assert answers(streams) == wanted
    assert len({tuple(answer[:5]) for answer in wanted}) > 1
    assert sum(answer[-1] == 12 for answer in wanted) < len(wanted), "all ended early"


def test_many_problems_walk_and_the_rest_is_decoded_in_parallel(monkeypatch):
    widths = [5 + place % 7 for place in range(decoding.MANY + 3)] + [400, 150]
    model, calls = make_lively("addition"), []
    real = decoding.decode_in_parallel
    monkeypatch.setattr(
        decoding,
        "decode_in_parallel",
        lambda *args, **options: calls.append(options["begun"]) or real(*args, **options),
    )
    streams = make_streams("addition", widths)
    wanted = with_cache(model, CALIBRATED, streams)
    decode_streams(model, CALIBRATED, streams)
    assert answers(streams) == wanted
    (left,) = calls
    assert len(left) < decoding.MANY


def test_a_walk_takes_over_where_each_row_hangs_on_the_one_before(tiny_abc, monkeypatch):
    """The first guess, zeros, looks like a carry that goes on and on; each pass rights a single row."""
    run, walks = tiny_abc.calibrated, []
    real = parallel.walk
    monkeypatch.setattr(
        parallel, "walk", lambda w, rows, steps: walks.append(steps) or real(w, rows, steps)
    )
    for length, decode in ((3000, "auto"), (200, "parallel")):
        layout = run.layout(length)
        source = layout.source(np.array([[[8] + [9] * (length - 1) + [0]]], np.uint8))
        written = greedy_decode(run.model, run.bias, layout, source, "auto", decode)
        assert written[0].tolist() == [9] * length + [0, layout.vocabulary.end]
        assert (sum(walks) > 2900) == (decode == "auto")
        walks.clear()


@given(
    bias=biases(local=True),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    positions=st.sampled_from(POSITIONS),
    data=st.data(),
)
def test_a_view_of_any_rows_has_the_logits_of_the_whole(bias, widths, positions, data):
    model, streams = make_lively(bias.task, positions=positions), make_streams(bias.task, widths)
    streams.written[:] = np.random.default_rng(0).integers(0, 10, len(streams.written))
    wanted = []
    for problem, width in enumerate(widths):
        layout = Layout(TASKS[bias.task](), width)
        a, b = streams.source_first[problem : problem + 2]
        c, d = streams.first[problem : problem + 2]
        source = torch.from_numpy(streams.source[a:b].astype(np.int64))[None]
        start = [streams.vocabulary.start]
        target = torch.tensor([[*start, *streams.written[c : d - 1].tolist()]])
        plan = plan_attention(bias, layout, LAYERS, path="dense")
        wanted.append(model(source, target, plan).logits[0])
    rows = data.draw(st.sets(st.integers(0, len(streams.written) - 1), min_size=1))
    rows = np.array(sorted(rows))
    with torch.inference_mode():
        found = AnyRows(model, bias, streams).logits(rows)
    torch.testing.assert_close(found, torch.cat(wanted)[rows], atol=1e-4, rtol=1e-4)


@given(biases(local=True), st.lists(st.integers(1, 8), min_size=1, max_size=3), st.data())
def test_rows_that_a_token_does_not_reach_need_not_be_computed_again(bias, widths, data):
    model, streams = make_lively(bias.task), make_streams(bias.task, widths)
    windows, every = AnyRows(model, bias, streams), np.arange(len(streams.written))
    row = data.draw(st.integers(0, len(every) - 1))
    with torch.inference_mode():
        before = windows.logits(every)
        streams.written[row] = 7
        after = windows.logits(every)
    moved = np.flatnonzero((before - after).abs().amax(dim=1).numpy() > 1e-6)
    assert set(moved) <= set(windows.readers(np.array([row])).tolist())


def test_what_a_view_holds_does_not_grow_with_the_length():
    """Not the width of the problem, but the rows asked for, decide what is laid out."""
    for width in (100, 100_000):
        model = make_lively("addition", positions="sinusoidal")
        windows = AnyRows(model, CALIBRATED, make_streams("addition", [width]))
        rows, memory, _ = windows.around(np.arange(40, 60))
        assert len(rows) == 22  # two layers, each a row back
        assert memory.table.shape[1] <= 3 * len(rows)
    model = make_lively("addition", positions="none")
    _, memory, _ = AnyRows(model, CALIBRATED, make_streams("addition", [1000])).around(np.arange(5))
    assert memory.table.shape[1] == 13  # the vocabulary


def test_which_biases_have_windows():
    assert is_local(CALIBRATED)
    assert is_local(CalibratedBias("addition", 1, [Line("+")]))
    for track in (MatrixTrack("cross", "everywhere"), MatrixTrack("self", "diagonal")):
        assert not is_local(CalibratedBias("addition", 1, [Line(track)]))
    assert not is_local(Causal(HEADS))


@pytest.mark.parametrize(
    ("track", "windows"),
    [
        (Track.along("answer", 1), True),  # what is not written yet is closed
        (MatrixTrack("self", "vertical", 0, "answer"), False),
        (MatrixTrack("self", "anti-diagonal", -2, "answer"), False),
        (MatrixTrack("self", "diagonal"), False),
    ],
    ids=str,
)
def test_lines_through_matrices_have_no_windows(track, windows):
    layout = Layout(TASKS["addition"](), 5)
    bias = CalibratedBias("addition", HEADS, [*CALIBRATED.lines, Line(track)])
    assert is_local(bias) == windows
    source, _ = random_batch(layout, 3)
    model = make_lively("addition")
    written = greedy_decode(model, bias, layout, source)
    assert written.equal(greedy_decode(model, bias, layout, source, "dense"))


@pytest.mark.parametrize(
    ("bias", "path", "text"),
    [
        (Causal(HEADS), "auto", "Causal with attention 'auto' allows sequential decoding alone"),
        (CALIBRATED, "dense", "CalibratedBias with attention 'dense' allows sequential"),
    ],
)
def test_parallel_decoding_is_refused_where_it_is_not_possible(bias, path, text):
    layout = Layout(TASKS["addition"](), 3)
    source, _ = random_batch(layout, 1)
    with pytest.raises(ValueError, match=text):
        greedy_decode(make_lively("addition"), bias, layout, source, path, "parallel")


def test_progress_counts_rows_up_to_all():
    for mode in MODES:
        said: list[int] = []
        streams = make_streams("addition", [300, 20])
        decode_streams(make_lively("addition"), CALIBRATED, streams, mode, on_progress=said.append)
        assert said == sorted(said)
        assert said[-1] == 322
