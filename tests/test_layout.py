"""Layouts: problems to tokens and back, against strings written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import Multiple
from lengthwise.bias import Track
from lengthwise.problems.layout import Layout, Span, Vocabulary, digits_of
from lengthwise.tasks import DIGITS, TASKS
from lengthwise.tasks.addition import Addition
from lengthwise.tasks.successor import Successor


@pytest.mark.parametrize(
    ("task", "parts", "width", "source", "target"),
    [
        (Successor(), ["199"], 3, "199", "^002$"),
        (Successor(), ["199"], 5, "00199", "^00200$"),
        (Successor(), ["0"], 1, "0", "^1$"),
        (Successor(), ["999"], 4, "0999", "^0001$"),
        (Successor(16), ["ff"], 3, "0ff", "^001$"),
        (Successor(36), ["z9"], 2, "z9", "^az$"),
        (Successor(2), ["1011"], 5, "01011", "^00110$"),
        (Addition(), ["123", "748"], 4, "0123+0748", "^1780$"),
        (Addition(), ["1", "99"], 3, "001+099", "^001$"),
        (Addition(), ["0", "0"], 1, "0+0", "^0$"),
        (Addition(), ["5", "12345"], 7, "0000005+0012345", "^0532100$"),
        (Addition(2), ["11", "1"], 3, "011+001", "^001$"),
        (Multiple(), ["123", "6"], 4, "0123*6", "^8370$"),
    ],
)
def test_tokens_against_strings_written_by_hand(task, parts, width, source, target):
    layout = Layout(task, width)
    tokens = layout.batch(digits_of(task, parts, width))
    assert [layout.text(row[0]) for row in tokens] == [source, target]
    assert [row.dtype for row in tokens] == [torch.int64, torch.int64]
    assert layout.source_length == len(source)
    assert layout.target_length == len(target) - 1 == width + 1


def test_token_numbers_written_by_hand():
    layout = Layout(Addition(), 2)
    source, target = layout.batch(digits_of(Addition(), ["7", "24"], 2))
    # Digits are themselves; then +, start, end.
    assert source.tolist() == [[0, 7, 10, 2, 4]]
    assert target.tolist() == [[11, 1, 3, 12]]


def test_a_batch_is_its_problems_one_by_one():
    digits = np.random.default_rng(0).integers(0, 10, (20, 2, 6), np.uint8)
    layout = Layout(Addition(), 6)
    source, target = layout.batch(digits)
    assert source.shape == (20, 13)
    assert target.shape == (20, 8)
    for row in range(20):
        one_source, one_target = layout.batch(digits[row : row + 1])
        assert torch.equal(source[row], one_source[0])
        assert torch.equal(target[row], one_target[0])


@given(data=st.data())
@pytest.mark.parametrize("name", ["addition", "copy", "modular_sum", "multi_addition", "successor"])
def test_tokens_and_digits_are_inverse(name, data):
    task = TASKS[name](data.draw(st.sampled_from((2, 10, 36))))
    width = data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    digits = rng.integers(0, task.base, (3, len(task.operands), width), np.uint8)
    layout = Layout(task, width)
    source = layout.source(digits)
    # The digit of significance j of an operand at [start, stop) is at stop - 1 - j.
    for index, segment in enumerate(task.operands):
        span = layout.source_spans[segment.name]
        for j in range(width):
            assert source[:, span.stop - 1 - j].tolist() == digits[:, index, j].tolist()
    # Text with its symbols parses back into the same digits.
    for row in range(3):
        parts = task.parse(layout.text(source[row]))
        np.testing.assert_array_equal(digits_of(task, parts, width)[0], digits[row])
    # Row i of the target writes the digit of significance i.
    answers = task.answer(digits)
    target = layout.target(answers)
    assert target[:, 1:-1].tolist() == answers.tolist()
    assert target[:, 0].tolist() == [layout.vocabulary.start] * 3
    assert target[:, -1].tolist() == [layout.vocabulary.end] * 3


@pytest.mark.parametrize("width", [1, 2, 9])
def test_spans(width):
    w = width
    assert Layout(Successor(), w).source_spans == {"a": Span(0, w, True, backwards=True)}
    assert Layout(Successor(), w, "natural", "reversed").source_spans == {"a": Span(0, w, True)}
    addition = Layout(Addition(), w)
    assert addition.source_spans == {
        "a": Span(0, w, True, backwards=True),
        "+": Span(w, w + 1, False),
        "b": Span(w + 1, 2 * w + 1, True, backwards=True),
    }
    assert addition.spans("cross") == addition.source_spans
    assert addition.spans("self") == {"answer": Span(0, w + 1, True, first=-1)}
    assert (addition.keys("self"), addition.keys("cross")) == (w + 1, 2 * w + 1)
    multiple = Layout(Multiple(), w)
    assert multiple.source_spans["d"] == Span(w + 1, w + 2, False)
    assert multiple.keys("cross") == w + 2


@pytest.mark.parametrize("width", [0, -3])
def test_a_width_below_one_is_refused(width):
    with pytest.raises(ValueError, match=f"^width must be at least 1, got {width}$"):
        Layout(Addition(), width)


@pytest.mark.parametrize(
    ("base", "symbols", "characters"),
    [(10, ("+",), "0123456789+^$"), (2, (), "01^$"), (16, ("*",), "0123456789abcdef*^$")],
)
def test_vocabulary(base, symbols, characters):
    vocabulary = Vocabulary(base, symbols)
    assert vocabulary.characters == characters
    assert len(vocabulary) == len(characters)
    assert [vocabulary.index(c) for c in characters] == list(range(len(characters)))
    assert characters[vocabulary.start] == "^"
    assert characters[vocabulary.end] == "$"


@given(value=st.integers(0, 10**60), extra=st.integers(0, 5), base=st.sampled_from((2, 10, 36)))
def test_digits_of_and_number_are_inverse(value, extra, base):
    # The digits by division, least significant first.
    digits, rest = [], value
    while rest or not digits:
        rest, digit = divmod(rest, base)
        digits.append(digit)
    width = len(digits) + extra
    text = "".join(DIGITS[digit] for digit in reversed(digits))
    found = digits_of(Successor(base), [text], width)
    assert found.dtype == np.uint8
    assert found.shape == (1, 1, width)
    assert found[0, 0].tolist() == digits + [0] * extra
    assert Successor(base).read(found[0, 0]) == text
    assert digits_of(Successor(base), ["00"[:extra] + text], width).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("digits", "text"),
    [([0], "0"), ([0, 0, 0], "0"), ([3, 2, 1], "123"), ([0, 1, 0], "10"), ([35, 10], "az")],
)
def test_number_by_hand(digits, text):
    assert Successor(36).read(np.array(digits)) == text


def test_digits_of_refuses_text_wider_than_the_width():
    with pytest.raises(ValueError, match="could not broadcast"):
        digits_of(Successor(), ["1234"], 3)


def test_digits_of_refuses_a_missing_operand():
    with pytest.raises(ValueError, match="shorter"):
        digits_of(Addition(), ["1234"], 5)


@pytest.mark.parametrize(
    ("task", "parts", "width", "alignment", "order", "source"),
    [
        (Addition(), ["123", "748"], 4, "natural", "reversed", "3210+8470"),
        (Addition(), ["123", "748"], 4, "interleaved", "normal", "+00172438"),
        (Addition(), ["123", "748"], 4, "interleaved", "reversed", "+38241700"),
        (Multiple(), ["123", "6"], 4, "natural", "reversed", "3210*6"),
        (Multiple(), ["123", "6"], 4, "interleaved", "normal", "*06162636"),
        (Multiple(), ["123", "6"], 4, "interleaved", "reversed", "*36261606"),
        (Successor(), ["199"], 4, "interleaved", "normal", "0199"),
        (Successor(), ["199"], 4, "interleaved", "reversed", "9910"),
    ],
)
def test_alignment_and_order_against_strings_written_by_hand(
    task, parts, width, alignment, order, source
):
    layout = Layout(task, width, alignment, order)
    digits = digits_of(task, parts, width)
    tokens, target = layout.batch(digits)
    assert layout.text(tokens[0]) == source
    assert layout.source_length == len(source)
    # What is written does not depend on how the source lies.
    assert torch.equal(target, Layout(task, width).batch(digits)[1])


@pytest.mark.trains
@given(data=st.data())
@pytest.mark.parametrize("order", ["normal", "reversed"])
@pytest.mark.parametrize("alignment", ["natural", "interleaved"])
@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_anchors_hold_the_digits_of_each_column(name, alignment, order, data):
    task, width = TASKS[name](), data.draw(st.integers(1, 12))
    layout = Layout(task, width, alignment, order)
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    digits = rng.integers(0, task.base, (2, len(task.operands), width), np.uint8)
    for index, segment in enumerate(task.operands):
        if segment.kind == "digit":
            digits[:, index] = digits[:, index, :1]
    source, anchors = layout.source(digits), layout.anchors("cross")
    for index, segment in enumerate(task.operands):
        span = anchors[segment.name]
        keys = list(range(span.start, span.stop, span.stride))
        if not span.grows:
            assert source[:, keys[0]].tolist() == digits[:, index, 0].tolist()
            continue
        # A line of coordinates reads column i in row i, with and without an offset.
        for offset in (-1, 0, 1):
            read, inside = Track.along(segment.name, offset).keys(layout, torch.arange(width))
            for row in range(width):
                assert bool(inside[row]) == (0 <= row + offset < width)
                if inside[row]:
                    assert source[:, read[row]].tolist() == digits[:, index, row + offset].tolist()
        assert len(keys) == width
    # The pieces cover the source once, and so do the symbols and operands.
    pieces = layout.spans("cross").values()
    assert sorted(k for s in pieces for k in range(s.start, s.stop)) == [
        *range(layout.source_length)
    ]
    segments = [anchors[s.name] for s in task.segments]
    assert sorted(k for s in segments for k in range(s.start, s.stop, s.stride)) == [
        *range(layout.source_length)
    ]


def test_interleaved_spans():
    layout = Layout(Addition(), 3, "interleaved")
    assert layout.stride == 2
    assert layout.spans("cross") == {
        "+": Span(0, 1, False),
        "columns": Span(1, 7, True, backwards=True),
    }
    assert layout.anchors("cross")["a"] == Span(1, 6, True, 2, True)
    assert layout.anchors("cross")["b"] == Span(2, 7, True, 2, True)
    assert layout.anchors("self") == layout.spans("self")
    assert (layout.stride, Layout(Addition(), 3).stride) == (2, 1)
    assert Layout(Addition(), 3).anchors("cross") == Layout(Addition(), 3).spans("cross")
    # One operand has nothing to interleave.
    assert Layout(Successor(), 3, "interleaved").spans("cross") == {
        "a": Span(0, 3, True, backwards=True)
    }
