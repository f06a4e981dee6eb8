"""Tracks in coordinates: their texts, and where the tokens they name lie."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.bias import Affine, CalibratedBias, Line, Track
from lengthwise.problems.format import Format
from lengthwise.problems.layout import Places, Span
from lengthwise.tasks import TASKS

AXES = st.dictionaries(st.sampled_from(["c", "r", "time"]), st.integers(-3, 3), max_size=3)


@given(AXES, st.integers(-(10**6), 10**6))
def test_affine_texts_are_read_back(factors, constant):
    number = Affine(tuple(sorted((a, f) for a, f in factors.items() if f)), constant)
    assert Affine.parse(str(number)) == number
    assert Affine.parse(f" {number} ") == number


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("c", 5),
        ("c-1", 4),
        ("r+c-2", 10),
        ("2*r-c", 9),
        ("7", 7),
        ("-c+2", -3),
        ("c+c", 10),
        ("3", 3),
    ],
)
def test_affine_numbers(text, at):
    coordinates = {"c": torch.tensor([5]), "r": torch.tensor([7])}
    assert Affine.parse(text).of(coordinates).tolist() == [at]


@given(AXES, st.integers(-5, 5), st.integers(-4, 4), st.integers(0, 9))
def test_a_moved_number_is_that_of_the_query_further_on(factors, constant, steps, column):
    number = Affine(tuple(sorted((a, f) for a, f in factors.items() if f)), constant)
    here = {axis: torch.tensor([column]) for axis in ("c", "r", "time")}
    there = {**here, "c": torch.tensor([column + steps])}
    assert number.moved("c", steps).of(here).equal(number.of(there))


@pytest.mark.parametrize("text", ["", "c+", "c 1", "2c", "c*2", "+-c", "C", "c-1-", "1.5"])
def test_other_texts_are_no_numbers(text):
    with pytest.raises(ValueError, match="is no place such as c, c-1 or 2"):
        Affine.parse(text)


@pytest.mark.parametrize(
    "text", ["a[c]", "answer[c-2]", "+", "+2", "sheet[r-1,c+1]", "b[r]", "d", "x[c+2*r-1]"]
)
def test_track_texts_are_read_back(text):
    track = Track.parse(text)
    assert str(track) == text
    assert Track.parse(str(track)) == track
    assert repr(Line(text, 2)) == repr(Line(track, 2))


@pytest.mark.parametrize("text", ["", "[", "[c]", "a[c-1", "a]", "a [c]", "a\n[c-1]", "a[c][c]"])
def test_other_texts_are_no_tracks(text):
    with pytest.raises(ValueError, match="is no line such as a"):
        Track.parse(text)


class Sheet(Places):
    """Two rows of three cells, each row followed by a separator, with queries that have two axes."""

    task = TASKS["addition"]()

    def anchors(self, site):
        return {"sheet": Span(0, 8, True)}

    def keys(self, site):
        return 8

    def coordinates(self, queries):
        return {"r": queries // 4, "c": queries % 4}

    def axes(self, segment):
        return ("r", "c")

    def find(self, segment, place, field=""):
        row, column = place
        return row * 4 + column, (row >= 0) & (row < 2) & (column >= 0) & (column < 3)


def test_tracks_have_as_many_axes_as_the_segment():
    """A cell reads the cell above and to the right; nothing above the first row, nor past the end."""
    position, inside = Track.parse("sheet[r-1,c+1]").keys(Sheet(), torch.arange(8))
    assert inside.tolist() == [False, False, False, False, True, True, False, False]
    assert position[inside].tolist() == [1, 2]


@given(
    st.sampled_from(["natural", "interleaved"]),
    st.sampled_from(["normal", "reversed"]),
    st.sampled_from(["none", "tokens"]),
    st.integers(1, 6),
    st.integers(-3, 3),
)
def test_one_track_reads_one_digit_in_every_layout(alignment, order, frame, width, offset):
    layout = Format("addition", 10, {}, alignment, order, frame).at(width)
    rng = np.random.default_rng(width)
    digits = rng.integers(0, 10, (4, 2, width), np.uint8)
    source, target = layout.batch(digits)
    queries = torch.arange(width + 1)
    for index, name in enumerate("ab"):
        key, inside = Track.along(name, offset).keys(layout, queries)
        columns = queries + offset
        assert inside.tolist() == ((columns >= 0) & (columns < width)).tolist()
        wanted = digits[:, index][:, columns[inside].numpy()]
        assert source[:, key[inside]].numpy().tolist() == wanted.tolist()
    key, inside = Track.along("answer", offset).keys(layout, queries)
    columns = queries[inside] + offset
    # The token of column c - 1 is the input of the query that writes column c.
    assert (columns >= -1).all()
    assert target[:, key[inside]].equal(target[:, columns + 1])


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("addition", "z[c]", "reads segment 'z', which addition does not have"),
        ("addition", "a", r"reads a, but a token of a in addition is named like a\[c\]"),
        ("addition", "+[c]", r"reads \+\[c\], but a token of \+ in addition is named like \+"),
        ("nx1", "d[c]", r"a token of d in nx1 is named like d$"),
        ("addition", "a[r,c]", r"reads a\[r,c\], but a token of a in addition is named like"),
        ("addition", "a[r]", "a query of addition has the coordinates c, no r"),
        ("addition", "columns[c]", "reads segment 'columns', which addition does not have"),
    ],
)
def test_a_layout_without_what_is_read_is_refused(task, text, message):
    bias = CalibratedBias(task, 1, [Line(text)])
    with pytest.raises(ValueError, match=message):
        bias.at("cross", 0, Format(task).at(3))


def test_equal_formats_are_equal_however_they_are_given():
    assert Format("addition") == Format("addition", 10, {}) == Format.of("addition")
    assert Format("multi_addition") == Format("multi_addition", parameters={"operands": 3})
    given = Format("multi_addition", 5, {"operands": 4}, "interleaved", "reversed", "tokens")
    assert Format.read(given.to_dict()) == given
    assert given.task.operands[-1].name == "d"
    assert Format.read("copy") == Format("copy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alignment": "zigzag"}, "alignment is one of .*natural.*, not 'zigzag'"),
        ({"input_order": "sideways"}, "input_order is one of"),
        ({"frame": "gold"}, "frame is one of"),
        ({"base": 10.0}, "base must be a whole number, got 10.0"),
        ({"base": 99}, "base of addition must be"),
        ({"parameters": {"operands": 4}}, "describes no problems"),
        ({"parameters": 3}, "parameters is a dictionary, got 3"),
        (
            {"name": "multiply_by", "parameters": {"factor": 7.5}},
            "factor of multiply_by can't be 7.5",
        ),
    ],
)
def test_formats_that_are_none_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Format.read({"name": "addition", **values})
