"""The second checker of sheets: it misses no query, its model is the model, and no planted fault passes.

`samples/multiplication` was made by

    lengthwise abc multiplication --set model.width=48 --set model.feed_forward=192

and lacks rule.json alone, which is written where it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lengthwise.bias import CalibratedBias, Line, Track
from lengthwise.locality.sheets import LAST_TOKEN, SheetContexts
from lengthwise.model.sheets import through_lines
from lengthwise.problems.sheets import SheetLayout, Sheets, Size
from lengthwise.proof import Certificate, rule_text, save_rule, verify
from lengthwise.proof.sheets import check_sights
from lengthwise.runs.folder import BIAS, CERTIFICATE, CONFIG, RULE, WEIGHTS
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import Field, Segment, Worksheet, make_task
from lengthwise.tasks.cellular_automaton import CellularAutomaton
from lengthwise.tasks.worksheet import CLOSED

TOOLS = Path(__file__).parents[1] / "tools"
PROGRAM = TOOLS / "check_sheet.py"
SAMPLE = Path(__file__).parent / "samples" / "multiplication"
CONTEXTS = 13_240


def load(name: str):
    """A program of `tools` as a module."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


second = load("check_sheet")


# --- what queries see ---


class Carries(Worksheet):
    """A digit from those of a and b, and from two others of the sheet; a's zeros are written before it."""

    name = "carries"
    segments = (Segment("a", "operand"), Segment("+", "symbol"), Segment("b", "operand"))
    axes: ClassVar = {"a": "c", "b": "r"}
    zeros: ClassVar = {"a": 2}
    follows = ("a[c]", "b[r]", "sheet[r-1,c].digit", "sheet[r,c-1].mark")
    example = ("12+3", "45")

    @cached_property
    def fields(self):
        return Field("digit", 3), Field("mark", 2)

    def cell(self, *seen):
        a, b, *others = seen
        if b is None:
            return "$"
        if a is None:
            return ";"
        total = a + b + sum((k + 1) * n for k, n in enumerate(others) if isinstance(n, int))
        return total % 3, total // 2 % 2

    def answer(self, rows):
        return rows[-1][:, 0].tolist()


class Wide(Carries):
    """It looks at three cells above, and two before."""

    zeros: ClassVar = {}
    follows = (
        *("a[c]", "b[r]", "sheet[r-1,c-1].digit", "sheet[r-1,c].digit", "sheet[r-1,c+1].digit"),
        *("sheet[r,c-1].digit", "sheet[r,c-2].mark"),
    )


class Ahead(Carries):
    """It looks at operands before and behind, and two cells further above."""

    follows = ("a[c]", "b[r]", "a[c+1]", "b[r-1]", "sheet[r-1,c+2].mark")

    def cell(self, *seen):
        a, b, further, above, mark = seen
        if b is None:
            return "$"
        if a is None:
            return ";"
        return (a + (further or 0) + 2 * (above or 0)) % 3, int(mark == 1) ^ b


class Shrinking(Worksheet):
    """Rows become shorter, by one of two separators; the last is a separator alone."""

    name = "shrinking"
    segments = (Segment("a", "operand"),)
    axes: ClassVar = {"a": "c"}
    separators = (";", ",")
    follows = ("a[c]", "sheet[r-1,c].digit", "sheet[r-1,c+1].digit")
    example = ("12", "3")

    @cached_property
    def fields(self):
        return (Field("digit", self.base),)

    def cell(self, *seen):
        a, above, aside = seen
        if above is None:
            return ";" if a is None else (a,)
        if isinstance(above, str):
            return "$"
        if isinstance(aside, str):
            return ",;"[above % 2]
        return ((above + (aside or 0)) % self.base,)

    def answer(self, rows):
        return [int(row[0, 0]) for row in rows if len(row)]


class Layout(SheetLayout):
    """With room for the rows of `Shrinking`, too."""

    @property
    def limits(self):
        return {**super().limits, "rows": sum(super().limits.values())}


def found_by_machine(task: Worksheet, lines: list[str]) -> set[tuple[int, ...]]:
    """What queries see on lines, with the last token and what to write; closed is -1."""
    rule = second.Rule(rule_text(task).encode())
    assert rule.total
    machine = second.Machine(rule, [rule.near(text, "a head") for text in lines])
    return set(map(tuple, machine.queries().tolist()))


def real(task: Worksheet, lines: list[str], most: Size) -> set[tuple[int, ...]]:
    """The same of all real sheets up to a size, each operand with all its digits."""
    found: set[tuple[int, ...]] = set()
    for columns, rows in itertools.product(range(1, most.columns + 1), range(1, most.rows + 1)):
        layout = Layout(task, size := Size(columns, rows))
        lengths = [size.of(task, segment.name) for segment in task.operands]
        every = itertools.product(range(task.base), repeat=sum(lengths))
        problems = np.array(list(every), np.uint8)
        operands = np.zeros((len(problems), len(lengths), size.longest), np.uint8)
        for place, digits in enumerate(np.split(problems, np.cumsum(lengths)[:-1], axis=1)):
            operands[:, place, : digits.shape[1]] = digits
        sheets = Sheets([(layout, *layout.batch(operands))])
        seen = sheets.seen([*map(Track.parse, lines), LAST_TOKEN]).astype(int)
        tokens = np.vstack([np.where(seen == CLOSED, -1, seen), sheets.wanted.numpy()])
        found.update(map(tuple, tokens.T[tokens[-1] >= 0].tolist()))
    return found


RULES = [
    *((Carries, 2), (Carries, 3), (Wide, 2), (Ahead, 2), (Shrinking, 2), (Shrinking, 3)),
    (CellularAutomaton, 2),
]
MORE = [
    [],
    ["sheet[r,c-1].digit", "sheet[r,c].digit"],
    ["sheet[r-1,c].digit", "sheet[r-1,c-1].carry"],
    ["a[c+1]", "a[c-2]"],
    ["b[r-1]", "b[r+1]", "sheet[r,c-2].carry"],
]


@pytest.mark.parametrize(("kind", "base"), RULES)
def test_no_query_of_a_rule_is_missed(kind, base):
    task = kind(base)
    met = real(task, list(task.follows), Size(4, 3) if base == 2 else Size(3, 2))
    assert len(met) > 20
    assert met <= found_by_machine(task, list(task.follows))


@pytest.mark.parametrize("more", MORE, ids=" ".join)
@pytest.mark.parametrize("base", [2, 3])
def test_no_query_of_multiplication_is_missed(base, more):
    task = make_task("multiplication", base)
    lines = ["a[c]", "b[r]", "sheet[r-1,c+1].digit", *more]
    met = real(task, lines, Size(4, 4) if base == 2 else Size(3, 2))
    found = found_by_machine(task, lines)
    assert met <= found
    # And it has none that the other way, which knows less, has not.
    sights = SheetContexts(task, map(Track.parse, lines)).sights
    tokens = np.vstack([sights.tokens, sights.wanted]).astype(int)
    listed = set(map(tuple, np.where(tokens == CLOSED, -1, tokens).T.tolist()))
    assert found <= listed
    if not more:
        assert found == listed


def test_queries_of_small_bases_are_those_of_real_sheets():
    """No more than there are, too: all are met up to five digits of base 2 along each axis."""
    task = make_task("multiplication", 2)
    lines = ["a[c]", "b[r]", "sheet[r-1,c+1].digit"]
    assert real(task, lines, Size(5, 5)) == found_by_machine(task, lines)
