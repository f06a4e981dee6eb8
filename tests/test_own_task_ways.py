"""Tasks of one's own: what their digest binds, formats of them, and a report that names one."""

from __future__ import annotations

import numpy as np
import pytest

import lengthwise as lw
from lengthwise.api import settings
from lengthwise.cli.entry import run as command
from lengthwise.errors import InputError
from lengthwise.report.html import write_report
from lengthwise.tasks.own import rule_digest
from own_model_samples import PlainGPT, seeded
from own_task_samples import ODOMETER, forget_own_tasks

CODE = '''
import lengthwise as lw
import numpy as np


class Twice(lw.Transducer):
    """Twice a number."""

    segments = (lw.Segment("a", "operand"),)
    growth, states, example = 1, 2, ("12", "24")

    def step(self, carry, digit):
        return divmod(2 * digit + carry, self.base)
'''
WAYS = {
    "parse": 'def parse(self, expression):\n        return ["7" for _ in super().parse(expression)]',
    "other parse": 'def parse(self, expression):\n        return ["8" for _ in super().parse(expression)]',
    "texts": "def texts(self, operand):\n        return tuple(self.letters[::-1])",
    "objection": 'def objection(self, parts):\n        return "ends in 5" if parts[0][-1] == "5" else None',
    "admit": "def admit(self, operands):\n        return operands[operands[:, 0, 0] != 5]",
    "words": 'def read(self, answer):\n        return f"answer {super().read(answer)}"',
}


@pytest.fixture(autouse=True)
def forget():
    """No task outlives its test."""
    yield
    forget_own_tasks()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text(CODE)
    return path


def digest(path, code):
    path.write_text(code)
    return rule_digest(settings(path).make_task())


def test_the_digest_binds_how_a_class_writes_and_reads_problems(file):
    found = [digest(file, f"{CODE}\n    {one}\n") for one in ("", *WAYS.values())]
    assert len(set(found)) == len(found)
    for one in ("", *WAYS.values()):  # and says the same when it is asked again
        assert digest(file, f"{CODE}\n    {one}\n") == found.pop(0)


def test_the_digest_of_a_sheet_binds_how_its_problems_are_written(file):
    found = {digest(file, f"{ODOMETER}\n    {WAYS[one]}\n") for one in ("parse", "objection")}
    assert len({digest(file, ODOMETER), *found}) == 3


def test_a_format_of_a_file_of_a_class_and_of_an_instance(file):
    found = lw.Format.of_task(str(file), base=4, frame="tokens")
    assert (found.name, found.base, found.frame) == ("twice", 4, "tokens")
    assert lw.Format.of_task(type(settings(file).make_task())) == lw.Format("twice")
    assert lw.Format.of_task(type(settings(file).make_task())(7)).base == 7
    assert lw.Format.of_task("addition") == lw.Format("addition")
    operands = np.array([[[1, 3, 0]]], np.uint8)
    assert found.task.answer(operands)[0].tolist() == [2, 2, 1]


def test_a_format_by_its_name_runs_no_file(file, tmp_path):
    """It is read from bias files, which may be anybody's."""
    file.write_text("raise SystemExit")
    for given in (str(file), f"{file}:Twice", str(tmp_path / "machine.toml")):
        with pytest.raises(ValueError, match=r"take lw\.Format\.of_task\('"):
            lw.Format(given)
        with pytest.raises(ValueError, match=r"take lw\.Format\.of_task\('"):
            lw.Format.read({"name": given})
        with pytest.raises(ValueError, match=r"take lw\.Format\.of_task\('"):
            lw.Format.read(given)
    with pytest.raises(ValueError, match="name is that of a task, got 3"):
        lw.Format(3)  # type: ignore[arg-type]


def test_a_model_of_ones_own_is_captured_on_a_task_of_ones_own(file):
    maps = lw.capture(seeded(PlainGPT), str(file), length=3, problems=2)
    assert maps.format == lw.Format("twice")
    file.write_text(CODE.replace("Transducer", "Transduce"))
    with pytest.raises(InputError, match=r"my_task.py, line 6: .* has no attribute 'Transduce'"):
        lw.capture(seeded(PlainGPT), str(file), length=3, problems=2)
    with pytest.raises(
        InputError, match="task takes its name, such as 'addition', its class or its file; got 3"
    ):
        lw.capture(seeded(PlainGPT), 3, length=3)  # type: ignore[arg-type]


def test_a_report_names_a_task_that_one_of_its_runs_is_of(tiny_abc, file, tmp_path, capsys):
    page, folder = tmp_path / "page.html", tiny_abc.calibrated.path.parent
    assert command(["report", str(folder), "--out", str(page), "--task", str(file)]) == 2
    assert "none of the runs is of twice, which was named; they were trained on" in (
        capsys.readouterr().err
    )
    assert not page.exists()
    assert write_report([folder], page, task="successor") == page
