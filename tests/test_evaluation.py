"""Evaluation: the parallel pass decides what greedy decoding would; lengths and intervals are honest."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import carry_problems, half_trained
from lengthwise.api import analysis
from lengthwise.decoding.greedy import greedy_decode
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve, Score, wilson
from lengthwise.evaluation.exact_match import exact_matches
from lengthwise.problems.layout import Layout, digits_of
from lengthwise.problems.sampling import generator, split_of, suite_problems
from lengthwise.settings.config import InputError, make_config


@pytest.mark.parametrize("method", ["vanilla", "calibrated"])
@pytest.mark.parametrize("length", [3, 4, 5, 20, 150])
def test_the_pass_agrees_with_greedy_decoding_problem_by_problem(tiny_abc, method, length):
    trained = getattr(tiny_abc, method)
    run = half_trained(trained, 3 if method == "vanilla" else 20)
    layout, operands = carry_problems(run, length)
    source, target = layout.batch(operands)
    written = greedy_decode(run.model, run.bias, layout, source)
    right, _ = exact_matches(run, layout, operands)
    assert right.equal((written == target[:, 1:]).all(dim=1))


@pytest.mark.parametrize("disturbed", [False, True])
def test_long_problems_are_judged_alike_through_windows(tiny_abc, disturbed, monkeypatch):
    """Some rows at a time, from the tokens and their window alone, as in one pass over all rows."""
    run = half_trained(tiny_abc.calibrated, 150) if disturbed else tiny_abc.calibrated
    layout, operands = carry_problems(run, 150)
    wanted, worst = exact_matches(run, layout, operands)
    monkeypatch.setattr("lengthwise.evaluation.exact_match._LONG", 100)
    monkeypatch.setattr("lengthwise.evaluation.exact_match._BLOCK", 37)
    right, found = exact_matches(run, layout, operands)
    assert right.equal(wanted)
    assert wanted.any()
    assert bool(wanted.all()) == (not disturbed)
    # Of a wrong problem the passes read different rows; what they share is where it goes wrong.
    if wanted.all():
        assert found == pytest.approx(worst, abs=1e-5)


def test_ten_thousand_digits(tiny_abc):
    (score,) = measure(tiny_abc.calibrated, [10_000], suites=["carry"])
    assert (score.n, score.correct) == (20, 20)
    assert score.digits_per_second == pytest.approx(200_000 / score.seconds)
    settings = tiny_abc.calibrated.config.evaluation
    assert [settings.samples_at(n) for n in (100, 9_999, 99_999, 100_000)] == [100, 100, 20, 4]


def test_an_answer_without_its_end_token_does_not_count(tiny_abc):
    run = type(tiny_abc.calibrated)(
        tiny_abc.calibrated.path, tiny_abc.calibrated.config, tiny_abc.bias
    )
    layout = run.layout(4)
    operands = suite_problems(
        run.task, generator(0, "test"), 50, suite="uniform", length=4, width=layout.width
    )
    assert exact_matches(run, layout, operands)[0].all()
    with torch.no_grad():
        run.model.to_logits.bias[layout.vocabulary.end] -= 1000.0
    assert not exact_matches(run, layout, operands)[0].any()


def test_problems_are_as_long_as_they_say_and_barely_padded(tiny_abc, monkeypatch):
    seen = []

    def spy(run, layout, operands):
        seen.append((layout.width, operands))
        return torch.ones(len(operands), dtype=torch.bool), 0.0

    monkeypatch.setattr("lengthwise.evaluation.exact_match.exact_matches", spy)
    scores = list(measure(tiny_abc.calibrated, [2, 60], samples=30))
    for score, (width, operands) in zip(scores, seen, strict=True):
        assert width == score.width == score.length + 1
        digits = np.arange(width) * (operands[:, 0] > 0)
        assert (digits.max(axis=1) + 1 == score.length).all()


def test_the_same_seed_gives_the_same_problems_and_another_gives_others(tiny_abc, monkeypatch):
    seen = []

    def spy(run, layout, operands):
        seen.append(operands)
        return torch.ones(len(operands), dtype=torch.bool), 0.0

    monkeypatch.setattr("lengthwise.evaluation.exact_match.exact_matches", spy)
    for seed in (5, 5, 6):
        list(measure(tiny_abc.calibrated, [30], suites=["uniform"], samples=20, seed=seed))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_lengths_without_held_out_problems_say_so(tiny_abc):
    """The only carry chain of length 1 is 9, and 9 is in training."""
    assert split_of(digits_of(tiny_abc.calibrated.task, ["9"], 2)) > 1
    curve = measure(tiny_abc.calibrated, [1, 30], suites=["carry"], samples=10)
    assert [(score.length, score.split) for score in curve] == [(1, "any"), (30, "test")]


def test_calibration_solves_what_vanilla_does_not(tiny_abc):
    scores = {(s.method, s.suite, s.length): s.accuracy for s in tiny_abc.curve}
    assert scores["calibrated", "uniform", 100] == scores["calibrated", "carry", 100] == 1.0
    assert scores["vanilla", "uniform", 4] >= 0.95
    assert scores["vanilla", "uniform", 100] == 0.0


@given(st.integers(1, 5000), st.data())
def test_wilson_solves_its_equation(n, data):
    """The bounds are where the score test is just significant: (p - share)^2 = z^2 p (1 - p) / n."""
    correct = data.draw(st.integers(0, n))
    share, z = correct / n, 1.959964
    low, high = wilson(correct, n)
    assert 0 <= low <= share <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            assert math.isclose(
                (p - share) ** 2, z * z * p * (1 - p) / n, rel_tol=1e-6, abs_tol=1e-12
            )


def test_wilson_by_a_published_example():
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_curves_round_trip_and_read_as_tidy_rows(tiny_abc, tmp_path):
    tiny_abc.curve.save(tmp_path)
    assert LengthCurve.load(tmp_path).scores == tiny_abc.curve.scores
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(tiny_abc.curve) == 2 * 2 * 3
    assert list(rows[0]) == list(Score.__dataclass_fields__)
    assert rows[0]["task"] == "successor"
    frame = tiny_abc.curve.to_frame()
    assert frame.shape == (12, len(rows[0]))
    assert (frame.correct <= frame.n).all()


def test_curves_print_one_line_a_score(tiny_abc):
    lines = str(tiny_abc.curve).splitlines()
    assert len(lines) == 1 + len(tiny_abc.curve)
    assert "100.0%" in lines[-1]
    assert len(tiny_abc.curve + tiny_abc.curve) == 24


@pytest.mark.parametrize("content", ["", "{}x", '[{"n": 1}]'])
def test_broken_results_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json does not hold results"):
        LengthCurve.load(tmp_path)
    with pytest.raises(InputError, match="holds no results: No such file"):
        LengthCurve.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": [0]}, r"lengths takes whole numbers from 1 up, .*; got \[0\]"),
        ({"lengths": []}, r"lengths takes whole numbers from 1 up, .*; got \[\]"),
        (
            {"lengths": [10_000_001]},
            "lengths must be at most 10000000, got 10000001",
        ),
        ({"lengths": [5], "seed": -1}, "seed takes a whole number from 0 up, such as 6; got -1"),
        (
            {"lengths": [5], "samples": 0},
            "samples takes a whole number from 1 up, such as 6; got 0",
        ),
        ({"lengths": [5], "suites": ["easy"]}, "unknown suite 'easy'; known: carry, uniform"),
    ],
)
def test_bad_arguments_are_refused(tiny_abc, arguments, message):
    with pytest.raises(InputError, match=message):
        analysis.evaluate(tiny_abc.path, **arguments)


def test_suites_may_be_any_iterable(tiny_abc):
    suites = (suite for suite in ("uniform", "carry"))
    curve = analysis.evaluate(tiny_abc.path, [3, 5], samples=5, suites=suites)
    assert [(s.length, s.suite) for s in curve] == [
        (length, suite) for length in (3, 5) for suite in ("uniform", "carry")
    ]


def test_layouts_of_evaluation_never_use_the_training_width(tiny_abc):
    run = tiny_abc.calibrated
    assert run.layout(100).width == 101
    assert Layout(run.task, run.config.width).width == 5


def row(**changes) -> Score:
    """A score of a vanilla model, changed."""
    usual = {
        **{"task": "copy", "base": 10, "method": "vanilla", "seed": 0, "problem_seed": 0},
        **{"suite": "uniform", "length": 3, "width": 3, "split": "test", "n": 100, "correct": 50},
        **{"low": 0.4, "high": 0.6, "worst_loss": 1.0, "seconds": 1.0, "model": "a"},
    }
    return Score(**usual | changes)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3},
        {"problem_seed": 7},
        {"model": "b"},
        {"width": 7, "padding": "training"},
        {"suite": "carry"},
        {"decoding": "sampled"},
        {"split": "any"},
        {"length": 4},
    ],
    ids=str,
)
def test_nothing_measured_is_replaced_by_another_measurement(tmp_path, change):
    """Rows are kept by all that defines them, whatever was measured afterwards."""
    LengthCurve([row()]).add_to(tmp_path)
    LengthCurve([row(correct=1, **change)]).add_to(str(tmp_path))
    assert [s.correct for s in LengthCurve.load(tmp_path)] == [50, 1]
    # The very same measurement again has the same outcome, but for the clock.
    LengthCurve([row(seconds=9.0)]).add_to(tmp_path)
    assert [(s.correct, s.seconds) for s in LengthCurve.load(tmp_path)] == [(1, 1.0), (50, 9.0)]
    table = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [line["model"] for line in table] == [s.model for s in LengthCurve.load(tmp_path)]


def test_reports_take_the_most_careful_rows_of_the_model_that_is_there():
    many, few, later = row(n=1000), row(n=3), row(n=1000, problem_seed=5)
    other, unnamed = row(model="b", n=10_000), row(model="", n=20_000)
    curve = LengthCurve([many, few, other, unnamed])
    assert list(curve.most_careful(["a"])) == [many]
    assert list((curve + LengthCurve([later])).most_careful(["a"])) == [later]
    assert list(curve.most_careful()) == [unnamed]
    # What version 0.1 measured counts where nothing else was.
    assert list(LengthCurve([few, unnamed]).most_careful(["c"])) == [unnamed]
    assert list(LengthCurve([many]).most_careful(["c"])) == []


def test_results_of_version_0_1_are_read(tmp_path):
    before = {k: v for k, v in vars(row()).items() if k not in ("model", "padding", "decoding")}
    (tmp_path / "results.json").write_text(json.dumps([before]))
    assert list(LengthCurve.load(tmp_path)) == [row(model="")]


def test_a_baseline_is_asked_at_the_width_that_it_learned(tiny_abc):
    """Right at four digits and fewer there; padded by no more than the answer needs it fails at three."""
    curve = measure(tiny_abc.vanilla, [2, 3, 4, 6], suites=["uniform"], samples=40)
    found = {(s.length, s.padding): s for s in curve}
    assert sorted(found) == [
        *(
            (2, "answer"),
            (2, "training"),
            (3, "answer"),
            (3, "training"),
            (4, "answer"),
            (6, "answer"),
        ),
    ]
    assert {found[n, "training"].width for n in (2, 3)} == {5}
    assert all(
        found[key].correct >= 38 for key in ((2, "training"), (3, "training"), (4, "answer"))
    )
    assert found[3, "answer"].correct < 20
    labels = {curve.label(s) for s in curve}
    assert labels == {"vanilla", "vanilla, padded as trained"}
    assert {s.method for s in curve.fairest().labelled()} == {"vanilla"}
    assert {s.length: s.padding for s in curve.fairest()} == {
        2: "training",
        3: "training",
        4: "answer",
        6: "answer",
    }


def test_padding_is_that_of_the_settings_where_they_name_one(tiny_abc, tiny_values, tmp_path):
    def paddings(run, *assignments):
        config = make_config(run.config.model_dump(mode="json"), assignments)
        return type(run)(run.path, config, run.bias).paddings(2)

    for run in (tiny_abc.vanilla, tiny_abc.calibrated):
        for name in ("answer", "training"):
            assert paddings(run, f"evaluation.padding={name}") == (name,)
    assert paddings(tiny_abc.calibrated) == ("answer",)
    assert paddings(tiny_abc.vanilla) == ("training", "answer")
    assert paddings(tiny_abc.vanilla, "data.widths=varied") == ("answer",)
