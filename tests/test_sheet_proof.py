"""The proof of sheets: no planted fault passes, and what is refuted is really wrong."""

from __future__ import annotations

import itertools
import json
import random
import shutil

import numpy as np
import pytest
import torch

import lengthwise as lw
from helpers import altered
from lengthwise.cli import entry
from lengthwise.decoding.sheets import decode_one_by_one, decode_sheets
from lengthwise.locality import SheetContexts, cone_of_sheet
from lengthwise.locality.sheets import Sights
from lengthwise.model.sheets import logits_of_sights
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sampling import in_split
from lengthwise.problems.sheets import Seen
from lengthwise.problems.sizes import Size, size_of
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicableError,
    prove,
    receptive_cone,
    sheets,
    verify,
)
from lengthwise.proof.sheets import check_sights, contexts_of_sheet
from lengthwise.report.summary import training_facts
from lengthwise.runs.folder import CERTIFICATE, RULE
from lengthwise.runs.run import Run
from lengthwise.tasks import make_task
from lengthwise.tasks.multiplication import Multiplication
from lengthwise.training.drill import drill_sheets, drill_sights
from lengthwise.training.resuming import changed
from lengthwise.training.trainer import train_run

REAL = Multiplication.cell


@pytest.fixture
def folder(multiplication, tmp_path):
    """A copy of the run that may be written to."""
    return shutil.copytree(multiplication.path, tmp_path / "run")


@pytest.fixture
def planted(monkeypatch):
    """Change what the rule writes in one sight. Tasks are shared, so that all are made anew."""

    def plant(sight, cell) -> None:
        def changed(self, *seen):
            return cell if seen == sight else REAL(self, *seen)

        monkeypatch.setattr(Multiplication, "cell", changed)
        make_task.cache_clear()

    yield plant
    monkeypatch.undo()
    make_task.cache_clear()


def command(capsys, *words) -> tuple[int, str, str]:
    code = entry.run([str(word) for word in words])
    return code, *capsys.readouterr()


def assert_confirmed(run: Run, found: Counterexample) -> None:
    """Decode the problem here, from its text, one token after the other."""
    parts = run.task.parse(found.problem)
    size = size_of(run.task, parts)
    operands = digits_of(run.task, parts, size.longest)
    layout = run.config.layout(size)
    written = decode_one_by_one(run.model, run.bias, layout, operands).tokens(0)
    target = layout.batch(operands)[1][0, 1:]
    assert layout.text(target) == found.expected
    # What it writes past the limits of its sheet is cut off.
    given = layout.text(torch.from_numpy(written.astype(np.int64)))
    assert given == found.given or found.given.startswith(given) or given.startswith(found.given)
    right, wrong = found.expected.split(), found.given.split()
    assert found.wrong
    assert right[: found.row] == wrong[: found.row]
    assert right[found.row : found.row + 1] != wrong[found.row : found.row + 1]


def assert_may_be_drilled(run: Run, drill: tuple[str, ...]) -> None:
    """No problem is larger than those trained on, and none is kept for another split."""
    most = run.config.size
    for expression in drill:
        parts = run.task.parse(expression)
        assert size_of(run.task, parts).fits(most)
        assert in_split(run.task, digits_of(run.task, parts, most.longest), "train").all()


@pytest.mark.slow
@pytest.mark.parametrize("row", [3, 12, 19])
def test_a_row_of_weights_that_fades_is_refuted_by_a_product_it_gets_wrong(multiplication, row):
    """The share of the row that is left is lowered until the proof fails."""
    for share in np.arange(0.9, -0.01, -0.05):
        run = altered(multiplication)
        with torch.no_grad():
            run.model.to_logits.weight[row] *= share
        found = prove(run)
        if not found.proven:
            break
    assert isinstance(found, Counterexample)
    assert found.failing >= 1
    assert found.margin <= 2 * found.float_bound
    assert_confirmed(run, found)
    answer = run.answers([found.problem])[0]
    assert not answer.complete or answer.work != found.expected
    assert_may_be_drilled(run, found.drill)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.03, 0.06])
def test_what_is_wrong_of_two_digits_is_not_proven(multiplication, noise):
    """The verdict against every product below a hundred."""
    run = altered(multiplication, noise=noise, seed=3)
    operands = np.array(
        [[[n % 10, n // 10] for n in pair] for pair in itertools.product(range(100), repeat=2)],
        np.uint8,
    )
    written = decode_sheets(run.model, run.bias, run.config.layout(Size(2, 2)), operands)
    wrong = 0
    for problem, (a, b) in enumerate(itertools.product(range(100), repeat=2)):
        rows = written.values(problem)
        digits = run.task.answer(rows) if written.ended[problem] and rows else [-1]
        wrong += sum(d * 10**k for k, d in enumerate(digits)) != a * b
    found = prove(run)
    assert not (found.proven and wrong)
    if noise == 0.06:
        assert wrong


def occurring(count: int) -> list[tuple]:
    """Sights of products of few digits, some of them from edges."""
    draw, task = random.Random(1), make_task("multiplication", 10)
    found = []
    while len(found) < count:
        a = [draw.randrange(10) for _ in range(3)] + [0]
        b = [draw.randrange(10) for _ in range(2)]
        above: list = [None] * 4
        for digit in b:
            carry, row = None, []
            for column, own in enumerate(a):
                up = above[column + 1] if column < 3 else (None if above[0] is None else ";")
                cell = REAL(task, own, digit, up, carry)
                if draw.random() < 0.2:
                    found.append(((own, digit, up, carry), cell))
                carry = cell[1]
                row.append(cell[0])
            above = row
    return found[:count]


@pytest.mark.slow
@pytest.mark.parametrize(("sight", "cell"), occurring(6), ids=str)
def test_no_planted_fault_of_the_rule_passes(folder, planted, sight, cell):
    """The model is right, so where the rule is changed in one sight it is refuted there."""
    digit, carry = cell
    planted(sight, ((digit + 1) % 10, carry))
    found = prove(Run.open(folder))
    assert isinstance(found, Counterexample)
    # Before the first cell of a row stands a separator, or nothing.
    assert 1 <= found.failing <= 2
    assert f"a[c] {sight[0]}, b[r] {sight[1]}" in found.seen
    assert found.wrong
    right, given = found.expected.split(), found.given.split()
    assert (right[found.row], given[found.row]) == (str((digit + 1) % 10), str(digit))


@pytest.mark.trains
def test_a_refuted_run_says_so_and_is_not_verified(folder, capsys):
    run = Run.open(folder)
    with torch.no_grad():
        run.model.to_logits.weight[7] *= 0.6
    run.save_model(run.model)
    code, out, err = command(capsys, "verify", folder / CERTIFICATE, folder)
    assert (code, out) == (2, "")
    assert err == f"lengthwise: the certificate is of other weights than {folder} holds\n"
    code, out, _ = command(capsys, "prove", folder)
    assert code == 1
    assert out.startswith("Refuted: ")
    assert "the query of token" in out
    code, out, _ = command(capsys, "prove", folder, "--json")
    said = json.loads(out)
    assert (code, said["proven"], said["wrong"]) == (1, False, True)
    # So many that some would be of another split, were they not left out.
    assert len(said["drill"]) > 40
    assert_may_be_drilled(run, said["drill"])
    # The certificate of before is still that of other weights.
    assert command(capsys, "verify", folder / CERTIFICATE, folder)[0] == 2


@pytest.mark.trains
def test_a_rule_of_another_table_is_not_verified(folder, capsys):
    code, _, _ = command(capsys, "prove", folder)
    assert code == 0
    assert command(capsys, "verify", folder / CERTIFICATE, folder)[0] == 0
    text = (folder / RULE).read_text("utf-8")
    entry_of = '[["3", "7", "4", "\'2"], ["7", "\'2"]]'
    assert text.count(entry_of) == 1
    (folder / RULE).write_text(text.replace(entry_of, entry_of.replace('["7"', '["8"')), "utf-8")
    code, out, err = command(capsys, "verify", folder / CERTIFICATE, folder)
    assert (code, out) == (2, "")
    assert "rule.json is another rule than multiplication has now" in err
    assert err.count("lengthwise: ") == 1


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("contexts", 13241, "says contexts 13241; proven is 13240"),
        ("smallest_margin", 2.5, "smallest margin of 2.5000; found is 1.892"),
        ("claim", "it is right", "says claim it is right; proven is greedy decoding answers"),
    ],
)
def test_a_certificate_that_says_something_else_is_refused(folder, name, value, message):
    path = folder / CERTIFICATE
    said = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**said, name: value}), "utf-8")
    with pytest.raises(lw.InputError, match=message):
        verify(Certificate.load(path), Run.open(folder))


def test_more_contexts_than_the_budget_are_not_begun(multiplication):
    with pytest.raises(
        NotApplicableError, match="13,240 local contexts, more than the budget of 100"
    ):
        prove(multiplication, budget=100)
    assert lw.prove(multiplication, budget=13240, progress=False).proven


def test_what_is_computed_once_is_what_is_computed_for_each(multiplication):
    run, cone = multiplication, receptive_cone(multiplication.config, multiplication.bias)
    every = contexts_of_sheet(run, cone, 13240)
    some = slice(None, None, 60)
    few = Sights(run.task, every.tracks, every.tokens[:, some], every.wanted[some], {})
    shared, alone = (check_sights(run, few, share=share) for share in (True, False))
    assert len(shared.margins) == len(few) == 221
    assert torch.equal(shared.given, alone.given)
    assert shared.given.tolist() == few.wanted.tolist()
    torch.testing.assert_close(shared.margins, alone.margins, atol=1e-4, rtol=1e-4)


@pytest.mark.trains
def test_what_no_problem_shows_is_drilled_as_a_query_sees_it(multiplication, tmp_path):
    """A sight that fails, and that the search finds on no sheet, is trained on as it is."""
    run = multiplication
    sights = SheetContexts(run.task, cone_of_sheet(run.task, run.bias, 2)).sights
    record = sights.record(5)
    own = changed(run.config, "data", drill=("3*4", record))
    seen, wanted = drill_sights(own, run.task)
    assert seen.count == 1
    assert wanted.tolist() == [sights.wanted[5]]
    logits = logits_of_sights(run.model, run.bias, seen, "lines")
    alone = Seen(run.task, sights.tracks, sights.tokens[:, 5:6])
    torch.testing.assert_close(logits, logits_of_sights(run.model, run.bias, alone, "lines"))
    assert {str(size): len(found) for size, found in drill_sheets(own, own.layout()).items()} == {
        "4x4": 1
    }
    facts = training_facts(own, [])
    assert facts["Drilled"] == (
        "1 problem and what 1 single query sees, which no problem is known to show"
    )
    # A training whose drill demands another token for that sight ends up writing it.
    wrong = json.loads(record)
    wrong["writes"] = "$" if wrong["writes"] != "$" else ";"
    settings = changed(own, "data", drill=(json.dumps(wrong),))
    settings = changed(settings, "training", max_steps=60, until="max_steps", checkpoint_every=60)
    settings = changed(settings, "training", evaluate_every=60, validation_problems=16)
    trained = train_run(settings, tmp_path / "run", bias=run.bias)
    tokens = logits_of_sights(trained.model, run.bias, alone, "lines").argmax(dim=-1)
    assert tokens.tolist() == [run.task.token(wrong["writes"])]


def test_with_what_no_problem_shows_all_of_its_kind_is_drilled(multiplication, monkeypatch):
    """Of those the next model would be as free to get another wrong."""
    cone = receptive_cone(multiplication.config, multiplication.bias)
    sights = contexts_of_sheet(multiplication, cone, 10**6)
    margins = torch.full((len(sights),), 9.0)
    margins[[5, 7, 40]] = torch.tensor([-1.0, 2.0, 1.0])
    checked = sheets.Checked(margins, torch.from_numpy(sights.wanted.astype(np.int64)), 0.0)
    shown_by_none = {5, 7, 40, 41}
    monkeypatch.setattr(
        sheets, "_search", lambda run, sights, cases: ([], shown_by_none & set(cases.tolist()))
    )
    found = sheets.refute(multiplication, cone, sights, checked, 1e-3, 0.0)
    # Those that fail first, then by how narrowly the others are right.
    assert found.drill == tuple(sights.record(case) for case in (5, 40, 7, 41))
    assert found.failing == 1


def test_a_drill_that_is_no_record_is_refused_in_one_line(multiplication):
    for text in ("{", '{"a[c]": "x"}', '{"last": "nothing such", "writes": ";"}'):
        own = changed(multiplication.config, "data", drill=(text,))
        with pytest.raises(lw.InputError, match="is no record of what a query sees"):
            drill_sights(own, multiplication.task)
