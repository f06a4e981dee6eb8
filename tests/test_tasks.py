"""Tasks: truth against Python integers, the transducer's tables, the expressions people type."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Multiple
from lengthwise.problems.layout import digits_of
from lengthwise.tasks import ALIASES, ALL_TASKS, DIGITS, TASKS, Segment, Transducer, make_task
from lengthwise.tasks.addition import Addition
from lengthwise.tasks.multi_addition import MultiAddition
from lengthwise.tasks.multiply_by import MultiplyBy
from lengthwise.tasks.successor import Successor

BASES = (2, 3, 10, 16, 36)
# What every task means, in Python integers.
TRUTH = {
    "successor": lambda a: a + 1,
    "addition": lambda a, b: a + b,
    "nx1": lambda a, d: a * d,
    "subtraction": lambda a, b: a - b,
    "decrement": lambda a: a - 1,
    "copy": lambda a: a,
    "multi_addition": lambda a, b, c: a + b + c,
    "multiply_by": lambda a: a * 7,
}
# Those whose answer is no number: the digits from the right, summed modulo the base.
RUNNING = {"modular_sum", "parity", "parity_classification"}
ANY_BASE = sorted(name for name in TASKS if len(TASKS[name].bases) > 1)


def problems(task: Transducer, digits: np.ndarray) -> np.ndarray:
    """Random digits as problems of a task: operands of one digit repeat it, others are admitted."""
    for index, segment in enumerate(task.operands):
        if segment.kind == "digit":
            digits[:, index] = digits[:, index, :1]
    return task.admit(digits)


def values(task: Transducer, digits: np.ndarray) -> list[int]:
    """The operands of one problem `[operand, column]` as Python integers."""
    return [
        int(digits[index, 0])
        if segment.kind == "digit"
        else python_integer(digits[index], task.base)
        for index, segment in enumerate(task.operands)
    ]


def python_integer(digits: np.ndarray, base: int) -> int:
    return int("".join(DIGITS[digit] for digit in digits[::-1]), base)


def integers(digits: np.ndarray, base: int = 10) -> np.ndarray:
    """Digits `[..., column]`, least significant first, as int64; exact up to 18 decimal digits."""
    return digits.astype(np.int64) @ base ** np.arange(digits.shape[-1], dtype=np.int64)


def in_base(value: int, base: int) -> str:
    """A whole number in a base, by repeated division."""
    text = ""
    while value or not text:
        value, digit = divmod(value, base)
        text = DIGITS[digit] + text
    return text


def test_every_task_has_a_truth_here():
    assert set(TRUTH) | RUNNING == set(TASKS)


@pytest.mark.trains
@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("digits", [1, 2, 7, 15])
def test_millions_of_random_problems_match_int64(name, digits):
    # 4 x 2 x 300,000 = 2.4 million problems. Uniform digits, and lengths cut at random so
    # that operands of very unequal lengths are common.
    task, rng = TASKS[name](), np.random.default_rng(digits)
    shape = (300_000, len(task.operands), digits + task.growth)
    operands = rng.integers(0, task.base, shape, np.uint8)
    lengths = rng.integers(1, digits + 1, shape[:2])
    lengths[::2] = digits
    operands[np.arange(shape[2]) >= lengths[..., None]] = 0
    operands = problems(task, operands)
    answers = task.answer(operands)
    assert answers.dtype == np.uint8
    written = task.writes or shape[2]
    assert answers.shape == (shape[0], written)
    if name in RUNNING:
        sums = operands[:, 0].cumsum(axis=1) % task.base
        np.testing.assert_array_equal(answers, sums[:, -written:])
        return
    numbers = integers(operands)
    for index, segment in enumerate(task.operands):
        if segment.kind == "digit":
            numbers[:, index] = operands[:, index, 0]
    np.testing.assert_array_equal(integers(answers), TRUTH[name](*numbers.T))


def test_successor_of_every_number_of_up_to_six_digits():
    numbers = np.arange(10**6)
    digits = (numbers[:, None] // 10 ** np.arange(7) % 10).astype(np.uint8)
    answers = Successor().answer(digits[:, None])
    np.testing.assert_array_equal(integers(answers), numbers + 1)


def test_addition_of_every_pair_of_up_to_three_digits():
    a, b = (n.ravel() for n in np.meshgrid(np.arange(1000), np.arange(1000)))
    pairs = np.stack([a, b], axis=1)
    digits = (pairs[:, :, None] // 10 ** np.arange(4) % 10).astype(np.uint8)
    np.testing.assert_array_equal(integers(Addition().answer(digits)), a + b)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ANY_BASE)
def test_wide_problems_match_python_integers(name, base):
    task, rng = TASKS[name](base), np.random.default_rng(base)
    width = 120
    operands = rng.integers(0, base, (60, len(task.operands), width), np.uint8)
    operands[:, :, width - task.growth :] = 0
    operands[::3, 0, rng.integers(1, width) :] = 0  # a very short operand
    operands[1::3, -1, 1:] = 0  # one digit
    operands = problems(task, operands)
    for digits, answer in zip(operands, task.answer(operands), strict=True):
        if name in RUNNING:
            sums = [sum(digits[0, : i + 1].tolist()) % base for i in range(width)]
            assert answer.tolist() == sums
            assert task.read(answer) == DIGITS[sums[-1]]
        else:
            assert python_integer(answer, base) == TRUTH[name](*values(task, digits))
            assert task.read(answer) == in_base(TRUTH[name](*values(task, digits)), base)


@given(data=st.data())
@pytest.mark.parametrize("name", sorted(set(ANY_BASE) - RUNNING))
def test_any_expression_in_any_base(name, data):
    base = data.draw(st.sampled_from(BASES))
    task = TASKS[name](base)
    least = 1 if name == "decrement" else 0
    numbers = data.draw(
        st.tuples(
            *[
                st.integers(least, base - 1 if segment.kind == "digit" else base**40)
                for segment in task.operands
            ]
        )
    )
    if name == "subtraction":
        numbers = tuple(sorted(numbers, reverse=True))
    expression = (task.symbols or ("",))[0].join(in_base(n, base) for n in numbers)
    parts = task.parse(expression)
    assert parts == [in_base(n, base) for n in numbers]
    digits = digits_of(task, parts, max(map(len, parts)) + task.growth)
    assert task.read(task.answer(digits)[0]) == in_base(TRUTH[name](*numbers), base)


@pytest.mark.parametrize(
    ("expression", "bit"), [("0", "0"), ("1", "1"), ("0110", "0"), ("0111", "1")]
)
@pytest.mark.parametrize("name", ["parity", "parity_classification"])
def test_parity_is_whether_the_ones_are_odd(name, expression, bit):
    task = TASKS[name]()
    digits = digits_of(task, task.parse(expression), len(expression))
    assert task.read(task.answer(digits)[0]) == bit == str(expression.count("1") % 2)


def test_classification_writes_one_bit_however_long_the_problem_is():
    task = TASKS["parity_classification"]()
    for bits in ("1", "0111", "0" * 50 + "111", "01" * 40 + "1"):
        assert task.answer(digits_of(task, [bits], len(bits))).tolist() == [[bits.count("1") % 2]]


@pytest.mark.trains
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("operands", [2, 3, 4, 5, 9])
def test_sums_of_any_number_of_operands(base, operands):
    if operands * base**operands > 1_000_000:
        most = {10: 5, 16: 4, 36: 3}[base]
        with pytest.raises(ValueError, match=f"from 2 to {most} in base {base}, got {operands}"):
            MultiAddition(base, operands=operands)
        return
    task, rng = MultiAddition(base, operands=operands), np.random.default_rng(operands)
    assert len({segment.name for segment in task.segments}) == 2 * operands - 1
    assert task.symbols == ("+",)
    digits = rng.integers(0, base, (20, operands, 30), np.uint8)
    digits[0] = base - 1
    digits[:, :, 30 - task.growth :] = 0
    for problem, answer in zip(digits, task.answer(digits), strict=True):
        numbers = values(task, problem)
        assert python_integer(answer, base) == sum(numbers)
        expression = "+".join(in_base(number, base) for number in numbers)
        assert task.parse(expression) == [in_base(number, base) for number in numbers]
    with pytest.raises(ValueError, match="multi_addition takes expressions like '123"):
        task.parse("1+" * operands + "1")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("factor", [2, 9, 10, 16, 99, 1000])
def test_multiples_of_any_factor(base, factor):
    task, rng = MultiplyBy(base, factor=factor), np.random.default_rng(factor)
    assert task.states == factor
    digits = rng.integers(0, base, (20, 1, 30), np.uint8)
    digits[0] = base - 1
    digits[:, :, 30 - task.growth :] = 0
    for problem, answer in zip(digits, task.answer(digits), strict=True):
        assert python_integer(answer, base) == factor * values(task, problem)[0]
    # The last column is needed: the largest number fills it.
    assert task.answer(digits[:1])[0, -1] > 0
    expression, product = task.example
    assert int(product) == factor * int(expression)


@pytest.mark.parametrize("factor", [0, 1, 1001])
def test_factors_out_of_range_are_refused(factor):
    with pytest.raises(
        ValueError, match=f"factor of multiply_by must be from 2 to 1000, got {factor}"
    ):
        MultiplyBy(factor=factor)


def test_equal_arguments_share_a_task():
    assert make_task("multiply_by", 10, factor=7) is make_task("multiply_by", 10, factor=7)
    assert make_task("multiply_by", 10, factor=8).growth == 1
    assert make_task("multi_addition", 2, operands=5).growth == 3


def test_names_that_people_try_lead_to_a_task():
    assert not set(ALIASES) & set(ALL_TASKS)
    assert set(ALIASES.values()) <= set(ALL_TASKS)


def test_parity_writes_the_running_xor_from_the_right():
    """The worked example of the paper: `0110` is written `0100`."""
    task = TASKS["parity"]()
    assert task.answer(digits_of(task, ["0110"], 4))[0].tolist() == [0, 1, 0, 0]


@given(st.data())
@pytest.mark.parametrize("name", sorted(TASKS))
def test_admitted_problems_end_in_a_final_state(name, data):
    task = TASKS[name]()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    digits = rng.integers(0, task.base, (50, len(task.operands), 5 + task.growth), np.uint8)
    digits[:, :, data.draw(st.integers(1, 5)) :] = 0
    digits[:10, -1] = digits[:10, 0]  # equal operands, too
    for problem in problems(task, digits):
        state = task.start_state
        for column in problem.T:
            state, _ = task.step(state, *column.tolist())
        assert task.final_states is None or state in task.final_states


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("length", [1, 2, 3, 17, 300])
def test_a_carry_through_every_digit(base, length):
    nines = np.zeros((1, 1, length + 1), np.uint8)
    nines[..., :length] = base - 1
    one = np.zeros_like(nines)
    one[..., 0] = 1
    power = [0] * length + [1]
    assert Successor(base).answer(nines)[0].tolist() == power
    addition = Addition(base)
    assert addition.answer(np.concatenate([nines, one], 1))[0].tolist() == power
    assert addition.answer(np.concatenate([one, nines], 1))[0].tolist() == power
    # The largest sum: 99...9 + 99...9 = 199...8.
    both = addition.answer(np.concatenate([nines, nines], 1))[0].tolist()
    assert both == [base - 2] + [base - 1] * (length - 1) + [1]
    # 99...9 + 0 carries nothing.
    assert addition.answer(np.concatenate([nines, one * 0], 1))[0].tolist() == nines[0, 0].tolist()


def test_zero():
    zero = np.zeros((1, 1, 5), np.uint8)
    assert Successor().answer(zero)[0].tolist() == [1, 0, 0, 0, 0]
    assert Addition().answer(np.repeat(zero, 2, axis=1))[0].tolist() == [0] * 5


def test_zeros_on_the_left_change_nothing():
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 10, (100, 2, 8), np.uint8)
    wider = np.concatenate([digits, np.zeros((100, 2, 5), np.uint8)], axis=2)
    np.testing.assert_array_equal(
        Addition().answer(wider)[:, :8], Addition().answer(digits), strict=True
    )


def test_inputs_are_not_written_to():
    digits = np.full((3, 2, 4), 9, np.uint8)
    Addition().answer(digits)
    assert (digits == 9).all()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ANY_BASE)
def test_tables_are_step(name, base):
    task = TASKS[name](base)
    next_state, written = task.tables
    assert next_state.shape == written.shape == (task.states, *[base] * len(task.operands))
    for index in np.ndindex(next_state.shape):
        assert task.step(*index) == (next_state[index], written[index])
    # A state and a digit, never more: the proof and the data rely on it.
    assert 0 <= next_state.min() <= next_state.max() < task.states
    assert 0 <= written.min() <= written.max() < base
    assert 0 <= task.start_state < task.states


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ["successor", "addition", "nx1", "multi_addition", "multiply_by"])
def test_growth_is_enough_and_needed(name, base):
    task = TASKS[name](base)
    largest = [base**9 - 1 if s.kind == "operand" else base - 1 for s in task.operands]
    needed = (
        9 + task.growth - (name == "nx1" and base == 2)
    )  # one digit of base 2 multiplies nothing
    assert len(in_base(TRUTH[name](*largest), base)) == needed


@pytest.mark.parametrize("base", BASES)
def test_propagating_columns(base):
    successor, addition = Successor(base).propagating, Addition(base).propagating
    assert np.flatnonzero(successor).tolist() == [base - 1]
    for a, b in product(range(base), repeat=2):
        assert addition[a, b] == (a + b == base - 1)


class Majority(Transducer):
    """Three states, to see that `propagating` compares all of them: 2 is kept only by digit 1."""

    name = "majority"
    segments = (Segment("a", "operand"),)
    states = 3
    growth = 0
    example = ("11", "11")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return (state if column[0] == 1 and state == 2 else 0), column[0]


def test_propagating_looks_at_every_state():
    assert Majority(2).propagating.tolist() == [False, True]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_examples_are_right_and_parse(name):
    task = TASKS[name]()
    expression, answer = task.example
    parts = task.parse(expression)
    digits = digits_of(task, parts, max(map(len, parts)) + task.growth)
    assert task.read(task.answer(digits)[0]) == answer
    if name in TRUTH:
        assert str(TRUTH[name](*map(int, parts))) == answer


@pytest.mark.parametrize("base", [-1, 0, 1, 37, 100])
def test_a_base_out_of_range_is_refused(base):
    with pytest.raises(ValueError, match=f"^base of addition must be from 2 to 36, got {base}$"):
        Addition(base)


@pytest.mark.parametrize(
    ("task", "expression", "parts"),
    [
        (Successor(), "0", ["0"]),
        (Successor(), " 1 999 ", ["1999"]),
        (Successor(16), "FfA0", ["ffa0"]),
        (Successor(36), "Zz", ["zz"]),
        (Addition(), "12+3", ["12", "3"]),
        (Addition(), "\t007 + 05\n", ["007", "05"]),
        (Addition(2), "101+1", ["101", "1"]),
        (Addition(), "1" * 5000 + "+2", ["1" * 5000, "2"]),
    ],
)
def test_good_expressions(task, expression, parts):
    assert task.parse(expression) == parts


@pytest.mark.parametrize(
    ("task", "expression", "message"),
    [
        (Successor(), "", "empty expression; successor takes expressions like '199'"),
        (Successor(), " \n", "empty expression; successor takes expressions like '199'"),
        (Addition(), "", "empty expression; addition takes expressions like '123+748'"),
        (Successor(), "-5", "unexpected '-' at position 1 of '-5'; successor takes"),
        (Successor(), "12+3", "unexpected '+' at position 3 of '12+3'; successor takes"),
        (Successor(2), "102", "unexpected '2' at position 3 of '102'; successor takes"),
        (Successor(16), "fg", "unexpected 'g' at position 2 of 'fg'; successor takes"),
        (Successor(), "1²", "unexpected '²' at position 2 of '1²'; successor takes"),
        (Successor(), "\uff11", "unexpected '\uff11' at position 1 of '\uff11'; successor takes"),
        (Addition(), "1.5+2", "unexpected '.' at position 2 of '1.5+2'; addition takes"),
        (Addition(), "12", "'12' lacks '+'; addition takes expressions like '123+748'"),
        (Addition(), "+3", "'+3' has no digits for operand a; addition takes"),
        (Addition(), "3+", "'3+' has no digits for operand b; addition takes"),
        (Addition(), "3++4", "'3++4' has no digits for operand b; addition takes"),
        (Addition(), "+", "'+' has no digits for operand a; addition takes"),
        (Addition(), "1+2+3", "'1+2+3' goes on after the last operand; addition takes"),
        (
            Addition(),
            "1" * 30 + "+" + "2" * 20 + "=0",
            "unexpected '=' at position 52 of '" + "1" * 30 + "...22222=0'; addition takes",
        ),
    ],
)
def test_bad_expressions(task, expression, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        task.parse(expression)
    assert task.example[0] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "expression", "message"),
    [
        (
            "subtraction",
            "12-13",
            "'12-13' is negative; subtraction takes a-b with a no less than b",
        ),
        ("subtraction", "9-10", "'9-10' is negative"),
        ("decrement", "000", "'000' has no predecessor; decrement takes numbers from 1 up"),
        ("parity", "012", "unexpected '2' at position 3 of '012'; parity takes"),
        ("multi_addition", "1+2", "'1+2' lacks '+'; multi_addition takes expressions like"),
        ("multi_addition", "1+2+", "'1+2+' has no digits for operand c; multi_addition takes"),
        ("multi_addition", "1+2+3+4", "'1+2+3+4' goes on after the last operand; multi_addition"),
        ("multiply_by", "12*7", "unexpected '*' at position 3 of '12*7'; multiply_by takes"),
        ("nx1", "12*34", "operand d of '12*34' must be one digit; nx1 takes"),
    ],
)
def test_expressions_that_are_no_problem_of_the_task(name, expression, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        TASKS[name]().parse(expression)


def test_subtraction_to_zero_and_with_leading_zeros_parses():
    assert TASKS["subtraction"]().parse("010-10") == ["010", "10"]


def test_parity_has_one_base():
    with pytest.raises(ValueError, match=r"^base of parity must be 2, got 10$"):
        TASKS["parity"](10)


def test_an_operand_of_one_digit():
    task = Multiple()
    assert task.parse("120*7") == ["120", "7"]
    with pytest.raises(
        ValueError, match=r"^operand d of '12\*34' must be one digit; multiple takes"
    ):
        task.parse("12*34")
    digits = digits_of(task, ["987", "6"], 4)
    assert digits.tolist() == [[[7, 8, 9, 0], [6, 6, 6, 6]]]
    assert task.read(task.answer(digits)[0]) == str(987 * 6)


@given(text=st.text("0189+", max_size=12) | st.text("09+- \n*aZ²\uff11", max_size=60))
def test_parse_accepts_two_numbers_and_nothing_else(text):
    task = Addition()
    bare = "".join(text.split())
    if re.fullmatch(r"[0-9]+\+[0-9]+", bare):
        assert task.parse(text) == bare.split("+")
    else:
        with pytest.raises(ValueError, match=r"addition takes expressions like '123\+748'$"):
            task.parse(text)
