"""The rule as a table: it is arithmetic, and certificate, `verify` and report hold to it."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import pytest

from helpers import LOCAL, SMALL, altered
from lengthwise.cli import entry
from lengthwise.proof import (
    Certificate,
    NotApplicableError,
    hashes,
    prove,
    rule_text,
    verify,
)
from lengthwise.report import html
from lengthwise.runs.folder import CERTIFICATE, RULE
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.tasks import TASKS, add_frame, make_task


def read(task) -> dict:
    return json.loads(rule_text(task))


def run_through(rule: dict, columns: list[list[int]]) -> tuple[list[int], int]:
    """What the table writes for some columns, and the state after them."""
    table = {(state, tuple(digits)): (out, to) for state, digits, out, to in rule["table"]}
    state, written = rule["start"], []
    for column in columns:
        out, state = table[state, tuple(column)]
        written.append(out)
    return written, state


def digits(number: int, base: int, width: int) -> list[int]:
    return [number // base**place % base for place in range(width)]


@pytest.mark.parametrize(
    ("name", "base", "parameters", "truth"),
    [
        ("successor", 4, {}, lambda a: a + 1),
        ("decrement", 4, {}, lambda a: a - 1),
        ("copy", 4, {}, lambda a: a),
        ("multiply_by", 3, {"factor": 11}, lambda a: a * 11),
        ("addition", 4, {}, lambda a, b: a + b),
        ("subtraction", 4, {}, lambda a, b: a - b),
        ("multi_addition", 2, {"operands": 3}, lambda a, b, c: a + b + c),
    ],
)
def test_the_table_computes_what_the_task_is_called_for(name, base, parameters, truth):
    rule = read(make_task(name, base, **parameters))
    operands = [segment for segment in rule["segments"] if segment["kind"] != "symbol"]
    width = 3 + rule["growth"]
    for numbers in itertools.product(range(base**3), repeat=len(operands)):
        if len(operands) > 1 and sum(numbers) % 5:
            continue  # a share of the pairs is enough
        columns = zip(*(digits(number, base, width) for number in numbers), strict=True)
        written, state = run_through(rule, [list(column) for column in columns])
        proper = rule["final"] is None or state in rule["final"]
        assert proper == (truth(*numbers) >= 0)
        if proper:
            assert written == digits(truth(*numbers), base, width)


def test_the_rule_says_where_everything_lies():
    rule = read(make_task("nx1", 5))
    kinds = [(segment["name"], segment["kind"]) for segment in rule["segments"]]
    assert kinds == [("a", "operand"), ("*", "symbol"), ("d", "digit")]
    assert (rule["task"], rule["base"], rule["growth"], rule["start"]) == ("nx1", 5, 1, 0)
    framed = read(add_frame(make_task("nx1", 5)))
    assert [segment.get("text") for segment in framed["segments"]] == ["^", None, "*", None, "$"]


@pytest.mark.parametrize("name", LOCAL)
def test_tables_hold_every_column_of_every_state_that_occurs_once(name):
    task = TASKS[name](SMALL.get(name, 3))
    table = read(task)["table"]
    states = {task.start_state, *(after for *_, after in table)}
    columns = itertools.product(range(task.base), repeat=len(task.operands))
    assert [(row[0], tuple(row[1])) for row in table] == list(
        itertools.product(sorted(states), columns)
    )
    assert rule_text(TASKS[name](task.base)) == rule_text(task)


def test_a_table_that_is_too_large_is_not_applicable():
    text = r"the rule of multi_addition has a table of more than 100,000 rows \(columns of 5 digits"
    with pytest.raises(NotApplicableError, match=text):
        rule_text(make_task("multi_addition", 10, operands=5))


@pytest.mark.parametrize(("written", "after"), [(10, 0), (-1, 0), (3, 2), (3, -1)])
def test_a_step_that_leaves_the_base_or_the_states_is_refused(written, after):
    class Faulty(TASKS["successor"]):
        def step(self, state, *column):
            return (after, written) if column == (7,) else super().step(state, *column)

    text = rf"writes {written} and goes on in state {after} where state 1 reads \[7\]; digits are 0 to 9"
    with pytest.raises(InputError, match=text):
        rule_text(Faulty())


@pytest.fixture
def proven(tiny_abc, tmp_path) -> Path:
    """A copy of the tiny run, with its certificate."""
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    prove(Run.open(folder)).save(folder / "calibrated" / CERTIFICATE)
    return folder


def edit_step(monkeypatch) -> None:
    """From now on 7 with a carry is followed by 9."""
    real = TASKS["successor"].step

    def step(self, state, *column):
        after, written = real(self, state, *column)
        return (after, 9) if (state, column) == (1, (7,)) else (after, written)

    monkeypatch.setattr(TASKS["successor"], "step", step)


def test_the_rule_stands_beside_the_certificate_that_binds_it(proven):
    certificate = Certificate.load(proven / "calibrated" / CERTIFICATE)
    stated = (proven / "calibrated" / RULE).read_bytes()
    assert stated == rule_text(make_task("successor")).encode()
    assert certificate.hashes["rule"] == hashlib.sha256(stated).hexdigest()
    assert json.loads((proven / "calibrated" / CERTIFICATE).read_text())["format"].endswith("/3")


def test_an_edited_step_is_proven_by_no_old_certificate(proven, monkeypatch):
    run = Run.open(proven)
    certificate = Certificate.load(run.path / CERTIFICATE)
    assert html._certificate(run) == certificate
    edit_step(monkeypatch)
    with pytest.raises(
        InputError, match="the certificate is of another rule than successor has now"
    ):
        verify(certificate, run)
    assert html._certificate(run) is None


@pytest.mark.parametrize(
    ("name", "value"), [("start_state", 0), ("growth", 2), ("final_states", frozenset({0}))]
)
def test_other_starts_and_ends_are_other_rules(tiny_abc, monkeypatch, name, value):
    before = hashes(tiny_abc.calibrated)["rule"]
    monkeypatch.setattr(TASKS["successor"], name, value)
    assert hashes(tiny_abc.calibrated)["rule"] != before


def test_a_rule_that_is_none_by_now_leaves_the_report_without_a_certificate(proven, monkeypatch):
    monkeypatch.setattr(TASKS["successor"], "step", lambda *_: (0, 10))
    assert html._certificate(Run.open(proven)) is None


def test_a_stated_rule_that_was_changed_is_refused(proven):
    run = Run.open(proven)
    stated = run.path / RULE
    stated.write_text(stated.read_text().replace("[1, [7], 8, 0]", "[1, [7], 9, 0]"))
    with pytest.raises(InputError, match=r"rule\.json is another rule than successor has now"):
        verify(Certificate.load(run.path / CERTIFICATE), run)


def test_a_certificate_of_an_earlier_version_loads_and_is_proven_again(proven, capsys):
    path = proven / "calibrated" / CERTIFICATE
    values = json.loads(path.read_text())
    del values["hashes"]["rule"]
    (proven / "calibrated" / RULE).unlink()
    path.write_text(json.dumps({**values, "format": "lengthwise-certificate/1"}))
    run, earlier = Run.open(proven), Certificate.load(path)
    assert not earlier.binds_rule
    renewed = verify(earlier, run)
    assert isinstance(renewed, Certificate)
    assert renewed.binds_rule
    assert entry.run(["verify", str(path), str(proven)]) == 0
    assert "is of an earlier version and binds no rule" in capsys.readouterr().out
    assert entry.run(["verify", str(path), str(proven), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["binds_rule"] is False
    shown = html._certificate(run)
    assert shown is not None
    assert shown.claim.endswith(
        "(by an earlier version, which bound no rule; `lengthwise prove RUN` renews it)"
    )
    # It stays what it is when it is written again, and it still must be of these weights.
    earlier.save(path)
    assert json.loads(path.read_text())["format"] == "lengthwise-certificate/1"
    other = altered(run)
    other.path = proven / "vanilla"
    assert html._certificate(other) is None


def test_a_certificate_of_this_version_must_bind_a_rule(proven):
    path = proven / "calibrated" / CERTIFICATE
    values = json.loads(path.read_text())
    del values["hashes"]["rule"]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="its hashes lack that of the rule"):
        Certificate.load(path)


def test_commands_name_the_second_checker(proven, capsys):
    path = proven / "calibrated" / CERTIFICATE
    assert entry.run(["verify", str(path), str(proven)]) == 0
    out = capsys.readouterr().out
    assert f"python tools/check_certificate.py {proven}" in out
    assert "binds no rule" not in out
