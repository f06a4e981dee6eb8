"""What tokens are told by, against where the layouts of biases find them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lengthwise.problems.layout import ANSWER, COLUMN, ROW, Layout
from lengthwise.problems.sheet_sampling import training_sheets
from lengthwise.problems.sheets import SheetLayout, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.problems.tokens import axes_of, extent_of, source_tokens, target_tokens
from lengthwise.tasks import TASKS, WORKSHEETS
from lengthwise.tasks.near import SHEET


@pytest.mark.parametrize("alignment", ["natural", "interleaved"])
@pytest.mark.parametrize("order", ["normal", "reversed"])
@pytest.mark.parametrize("name", list(TASKS))
def test_digits_are_where_their_columns_are_found(name, alignment, order):
    layout = Layout(TASKS[name](), 5, alignment, order)
    tokens, seen = source_tokens(layout), 0
    for number, segment in enumerate(layout.task.segments):
        if not segment.grows:
            continue
        for column in range(5):
            place, inside = layout.find(segment.name, [torch.tensor(column)])
            assert inside
            assert tokens.coordinates[COLUMN][0, place] == column
            assert tokens.known[COLUMN][0, place]
            assert tokens.segment[0, place] == number
            seen += 1
    symbols = [segment for segment in layout.task.segments if segment.kind == "symbol"]
    assert int(tokens.operator.sum()) == len(symbols)
    assert int(tokens.known[COLUMN].sum()) == layout.source_length - len(symbols)
    assert seen
    # Rows read what the answer's columns say.
    read = target_tokens(layout, torch.zeros(1, layout.target_length, dtype=torch.int64))
    if layout.task.writes is None:
        for column in range(-1, 5):
            place, inside = layout.find(ANSWER, [torch.tensor(column)])
            assert inside
            assert read.coordinates[COLUMN][0, place] == column
    assert torch.equal(
        torch.cat([tokens.place, read.place]),
        torch.arange(layout.source_length + layout.target_length),
    )


@pytest.mark.parametrize("name", list(WORKSHEETS))
def test_cells_are_where_their_coordinates_are_found(name):
    task = WORKSHEETS[name]()
    layout = SheetLayout(task, Size(3, 3))
    rng = np.random.default_rng(0)
    operands = training_sheets(task, rng, 4, size=layout.size, large=0.3, split="any")
    source, target = layout.batch(operands)
    separators = [task.token(text) for text in task.separators]
    checked = 0
    for problem in range(len(operands)):
        tokens = target[problem : problem + 1]
        tokens = tokens[:, : int((tokens >= 0).sum())]
        sheet = Sheets([(layout, source[problem : problem + 1], tokens)])
        read, written = target_tokens(layout, tokens[:, :-1]), tokens[0, 1:]
        names = [field.name for field in task.fields]
        for field, called in enumerate(names):
            places, inside = sheet.find(SHEET, [sheet.row, sheet.column], called)
            for query in torch.nonzero(inside & (sheet.field == field))[:, 0].tolist():
                if int(written[query]) in separators:
                    continue
                place = int(places[query])
                assert read.coordinates[ROW][0, place] == sheet.row[query]
                assert read.coordinates[COLUMN][0, place] == sheet.column[query]
                assert read.field[0, place] == field
                assert read.segment[0, place] == 0
                checked += 1
        # What a separator, or the start, says of rows is what the query knows that reads it.
        begins = torch.nonzero((sheet.column == 0) & (sheet.field == 0))[:, 0]
        assert torch.equal(read.coordinates[ROW][0, begins], sheet.row[begins])
        assert (read.coordinates[COLUMN][0, begins] == -1).all()
        for letter in task.counters:
            assert torch.equal(read.coordinates[letter][0], sheet.counted[letter])
        every = {axis: read.coordinates[axis].max() for axis in axes_of(task)}
        assert all(every[axis] < count for axis, count in extent_of(layout).along.items())
    assert checked > 10
    # Beside longer ones shorter sheets are filled up; that says nothing, and stays within the extent.
    together = target_tokens(layout, target[:, :-1].clamp(min=0))
    written = target[:, :-1] >= 0
    for axis, count in extent_of(layout).along.items():
        assert int(together.coordinates[axis].max()) < count
        ended = target[:, :-1] == layout.vocabulary.end
        assert torch.equal(together.known[axis], written & ~ended)


@pytest.mark.parametrize("name", list(WORKSHEETS))
def test_operands_of_sheets_lie_along_their_axes(name):
    task = WORKSHEETS[name]()
    layout = SheetLayout(task, Size(3, 3))
    tokens = source_tokens(layout)
    for number, segment in enumerate(task.segments):
        at = tokens.segment[0] == number
        known = {axis for axis in axes_of(task) if tokens.known[axis][0, at].all()}
        if segment.name not in layout.lengths:
            assert not known
            continue
        axis, length = task.axis(segment.name), layout.lengths[segment.name]
        assert known == set(axis.names)
        own = tokens.coordinates[axis.counter][0, at].tolist()
        assert own == list(range(length)) if segment.name in task.from_left else own[::-1]
        if axis.edge is not None:
            (other,) = set(axis.names) - {axis.counter}
            assert (tokens.coordinates[other][0, at] == -1).all()
