"""Worksheets against other programs: integers, `sorted`, cellpylib, automata-lib; and exhaustively."""

from __future__ import annotations

from itertools import product

import cellpylib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from automata.tm.dtm import DTM
from hypothesis import given, settings
from hypothesis import strategies as st

import lengthwise as lw
from lengthwise.bias import Track
from lengthwise.calibration.evidence import SheetEvidence
from lengthwise.calibration.sheet_sets import fewest
from lengthwise.errors import NoProblemsError
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sheet_sampling import of_split, suite_sheets, training_sheets
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size, size_of
from lengthwise.problems.wavefront import true_sheets
from lengthwise.report.sheet_plots import sheet_picture
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import DIGITS, WORKSHEETS, make_task
from lengthwise.tasks.machine import read_machine, shipped
from lengthwise.tasks.near import Axis, Near
from lengthwise.training.batches import make_batches


def sheet_of(task, expression, rows=None) -> Sheet:
    """The right sheet of an expression."""
    parts = task.parse(expression)
    size = size_of(task, parts)
    layout = SheetLayout(task, size if rows is None else Size(size.columns, rows))
    operands = layout.parts(digits_of(task, parts, layout.width))
    return Sheet.of(true_sheets(task, operands, **layout.limits), operands)


def in_base(number: int, base: int) -> str:
    text = ""
    while number or not text:
        number, digit = divmod(number, base)
        text = DIGITS[digit] + text
    return text


@pytest.mark.parametrize("name", sorted(WORKSHEETS))
def test_examples_are_right(name):
    task = make_task(name)
    assert sheet_of(task, task.example[0], 100 if task.endless else None).answer == task.example[1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=14))
def test_lists_are_sorted(keys):
    expression = ",".join(map(str, keys))
    assert sheet_of(make_task("sorting"), expression).answer == ",".join(map(str, sorted(keys)))


def test_all_lists_of_four_keys_are_sorted():
    task, size = make_task("sorting", 5), Size(4, 4)
    layout = SheetLayout(task, size)
    lists = np.array([*product(range(5), repeat=4)], np.uint8)[:, None]
    written = true_sheets(task, layout.parts(lists), **layout.limits)
    for number, keys in enumerate(lists[:, 0].tolist()):
        assert task.answer(written.values(number)) == sorted(keys)


@given(st.integers(0, 10**12), st.sampled_from([(10, 2), (10, 16), (2, 10), (16, 3), (36, 35)]))
def test_numbers_are_converted(number, bases):
    source, target = bases
    task = make_task("base_conversion", source, to=target)
    assert sheet_of(task, in_base(number, source)).answer == in_base(number, target)


@settings(max_examples=40)
@given(st.integers(0, 10**7), st.integers(1, 10**4), st.sampled_from([10, 2, 16]))
def test_quotient_and_remainder(a, b, base):
    quotient, remainder = (in_base(number, base) for number in divmod(a, b))
    answer = sheet_of(make_task("division", base), f"{in_base(a, base)}/{in_base(b, base)}").answer
    assert answer == f"{quotient} r {remainder}"


def test_all_divisions_of_three_by_two_digits():
    task, layout = make_task("division", 4), SheetLayout(make_task("division", 4), Size(2, 3))
    pairs = [(a, b) for a in range(64) for b in range(1, 16)]
    digits = np.zeros((len(pairs), 2, 3), np.uint8)
    digits[:, 0] = [[a // 16, a // 4 % 4, a % 4] for a, _ in pairs]
    digits[:, 1, :2] = [[b % 4, b // 4] for _, b in pairs]
    written = true_sheets(task, layout.parts(digits), **layout.limits)
    for number, (a, b) in enumerate(pairs):
        quotient, remainder = divmod(a, b)
        said = task.read(task.answer(written.values(number)))
        assert said == f"{in_base(quotient, 4)} r {in_base(remainder, 4)}"


def with_fixed_border(cells, rule, generations):
    """By cellpylib, whose rows are periodic: a cell at either end stays 0."""
    last = len(cells) + 1

    def step(neighbours, cell, _):
        inside = 0 < cell < last
        return cellpylib.nks_rule(neighbours, rule) if inside else 0

    grid = cellpylib.evolve(np.array([[0, *cells, 0]]), timesteps=generations, apply_rule=step, r=1)
    return grid[:, 1:-1]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=9), st.integers(0, 255), st.integers(1, 8))
def test_generations(cells, rule, generations):
    expression = "".join(map(str, cells)) + "|" * generations
    sheet = sheet_of(make_task("cellular_automaton", rule=rule), expression)
    grid = with_fixed_border(cells, rule, generations)
    assert [row[:, 0].tolist() for row in sheet.rows] == grid.tolist()
    assert sheet.answer == "".join(map(str, grid[-1]))


def by_automata(machine, tape: str, steps: int) -> str | None:
    """The tape on which a machine halts, by automata-lib; None where it does not within so many steps.

    It has a marker on the left, from which the head goes back: the tape has an end there.
    """
    names, symbols = machine.every_state, machine.symbols
    moves = {-1: "L", 0: "N", 1: "R"}
    transitions: dict = {state: {"#": (state, "#", "R")} for state in machine.states}
    for (state, symbol), (written, way, after) in machine.table.items():
        step = (names[after], symbols[written], moves[way])
        transitions[names[state]][symbols[symbol]] = step
    for state in machine.halting:  # which may be reached by a move to the left
        transitions[state + "_"] = {"#": (state, "#", "R")}
        transitions[state + "_"] |= {symbol: (state, symbol, "N") for symbol in symbols}
    for row in transitions.values():
        for symbol, (after, written, way) in row.items():
            if after in machine.halting and way == "L":
                row[symbol] = (after + "_", written, way)
    start = "begin"
    transitions[start] = {"#": (names[machine.start], "#", "R")}
    other = DTM(
        states={start, *names, *transitions},
        input_symbols={*symbols, "#"} - {symbols[machine.blank]},
        tape_symbols={*symbols, "#"},
        transitions=transitions,
        initial_state=start,
        blank_symbol=symbols[machine.blank],
        final_states={*machine.halting},
    )
    for count, configuration in enumerate(other.read_input_stepwise("#" + tape)):
        if configuration.state in machine.halting:
            return "".join(configuration.tape.tape)[1:].rstrip(symbols[machine.blank])
        if count > 4 * steps:
            return None
    raise AssertionError("it rejects nothing")


@pytest.mark.parametrize(
    "name",
    [
        "increment",
        *(pytest.param(n, marks=pytest.mark.slow) for n in shipped() if n != "increment"),
    ],
)
def test_every_tape_of_five_cells(name):
    task, machine = make_task("turing_machine", machine=name), read_machine(name)
    some = machine.symbols if len(machine.symbols) < 5 else machine.symbols[:4]
    tapes = ["".join(tape) for tape in product(some, repeat=5)]
    size, most = Size(5, 60), 60
    layout = SheetLayout(task, size)
    operands = np.concatenate([digits_of(task, task.parse(tape), most) for tape in tapes])
    written = true_sheets(task, layout.parts(operands), **layout.limits)
    halted = 0
    for number, tape in enumerate(tapes):
        other = by_automata(machine, tape, most)
        if not written.ended[number]:
            assert other is None or len(written.values(number)) == most
            continue
        halted += 1
        said = task.read(task.answer(written.values(number)))
        assert said.rstrip(machine.symbols[machine.blank]) == other
    assert halted > len(tapes) // 8


def test_machines_do_what_they_are_for():
    for tape, machine, answer in [
        ("01011", "increment", "01100"),
        ("0111", "increment", "1000"),
        ("abba", "palindrome", "__Y"),
        ("abab", "palindrome", "_baN"),
        ("abb=", "copy", "abb=abb"),
        ("0000(A)0000", "busy_beaver", "00011110"),
    ]:
        own = make_task("turing_machine", machine=machine)
        blank = own.machine.symbols[own.machine.blank]
        assert sheet_of(own, tape, 100).answer.strip(blank) == answer.strip(blank)


def test_the_universal_machine_runs_a_tag_system_to_its_end():
    """The tag system a -> a a, b halts, on the word a a b: one step, and the machine's 518 of it."""
    task = make_task("turing_machine", machine="universal")
    sheet = sheet_of(task, "xbb1b1bbb(q1)1c1c11111", 600)
    assert sheet.answer == "xyy1y1yyy11111111111c1c11111"
    assert len(sheet.rows) == 519


def test_a_move_to_the_left_of_the_first_cell_stays_and_no_row_has_two_heads():
    task = make_task("turing_machine", machine="busy_beaver")
    sheet = sheet_of(task, "(B)0(A)1(B)0", 3)
    texts = [[task.fields[0].texts[value] for value in row[:, 0]] for row in sheet.rows]
    assert texts[:2] == [["(B)0", "1.", "0."], ["(A)1", "1.", "0."]]
    nowhere = sheet_of(task, "0" + "1" * 3, 9)
    assert nowhere.rows[0][0, 0] == 2  # the first symbol, in the start state
    layout = SheetLayout(task, Size(3, 9))
    headless = true_sheets(task, layout.parts(np.zeros((1, 1, 9), np.uint8)), **layout.limits)
    assert headless.ended[0]
    assert len(headless.values(0)) == 1


@pytest.mark.parametrize(
    ("name", "parameters", "expression", "message"),
    [
        ("division", {}, "12/0", "divides by zero"),
        ("sorting", {"base": 5}, "1,7", "'7' is no key, which are 0 to 4"),
        ("sorting", {}, "5,12", "'12' is no key, which are 0 to 9"),
        ("sorting", {}, "52", "'52' is no key"),
        ("sorting", {}, "5,,2", "'' is no key"),
        ("sorting", {}, "", "'' is no key"),
        ("cellular_automaton", {}, "0120|", "unexpected '2'"),
        ("cellular_automaton", {}, "0110", "no digits for operand generations"),
        ("turing_machine", {}, "01z", "unexpected 'z' at position 3"),
        ("turing_machine", {}, "(nowhere)01", "no state 'nowhere' to start from"),
        ("turing_machine", {}, "", "is no tape"),
    ],
)
def test_bad_problems_are_refused_in_one_line(name, parameters, expression, message):
    with pytest.raises(lw.InputError, match=message) as error:
        make_task(name, **parameters).parse(expression)
    assert "\n" not in str(error.value)


GOOD = """
symbols = ["0", "1"]
blank = "0"
start = "a"
halting = ["h"]
[transitions.a]
0 = "1 R h"
1 = "1 R a"
"""


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('0 = "1 R h"', '0 = "2 R h"', "transitions.a.0 is written like"),
        ('0 = "1 R h"', '0 = "1 U h"', "transitions.a.0 is written like"),
        ('0 = "1 R h"', '0 = "1 R b"', "leads to 'b', no state"),
        ('0 = "1 R h"', '2 = "1 R h"', "has the symbol '2', which is none"),
        ('0 = "1 R h"\n', "", "has none for '0'; say halts_on_missing"),
        ('start = "a"', 'start = "b"', "start 'b' is no state"),
        ('blank = "0"', 'blank = "_"', "blank '_' is none of the symbols"),
        ('halting = ["h"]', "halting = []", "has halting states"),
        ('halting = ["h"]', 'halting = ["a"]', "'a' halts and goes on"),
        ('["0", "1"]', '["0", "0"]', "list of different texts"),
        ('["0", "1"]', '["0", "(", "1"]', "single characters"),
        ('["0", "1"]', '"01"', "is a list of texts"),
        ('start = "a"', 'start = "a"\nstep = 1', "has no 'step'"),
        ("[transitions.a]", "[transitions.a", "no TOML"),
        ("[transitions.a]", "[others]", "has no 'others'"),
        ("halting", "halts_on_missing = 1\nhalting", "true or false"),
    ],
)
def test_a_broken_machine_is_refused_in_one_line(before, after, message):
    assert read_machine(GOOD).states == ("a",)
    assert before in GOOD
    with pytest.raises(ValueError, match=message) as error:
        read_machine(GOOD.replace(before, after, 1))
    assert "\n" not in str(error.value)


def test_other_tasks_refuse_batches_of_all_numbers_of_rows():
    for name in ("data", "retraining"):
        with pytest.raises(lw.InputError, match=rf"{name}.widths=rows is of sheets"):
            config("addition", **{name: {"widths": "rows"}})


def test_an_unknown_machine_names_those_that_are_shipped():
    with pytest.raises(ValueError, match=r"there is no file 'machines/none.toml' for machine"):
        make_task("turing_machine", machine="machines/none.toml")
    with pytest.raises(ValueError, match="one of busy_beaver, copy, increment"):
        make_task("turing_machine", machine="nothing")


def test_missing_transitions_halt_where_the_machine_says_so():
    text = GOOD.replace('0 = "1 R h"\n', "").replace("[trans", "halts_on_missing = true\n[trans")
    task = make_task("turing_machine", machine=text)
    assert sheet_of(task, "1101", 20).answer == "1101"


def test_a_rule_of_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="rules of cellular_automaton are 0 to 255, got 256"):
        make_task("cellular_automaton", rule=256)
    with pytest.raises(ValueError, match="to a base from 2 to 36, got 1"):
        make_task("base_conversion", to=1)


@pytest.mark.parametrize("name", sorted(WORKSHEETS))
@pytest.mark.parametrize("seed", range(2))
def test_random_problems_end_within_their_room_and_come_back_from_text(name, seed):
    task, rng = make_task(name), np.random.default_rng(seed)
    for size in (Size(1, 1), Size(4, 3), Size(6, 6)):
        layout = SheetLayout(task, size)
        drawn = [training_sheets(task, rng, 40, size=size, large=0.5, split="any")]
        for suite in ("uniform", "hard"):
            drawn.append(suite_sheets(task, rng, 40, suite=suite, size=size, split="any"))
        for problems in drawn:
            true_sheets(
                task, layout.parts(problems), **layout.limits
            )  # raises where there is no end
            for own in problems[:10]:
                parts = []
                for segment, digits in zip(task.operands, own, strict=True):
                    texts = task.texts(segment.name)
                    part = [texts[digit] for digit in digits[: size.of(task, segment.name)]]
                    parts.append(part if segment.name in task.from_left else part[::-1])
                again = digits_of(task, task.parse(task.expression(parts)), layout.width)[0]
                if name != "turing_machine" or any("(" in cell for cell in parts[0]):
                    np.testing.assert_array_equal(again, own)


def config(task: str, **sections):
    return make_config({"task": task, **sections})


def test_lists_are_drilled_at_their_own_size_and_numbers_at_that_of_training():
    for task, drill, sizes in [
        ("sorting", ("3", "1,2", "4,5"), {"1x5": 1, "2x5": 2}),
        ("multiplication", ("3*4", "12*3"), {"3x3": 2}),
        ("division", ("12/3", "1/3"), {"1x2": 1, "1x1": 1}),
    ]:
        own = config(task, data={"drill": drill})
        batches = make_batches(own)
        assert {str(size): len(found) for size, found in batches.drill.items()} == sizes
        met = {str(batches.train(step).layout.size) for step in range(0, 40, 2)}
        assert met == set(sizes)


def test_batches_of_all_numbers_of_rows_have_the_same_columns():
    batches = make_batches(config("cellular_automaton"))
    sizes = {str(batches.train(step).layout.size) for step in range(40)}
    assert sizes == {"7x1", "7x2", "7x3", "7x4"}


def test_zeros_and_length_count_in_the_split_of_lists_and_the_shortest_are_all_trained_on():
    task, rng = make_task("sorting"), np.random.default_rng(0)
    few = training_sheets(task, rng, 400, size=Size(1, 1), large=0.0)
    assert {*few[:, 0, 0].tolist()} == {*range(10)}
    with pytest.raises(NoProblemsError):
        training_sheets(task, rng, 1, size=Size(2, 2), large=0.0, split="test")
    keys = rng.integers(0, 10, (4000, 1, 4), np.uint8)
    short = of_split(task, keys[:, :, :3], Size(3, 3), "train")
    zeros = keys.copy()
    zeros[:, :, 3] = 0
    longer = of_split(task, zeros, Size(4, 4), "train")
    assert 0.84 < short.mean() < 0.91
    assert 0.1 < (short != longer).mean() < 0.35  # two of sixteen parts are held out
    # Of numbers neither counts.
    product_, pairs = make_task("multiplication"), np.zeros((4000, 2, 4), np.uint8)
    pairs[:, :, :3] = keys[:, :, :3]
    same = of_split(product_, pairs[:, :, :3], Size(3, 3), "train")
    np.testing.assert_array_equal(same, of_split(product_, pairs, Size(4, 4), "train"))


def test_lists_are_never_padded_for_a_model_that_learned_one_size(tmp_path):
    for task, paddings in [("sorting", ("answer",)), ("multiplication", ("training", "answer"))]:
        run = Run.create(tmp_path / task, config(task), None)
        assert run.paddings(Size(2, 2)) == paddings


@pytest.mark.parametrize(
    ("text", "counter", "edge", "near"),
    [
        ("c", "c", None, "x[c+1]"),
        ("r", "r", None, "x[r+1]"),
        ("s", "s", None, "x[s+1]"),
        ("r-1,c", "c", "r", "x[r-1,c+1]"),
        ("s,c-1", "s", "c", "x[s+1,c-1]"),
    ],
)
def test_an_axis_is_written_as_a_cell_sees_it(text, counter, edge, near):
    axis = Axis.parse(text)
    assert (axis.counter, axis.edge) == (counter, edge)
    assert str(axis.near("x", 1)) == near
    assert axis.steps(Near.parse(near)) == 1
    assert axis.steps(Near.parse("x[c,r]" if edge is None else "x[r,c]")) is None


@pytest.mark.parametrize("text", ["", "r,c", "c-1", "r-2,c", "r-1,c-1", "r,s", "r+1,c", "C"])
def test_other_axes_are_refused(text):
    with pytest.raises(ValueError, match=r"no place|lies along"):
        Axis.parse(text)


def test_two_tokens_of_one_text_are_refused():
    class Twice(type(make_task("sorting"))):
        separators = ("5",)

    with pytest.raises(lw.InputError, match="has two tokens '5'"):
        _ = Twice().tokens


@pytest.mark.trains
@pytest.mark.parametrize("name", sorted(WORKSHEETS))
def test_pictures_of_sheets(name, tmp_path):
    task = make_task(name)
    sheet = sheet_of(task, task.example[0], 12 if task.endless else None)
    path = sheet_picture(sheet, tmp_path / "sheet.png")
    assert plt.imread(path).std() > 0.05


@pytest.mark.slow
def test_the_fewest_lines_are_found_among_more():
    """Lines that tell less, or the same in more ways, do not take the place of those of the rule."""
    for name, base, more in [
        ("sorting", 2, ["sheet[r,c-1].key", "keys[r-1,c-1]"]),
        ("division", 2, ["/"]),
        ("base_conversion", 3, ["sheet[r-1,c].carry", "number[r-1]"]),
    ]:
        task = make_task(name, base)
        lines = [text for text in task.follows if text != "before"]
        found = [SheetEvidence(Track.parse(text), 1.0, 1.0, (1.0,) * 4) for text in [*more, *lines]]
        chosen = fewest(task, Size(3, 3), found)
        assert {str(item.track) for item in chosen} == set(lines)
        # Without one of them, nothing else tells the symbols.
        rest = [item for item in found if str(item.track) != lines[0]]
        assert not fewest(task, Size(3, 3), rest)
