"""Sheets that are written in waves are those that are written cell by cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.errors import InputError
from lengthwise.problems.sheet_rule import rule_of
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import pace_of, read_tokens, true_sheets, write_sheets
from lengthwise.tasks import make_task
from lengthwise.tasks.near import Near
from sheet_rules import RULES, Endless, Made, by_hand, random_operands


def number(digits, base):
    return sum(int(digit) * base**place for place, digit in enumerate(digits))


def products(task, columns, rows, operands):
    layout = SheetLayout(task, Size(columns, rows))
    written = true_sheets(task, layout.parts(operands), **layout.limits)
    return [number(task.answer(written.values(i)), task.base) for i in range(len(operands))]


@pytest.mark.parametrize(("base", "digits"), [(10, 2), (2, 4)])
def test_every_small_product_is_right(base, digits):
    task, values = make_task("multiplication", base), range(base**digits)
    pairs = list(itertools.product(values, values))
    operands = np.array(
        [[[n // base**k % base for k in range(digits)] for n in pair] for pair in pairs], np.uint8
    )
    assert products(task, digits, digits, operands) == [a * b for a, b in pairs]


@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_products_are_those_of_whole_numbers(base, columns, rows, seed):
    task = make_task("multiplication", base)
    operands = np.zeros((3, 2, max(columns, rows)), np.uint8)
    for place, digits in enumerate(random_operands(task, seed, 3, columns, rows)):
        operands[:, place, : digits.shape[1]] = digits
    expected = [number(a, base) * number(b, base) for a, b in operands]
    assert products(task, columns, rows, operands) == expected


@given(st.sampled_from(RULES), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_waves_write_what_is_written_cell_by_cell(rule, columns, rows, seed):
    task = rule(2)
    operands = random_operands(task, seed, 4, columns, rows)
    limits = {"columns": columns + rows + 1, "rows": rows + 1}
    written = write_sheets(task, operands, task.nears, rule_of(task), **limits)
    for problem in range(4):
        tokens = by_hand(task, [digits[problem].tolist() for digits in operands], **limits)
        assert written.tokens(problem).tolist()[: len(tokens)] == tokens
        assert bool(written.ended[problem]) == (tokens[-1] == task.token("$"))
        if written.ended[problem]:
            assert len(written.tokens(problem)) == len(tokens)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_waves_write_any_table(seed, columns, rows):
    """A rule without any sense: rows end here and there, the end stands anywhere or nowhere."""
    task = Made(2)
    rng = np.random.default_rng(seed)
    choices = [*itertools.product(range(3), range(2))] * 2 + [";", ";", "$"]
    table = {
        seen: choices[rng.integers(len(choices))]
        for seen in itertools.product(*[[v for _, v in values] for values in task.alphabets])
    }
    task.cell = lambda *seen: table[seen]
    operands = random_operands(task, seed, 3, columns, rows)
    limits = {"columns": 6, "rows": 5}
    written = write_sheets(task, operands, task.nears, rule_of(task), **limits)
    for problem in range(3):
        tokens = by_hand(task, [digits[problem].tolist() for digits in operands], **limits)
        assert written.tokens(problem).tolist()[: len(tokens)] == tokens
        assert bool(written.ended[problem]) == (tokens[-1] == task.token("$"))


def test_limits_change_nothing_before_them():
    task = make_task("multiplication", 10)
    layout = SheetLayout(task, Size(6, 5))
    parts = layout.parts(np.random.default_rng(0).integers(0, 10, (4, 2, 6), np.uint8))
    whole = true_sheets(task, parts, **layout.limits)
    far = true_sheets(task, parts, columns=40, rows=30)
    cut = write_sheets(task, parts, task.nears, rule_of(task), columns=20, rows=2)
    assert not cut.ended.any()
    for problem in range(4):
        tokens = whole.tokens(problem)
        assert far.tokens(problem).tolist() == tokens.tolist()
        part = cut.tokens(problem)
        assert part.tolist() == tokens[: len(part)].tolist()
        assert len(part) > 20


def test_a_sheet_without_an_end_is_refused_and_ends_at_the_limit():
    task = Endless(2)
    operands = random_operands(task, 0, 2, 3, 3)
    with pytest.raises(ValueError, match="no end within 4 rows of 5 cells"):
        true_sheets(task, operands, columns=5, rows=4)
    written = write_sheets(task, operands, task.nears, rule_of(task), columns=5, rows=4)
    assert written.rows.tolist() == [0, 0]
    assert len(written.tokens(0)) == 2 * 6


def test_tokens_are_read_as_they_were_written():
    task = make_task("multiplication", 10)
    layout = SheetLayout(task, Size(3, 2))
    parts = layout.parts(np.random.default_rng(1).integers(0, 10, (1, 2, 3), np.uint8))
    written = true_sheets(task, parts, **layout.limits)
    again = read_tokens(task, written.tokens(0), **layout.limits)
    assert again.same_as(written).tolist() == [True]
    broken = read_tokens(task, written.tokens(0)[:-1], **layout.limits)
    assert broken.same_as(written).tolist() == [False]
    # With a digit where a carry is due it ends.
    stuck = read_tokens(task, np.array([3, 3, 14, 5]), **layout.limits)
    assert (stuck.tokens(0).tolist(), stuck.ended.tolist()) == ([3, 3], [False])


def test_what_is_written_later_can_t_be_seen():
    assert pace_of([Near.parse("sheet[r-1,c+1].digit")]) == 2
    assert pace_of([Near.parse("sheet[r-2,c+1].digit")]) == 1
    for text in ("sheet[r,c+1].digit", "sheet[r+1,c].digit"):
        with pytest.raises(ValueError, match="written after the cell that would see it"):
            pace_of([Near.parse(text)])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (lambda *_: (3, 0), "writes 3 as x where it sees"),
        (lambda *_: "?", r"writes '\?' where it sees"),
        (lambda *seen: seen[0] + 1, "writes nothing where it sees"),
    ],
)
def test_a_rule_that_gives_no_cell_is_one_clear_line(cell, message):
    task = Made(2)
    task.cell = cell
    with pytest.raises(InputError, match=message) as caught:
        _ = task.table
    assert "\n" not in str(caught.value)
