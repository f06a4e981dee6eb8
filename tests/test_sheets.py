"""Sheets as tokens: where each lies, what a query sees, and every way through the model, which agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.bias import CalibratedBias, Line, Track
from lengthwise.decoding import sheets as decoding
from lengthwise.decoding.sheets import SightTable, decode_one_by_one, decode_sheets
from lengthwise.locality import NotApplicableError, SheetContexts, cone_of_sheet
from lengthwise.locality.patches import patches
from lengthwise.model import Transformer
from lengthwise.model.sheets import logits_of_sights, sheet_logits, through_lines
from lengthwise.problems.sampling import generator, in_split
from lengthwise.problems.sheet_rule import rule_of
from lengthwise.problems.sheet_sampling import suite_sheets, training_sheets
from lengthwise.problems.sheet_text import Sheet
from lengthwise.problems.sheets import Seen, SheetLayout, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets, write_sheets
from lengthwise.tasks import make_task
from lengthwise.tasks.near import CLOSED, Near
from sheet_rules import Aside, Growing, Made, Shrinking, random_operands

HEADS, LAYERS = 3, 2
OWN = (
    "last",
    "sheet[r-1,c+1].digit",
    "sheet[r,c-1].carry",
    "sheet[r,c].digit",
    "sheet[r-1,c].carry",
)
CROSS = ("a[c]", "a[c-1]", "b[r]", "b[r+1]", "*")
TASK = make_task("multiplication", 3)


def make_model(seed: int, tokens: int) -> Transformer:
    """A small model without positions, all of its weights random."""
    torch.manual_seed(seed)
    model = Transformer(
        tokens, width=12, heads=HEADS, layers=LAYERS, feed_forward=20, positions="none"
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


@st.composite
def biases(draw) -> CalibratedBias:
    """Lines near the cell: of the first layer any, of later ones the token before."""
    lines = []
    for head in range(HEADS):
        lines += [Line(text, head) for text in draw(st.lists(st.sampled_from(CROSS), max_size=2))]
        own = draw(st.lists(st.sampled_from(OWN), max_size=2))
        # The token before may be what another line leads to; such a head has no sights.
        lines += [Line(text, head, 0) for text in (["last"] if "last" in own else own)]
        lines += [Line("last", head, 1)] * draw(st.booleans())
    return CalibratedBias("multiplication", HEADS, lines)


def draw_group(size: Size, seed: int, count: int = 3):
    layout = SheetLayout(TASK, size)
    operands = np.random.default_rng(seed).integers(0, 3, (count, 2, layout.width), np.uint8)
    return (layout, *layout.batch(operands)), operands


sizes = st.builds(Size, st.integers(1, 4), st.integers(1, 4))


@given(st.lists(sizes, min_size=1, max_size=3), st.integers(0, 10**6))
def test_queries_see_what_stands_there(chosen, seed):
    """Against the cells themselves, of problems of unequal sizes side by side."""
    groups = [draw_group(size, seed)[0] for size in chosen]
    sheets = Sheets(groups)
    texts = [*OWN[1:], *CROSS[:4]]
    seen = sheets.seen([Track.parse(text) for text in texts])
    names, flat = [field.name for field in TASK.fields], 0
    for layout, source, target in groups:
        for own, tokens in zip(source.tolist(), target.tolist(), strict=True):
            digits = {
                name: own[span.start : span.stop][::-1]
                for name, span in layout.source_spans.items()
            }
            cells: dict = {}
            row = column = field = 0
            for before, wanted in itertools.pairwise(tokens):
                if wanted < 0:
                    flat += 1
                    continue
                assert int(sheets.inputs[0, flat]) == before
                assert int(sheets.wanted[0, flat]) == wanted
                place = int(sheets.row[flat]), int(sheets.column[flat]), int(sheets.field[flat])
                assert place == (row, column, field)
                for text, found in zip(texts, seen[:, flat].tolist(), strict=True):
                    near = Near.parse(text)
                    if near.segment == "sheet":
                        at = row + near.row, column + near.column, names.index(near.field)
                        expected = cells.get(at, CLOSED)
                    else:
                        at = column + near.column if near.row is None else row + near.row
                        held = digits[near.segment]
                        expected = held[at] if 0 <= at < len(held) else CLOSED
                    assert found == expected, (text, place)
                cells[row, column, field] = wanted
                if TASK.tokens[wanted] == ";":
                    row, column, field = row + 1, 0, 0
                else:
                    field = (field + 1) % 2
                    column += field == 0
                flat += 1
    assert flat == sheets.target_length


@settings(max_examples=20)
@given(biases(), st.lists(sizes, min_size=1, max_size=3), st.integers(0, 10**6))
def test_lines_and_matrices_and_sights_give_the_same_logits(bias, chosen, seed):
    model = make_model(seed, len(TASK.tokens))
    groups = [draw_group(size, seed)[0] for size in chosen]
    with torch.inference_mode():
        together = through_lines(model, bias, groups, LAYERS)
        first = 0
        for group in groups:
            layout, source, target = group
            alone = sheet_logits(model, bias, layout, source, target, [], LAYERS)
            stop = first + alone.shape[0] * alone.shape[1]
            torch.testing.assert_close(alone.flatten(0, 1), together[first:stop])
            # One problem by whole matrices.
            dense = through_lines(model, bias, [(layout, source[:1], target[:1])], LAYERS, "dense")
            torch.testing.assert_close(dense, alone[0], atol=1e-4, rtol=1e-4)
            first = stop
        tracks = [*map(str, cone_of_sheet(TASK, bias, LAYERS)), "last"]
        seen = Sheets(groups).seen([Track.parse(track) for track in tracks])
        for share in (True, False):
            by_sight = logits_of_sights(model, bias, Seen(TASK, tracks, seen), "lines", share)
            torch.testing.assert_close(by_sight, together, atol=1e-4, rtol=1e-4)


@settings(max_examples=20)
@given(biases(), sizes, st.integers(0, 10**6), st.booleans())
def test_waves_write_what_one_token_after_the_other_gives(bias, size, seed, whole):
    """Untrained models end rows anywhere, and sheets anywhere or nowhere."""
    model = make_model(seed, len(TASK.tokens))
    (layout, _, _), operands = draw_group(size, seed, 2)
    table = SightTable(model, bias, TASK)
    if not whole:  # as for more sights than a table can hold
        table.whole = False
        table.values, table.losses = table.values[:0], table.losses[:0]
    waves = decode_sheets(model, bias, layout, operands, table=table)
    for problem in range(2):
        one = decode_one_by_one(model, bias, layout, operands[problem : problem + 1])
        tokens = one.tokens(0).tolist()
        assert waves.tokens(problem).tolist()[: len(tokens)] == tokens
        assert bool(waves.ended[problem]) == bool(one.ended[0])


def test_a_trained_models_sheets_are_the_same_either_way(multiplication):
    run = multiplication
    layout = run.config.layout(Size(5, 4))
    operands = np.random.default_rng(0).integers(0, 10, (1, 2, 5), np.uint8)
    waves = decode_sheets(run.model, run.bias, layout, operands)
    one = decode_one_by_one(run.model, run.bias, layout, operands)
    assert waves.same_as(one).tolist() == [True]
    assert waves.same_as(true_sheets(run.task, layout.parts(operands), **layout.limits))[0]


def test_large_tables_are_kept_by_the_sights_met(monkeypatch, multiplication):
    run, layout = multiplication, multiplication.config.layout(Size(6, 6))
    operands = np.random.default_rng(0).integers(0, 10, (3, 2, 6), np.uint8)
    small = decode_sheets(run.model, run.bias, layout, operands)
    monkeypatch.setattr(decoding, "_ENTRIES", 10)
    assert decode_sheets(run.model, run.bias, layout, operands).same_as(small).all()


@pytest.mark.parametrize("base", [2, 3])
def test_sights_are_those_of_sheets(base):
    """Every sight of a real sheet is listed, with what is written there; of base 2 no other."""
    task = make_task("multiplication", base)
    tracks = [Track.parse(text) for text in ("a[c]", "b[r]", "sheet[r-1,c+1].digit")]
    sights = SheetContexts(task, tracks).sights
    listed = dict(zip(map(bytes, sights.tokens.T), sights.wanted.tolist(), strict=True))
    met = {}
    for columns in range(1, 5):
        for rows in range(1, 5):
            layout = SheetLayout(task, Size(columns, rows))
            count = base ** (columns + rows)
            numbers = (
                np.arange(count)
                if count < 2000
                else np.random.default_rng(0).integers(0, count, 2000)
            )
            operands = np.zeros((len(numbers), 2, layout.width), np.uint8)
            for k in range(columns + rows):
                place = (0, k) if k < columns else (1, k - columns)
                operands[:, place[0], place[1]] = numbers // base**k % base
            sheets = Sheets([(layout, *layout.batch(operands))])
            seen = sheets.seen([*tracks, Track("last")])
            for sight, wanted in zip(map(bytes, seen.T), sheets.wanted[0].tolist(), strict=True):
                if wanted >= 0:
                    assert listed[sight] == wanted
                    met[sight] = wanted
    assert not sights.unclear
    if base == 2:
        assert met == listed


def test_lines_that_do_not_tell_every_symbol_are_known():
    tracks = [Track.parse(text) for text in ("a[c]", "b[r]")]
    contexts = SheetContexts(make_task("multiplication", 2), tracks)
    assert not contexts.suffice()
    texts = contexts.task.tokens
    unclear = {
        contexts.sights.words(case): {texts[token] for token in tokens}
        for case, tokens in contexts.sights.unclear.items()
    }
    assert unclear["a[c] 0, b[r] 0, last ;"] == {"0", "1"}


def test_rules_that_see_too_far_are_said_so():
    class Far(Made):
        follows = ("a[c]", "b[r]", "sheet[r-2,c].x", "sheet[r,c-1].y")

    with pytest.raises(NotApplicableError, match="the rule sees 2 rows up"):
        SheetContexts(Far(2), [Track.parse("a[c]")]).suffice()


@pytest.mark.trains
@pytest.mark.parametrize("rule", [Made, Aside, Growing, Shrinking])
def test_patches_hold_what_stands_on_sheets(rule):
    task = rule(2)
    views = patches(task).project(task.nears).rows
    look = [dict(values) for values in task.alphabets]
    shown = set()
    true = rule_of(task)

    def spy(field, seen):
        shown.update(
            zip(
                *(map(table.get, row.tolist()) for table, row in zip(look, seen, strict=True)),
                strict=True,
            )
        )
        return true(field, seen)

    for seed in range(40):
        columns, rows = 1 + seed % 4, 1 + seed // 4 % 4
        operands = random_operands(task, seed, 20, columns, rows)
        write_sheets(task, operands, task.nears, spy, columns=12, rows=6)
    assert len(shown) > 20
    assert shown <= views


@pytest.mark.parametrize("suite", ["uniform", "hard"])
@pytest.mark.parametrize("size", [Size(4, 4), Size(7, 2), Size(2, 7)], ids=str)
def test_suites_have_problems_of_their_size(suite, size):
    task = make_task("multiplication", 10)
    problems = suite_sheets(task, generator(1, "any"), 400, suite=suite, size=size, split="any")
    assert problems.shape == (400, 2, size.longest)
    assert not problems[:, 0, size.columns :].any()
    assert not problems[:, 1, size.rows :].any()
    tops = problems[:, 0, size.columns - 1], problems[:, 1, size.rows - 1]
    if suite == "uniform":
        assert all(top.all() for top in tops)
        return
    nines = (problems[:, 0, : size.columns] == 9).all(axis=1)
    assert nines.sum() >= 60 + 20  # 9...9 by 9...9, and by 10...01
    assert ((problems[:, :, 1:] == 0).all(axis=(1, 2))).sum() >= 60  # 0...02


def test_splits_of_sheets_are_disjoint():
    task, size = make_task("multiplication", 10), Size(3, 3)
    drawn = {
        split: training_sheets(task, generator(0, split), 500, size=size, large=0.5, split=split)
        for split in ("train", "validation")
    }
    for split, problems in drawn.items():
        assert in_split(task, problems, split).all()
    assert not {*map(bytes, drawn["train"])} & {*map(bytes, drawn["validation"])}


def test_sizes_are_read_as_they_are_written():
    assert Size.parse("20x15") == Size(20, 15)
    assert Size.parse(" 7 ") == Size(7, 7)
    for text in ("", "x", "0x3", "3x0", "3x", "x3", "3x3x3", "-3", "3.0"):
        with pytest.raises(ValueError, match="a size is written like 20x15"):
            Size.parse(text)


def test_a_sheet_shows_itself_as_people_write_it():
    task = make_task("multiplication", 10)
    layout = SheetLayout(task, Size(3, 2))
    parts = layout.parts(np.array([[[3, 2, 1], [5, 4, 0]]], np.uint8))
    sheet = Sheet.of(true_sheets(task, parts, **layout.limits), parts)
    assert str(sheet).splitlines() == [
        "b[0] = 5     0 6 1 5   carry 0 0 1 1",
        "b[1] = 4   0 5 5 3     carry 0 0 1 1",
        "             5 5 3 5",
    ]
    assert sheet.answer == "5535"


def test_lines_to_other_cells_belong_to_the_first_layer():
    for layer in (None, 1):
        bias = CalibratedBias("multiplication", 1, [Line("sheet[r-1,c+1].digit", 0, layer)])
        with pytest.raises(NotApplicableError, match="in a layer past the first"):
            cone_of_sheet(TASK, bias, 2)
    assert cone_of_sheet(TASK, CalibratedBias("multiplication", 1, [Line("a[c]")]), 2)


def test_lines_that_no_table_can_be_made_of_are_followed_one_token_after_the_other(multiplication):
    """A line to another cell in the second layer: what stands there is no token."""
    bias = multiplication.bias
    deep = CalibratedBias(bias.format, bias.heads, [*bias.lines, Line("sheet[r-1,c].digit", 0, 1)])
    layout = multiplication.config.layout(Size(3, 2))
    operands = np.random.default_rng(0).integers(0, 10, (2, 2, 3), np.uint8)
    assert decoding.make_sight_table(multiplication.model, deep, multiplication.task) is None
    written = decode_sheets(multiplication.model, deep, layout, operands)
    source, target = layout.batch(operands)
    with torch.inference_mode():
        for problem in range(2):
            tokens = written.tokens(problem)
            given = torch.tensor([[layout.vocabulary.start, *tokens]])
            logits = through_lines(
                multiplication.model, deep, [(layout, source[problem : problem + 1], given)], 2
            )
            assert logits.argmax(dim=-1).tolist() == tokens.tolist()
    assert target.shape[0] == 2


def test_a_head_that_may_read_one_token_twice_has_no_sights():
    lines = [Line("last", 0, 0), Line("sheet[r,c-1].carry", 0, 0)]
    bias = CalibratedBias("multiplication", 1, lines)
    with pytest.raises(NotApplicableError, match="may be one token, read once"):
        cone_of_sheet(TASK, bias, 2)
    apart = CalibratedBias("multiplication", 2, [lines[0], Line("sheet[r,c-1].carry", 1, 0)])
    assert len(cone_of_sheet(TASK, apart, 2)) == 1


def test_sights_past_a_number_of_64_bits_have_no_table(monkeypatch, multiplication):
    monkeypatch.setattr(decoding, "_MOST", 1000)
    with pytest.raises(NotApplicableError, match="too much for a table"):
        SightTable(multiplication.model, multiplication.bias, multiplication.task)
    layout = multiplication.config.layout(Size(2, 1))
    operands = np.array([[[3, 4], [5, 0]]], np.uint8)
    written = decode_sheets(multiplication.model, multiplication.bias, layout, operands)
    assert multiplication.task.answer(written.values(0)) == [5, 1, 2]


@pytest.mark.parametrize(
    "text",
    ["sheet[c+1,r-1].digit", "sheet[r,c+1].digit", "sheet[r+1,c].digit", "sheet[r-1,c].mark"],
)
def test_lines_that_no_rule_could_name_have_no_sights(text):
    bias = CalibratedBias("multiplication", 1, [Line(text, 0, 0)])
    with pytest.raises(NotApplicableError, match="not near the cell being written"):
        cone_of_sheet(TASK, bias, 2)
