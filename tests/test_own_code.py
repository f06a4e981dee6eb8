"""Classes of a user's own: found in files and installed packages, and refused in one sentence."""

from __future__ import annotations

import sys

import pytest

from lengthwise.errors import InputError
from lengthwise.own_code import from_packages, load_class, load_from_package, source_of, told
from lengthwise.tasks import Transducer

GOOD = """
from lengthwise.tasks import Segment, Transducer

class Double(Transducer):
    segments = (Segment("a", "operand"),)
    growth = 1
    example = ("5", "10")

    def step(self, state, *column):
        return divmod(2 * column[0] + state, self.base)
"""


def load(path, text, name=""):
    path.write_text(text)
    return load_class(f"{path}:{name}" if name else path, (Transducer,), "task")


def test_the_one_class_of_a_file_is_meant_and_its_file_is_its_source(tmp_path):
    found = load(tmp_path / "double.py", GOOD)
    assert found.__name__ == "Double"
    assert found().step(0, 7) == (1, 4)
    assert source_of(found) == GOOD
    # Unchanged, it is the same; changed, another, whose source is its own.
    assert load(tmp_path / "double.py", GOOD) is found
    changed = GOOD.replace("2 *", "3 *")
    assert load(tmp_path / "double.py", changed)().step(0, 7) == (2, 1)


def test_of_a_class_and_those_it_is_made_from_the_last_is_meant(tmp_path):
    more = GOOD + "\nclass Triple(Double):\n    pass\n"
    assert load(tmp_path / "a.py", more).__name__ == "Triple"
    assert load(tmp_path / "a.py", more, "Double").__name__ == "Double"


def test_modules_beside_the_file_can_be_imported(tmp_path):
    (tmp_path / "digits_beside.py").write_text("TWO = 2\n")
    text = GOOD.replace("2 *", "TWO *").replace(
        "\nfrom", "\nfrom digits_beside import TWO\nfrom", 1
    )
    before = list(sys.path)
    assert load(tmp_path / "double.py", text)().step(0, 7) == (1, 4)
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("class A(\n", "", "mine.py, line 1: "),
        ("x = 1\ny = 1 / 0\n", "", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name\n", "", "mine.py, line 1: ModuleNotFoundError: "),
        ("raise SystemExit(3)\n", "", "mine.py, line 1: SystemExit: 3"),
        (
            "x = 1\n",
            "",
            "mine.py defines no task: a class that inherits from lengthwise.Transducer",
        ),
        (GOOD, "Duble", "mine.py: unknown class 'Duble'; did you mean 'Double'?"),
        (GOOD + "\nx = 3\n", "x", "mine.py:x is a int, not a task"),
        ("class A:\n    pass\n", "A", "mine.py:A is a class, not a task: it inherits from"),
        (GOOD.replace("def step", "def stop"), "", "mine.py:Double lacks step, which every task"),
        (
            GOOD + GOOD.replace("Double", "Twice"),
            "",
            "mine.py defines several: Double, Twice; name",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_line(tmp_path, text, name, said):
    with pytest.raises(InputError) as caught:
        load(tmp_path / "mine.py", text, name)
    assert str(caught.value).startswith(f"{tmp_path}/{said}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(InputError, match=r"can't read .*gone.py: No such file"):
        load_class(tmp_path / "gone.py", (Transducer,), "task")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"bytes.py: "):
        load_class(tmp_path / "bytes.py", (Transducer,), "task")
    with pytest.raises(InputError, match=r"is a file such as my_task.py, got addition"):
        load_class("addition", (Transducer,), "task")


def test_an_error_later_names_the_line_of_the_users_file(tmp_path):
    found = load(tmp_path / "mine.py", GOOD.replace("2 *", "1 // 0 *"))
    with pytest.raises(ZeroDivisionError) as caught:
        found().step(0, 1)
    assert told(caught.value).startswith(f"{tmp_path}/mine.py, line 10: ZeroDivisionError")


def install(folder, module, text):
    """An installed package `double-tasks` that declares a task."""
    (folder / f"{module}.py").write_text(text)
    about = folder / "double_tasks-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: double-tasks\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lengthwise.tasks]\ndouble = {module}:Double\n")


def test_a_class_of_an_installed_package_is_imported_when_it_is_asked_for(tmp_path, monkeypatch):
    install(tmp_path, "double_of_a_package", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    points = from_packages("lengthwise.tasks")
    assert "double" in points
    assert "double_of_a_package" not in sys.modules
    found = load_from_package(points["double"], (Transducer,), "task")
    assert found().step(0, 7) == (1, 4)
    assert source_of(found) in GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name\n", "can't be imported: .*line 1: ModuleNotFoundError"),
        ("x = 1\n", "can't be imported: AttributeError"),
        ("Double = 3\n", "is a int, not a task"),
    ],
)
def test_an_installed_package_that_is_broken_is_named(tmp_path, monkeypatch, text, said):
    module = f"broken_{abs(hash(text))}"
    install(tmp_path, module, text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"task 'double' of the package double-tasks .*{said}"):
        load_from_package(from_packages("lengthwise.tasks")["double"], (Transducer,), "task")
