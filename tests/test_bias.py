"""Biases: against loops over cells, in both views, on disk and in words."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import HEADS, LAYERS, biases
from lengthwise.bias import CLOSED, SITES, WHOLE, CalibratedBias, Causal, Line, MatrixTrack, Track
from lengthwise.errors import InputError
from lengthwise.problems.format import Format
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS


def cell(bias: CalibratedBias, site, layer, layout, head, row, key) -> float:
    """What the bias adds at one cell, by the definitions of tracks and `CalibratedBias`."""
    if site == "self" and key > row:
        return -math.inf
    best = -math.inf
    for line in bias.lines:
        if line.site != site or line.head != head or line.layer not in (None, layer):
            continue
        track = line.track
        if track.segment == WHOLE:
            start, stop = 0, layout.keys(site)
        elif site == "self":
            start, stop = 0, layout.width + 1
        else:
            w = layout.width
            start = {"a": 0, "+": w, "b": w + 1, "*": w, "d": w + 1}[track.segment]
            stop = start + (w if track.segment in "ab" else 1)
        if isinstance(track, Track):
            # The token of column j of the answer is read by row j + 1; operands run backwards.
            on = key == row + track.offset + 1 if site == "self" else key == start
            if track.segment in "ab":
                on = key == stop - 1 - (row + track.offset)
        else:
            on = {
                "diagonal": key == start + row + track.offset,
                "anti-diagonal": key == stop - 1 - (row + track.offset),
                "vertical": key == start + track.offset,
                "everywhere": True,
            }[track.direction]
        if on and start <= key < stop:
            best = max(best, line.value)
    return best


def scattered(bias, site, layer, layout, rows) -> torch.Tensor:
    """`open_keys` as a dense matrix, by a slow loop; every key at most once."""
    found = bias.open_keys(site, layer, layout, rows)
    dense = torch.full((bias.heads, len(rows), layout.keys(site)), CLOSED)
    assert found.index.shape == found.value.shape
    assert found.index.dtype == torch.int64
    assert found.value.dtype == torch.float32
    assert 0 <= found.index.min() <= found.index.max() < layout.keys(site)
    for head, row, slot in torch.ones_like(found.value).nonzero().tolist():
        key, value = found.index[head, row, slot], found.value[head, row, slot]
        if value > CLOSED:
            assert dense[head, row, key] == CLOSED, "a key must not be read twice"
            dense[head, row, key] = value
        else:
            assert key == 0
    return dense


# --- the two views ---


@given(biases(), st.integers(1, 7), st.sampled_from(SITES), st.integers(0, LAYERS - 1))
def test_dense_is_the_definition_cell_by_cell(bias, width, site, layer):
    layout = Layout(TASKS[bias.task](), width)
    dense = bias.dense(site, layer, layout, range(width + 1))
    wanted = [
        [
            [cell(bias, site, layer, layout, head, row, key) for key in range(layout.keys(site))]
            for row in range(width + 1)
        ]
        for head in range(HEADS)
    ]
    assert dense.dtype == torch.float32
    assert dense.tolist() == wanted


@given(biases(everywhere=False), st.integers(1, 12), st.sampled_from(SITES))
def test_open_keys_are_dense(bias, width, site):
    layout, rows = Layout(TASKS[bias.task](), width), range(width + 1)
    for layer in range(LAYERS):
        dense = bias.dense(site, layer, layout, rows)
        assert torch.equal(scattered(bias, site, layer, layout, rows), dense)


@given(biases(), st.integers(1, 9), st.data())
def test_some_rows_are_a_slice_of_all(bias, width, data):
    layout = Layout(TASKS[bias.task](), width)
    first = data.draw(st.integers(0, width))
    rows = range(first, data.draw(st.integers(first + 1, width + 1)))
    for site in SITES:
        full = bias.dense(site, 0, layout, range(width + 1))
        assert torch.equal(bias.dense(site, 0, layout, rows), full[:, rows.start : rows.stop])
        found, part = (bias.open_keys(site, 0, layout, r) for r in (range(width + 1), rows))
        assert (found is None) == (part is None)
        if found is not None:
            assert torch.equal(part.index, found.index[:, rows.start : rows.stop])
            assert torch.equal(part.value, found.value[:, rows.start : rows.stop])


@pytest.mark.parametrize("values", [(0.0, -1.0), (-1.0, 0.0), (2.0, 2.0)])
@pytest.mark.parametrize("site", SITES)
def test_where_lines_cross_the_larger_value_counts(site, values):
    segment = "answer" if site == "self" else "a"
    bias = CalibratedBias(
        "successor",
        1,
        [
            Line(MatrixTrack(site, "diagonal", -1, segment), value=values[0]),
            Line(MatrixTrack(site, "vertical", 2, segment), value=values[1]),
        ],
    )
    layout, rows = Layout(TASKS["successor"](), 5), range(6)
    dense = bias.dense(site, 0, layout, rows)
    assert dense[0, 3, 2] == max(values)
    assert dense[0, 4, 3] == values[0]
    assert dense[0, 4, 2] == values[1]
    assert torch.equal(scattered(bias, site, 0, layout, rows), dense)


def test_equal_lines_with_other_values_count_once():
    lines = [Line(MatrixTrack("cross", "vertical", 0, "a"), value=v) for v in (-1.0, 3.0, 1.0)]
    bias, layout = CalibratedBias("successor", 1, lines), Layout(TASKS["successor"](), 3)
    assert (bias.dense("cross", 0, layout, range(4))[0, :, 0] == 3.0).all()
    assert torch.equal(
        scattered(bias, "cross", 0, layout, range(4)), bias.dense("cross", 0, layout, range(4))
    )


def test_a_line_is_anchored_to_its_segment_at_every_width():
    # What the anti-diagonal of `a` opens is the digit of the column being written: at any width.
    bias = CalibratedBias("addition", 2, [Line(Track.along(s, 0), h) for h, s in enumerate("ab")])
    for width in (1, 2, 5, 30):
        layout = Layout(TASKS["addition"](), width)
        open_cells = bias.dense("cross", 0, layout, range(width + 1)).isfinite().nonzero()
        wanted = [[0, row, width - 1 - row] for row in range(width)]
        wanted += [[1, row, 2 * width - row] for row in range(width)]
        assert open_cells.tolist() == wanted


@given(biases(), st.integers(1, 8), st.integers(0, LAYERS - 1))
def test_self_attention_is_causal(bias, width, layer):
    layout = Layout(TASKS[bias.task](), width)
    later = torch.ones(width + 1, width + 1).triu(1).bool()
    assert (bias.dense("self", layer, layout, range(width + 1))[:, later] == CLOSED).all()
    found = bias.open_keys("self", layer, layout, range(width + 1))
    if found is not None:
        readable = found.value > CLOSED
        assert (found.index <= torch.arange(width + 1)[:, None])[readable].all()


def test_a_head_without_lines_is_closed():
    bias = CalibratedBias("addition", 2, [Line("+", 1)])
    layout = Layout(TASKS["addition"](), 3)
    dense = bias.dense("cross", 0, layout, range(4))
    assert (dense[0] == CLOSED).all()
    assert (dense[1, :, 3] == 0).all()
    assert (bias.open_keys("cross", 0, layout, range(4)).value[0] == CLOSED).all()
    assert (bias.open_keys("self", 0, layout, range(4)).value == CLOSED).all()
    assert (bias.dense("self", 0, layout, range(4)) == CLOSED).all()


def test_a_line_of_one_layer_is_in_that_layer_alone():
    line = Line("answer[c-1]", layer=1)
    bias, layout = CalibratedBias("successor", 1, [line]), Layout(TASKS["successor"](), 3)
    assert (bias.dense("self", 0, layout, range(4)) == CLOSED).all()
    assert bias.dense("self", 1, layout, range(4))[0].diagonal().tolist() == [0] * 4
    assert bias.at("self", 1, layout) == [line]
    assert bias.at("self", 0, layout) == bias.at("cross", 1, layout) == []


@pytest.mark.parametrize(
    ("segment", "bounded"), [("+", True), ("a", False), ("b", False), (WHOLE, False)]
)
def test_everywhere_is_bounded_only_on_one_symbol(segment, bounded):
    bias = CalibratedBias(
        "addition", 1, [Line(MatrixTrack("cross", "everywhere", 0, segment), value=0.5)]
    )
    layout = Layout(TASKS["addition"](), 4)
    found = bias.open_keys("cross", 0, layout, range(5))
    assert (found is not None) == bounded
    if bounded:
        dense = bias.dense("cross", 0, layout, range(5))
        assert torch.equal(scattered(bias, "cross", 0, layout, range(5)), dense)
        assert dense.isfinite().sum() == 5


@pytest.mark.parametrize("offset", [-1, 1, 3])
def test_everywhere_has_no_offset(offset):
    bias = CalibratedBias("addition", 1, [Line(MatrixTrack("cross", "everywhere", offset, "+"))])
    layout = Layout(TASKS["addition"](), 4)
    dense = bias.dense("cross", 0, layout, range(5))
    assert dense.isfinite().nonzero().tolist() == [[0, row, 4] for row in range(5)]
    assert torch.equal(scattered(bias, "cross", 0, layout, range(5)), dense)


def test_an_unknown_segment_is_refused():
    bias = CalibratedBias("addition", 1, [Line(MatrixTrack("cross", "vertical", 0, "b"))])
    layout = Layout(TASKS["successor"](), 4)
    text = "^the bias reads segment 'b', which successor does not have$"
    for view in (bias.dense, bias.open_keys):
        with pytest.raises(ValueError, match=text):
            view("cross", 0, layout, range(5))


@pytest.mark.parametrize("head", [-1, 2, 7])
def test_a_head_that_does_not_exist_is_refused(head):
    with pytest.raises(ValueError, match=f"^a line names head {head}, but the bias has 2 heads$"):
        CalibratedBias("addition", 2, [Line(MatrixTrack("cross", "vertical", 0, "b"), head)])


@pytest.mark.parametrize("width", [1, 5])
def test_the_vanilla_bias(width):
    layout = Layout(TASKS["addition"](), width)
    bias = Causal(4)
    cross = bias.dense("cross", 0, layout, range(width + 1))
    assert cross.tolist() == torch.zeros(4, width + 1, 2 * width + 1).tolist()
    own = bias.dense("self", 0, layout, range(width + 1)).tolist()
    for head in range(4):
        for row in range(width + 1):
            for key in range(width + 1):
                assert own[head][row][key] == (0.0 if key <= row else -math.inf)
    assert bias.dense("self", 1, layout, range(1, 2)).tolist() == [head[1:2] for head in own]
    assert all(bias.open_keys(site, 0, layout, range(2)) is None for site in SITES)


# --- values ---


def test_equality_is_by_content_not_by_order():
    first = Line("a[c]")
    second = Line("answer[c-1]", 1)
    bias = CalibratedBias("addition", 2, [first, second])
    assert bias == CalibratedBias("addition", 2, [second, first, first])
    assert bias.lines == (first, second)
    assert CalibratedBias("addition", 2, [first, first]).lines == (first,)
    for other in (
        CalibratedBias("successor", 2, [first, second]),
        CalibratedBias("addition", 3, [first, second]),
        CalibratedBias("addition", 2, [first]),
        CalibratedBias("addition", 2, [first, Line("answer[c-1]")]),
        CalibratedBias("addition", 2, [first, Line("answer[c-2]", 1)]),
        CalibratedBias("addition", 2, [first, Line("answer[c-1]", 1, layer=0)]),
        CalibratedBias("addition", 2, [first, Line("answer[c-1]", 1, value=0.5)]),
        Causal(2),
        None,
    ):
        assert bias != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(bias)


def test_line_of_a_track():
    track = Track.parse("b[c-1]")
    assert Line(track, 3) == Line("b[c-1]", 3)
    assert Line(track, 1, 0, 2.5) == Line("b[c-1]", 1, layer=0, value=2.5)


# --- files ---


@given(bias=biases())
def test_files_round_trip(tmp_path_factory, bias):
    path = tmp_path_factory.mktemp("bias") / "bias.jsonl"
    bias.save(path)
    loaded = CalibratedBias.load(str(path))
    assert loaded == bias
    assert loaded.lines == bias.lines
    assert loaded.to_json_lines() == bias.to_json_lines() == path.read_text("utf-8")


def test_the_format_written_by_hand(tmp_path):
    path = tmp_path / "bias.jsonl"
    path.write_text(
        '{"format": "lengthwise-bias/2", "task": {"name": "addition", "base": 2}, "heads": 2, "lines": 3}\n'
        '{"reads": "a[c-1]", "layer": null, "head": 1, "value": 0}\n'
        '{"reads": "+", "layer": 1, "head": 0, "value": -1.25}\n'
        '{"site": "self", "direction": "diagonal", "offset": 0, "segment": "whole", "layer": null,'
        ' "head": 0, "value": 0}\n'
    )
    bias = CalibratedBias.load(path)
    assert bias.format == Format("addition", 2)
    whole = Line(MatrixTrack("self", "diagonal"))
    assert bias.lines == (Line("a[c-1]", 1), Line("+", layer=1, value=-1.25), whole)
    assert not bias.local


@pytest.mark.parametrize(
    ("site", "segment", "direction", "offset", "track"),
    [
        ("cross", "a", "anti-diagonal", -1, "a[c-1]"),
        ("cross", "b", "diagonal", 2, None),  # from the left; of a reversed source b[c+2]
        ("cross", "a", "vertical", 0, None),
        ("cross", "+", "anti-diagonal", 0, None),
        ("cross", "+", "vertical", 0, "+"),
        ("self", "answer", "diagonal", 0, "answer[c-1]"),
        ("self", "answer", "diagonal", -2, "answer[c-3]"),
        ("self", "answer", "vertical", 1, None),
        ("cross", "a", "vertical", 2, None),
        ("cross", "a", "everywhere", 0, None),
        ("cross", "whole", "anti-diagonal", 3, None),
        ("cross", "columns", "anti-diagonal", 0, None),
    ],
)
def test_lines_of_version_0_1_are_read_in_coordinates(
    tmp_path, site, segment, direction, offset, track
):
    header = {"format": "lengthwise-bias/1", "task": "addition", "heads": 1, "lines": 1}
    row = {"site": site, "segment": segment, "direction": direction, "offset": offset}
    path = tmp_path / "bias.jsonl"
    path.write_bytes(text_of(header, {**row, "layer": None, "head": 0, "value": 0.0}))
    bias = CalibratedBias.load(path)
    assert bias.lines[0].track == (Track.parse(track) if track else MatrixTrack(**row))
    # Weights and certificates are bound to what it wrote.
    assert bias.to_json_lines() == path.read_text("utf-8")


def test_directions_are_understood_as_the_problems_are_laid_out(tmp_path):
    """Each reads the same keys as its direction says, before and after it is in coordinates."""
    header = {"format": "lengthwise-bias/1", "task": "nx1", "heads": 4, "lines": 4}
    rows = [
        {"site": "cross", "segment": segment, "direction": direction, "offset": -1}
        for segment in "ad"
        for direction in ("diagonal", "anti-diagonal")
    ]
    ends = [{"layer": None, "head": head, "value": 0.0} for head in range(4)]
    path = tmp_path / "bias.jsonl"
    path.write_bytes(
        text_of(header, *({**row, **end} for row, end in zip(rows, ends, strict=True)))
    )
    bias = CalibratedBias.load(path)
    texts = {}
    for order in ("normal", "reversed"):
        for alignment in ("natural", "interleaved"):
            format = Format("nx1", alignment=alignment, input_order=order)
            stated, layout = bias.bound(format), format.at(5)
            raw = CalibratedBias(
                format, 4, [Line(MatrixTrack(**row), h) for h, row in enumerate(rows)]
            )
            assert stated.dense("cross", 0, layout, range(6)).equal(
                raw.dense("cross", 0, layout, range(6))
            )
            assert stated.to_json_lines() == path.read_text("utf-8")
            tracks = [line.track for line in stated.lines]
            texts[order, alignment] = [str(t) for t in tracks if isinstance(t, Track)]
    assert texts["normal", "natural"] == texts["reversed", "natural"] == ["a[c-1]"]
    assert texts["normal", "interleaved"] == ["a[c-1]", "d[c-1]"]


def test_the_format_of_version_0_1_written_by_hand(tmp_path):
    path = tmp_path / "bias.jsonl"
    path.write_text(
        '{"format": "lengthwise-bias/1", "task": "addition", "heads": 2, "lines": 2}\n'
        '{"site": "cross", "segment": "a", "direction": "anti-diagonal", "offset": -1,'
        ' "layer": null, "head": 1, "value": 0}\n'
        '{"site": "self", "segment": "answer", "direction": "diagonal", "offset": 0,'
        ' "layer": 1, "head": 0, "value": -1.25}\n'
    )
    bias = CalibratedBias.load(path)
    assert (bias.task, bias.heads) == ("addition", 2)
    assert bias.lines == (
        Line("a[c-1]", 1),
        Line("answer[c-1]", layer=1, value=-1.25),
    )
    assert [json.loads(row)["value"] for row in bias.to_json_lines().splitlines()[1:]] == [0, -1.25]


HEADER = {"format": "lengthwise-bias/1", "task": "addition", "heads": 2, "lines": 1}
ROW = {
    "site": "cross",
    "segment": "a",
    "direction": "vertical",
    "offset": 0,
    "layer": None,
    "head": 0,
    "value": 0.0,
}


NEWER = {**HEADER, "format": "lengthwise-bias/2"}
OF_A = {"reads": "a[c]", "layer": None, "head": 0, "value": 0.0}


def text_of(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\x00\xff\xfe\x80", "it is not UTF-8 text"),
        (b"nonsense\n", "line 1 is not JSON"),
        (text_of(HEADER, ROW)[:-20], "line 2 is not JSON"),
        (text_of(HEADER, ROW, ROW) + b"}\n", "line 4 is not JSON"),
        (text_of(HEADER) + b"\n" + text_of(ROW), "line 2 is not JSON"),
        (
            text_of({**HEADER, "format": "other/2"}),
            "its format is 'other/2', not 'lengthwise-bias/2'",
        ),
        (text_of(ROW), "'format' is missing"),
        (text_of({"format": HEADER["format"], "task": "addition"}), "'heads' is missing"),
        (text_of({"format": HEADER["format"], "heads": 2}), "'task' is missing"),
        (text_of({**HEADER, "heads": "2"}), "its header lacks a task or a number of heads"),
        (text_of({**HEADER, "heads": 2.0}), "its header lacks a task or a number of heads"),
        (text_of({**HEADER, "heads": True}), "its header lacks a task or a number of heads"),
        (text_of({**HEADER, "heads": 0}), "its header lacks a task or a number of heads"),
        (text_of({**HEADER, "heads": -2}), "its header lacks a task or a number of heads"),
        (text_of({**HEADER, "task": None}), "its header lacks a task or a number of heads"),
        (text_of(HEADER, {**ROW, "head": 2}), "a line names head 2, but the bias has 2 heads"),
        (text_of(HEADER, {**ROW, "site": "own"}), "site 'own' or direction 'vertical' is unknown"),
        (text_of(HEADER, {**ROW, "direction": "up"}), "site 'cross' or direction 'up' is unknown"),
        (text_of(HEADER, {**ROW, "direction": ["up"]}), "site 'cross' or direction ['up'] is"),
        (text_of(HEADER, {**ROW, "offset": 0.5}), "offset must be a whole number, segment a text"),
        (text_of(HEADER, {**ROW, "offset": True}), "offset must be a whole number, segment a text"),
        (text_of(HEADER, {**ROW, "head": "0"}), "head and layer must be whole numbers"),
        (text_of(HEADER, {**ROW, "layer": 0.0}), "head and layer must be whole numbers"),
        (text_of(HEADER, {**ROW, "segment": 3}), "offset must be a whole number, segment a text"),
        (text_of(HEADER, {**ROW, "value": math.nan}), "value must be a finite number, got nan"),
        (text_of(HEADER, {**ROW, "value": math.inf}), "value must be a finite number, got inf"),
        (text_of(HEADER, {**ROW, "value": -math.inf}), "value must be a finite number, got -inf"),
        (text_of(HEADER, {**ROW, "value": "0"}), "value must be a finite number, got '0'"),
        (text_of(HEADER, {**ROW, "value": None}), "value must be a finite number, got None"),
        (text_of(HEADER, {**ROW, "value": False}), "value must be a finite number, got False"),
        (
            text_of(HEADER, {**ROW, "more": 1}),
            "a line has the key 'reads', or the keys ['direction', 'offset', 'segment', 'site'], not",
        ),
        (
            text_of(HEADER, {"site": "self"}),
            "a line has the key 'reads', or the keys ['direction', 'offset', 'segment', 'site'], not",
        ),
        (text_of(HEADER, {**ROW, "offset": 10**30}), "an offset lies within 2147483648 keys"),
        (text_of(NEWER, {**OF_A, "reads": 3}), "a line reads a text such as 'a[c-1]', not 3"),
        (text_of(NEWER, {**OF_A, "reads": "a[c-]"}), "'c-' is no place such as c, c-1 or 2*r+c"),
        (text_of(NEWER, {**OF_A, "reads": ""}), "'' is no line such as a[c-1]"),
        (text_of(NEWER, {**OF_A, "reads": "a[c+9999999999]"}), "an offset lies within 2147483648"),
        (text_of({**NEWER, "task": {"name": "additon"}}), "unknown task 'additon'"),
        (text_of({**NEWER, "task": {"width": 3}}), '{"width": 3} describes no problems'),
        (text_of({**NEWER, "task": {"name": "addition", "base": 99}}), "base of addition must be"),
        (text_of(HEADER), "its header says 1 lines, it has 0"),
        (text_of(HEADER, ROW, {**ROW, "head": 1}), "its header says 1 lines, it has 2"),
        (text_of([1, 2]), "line 1 is not an object"),
        (text_of("text"), "line 1 is not an object"),
        (text_of(HEADER, 5), "line 2 is not an object"),
        (text_of(HEADER, ROW, list(ROW)), "line 3 is not an object"),
        (b"[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_broken_files(tmp_path, data, reason):
    path = tmp_path / "bias.jsonl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^\S+bias\.jsonl is not a calibrated bias: ") as error:
        CalibratedBias.load(path)
    assert str(error.value).startswith(f"{path} is not a calibrated bias: {reason}")
    assert "\n" not in str(error.value)


def test_a_cut_off_file_is_never_taken_for_a_whole_one_within_a_line(tmp_path):
    bias = CalibratedBias("addition", 2, [Line("a[c-1]", 1)])
    whole = bias.to_json_lines()
    header = whole.index("\n") + 1
    path = tmp_path / "bias.jsonl"
    for end in range(len(whole) - 1):
        if end in (header - 1, header):
            continue  # exactly the header: a bias without lines
        path.write_text(whole[:end])
        with pytest.raises(ValueError, match="is not a calibrated bias: "):
            CalibratedBias.load(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match=r"can't read bias .*none.jsonl: No such file"):
        CalibratedBias.load(tmp_path / "none.jsonl")


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "bias.jsonl"
    old = CalibratedBias("addition", 2, [Line("a[c]")])
    old.save(path)
    new = CalibratedBias("addition", 2, [Line("b[c]")])

    def fail(*_):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="No space left"):
                new.save(path)
        assert CalibratedBias.load(path) == old
        assert [entry.name for entry in tmp_path.iterdir()] == ["bias.jsonl"]
    new.save(path)
    assert CalibratedBias.load(path) == new
    assert [entry.name for entry in tmp_path.iterdir()] == ["bias.jsonl"]


def test_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "bias.jsonl"
    CalibratedBias("addition", 1, []).save(path)
    task = {"name": "addition", "base": 10, "parameters": {}, "alignment": "natural"}
    task |= {"input_order": "normal", "frame": "none"}
    header = {"format": "lengthwise-bias/2", "task": task, "heads": 1, "lines": 0}
    assert json.loads(path.read_text()) == header


# --- words ---


@pytest.mark.parametrize(
    ("track", "words"),
    [
        (Track.parse("a[c]"), "the digit of a in the column being written"),
        (Track.parse("b[c-1]"), "the digit of b in the column before it"),
        (Track.parse("b[c+1]"), "the digit of b in the column after it"),
        (Track.parse("b[c-3]"), "the digit of b in 3 columns before it"),
        (
            MatrixTrack("cross", "diagonal", 2, "a"),
            "the diagonal at offset +2 of the a",
        ),
        (Track.parse("+"), "the symbol '+'"),
        (MatrixTrack("cross", "vertical", 2, "a"), "the vertical at offset +2 of the a"),
        (Track.parse("answer[c-1]"), "the symbol written last"),
        (Track.parse("answer[c-2]"), "the symbol written 2 steps ago"),
        (MatrixTrack("self", "vertical", 3, "answer"), "the vertical at offset +3 of the answer"),
        (
            MatrixTrack("self", "anti-diagonal", 0, "answer"),
            "the anti-diagonal at offset +0 of the answer",
        ),
        (MatrixTrack("self", "diagonal", -2), "the diagonal at offset -2 of the whole sequence"),
        (MatrixTrack("cross", "vertical", 4), "the vertical at offset +4 of the whole sequence"),
        (MatrixTrack("cross", "everywhere"), "every key"),
        (MatrixTrack("cross", "everywhere", 0, "a"), "every key of a"),
    ],
)
def test_words(track, words):
    assert track.words() == words


def test_explain():
    bias = CalibratedBias(
        "addition",
        3,
        [
            Line("a[c]"),
            Line("b[c-1]", value=-1.5),
            Line("+", 2, layer=1),
            Line("answer[c-1]", 1),
            *[Line(MatrixTrack("self", "diagonal", -back), 2) for back in range(8)],
        ],
    )
    assert bias.explain() == "\n".join(
        [
            "Calibrated bias for addition: 3 heads",
            "  reading the problem",
            "    head 0 reads a[c], the digit of a in the column being written, "
            "and b[c-1], the digit of b in the column before it (-1.50)",
            "    head 1 reads nothing",
            "    head 2 reads in layer 1 the symbol '+'",
            "  reading the answer so far",
            "    head 0 reads nothing",
            "    head 1 reads answer[c-1], the symbol written last",
            "    head 2 reads the diagonal at offset +0 of the whole sequence, "
            "and the diagonal at offset -1 of the whole sequence, "
            "and the diagonal at offset -2 of the whole sequence, "
            "and the diagonal at offset -3 of the whole sequence, "
            "and the diagonal at offset -4 of the whole sequence, and 3 lines more",
        ]
    )
    assert str(bias) == bias.explain()


def test_explain_names_heads_that_read_the_same_together():
    lines = [Line("a[c]", head) for head in (0, 2, 3)]
    assert CalibratedBias("successor", 4, lines).explain().splitlines()[1:] == [
        "  reading the problem",
        "    heads 0, 2, 3 read a[c], the digit of a in the column being written",
        "    head 1 reads nothing",
        "  reading the answer so far",
        "    heads 0, 1, 2, 3 read nothing",
    ]


def test_a_bias_moves_to_a_task_that_is_laid_out_alike():
    lines = [Line("b[c-1]", 1), Line("answer[c-1]")]
    moved = CalibratedBias("addition", 2, [*lines, Line("+")]).transferred("subtraction")
    assert moved.task == "subtraction"
    assert moved.lines == (*lines, Line("-"))
    layout = Layout(TASKS["subtraction"](), 4)
    assert moved.open_keys("cross", 0, layout, range(5)) is not None


def test_a_moved_bias_keeps_how_its_problems_are_laid_out():
    format = Format("addition", 16, {}, "interleaved", "reversed", "tokens")
    moved = CalibratedBias(format, 1, [Line("a[c]")]).transferred("subtraction")
    assert moved.format == Format("subtraction", 16, {}, "interleaved", "reversed", "tokens")
    parity = CalibratedBias(Format("successor"), 1, [Line("a[c]")]).transferred("parity")
    assert parity.format.base == 2


def test_a_bias_does_not_move_to_another_layout():
    bias = CalibratedBias("successor", 1, [Line("a[c]")])
    with pytest.raises(ValueError, match="laid out otherwise"):
        bias.transferred("addition")
