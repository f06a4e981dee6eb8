"""Where models go wrong: counted symbol by symbol from greedy decoding, number by number in a range."""

import csv

import numpy as np
import pytest
import torch

from helpers import carry_problems, half_trained
from lengthwise.evaluation.exact_match import draw_problems, exact_matches
from lengthwise.evaluation.mistakes import check_range, count_mistakes, save_mistakes, wrong_symbols
from lengthwise.report.plots import mistake_histogram
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tiny_config):
    """A run whose model knows nothing."""
    torch.manual_seed(0)
    run = Run.create(tmp_path_factory.mktemp("untrained") / "run", tiny_config, None)
    run.save_model(make_model(tiny_config))
    return run


@pytest.mark.parametrize("which", ["vanilla", "calibrated", "untrained"])
def test_mistakes_are_those_of_answers_read_one_by_one(which, tiny_abc, untrained):
    run = untrained if which == "untrained" else getattr(tiny_abc, which)
    length, n = 9, 24
    layout = run.layout(length)
    operands, _ = draw_problems(run, layout, "uniform", length, n, 5)
    (counted,) = count_mistakes(run, [length], samples=n, seed=5)
    assert counted.n == n
    wrong = np.zeros(layout.target_length, int)
    for digits in operands:
        number = "".join(str(d) for d in digits[0][::-1]).lstrip("0")
        (answer,), truth = run.answers([number]), str(int(number) + 1)
        written = answer.work + "$" if answer.complete else answer.work
        wanted = truth.zfill(layout.width)[::-1] + "$"
        wrong += [a != b for a, b in zip(written, wanted, strict=True)]
    assert list(counted.wrong) == wrong.tolist()
    assert (sum(counted.wrong) == 0) == (which == "calibrated")


def test_an_answer_without_mistakes_is_an_exact_match(tiny_abc):
    """Of a model that is sometimes wrong: its weights, disturbed."""
    run = half_trained(tiny_abc.calibrated, 5)
    layout, operands = carry_problems(run, 5)
    right, _ = exact_matches(run, layout, operands)
    assert right.equal(~wrong_symbols(run, layout, operands).any(dim=1))
    assert 0 < right.sum() < len(right)


def test_counts_become_a_table(tiny_abc, tmp_path):
    mistakes = count_mistakes(tiny_abc.vanilla, [4, 6], suites=["uniform", "carry"], samples=10)
    save_mistakes(mistakes, tmp_path / "m.csv")
    rows = list(csv.DictReader((tmp_path / "m.csv").read_text().splitlines()))
    assert len(rows) == 2 * (6 + 8)
    assert [row["writes"] for row in rows[:6]] == ["s0", "s1", "s2", "s3", "s4", "$"]
    assert sum(int(row["wrong"]) for row in rows) == sum(sum(one.wrong) for one in mistakes)


def test_pictures_show_the_counts(tiny_abc, tmp_path):
    mistakes = count_mistakes(tiny_abc.vanilla, [5, 7], samples=20)
    figure = mistake_histogram(mistakes, task="successor")
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[wrong / one.n for wrong in one.wrong] for one in mistakes]
    many = count_mistakes(tiny_abc.vanilla, range(1, 11), samples=3)
    figure = mistake_histogram(many)
    shares = figure.axes[0].images[0].get_array()
    assert shares.shape == (10, 12)
    assert shares[9].tolist() == [wrong / 3 for wrong in many[9].wrong]
    assert mistake_histogram(mistakes, tmp_path / "m.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="at least one length"):
        mistake_histogram([])


def test_a_range_of_numbers(tiny_abc, untrained):
    run = tiny_abc.calibrated
    result = check_range(run, 990, 1600)
    assert (result.n, result.correct, result.wrong) == (611, 611, ())
    result = check_range(untrained, 0, 40)
    assert result.n == 41
    assert result.correct < 41
    number, answer, truth = result.wrong[0]
    assert truth == str(int(number) + 1)
    assert answer == untrained.solve(number) != truth
    for last in (10_000, 10**24):
        stopped = check_range(untrained, 0, last, stop_at_first=True)
        assert (stopped.last, stopped.n) == (int(number), int(number) + 1)
        assert stopped.correct == int(number)
    with pytest.raises(InputError, match="a range goes up from 0 or more, got 3 to 2"):
        check_range(run, 3, 2)


@pytest.mark.trains
def test_two_processes_ask_a_range_as_one(untrained, monkeypatch):
    monkeypatch.setattr("lengthwise.evaluation.mistakes._BATCH", 8)
    for options in ({}, {"keep": 3}, {"stop_at_first": True}):
        one = check_range(untrained, 5, 60, **options)
        assert one.wrong
        assert check_range(untrained, 5, 60, workers=2, **options) == one


def test_ranges_are_for_one_operand(tmp_path):
    config = make_config({"task": "addition"})
    run = Run.create(tmp_path / "run", config, None)
    with pytest.raises(InputError, match="tasks with one operand, not addition"):
        check_range(run, 0, 5)
