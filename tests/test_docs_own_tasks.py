"""docs/own_tasks.md: its files are tasks as they stand, and are checked as the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lengthwise.api import settings
from lengthwise.cli.entry import run as command
from own_task_samples import forget_own_tasks

PAGE = (Path(__file__).parent.parent / "docs" / "own_tasks.md").read_text("utf-8")
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def block(language: str, begins: str) -> str:
    return next(text for kind, text in FENCES if kind == language and begins in text)


@pytest.fixture(autouse=True)
def forget():
    yield
    forget_own_tasks()


def test_the_check_prints_what_the_page_shows(tmp_path, capsys):
    path = tmp_path / "my_task.py"
    path.write_text(block("python", "# my_task.py"))
    assert command(["check-task", str(path)]) == 0
    assert capsys.readouterr().out == block("", "ok    rule")


def test_the_table_and_the_problems_are_tasks(tmp_path, capsys):
    path = tmp_path / "my_table.toml"
    path.write_text(block("toml", "# my_table.toml"))
    assert command(["check-task", str(path)]) == 0
    assert "MEND" not in capsys.readouterr().out
    path = tmp_path / "my_problems.jsonl"
    path.write_text(block("json", '"problem": "12+3"'))
    task = settings(path).make_task()
    assert task.growth == 1
    assert len(task.problems.lengths) == 3
