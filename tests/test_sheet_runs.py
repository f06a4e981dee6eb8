"""A proven model of multiplication: what it answers, what is said of it, and what a change to it does."""

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
from lengthwise.bias import Line
from lengthwise.calibration import SheetMaps, calibrate, load_maps
from lengthwise.cli import entry
from lengthwise.decoding.sheets import decode_sheets
from lengthwise.errors import InputError
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sampling import in_split
from lengthwise.problems.sizes import Size
from lengthwise.proof import Certificate, estimate, prove, verify
from lengthwise.proof.rule import rule_text
from lengthwise.report.html import write_report
from lengthwise.runs.parts import check_bias
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks.multiplication import Multiplication


@pytest.fixture
def folder(multiplication, tmp_path):
    """A copy of the run that may be written to."""
    return shutil.copytree(multiplication.path, tmp_path / "run")


def command(capsys, *words) -> tuple[int, str, str]:
    code = entry.run([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_product_of_two_digits_is_right(multiplication):
    """By greedy decoding, of every pair of numbers below a hundred."""
    pairs = list(itertools.product(range(100), repeat=2))
    operands = np.array([[[n % 10, n // 10] for n in pair] for pair in pairs], np.uint8)
    layout = multiplication.config.layout(Size(2, 2))
    written = decode_sheets(multiplication.model, multiplication.bias, layout, operands)
    task = multiplication.task
    answers = [int(task.read(task.answer(written.values(i)))) for i in range(len(pairs))]
    assert answers == [a * b for a, b in pairs]
    assert written.ended.all()


def test_long_products_are_right(multiplication):
    draw = random.Random(3)
    for columns, rows in ((60, 60), (200, 1), (1, 120), (90, 7)):
        a, b = (draw.randrange(10 ** (n - 1), 10**n) for n in (columns, rows))
        assert multiplication.solve(f"{a}*{b}") == str(a * b)


@pytest.mark.trains
def test_it_is_proven_as_its_certificate_says(multiplication):
    kept = Certificate.load(multiplication.path / "certificate.json")
    found = verify(kept, multiplication)
    assert found.proven
    assert (found.contexts, kept.contexts) == (13240, 13240)
    assert [str(track) for track in found.cone.reads] == ["a[c]", "b[r]", "sheet[r-1,c+1].digit"]
    assert "every multiplication problem in base 10" in str(found)
    assert estimate(multiplication).contexts == 13240


@pytest.mark.trains
@pytest.mark.parametrize("seed", [0, 1])
def test_a_disturbed_model_is_refuted_by_a_problem_it_gets_wrong(multiplication, seed):
    noise = next(
        noise
        for noise in np.arange(0.02, 1.0, 0.02)
        if not prove(altered(multiplication, noise=noise, seed=seed)).proven
    )
    run = altered(multiplication, noise=noise, seed=seed)
    found = prove(run)
    assert not found.proven
    assert found.failing >= 1
    if found.problem:
        parts = run.task.parse(found.problem)
        a, b = map(int, parts)
        given = run.answers([found.problem])[0]
        assert found.expected != found.given
        assert found.wrong
        assert given.text != str(a * b) or not given.complete
        assert "the query of token" in str(found)
    most = run.config.size
    for expression in found.drill:
        parts = run.task.parse(expression)
        assert len(parts[0]) <= most.columns
        assert len(parts[1]) <= most.rows
        assert in_split(run.task, digits_of(run.task, parts, most.longest), "train").all()


@pytest.mark.trains
def test_a_model_of_noise_is_refuted_at_once(multiplication):
    found = prove(altered(multiplication, noise=3.0))
    assert not found.proven
    assert found.failing > 10_000
    assert found.problem


@pytest.mark.trains
def test_a_bias_without_a_line_is_not_proven(multiplication):
    bias = multiplication.bias
    rest = [line for line in bias.lines if str(line.track) != "sheet[r-1,c+1].digit"]
    found = prove(altered(multiplication, bias=lw.CalibratedBias(bias.format, bias.heads, rest)))
    assert not found.proven
    assert found.wrong  # a sheet of two rows shows it
    assert found.problem


def test_a_field_that_is_none_is_one_clear_line(multiplication):
    bias = multiplication.bias
    lines = [*bias.lines, Line("sheet[r-1,c+1].mark", 0, 0)]
    with pytest.raises(InputError, match="is named by one of digit, carry fields"):
        check_bias(lw.CalibratedBias(bias.format, bias.heads, lines), multiplication.config)


def test_another_rule_is_noticed(folder, monkeypatch):
    run, real = Run.open(folder), Multiplication.cell
    kept = Certificate.load(folder / "certificate.json")

    def cell(self, *seen):
        return (0, 0) if seen == (9, 9, 9, 9) else real(self, *seen)

    before = rule_text(Multiplication())
    monkeypatch.setattr(Multiplication, "cell", cell)
    task = Multiplication(10)
    monkeypatch.setitem(run.__dict__, "task", task)
    assert rule_text(task) != before
    with pytest.raises(InputError, match="another rule than multiplication has now"):
        verify(kept, run)


def test_the_bias_follows_from_what_the_vanilla_model_showed(multiplication):
    maps = load_maps(multiplication.path / "maps.safetensors")
    assert isinstance(maps, SheetMaps)
    assert calibrate(maps) == multiplication.bias
    assert [str(item.track) for item in maps.found][:3] == ["a[c]", "b[r]", "sheet[r-1,c+1].digit"]
    more = {str(line.track) for line in calibrate(maps, extra=1).lines}
    assert more > {str(line.track) for line in multiplication.bias.lines}
    with pytest.raises(InputError, match="the paper's policy reads whole matrices"):
        calibrate(maps, policy="paper")


def test_maps_are_saved_and_read(multiplication, tmp_path):
    maps = load_maps(multiplication.path / "maps.safetensors")
    maps.save(tmp_path / "maps.safetensors")
    again = load_maps(tmp_path / "maps.safetensors")
    assert (again.found, again.others, again.size) == (maps.found, maps.others, maps.size)
    assert all(torch.equal(again.weights[name], maps.weights[name]) for name in maps.weights)
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InputError, match="does not hold attention maps"):
        load_maps(tmp_path / "broken.safetensors")


def test_solve_shows_the_work(capsys, folder):
    code, out, _ = command(capsys, "solve", folder, "123*45", "--show-work")
    assert code == 0
    assert out.splitlines() == [
        "5535",
        "  b[0] = 5     0 6 1 5   carry 0 0 1 1",
        "  b[1] = 4   0 5 5 3     carry 0 0 1 1",
        "               5 5 3 5",
    ]
    code, out, _ = command(capsys, "solve", folder, "12*3", "0*0", "--json", "--show-work")
    assert json.loads(out) == [
        {"expression": "12*3", "answer": "36", "work": "6 '0 3 '0 0 '0 ; $"},
        {"expression": "0*0", "answer": "0", "work": "0 '0 0 '0 ; $"},
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["solve", "{run}", "12+3"],
            "unexpected '+' at position 3 of '12+3'; multiplication takes",
        ),
        (["solve", "{run}", "12*"], "'12*' has no digits for operand b"),
        (["solve", "{run}", "1" * 20000 + "*" + "1" * 20000], "400,000,000 cells; the limit is"),
        (["evaluate", "{run}", "--sizes", "20by3"], "--sizes: a size is written like 20x15"),
        (["evaluate", "{run}", "--sizes", "20000x20000"], "400,000,000 cells; the limit is"),
        (
            ["evaluate", "{run}", "--suite", "carry"],
            "suites of multiplication are uniform and hard",
        ),
        (["evaluate", "{run}", "--lengths", "4", "--sizes", "5x5"], "both say what to evaluate"),
        (["evaluate", "{run}", "--from", "1", "--to", "3"], "problems of sheets are none"),
        (["evaluate", "{run}", "--wrong-positions", "x.png"], "sheets have many"),
        (
            ["convert", "{run}/bias.jsonl", "--task", "addition", "--out", "x.jsonl"],
            "serve their own",
        ),
        (["convert", "{run}/bias.jsonl", "--out", "x.safetensors", "--width", "4"], "no matrices"),
        (["train", "addition", "--bias", "{run}/bias.jsonl"], "was calibrated for multiplication"),
        (
            ["train", "multiplication", "--set", "data.drill=['12345*1']"],
            "12345*1 is larger than 3x3",
        ),
        (
            [
                *("train", "multiplication", "--bias", "{run}/bias.jsonl"),
                *("--set", "retraining.positions=cyclic"),
            ],
            "takes model.positions none and no encoder, got 'cyclic'",
        ),
    ],
)
def test_bad_input_is_one_clear_line(capsys, folder, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(capsys, *(word.replace("{run}", str(folder)) for word in words))
    assert code == 2
    assert not out.strip()
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("lengthwise")]) == 1


def test_what_the_model_does_not_end_is_no_answer(capsys, folder):
    run = Run.open(folder)
    with torch.no_grad():
        run.model.to_logits.bias[run.task.token("$")] -= 1e4
    run.save_model(run.model)
    code, out, err = command(capsys, "solve", folder, "12*3")
    assert code == 1
    assert "no answer: the model wrote no end within 4 rows of 5 cells" in err
    assert not out.strip()


@pytest.mark.trains
def test_evaluation_keeps_both_sizes(capsys, folder, tmp_path):
    code, out, _ = command(
        capsys, "evaluate", folder, "--sizes", "4x4,12x3", "--samples", 20, "--json"
    )
    assert code == 0
    rows = json.loads(out)
    assert [(row["length"], row["rows"], row["suite"]) for row in rows] == [
        (4, 4, "uniform"),
        (4, 4, "hard"),
        (12, 3, "uniform"),
        (12, 3, "hard"),
    ]
    assert all(row["correct"] == row["n"] == 20 for row in rows)
    assert [score.size for score in LengthCurve.load(folder)] == ["4x4", "4x4", "12x3", "12x3"]
    again = lw.evaluate(folder, sizes=[(5, 2)], suites="uniform", samples=5, progress=False)
    assert [score.size for score in again] == ["5x2"]
    page = write_report([folder], tmp_path / "report.html").read_text("utf-8")
    for words in ("12x3", "sheet[r-1,c+1].digit", "whatever its size", "numbers with all their"):
        assert words in page
    code, out, _ = command(capsys, "report", folder, "--out", tmp_path / "again.html")
    assert code == 0


def test_a_wrong_digit_is_counted(folder):
    wrong = altered(Run.open(folder), noise=0.6)
    curve = lw.evaluate(wrong, sizes="6x6", samples=50, progress=False)
    assert all(score.correct < score.n for score in curve)
    truth = [score.correct for score in curve]
    layout = wrong.config.layout(Size(6, 6))
    from lengthwise.evaluation.sheets import draw_sheets

    for suite, correct in zip(("uniform", "hard"), truth, strict=True):
        problems, _ = draw_sheets(wrong, suite, Size(6, 6), 50, wrong.config.seed)
        written = decode_sheets(wrong.model, wrong.bias, layout, problems)
        right = 0
        for number, (a, b) in enumerate(problems):
            values = [sum(int(d) * 10**k for k, d in enumerate(own)) for own in (a, b)]
            if written.ended[number]:
                rows = written.values(number)
                digits = wrong.task.answer(rows) if rows else []
                found = sum(int(d) * 10**k for k, d in enumerate(digits))
                right += found == values[0] * values[1]
        # A product may be right by luck; a sheet that is right gives it.
        assert correct <= right


def test_words_of_a_sheet(capsys, folder, tmp_path):
    code, out, _ = command(capsys, "explain", folder, "--plot", tmp_path / "sheet.png")
    assert code == 0
    assert "b[r], the digit of b of this row" in out
    assert "sheet[r-1,c+1].digit, the digit in the next column of the row above" in out
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    code, out, _ = command(capsys, "prove", folder)
    assert code == 0
    assert "13240 local contexts, all that there are" in out


def test_work_is_a_sheet(multiplication):
    sheet = multiplication.solve("12*34", work=True)
    assert (sheet.answer, len(sheet.rows)) == ("408", 2)
    assert "<pre>" in sheet._repr_html_()
    assert repr(sheet) == "Sheet(multiplication: 2 rows, 408)"


@pytest.mark.parametrize(("base", "size", "dropout"), [(2, 4, 0.1), (4, 4, 0.1), (10, 3, 0.0)])
def test_small_bases_train_on_more_digits_and_keep_from_learning_by_heart(base, size, dropout):
    config = make_config({"task": "multiplication", "base": base})
    assert (config.size, config.model.dropout) == (Size(size, size), dropout)
    again = config.for_retraining()
    assert (again.size, again.model.dropout, again.model.positions) == (Size(4, 4), 0.0, "none")
    assert again.training.worst_loss == config.retraining.worst_loss == 0.5


@pytest.mark.trains
def test_a_sheet_is_forecast(capsys):
    code, out, _ = command(capsys, "abc", "multiplication", "--set", "base=2", "--estimate")
    assert code == 0
    assert "56 local contexts" in out


@pytest.mark.parametrize("widths", ["fixed", "varied"])
def test_a_training_of_sheets_goes_on_where_it_was(widths, tmp_path):
    """Interrupted and resumed, it ends with the weights of one that was not."""
    changes = {
        "base": 2,
        "data.widths": widths,
        "training.until": "max_steps",
        "training.batch_size": 8,
        "training.evaluate_every": 2,
        "training.validation_problems": 8,
        "training.checkpoint_every": 2,
        "model.width": 16,
        "model.heads": 2,
        "model.feed_forward": 16,
        "model.dropout": 0.0,
    }
    quiet = {"progress": False}
    whole = lw.train(
        "multiplication", out=tmp_path / "a", set={**changes, "training.max_steps": 6}, **quiet
    )
    lw.train(
        "multiplication", out=tmp_path / "b", set={**changes, "training.max_steps": 3}, **quiet
    )
    rest = lw.train(
        "multiplication",
        out=tmp_path / "b",
        set={**changes, "training.max_steps": 6},
        resume=True,
        **quiet,
    )
    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lengths_of_a_settings_file_are_not_measured_of_sheets(folder, capsys):
    words = ("--set", "evaluation.lengths=[4]", "--samples", 2)
    code, out, err = command(capsys, "evaluate", folder, *words)
    assert (code, out) == (2, "")
    assert "problems of multiplication have evaluation.sizes" in err


def test_a_length_is_as_many_columns_as_rows(multiplication):
    curve = lw.evaluate(multiplication, lengths=[3], samples=2, progress=False)
    assert {score.size for score in curve} == {"3x3"}
    with pytest.raises(lw.InputError, match="lengths and sizes both say what to evaluate"):
        lw.evaluate(multiplication, lengths=[3], sizes="4x4", progress=False)
