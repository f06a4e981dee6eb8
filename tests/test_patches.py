"""The list of sights holds all that occur, whatever the rule: random tables, wherever they look."""

from __future__ import annotations

import itertools
import random
from functools import cached_property
from typing import ClassVar

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.locality.patches import FIRST_COLUMN, FIRST_ROW, patches, sights_of
from lengthwise.problems.sheet_rule import rule_of
from lengthwise.problems.wavefront import write_sheets
from lengthwise.tasks import Field, Segment
from lengthwise.tasks.near import CLOSED, Near
from sheet_rules import Made, random_operands, sees

SOURCE = ("a[c]", "a[c-1]", "a[c+1]", "b[r]", "b[r-1]", "b[r+1]")
ABOVE = tuple(f"sheet[r-1,{c}].{f}" for c in ("c-2", "c-1", "c", "c+1") for f in "xy")
BEFORE = ("sheet[r,c-1].x", "sheet[r,c-1].y", "sheet[r,c-2].x")
COLUMNS, ROWS, COUNT = 7, 5, 16


def random_rule(seed: int, separators: tuple[str, ...]) -> Made:
    """A rule without any sense: what is written for each sight, and what a sight is, are drawn."""
    draw = random.Random(seed)

    class Random(Made):
        follows = (
            *draw.sample(SOURCE, draw.randint(1, 2)),
            *draw.sample((*ABOVE, *BEFORE), draw.randint(1, 2)),
        )

    Random.separators = separators
    task = Random(2)
    ends, rows = draw.choice((0.02, 0.1, 0.2)), draw.choice((0.05, 0.2, 0.4))
    cells = list(itertools.product(range(3), range(2)))

    def cell() -> tuple[int, int] | str:
        kind = draw.random()
        if kind < ends:
            return "$"
        return draw.choice(separators) if kind < ends + rows else draw.choice(cells)

    values = [[symbol for _, symbol in alphabet] for alphabet in task.alphabets]
    table = {seen: cell() for seen in itertools.product(*values)}
    task.cell = lambda *seen: table[seen]
    return task


def occurring(task: Made, names: tuple[Near, ...], seed: int) -> set[tuple]:
    """What the cells of random sheets see at some places."""
    found = set()
    for columns, rows in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        operands = random_operands(task, seed, COUNT, columns, rows)
        written = write_sheets(
            task, operands, task.nears, rule_of(task), columns=COLUMNS, rows=ROWS
        )
        for problem, cells in enumerate(written.cells):
            own = [digits[problem] for digits in operands]
            for row, column in np.argwhere(cells[:, :COLUMNS, 0] != CLOSED):
                if row <= written.rows[problem]:
                    found.add(tuple(sees(task, own, cells, near, row, column) for near in names))
    return found


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([(";",), (";", "|")]))
def test_no_sight_of_a_random_rule_is_left_out(seed, separators):
    task = random_rule(seed, separators)
    relation = patches(task)
    assert occurring(task, relation.names, seed) - relation.rows == set()


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.lists(st.sampled_from((*SOURCE, *ABOVE, *BEFORE)), max_size=2))
def test_no_sight_along_other_lines_of_a_random_rule_is_left_out(seed, more):
    task = random_rule(seed, (";",))
    names = dict.fromkeys([*task.nears, *map(Near.parse, more), FIRST_ROW, FIRST_COLUMN])
    relation = sights_of(task, [*map(Near.parse, more)]).project(names)
    assert occurring(task, relation.names, seed) - relation.rows == set()


class Named(Made):
    """The same rule with names that mean something elsewhere."""

    segments = (Segment("first", "operand"), Segment("+", "symbol"), Segment("some", "operand"))
    axes: ClassVar = {"first": "c", "some": "r"}
    follows = ("first[c]", "some[r]", "sheet[r-1,c].kind", "sheet[r,c-1].cell")

    @cached_property
    def fields(self):
        return Field("kind", 3), Field("cell", 2)


def test_no_sight_depends_on_what_a_rule_calls_things():
    assert patches(Named(2)).rows == patches(Made(2)).rows


def test_what_is_written_in_a_sight_is_what_the_rule_writes():
    task = random_rule(5, (";",))
    relation = patches(task)
    width = len(task.nears)
    for row in relation.rows:
        cell = task.cell(*row[:width])
        assert row[width : width + 2] == ((cell, None) if isinstance(cell, str) else cell)


@given(
    st.sampled_from(("sheet", "a", "b")),
    st.integers(-3, 3),
    st.integers(-3, 3),
    st.sampled_from("xy"),
)
def test_places_are_read_as_they_are_written(segment, row, column, field):
    near = Near(segment, row, column, field) if segment == "sheet" else Near(segment, None, column)
    assert Near.parse(str(near)) == near
    moved = near.moved(row, column)
    assert moved.moved(-row, -column) == near
