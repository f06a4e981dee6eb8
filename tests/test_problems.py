"""Problems as a sequence: each can be drawn again, has a true answer, and belongs to one split."""

import itertools
import tomllib

import cellpylib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lengthwise as lw
from lengthwise.problems.format import Format
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sampling import in_split
from lengthwise.problems.sizes import size_of
from lengthwise.problems.worked import worked
from lengthwise.runs.run import Run
from lengthwise.tasks import ALL_TASKS, WORKSHEETS
from lengthwise.tasks.machine import shipped
from lengthwise.tasks.transducer import DIGITS

SAMPLES = "tests/samples"


def in_base(number, base):
    digits = ""
    while number or not digits:
        number, digit = divmod(number, base)
        digits = DIGITS[digit] + digits
    return digits


def generations(expression, rule):
    """By cellpylib, whose borders are cyclic: one generation after the other, with a zero on each side."""
    cells = [int(c) for c in expression.rstrip("|")]
    for _ in range(expression.count("|") - 1):
        padded = np.array([[0, *cells, 0]])
        step = cellpylib.evolve(
            padded, timesteps=2, apply_rule=lambda n, c, t: cellpylib.nks_rule(n, rule)
        )
        cells = step[1][1:-1].tolist()
    return "".join(map(str, cells))


def increment(tape):
    """The shipped machine, by a loop over its file; its tape ends on the left, where the head stays."""
    machine = tomllib.loads(shipped()["increment"])
    state, cells, head = machine["start"], [*tape.replace("(right)", "")], 0
    while state not in machine["halting"]:
        cells[head], move, state = machine["transitions"][state][cells[head]].split()
        head = max(0, head + {"L": -1, "N": 0, "R": 1}[move])
        cells += ["_"] * (head == len(cells))
    return "".join(cells).rstrip("_") or "_"


def numbers(expression, mark, base):
    return [int(part, base) for part in expression.split(mark)]


# The answer by other means, of an expression, a base and parameters that are not the defaults.
ORACLES = {
    "successor": lambda e, b: in_base(int(e, b) + 1, b),
    "decrement": lambda e, b: in_base(int(e, b) - 1, b),
    "addition": lambda e, b: in_base(sum(numbers(e, "+", b)), b),
    "subtraction": lambda e, b: in_base(int(e.split("-")[0], b) - int(e.split("-")[1], b), b),
    "multi_addition": lambda e, b: in_base(sum(numbers(e, "+", b)), b),
    "nx1": lambda e, b: in_base(int(np.prod(numbers(e, "*", b), dtype=object)), b),
    "multiply_by": lambda e, b: in_base(12 * int(e, b), b),
    "modular_sum": lambda e, b: DIGITS[sum(int(c, b) for c in e) % b],
    "copy": lambda e, b: e,
    "parity": lambda e, b: str(e.count("1") % 2),
    "parity_classification": lambda e, b: str(e.count("1") % 2),
    "multiplication": lambda e, b: in_base(int(np.prod(numbers(e, "*", b), dtype=object)), b),
    "division": lambda e, b: " r ".join(
        in_base(n, b) for n in divmod(int(e.split("/")[0], b), int(e.split("/")[1], b))
    ),
    "sorting": lambda e, b: ",".join(sorted(e.split(","))),
    "base_conversion": lambda e, b: in_base(int(e, b), 7),
    "cellular_automaton": lambda e, b: generations(e, 30),
    "turing_machine": lambda e, b: increment(e),
}
PARAMETERS = {
    "multi_addition": {"operands": 4},
    "multiply_by": {"factor": 12},
    "base_conversion": {"to": 7},
    "cellular_automaton": {"rule": 30},
}
SIZES = {"turing_machine": ["7x24", "8x30"], "division": ["3x4", "4x5"]}
CASES = [(task, None) for task in ALL_TASKS] + [
    (task, 16) for task in ("addition", "multiplication", "sorting")
]


def some(task, split="train", base=None, count=6, seed=0, **named):
    given = PARAMETERS.get(task, {}) | ({"base": base} if base else {})
    sizes = SIZES.get(task, ["7x4", "8x5"] if task in WORKSHEETS else [8, 11])
    return lw.problems(task, sizes, split, seed, count=count, set=given, **named)


@pytest.mark.trains
@pytest.mark.parametrize(("task", "base"), CASES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_are_true(task, base, split):
    problems = some(task, split, base)
    for problem in problems:
        own = problems.format.base
        assert problem.answer == ORACLES[task](problem.expression, own), problem


@pytest.mark.parametrize("task", ALL_TASKS)
def test_answers_of_harder_suites_are_true(task):
    sheet = "7x24" if task == "turing_machine" else "4x3"
    sizes = [sheet] if task in WORKSHEETS else [8]
    suite = "hard" if task in WORKSHEETS else "carry"
    given = PARAMETERS.get(task, {})
    for problem in lw.problems(task, sizes, "train", count=8, suite=suite, set=given):
        base = ALL_TASKS[task].bases[0]
        assert problem.answer == ORACLES[task](problem.expression, base), problem


@pytest.mark.parametrize("task", ALL_TASKS)
def test_every_problem_can_be_drawn_again(task):
    problems = some(task, "validation")
    several = list(problems)
    assert len(several) == len(problems) == 6
    again = some(task, "validation", count=100)
    for index in (5, 0, 3):
        assert again[index] == several[index]
        assert several[index].index == index
    assert problems[-1] == several[5]
    assert problems[1:3] == several[1:3]
    assert len({problem.expression for problem in several}) > 1
    assert [p.expression for p in some(task, "validation", seed=1)] != [
        p.expression for p in several
    ]
    with pytest.raises(IndexError, match="problem 6 of 6"):
        problems[6]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_each_problem_is_of_its_split(task):
    """By the hash that keeps training apart, of the expression that a person reads."""
    for split in ("train", "validation", "test"):
        problems = some(task, split)
        own = problems.format.task
        for problem in problems:
            parts = own.parse(problem.expression)
            width = max(map(len, parts))
            digits = digits_of(own, parts, width)
            if any(s.name in getattr(own, "from_left", ()) for s in own.operands):
                # Of lists zeros on the left count: one is added to each digit within.
                inside = np.zeros_like(digits)
                for place, part in enumerate(parts):
                    inside[0, place, : len(part)] = 1
                lists = [s.name in own.from_left for s in own.operands]
                digits = digits + inside * np.array(lists, np.uint8)[:, None]
            assert in_split(own, digits, split).all()


@pytest.mark.parametrize("task", ALL_TASKS)
def test_problems_have_the_sizes_that_are_asked_for(task):
    problems = some(task)
    own = problems.format.task
    for problem, want in zip(problems, itertools.cycle(problems.sizes), strict=False):
        parts = own.parse(problem.expression)
        if task in WORKSHEETS:
            size, along = size_of(own, parts), {own.axis(s.name).by_column for s in own.operands}
            assert size.columns == (want.columns if True in along else 1)
            assert size.rows == (want.rows if False in along else 1)
        else:
            assert max(map(len, parts)) == want


@settings(max_examples=20)
@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from([2, 3, 10, 16, 36]))
def test_an_expression_is_worked_in_any_base(a, b, base):
    expression = f"{in_base(a, base)}+{in_base(b, base)}"
    assert worked(Format("addition", base), expression).answer == in_base(a + b, base)


@pytest.mark.parametrize("task", ["multiplication", "sorting", "turing_machine"])
def test_work_is_what_a_proven_model_writes(task):
    run = Run.open(f"{SAMPLES}/{task}")
    base = {"base": run.config.base} | run.config.parameters
    problems = lw.problems(task, ["5x40"], "test", 7, count=4, set=base)
    answers = run.answers([problem.expression for problem in problems])
    for problem, answer in zip(problems, answers, strict=True):
        assert problem.answer == answer.text
        assert f"{problem.work} $" == answer.work
        assert str(problem.sheet) == str(answer.sheet)
        assert " ".join(problem.rows) == problem.work


def test_suites_and_defaults():
    hard = lw.problems("multiplication", "6x6", "train", suite="hard", count=20)
    assert any(set(p.expression) <= set("9*10") for p in hard)
    assert all(
        int(p.answer) == np.prod([*map(int, p.expression.split("*"))], dtype=object) for p in hard
    )
    assert lw.problems("addition")[0].size == 6
    assert str(lw.problems("multiplication")[0].size) == "3x3"
    assert "addition in base 10: 1,000 of size 6, train, seed 0" in repr(lw.problems("addition"))


def test_the_function_has_the_name_of_a_folder():
    import lengthwise.problems.sampling as sampling

    assert lw.problems.sampling is sampling
    assert callable(lw.problems)


@pytest.mark.parametrize(
    ("given", "named", "said"),
    [
        (("adition",), {}, "unknown task 'adition'; did you mean 'addition'"),
        (("addition", "x"), {}, "sizes takes whole numbers from 1 up"),
        (("addition", 0), {}, "sizes takes whole numbers from 1 up"),
        (("addition", 10**7), {}, "sizes must be at most 1,000,000"),
        (("multiplication", "0x3"), {}, "sizes takes sizes such as '20x15'"),
        (("multiplication", "9999x9999"), {}, "a sheet has at most 1,000,000 cells; 9999x9999 has"),
        (("multiplication", "threeish"), {}, "sizes takes sizes such as '20x15'"),
        (("addition", 6, "tset"), {}, "unknown split 'tset'; did you mean 'test'"),
        (("addition", 6, "any"), {}, "unknown split 'any'"),
        (("addition", 6, "test", -1), {}, "seed takes a whole number from 0 up"),
        (("addition", 6), {"count": -1}, "count takes a whole number from 0 up"),
        (("addition", 6), {"suite": "hard"}, "unknown suite 'hard'"),
        (("addition", 6), {"set": "base=99"}, "base"),
        (("addition", 6), {"set": "model.width=8"}, "model.width does not count when problems are"),
        (("addition", 6), {"set": "operands=4"}, "addition takes no operands; multi_addition does"),
    ],
)
def test_bad_input(given, named, said):
    with pytest.raises(lw.InputError, match=said):
        lw.problems(*given, **named)


def test_a_split_without_problems_of_a_size_says_so():
    with pytest.raises(
        lw.InputError, match="the test split holds no problem of parity of length 1"
    ):
        lw.problems("parity", 1, "test")[0]
    said = "the train split holds no problem of turing_machine of size 4x2 that ends within 2 rows"
    with pytest.raises(lw.InputError, match=said):
        lw.problems("turing_machine", "4x2")[0]
