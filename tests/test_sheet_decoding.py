"""What a model writes on a sheet is its own: one token after the other, whatever the limits."""

from __future__ import annotations

import io
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.bias import CalibratedBias, Line, Track
from lengthwise.cli import entry
from lengthwise.decoding.sheets import SightTable, decode_one_by_one, decode_sheets
from lengthwise.model import Transformer
from lengthwise.model.sheets import through_lines
from lengthwise.problems.format import Format
from lengthwise.problems.sheet_sampling import training_sheets
from lengthwise.problems.sheets import SheetLayout, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks import make_task
from test_sheets import LAYERS, TASK, biases, make_model
from test_wavefront import products

sizes = st.builds(Size, st.integers(1, 3), st.integers(1, 3))


class Roomy(SheetLayout):
    """A layout with other limits."""

    room = 0

    @property
    def limits(self):
        return {name: limit + self.room for name, limit in super().limits.items()}


def draw(size: Size, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TASK.base, (1, 2, size.longest), np.uint8)


def write_by_prefix(model, bias, layout, operands) -> tuple[list[int], bool]:
    """Every token by a whole pass over all before it, until the end, or what can't stand there."""
    source, tokens = layout.source(operands), [layout.vocabulary.start]
    separator, end = TASK.token(";"), TASK.token("$")
    row = column = field = 0
    limits = layout.limits
    while row <= limits["rows"] and column <= limits["columns"]:
        target = torch.tensor([[*tokens, 0]])  # what is to be written is not seen
        logits = through_lines(model, bias, [(layout, source, target)], LAYERS)
        tokens.append(int(logits[-1].argmax()))
        value = tokens[-1] - TASK.first_token[field]
        if field == 0 and tokens[-1] == end:
            return tokens[1:], True
        if field == 0 and tokens[-1] == separator:
            row, column = row + 1, 0
        elif 0 <= value < TASK.fields[field].size:
            field = 1 - field
            column += field == 0
        else:
            break
    return tokens[1:], False


@settings(max_examples=15)
@given(biases(), sizes, st.integers(0, 10**6))
@torch.inference_mode()
def test_every_token_follows_from_the_whole_prefix(bias, size, seed):
    model, operands = make_model(seed, len(TASK.tokens)), draw(size, seed)
    layout = SheetLayout(TASK, size)
    written = decode_sheets(model, bias, layout, operands)
    tokens, ended = write_by_prefix(model, bias, layout, operands)
    own = written.tokens(0).tolist()
    most = min(len(own), len(tokens))  # what is past a limit may be cut off at either
    assert own[:most] == tokens[:most]
    assert bool(written.ended[0]) == ended
    if ended:
        assert len(own) == len(tokens)
    else:
        assert abs(len(own) - len(tokens)) <= 1 + len(TASK.fields)


def test_a_trained_model_follows_the_whole_prefix(multiplication):
    run = multiplication
    layout = run.config.layout(Size(2, 2))
    source, target = layout.batch(np.array([[[7, 8], [9, 6]]], np.uint8))
    with torch.inference_mode():
        for stop in range(1, target.shape[1]):
            prefix = target[:, : stop + 1].clone()
            prefix[:, stop] = 0
            logits = through_lines(run.model, run.bias, [(layout, source, prefix)], 2)
            assert int(logits[-1].argmax()) == int(target[0, stop])


@settings(max_examples=20)
@given(biases(), sizes, st.integers(0, 10**6), st.integers(1, 9))
def test_limits_change_nothing_before_them(bias, size, seed, room):
    """The model alone ends rows and sheets: one that ends is the same in any room."""
    model, operands = make_model(seed, len(TASK.tokens)), draw(size, seed)
    table = SightTable(model, bias, TASK)
    layout, roomy = SheetLayout(TASK, size), Roomy(TASK, size)
    roomy.room = room
    near = decode_sheets(model, bias, layout, operands, table=table)
    far = decode_sheets(model, bias, roomy, operands, table=table)
    tokens, more = near.tokens(0).tolist(), far.tokens(0).tolist()
    assert more[: len(tokens)] == tokens
    if near.ended[0]:
        assert far.ended[0]
        assert more == tokens


def test_a_trained_models_sheets_end_where_they_should_in_any_room(multiplication):
    run, size = multiplication, Size(4, 3)
    operands = np.random.default_rng(2).integers(0, 10, (20, 2, 4), np.uint8)
    roomy = Roomy(run.task, size)
    roomy.room = 60
    written = decode_sheets(run.model, run.bias, roomy, operands)
    layout = run.config.layout(size)
    truth = true_sheets(run.task, layout.parts(operands), **layout.limits)
    for problem in range(20):
        assert written.ended[problem]
        assert written.tokens(problem).tolist() == truth.tokens(problem).tolist()


@pytest.mark.trains
@pytest.mark.parametrize("base", [13, 16, 20])
def test_products_of_large_bases_are_those_of_whole_numbers(base):
    task, rng = make_task("multiplication", base), np.random.default_rng(base)
    operands = rng.integers(0, base, (40, 2, 5), np.uint8)
    operands[:2] = base - 1
    values = [
        [sum(int(d) * base**k for k, d in enumerate(own)) for own in pair] for pair in operands
    ]
    assert products(task, 5, 5, operands) == [a * b for a, b in values]


@pytest.fixture
def solve(multiplication, capsys, monkeypatch):
    """Answer lines from stdin: code, stdout, stderr."""

    def run(text: str, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code = entry.run(["solve", str(multiplication.path), "-", *more])
        return code, *capsys.readouterr()

    return run


def test_lines_of_unequal_sizes_are_answered_in_order(solve):
    pairs = [(9, 9), (0, 0), (12345678901234567890, 3), (7, 10**25 + 7), (99, 99), (5, 0)]
    code, out, err = solve("".join(f"{a}*{b}\n" for a, b in pairs))
    assert (code, err) == (0, "")
    assert out == "".join(f"{a * b}\n" for a, b in pairs)


def test_what_is_no_product_is_told_by_its_line_and_the_rest_is_answered(solve):
    code, out, err = solve("12*12\n\n3+4\n0012*0003\n*5\n6*7\n")
    assert code == 2
    assert out == "144\n\n\n36\n\n42\n"
    told = err.splitlines()
    assert [line.split(":")[1] for line in told] == [" line 3", " line 5"]
    assert "unexpected '+' at position 2 of '3+4'" in told[0]


def test_work_of_lines_is_json(solve):
    code, out, _ = solve("2*3\n34*12\n", "--json", "--show-work")
    assert code == 0
    assert json.loads(out) == [
        {"line": 1, "expression": "2*3", "answer": "6", "work": "6 '0 0 '0 ; $"},
        {
            "line": 2,
            "expression": "34*12",
            "answer": "408",
            "work": "8 '0 6 '0 0 '0 ; 0 '1 4 '0 0 '0 ; $",
        },
    ]


def test_zeros_on_the_left_are_written_where_a_model_is_asked_with_them(multiplication):
    """0...02 x 0...02 as the hard suite asks it: rows of zeros, and zeros in every row."""
    run, size = multiplication, Size(6, 5)
    operands = np.zeros((100, 2, 6), np.uint8)
    for problem, (a, b) in enumerate(itertools.product(range(10), repeat=2)):
        operands[problem, :, 0] = a, b
    written = decode_sheets(run.model, run.bias, run.config.layout(size), operands)
    for problem, (a, b) in enumerate(itertools.product(range(10), repeat=2)):
        rows = written.values(problem)
        assert written.ended[problem]
        assert [len(row) for row in rows] == [7] * 5
        digits = run.task.answer(rows)
        assert sum(d * 10**k for k, d in enumerate(digits)) == a * b


WORKSHEETS_TRIED = [
    ("sorting", 3, {}),
    ("base_conversion", 3, {"to": 2}),
    ("division", 3, {}),
    ("cellular_automaton", 2, {"rule": 30}),
    ("turing_machine", 2, {"machine": "busy_beaver"}),
]


def model_of_follows(format: Format, seed: int):
    """A random model that reads what the rule of its task follows from, a head for each."""
    lines = [text for text in format.task.follows if text != "before"]
    heads = len(lines) + 1
    bias = CalibratedBias(
        format,
        heads,
        [
            *(
                Line(text, head, 0 if text.startswith("sheet") else None)
                for head, text in enumerate(lines)
            ),
            Line("last", heads - 1, 0),
            *(Line("last", head, 1) for head in range(heads)),
        ],
    )
    torch.manual_seed(seed)
    tokens = len(format.task.tokens)
    model = Transformer(
        tokens, width=4 * heads, heads=heads, layers=2, feed_forward=20, positions="none"
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.4 * torch.randn_like(weight))
    return model.eval(), bias


@pytest.mark.trains
@pytest.mark.parametrize(("name", "base", "parameters"), WORKSHEETS_TRIED, ids=lambda v: str(v))
def test_waves_write_what_one_token_after_the_other_writes(name, base, parameters):
    """Edges, counters of kinds, separators of several kinds: all follow from what a model wrote."""
    format = Format(name, base, parameters)
    lengths, ends = set(), 0
    for seed in range(60):
        model, bias = model_of_follows(format, seed)
        layout = format.at(Size(3, 4))
        operands = training_sheets(
            format.task, np.random.default_rng(seed), 1, size=layout.size, large=0.0, split="any"
        )
        written = decode_sheets(model, bias, layout, operands)
        one = decode_one_by_one(model, bias, layout, operands)
        own, other = written.tokens(0).tolist(), one.tokens(0).tolist()
        most = min(len(own), len(other))  # what is past a limit may be cut off at either
        assert own[:most] == other[:most]
        assert bool(written.ended[0]) == bool(one.ended[0])
        lengths.add(most)
        ends += bool(one.ended[0])
    assert len(lengths) > 3
    assert ends


@pytest.mark.parametrize(("name", "base", "parameters"), WORKSHEETS_TRIED, ids=lambda v: str(v))
def test_the_rule_itself_written_token_by_token_is_the_sheet(name, base, parameters):
    """What stands at each coordinate of a right sheet is what the rule was given there."""
    format = Format(name, base, parameters)
    task, layout = format.task, format.at(Size(4, 3))
    operands = training_sheets(
        task, np.random.default_rng(1), 30, size=layout.size, large=0.3, split="any"
    )
    source, target = layout.batch(operands)
    sheets = Sheets([(layout, source, target)])
    follows = [text for text in task.follows if text != "before"]
    seen = sheets.seen([Track.parse(text) for text in follows])
    wanted, field = sheets.wanted[0].numpy(), sheets.field.numpy()
    symbols = [dict(values) for values in task.alphabets]
    last = sheets.inputs[0].numpy()
    for query in np.flatnonzero((field == 0) & (wanted >= 0)).tolist():
        given = iter(seen[:, query].tolist())
        tokens = [last[query] if text == "before" else next(given) for text in task.follows]
        cell = task.written([own[token] for own, token in zip(symbols, tokens, strict=True)])
        assert wanted[query] == cell[0]
