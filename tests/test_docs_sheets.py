"""The worksheet of docs/tasks.md: it runs as it stands, prints what the page says, and is right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lengthwise.locality.patches import patches
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.tasks import make_task
from sheet_rules import draw, real_views

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The page's blocks of code in a language, or with none: what is printed."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


def run_page() -> dict:
    """Run the page's Python; the names that it defines."""
    names: dict = {}
    for source in blocks("python"):
        exec(compile(source, "docs/tasks.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def page() -> dict:
    return run_page()


def number(digits: np.ndarray, base: int) -> int:
    return sum(int(digit) * base**place for place, digit in enumerate(digits))


def test_the_page_prints_what_it_shows(capsys):
    run_page()
    assert capsys.readouterr().out in blocks("")


@pytest.mark.parametrize("base", [2, 10])
@pytest.mark.parametrize(
    "size", [Size(1, 1), Size(1, 4), Size(3, 2), Size(5, 40), Size(30, 7)], ids=str
)
def test_the_odometer_counts(page, base, size):
    task = page["Odometer"](base)
    a, b = draw(task, size, 20)
    written = true_sheets(task, [a, b], **SheetLayout(task, size).limits)
    for problem in range(20):
        digits = task.answer(written.values(problem))
        steps = int(b[problem].sum())
        assert len(digits) == size.columns
        assert (
            number(np.array(digits), base)
            == (number(a[problem], base) + steps) % base**size.columns
        )


def test_the_example_of_the_odometer_is_right(page):
    task = page["Odometer"]()
    parts = task.parse(task.example[0])
    layout = SheetLayout(task, Size(2, 3))
    operands = layout.parts(page["digits_of"](task, parts, 3))
    written = true_sheets(task, operands, **layout.limits)
    assert task.read(task.answer(written.values(0))) == task.example[1]


@pytest.mark.parametrize("name", ["odometer", "multiplication"])
def test_every_sight_of_real_sheets_is_enumerated(page, name):
    """Of all sheets of one to three columns and rows: the set may hold more, never less."""
    task = page["Odometer"](2) if name == "odometer" else make_task(name, 2)
    relation = patches(task)
    sizes = [Size(columns, rows) for columns in (1, 2, 3) for rows in (1, 2, 3)]
    found = real_views(task, relation.names, sizes, 64)
    assert len(found) > 20
    assert found - relation.rows == set()
