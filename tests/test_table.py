"""Decoding by lookup: the tokens of decoding with a cache, and the model asked once for each sight."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers import HEADS, biases
from lengthwise.bias import CalibratedBias, Line
from lengthwise.decoding import greedy as decoding
from lengthwise.decoding import lookup as table
from lengthwise.decoding.any_rows import AnyRows
from lengthwise.decoding.greedy import decode_streams
from lengthwise.decoding.lookup import decode_by_lookup, make_table
from test_decoding import make_lively
from test_windows import answers, make_streams, with_cache

OWN = [Line("answer[c-1]", head) for head in range(HEADS)]
LINES = [
    Line("a[c]"),
    Line("b[c-1]", 1),
    Line("+", 1, value=-0.5),
    Line("a[c]", 2, layer=1),
]
ALONE = CalibratedBias("addition", HEADS, [*LINES, *OWN])


def quiet(rows: int) -> None:
    """No progress."""


def windows_of(bias: CalibratedBias, widths: list[int], end: float = 0.0, seed: int = 0) -> AnyRows:
    model = make_lively(bias.task, end, "none")
    return AnyRows(model, bias, make_streams(bias.task, widths, seed))


@pytest.mark.trains
@given(
    bias=biases(everywhere=False, most=5),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    end=st.sampled_from([-8.0, 0.0]),
    seed=st.integers(0, 99),
)
def test_lookup_writes_what_decoding_with_a_cache_writes(bias, widths, end, seed):
    """Any lines where no row reads another, crossing ones too; any widths; ends that come early."""
    bias = CalibratedBias(bias.task, HEADS, [ln for ln in bias.lines if ln.site == "cross"] + OWN)
    windows = windows_of(bias, widths, end, seed)
    found = make_table(windows)
    assume(found is not None)
    assert len(decode_by_lookup(found, quiet)) == 0
    assert answers(windows.streams) == with_cache(windows.model, bias, windows.streams)


@pytest.mark.trains
def test_the_model_is_asked_once_for_each_sight(monkeypatch):
    windows = windows_of(ALONE, [9] * 400, end=-8.0)
    asked: list[int] = []
    real = AnyRows.logits
    monkeypatch.setattr(
        AnyRows,
        "logits",
        lambda self, rows, inputs=None: asked.append(len(rows)) or real(self, rows, inputs),
    )
    found = make_table(windows)
    decode_by_lookup(found, quiet)
    assert sum(asked) == int((found.tokens != 255).sum())
    assert sum(asked) < len(windows.streams.written) // 2
    assert answers(windows.streams) == with_cache(windows.model, ALONE, windows.streams)


def test_progress_counts_rows_and_the_last_few_problems_are_left():
    windows = windows_of(ALONE, [4, 9, 9, 30], end=-8.0)
    said: list[int] = []
    left = decode_by_lookup(make_table(windows), said.append, least=2)
    assert said == sorted(said)
    assert said[-1] <= windows.streams.first[-1]
    assert left.tolist() == [windows.streams.first[3] + 10]


@pytest.mark.parametrize(
    ("lines", "positions"),
    [([*OWN, Line("answer[c-2]")], "none"), (OWN, "sinusoidal")],
    ids=["a row reads another", "a row knows where it is"],
)
def test_there_is_no_table_where_more_is_seen(lines, positions):
    bias = CalibratedBias("addition", HEADS, [*LINES, *lines])
    model = make_lively("addition", positions=positions)
    assert make_table(AnyRows(model, bias, make_streams("addition", [5, 6]))) is None


def test_there_is_no_table_of_too_many_sights(monkeypatch):
    windows = windows_of(ALONE, [5])
    assert make_table(windows) is not None
    monkeypatch.setattr(table, "_ENTRIES", 1000)
    assert make_table(windows) is None


def test_many_problems_are_looked_up(monkeypatch):
    used = []
    monkeypatch.setattr(
        decoding,
        "decode_by_lookup",
        lambda *given: used.append(given) or decode_by_lookup(*given),
    )
    model = make_lively("addition", positions="none")
    streams = make_streams("addition", [3, 7] * decoding.MANY)
    decode_streams(model, ALONE, streams)
    assert len(used) == 1
    assert answers(streams) == with_cache(model, ALONE, streams)
    decode_streams(model, ALONE, make_streams("addition", [3, 7]))
    assert len(used) == 1
