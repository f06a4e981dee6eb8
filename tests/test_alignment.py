"""Operands interleaved or reversed: the whole method finds its lines there too, and is proven."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lengthwise.bias import CalibratedBias, Line, MatrixTrack, Track
from lengthwise.calibration import calibrate
from lengthwise.calibration.maps import AttentionMaps, candidates, capture
from lengthwise.decoding.greedy import greedy_decode
from lengthwise.evaluation import measure
from lengthwise.pipeline import run_abc
from lengthwise.problems.layout import Layout
from lengthwise.proof import Certificate, NotApplicableError, hashes, prove, receptive_cone
from lengthwise.runs.folder import MAPS
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks import TASKS
from lengthwise.training.trainer import train_run

pytestmark = pytest.mark.trains

ALIGNMENTS = [("interleaved", "normal"), ("natural", "reversed"), ("interleaved", "reversed")]


@pytest.fixture(scope="module", params=ALIGNMENTS, ids=" ".join)
def aligned(request, tmp_path_factory) -> Run:
    """Addition in base 2, calibrated by hand; trains in seconds."""
    alignment, order = request.param
    values = {
        "task": "addition",
        "base": 2,
        "data": {"length": 5, "alignment": alignment, "input_order": order},
        "model": {"width": 32, "heads": 4, "layers": 2, "feed_forward": 64},
        "training": {
            "batch_size": 64,
            "learning_rate": 5e-3,
            "warmup_steps": 20,
            "evaluate_every": 50,
            "validation_problems": 64,
        },
        "retraining": {"cooldown_steps": 100},
        "calibration": {"problems": 64},
    }
    config = make_config(values).for_retraining()
    lines = [
        Line(Track.along(segment, offset), head)
        for head, (segment, offset) in enumerate(itertools.product("ab", (0, -1)))
    ]
    lines += [Line("answer[c-1]", head) for head in range(4)]
    path = tmp_path_factory.mktemp("aligned") / "run"
    return train_run(config, path, bias=CalibratedBias("addition", 4, lines))


def test_a_model_is_right_and_proven_however_the_operands_lie(aligned):
    assert isinstance(prove(aligned), Certificate)
    assert {s.correct == s.n for s in measure(aligned, [5, 60], samples=50)} == {True}
    assert aligned.solve_many(["1011+110", "1+1", "0+0"]) == ["10001", "10", "0"]


def test_decoding_uses_the_layout_of_the_run(aligned):
    layout, data = aligned.layout(20), aligned.config.data
    assert layout.interleaves == (data.alignment == "interleaved")
    assert layout.input_order == data.input_order
    digits = np.random.default_rng(0).integers(0, 2, (8, 2, 21), np.uint8)
    digits[:, :, 20] = 0
    source, target = layout.batch(digits)
    assert greedy_decode(aligned.model, aligned.bias, layout, source).equal(target[:, 1:])


def test_calibration_finds_the_lines_again_in_the_layout_of_the_run(aligned, tmp_path):
    maps = capture(aligned)
    bias = calibrate(maps)
    assert {t for t in _tracks(bias) if t.segment != "+"} == _tracks(aligned.bias)
    assert maps.layout.source_length == maps.weights["cross"].shape[-1]
    maps.save(tmp_path / MAPS)
    loaded = AttentionMaps.load(tmp_path / MAPS)
    assert loaded.format == maps.format == aligned.config.format
    assert loaded.layout.anchors("cross") == aligned.config.layout().anchors("cross")


def _tracks(bias: CalibratedBias) -> set[Track]:
    return {line.track for line in bias.lines}


def test_the_whole_method_with_reversed_input(tiny_values, tmp_path):
    tiny_values["data"]["input_order"] = "reversed"
    outcome = run_abc(make_config(tiny_values), tmp_path / "run", lengths=[4, 60], prove=True)
    assert isinstance(outcome.proof, Certificate), outcome.proof
    read = {line.track for line in outcome.bias.lines if line.site == "cross"}
    assert {track.offset for track in read} >= {0, -1}
    scores = [score for score in outcome.curve if score.method == "calibrated"]
    assert all(score.correct == score.n for score in scores)


def test_certificates_are_of_one_layout(aligned):
    run = aligned
    data = run.config.data.model_copy(update={"alignment": "natural", "input_order": "normal"})
    other = Run(run.path, run.config.model_copy(update={"data": data}), run.bias)
    assert hashes(run)["model"] != hashes(other)["model"]


def test_lines_that_move_the_other_way_are_not_provable(aligned):
    run = aligned
    reversed_ = run.config.data.input_order == "reversed"
    direction = "anti-diagonal" if reversed_ else "diagonal"
    lines = [
        Line(MatrixTrack("cross", direction, line.track.offset, line.track.segment), line.head)
        if line.site == "cross"
        else line
        for line in run.bias.lines
    ]
    with pytest.raises(NotApplicableError, match="does not move with the column"):
        receptive_cone(run.config, CalibratedBias("addition", run.bias.heads, lines))


def test_a_line_through_all_columns_is_not_provable():
    config = make_config(
        {"task": "addition", "data": {"alignment": "interleaved"}, "model": {"positions": "none"}}
    )
    bias = CalibratedBias(
        "addition", 4, [Line(MatrixTrack("cross", "anti-diagonal", 0, "columns"))]
    )
    with pytest.raises(NotApplicableError, match=r"anti-diagonal at offset \+0 of the columns"):
        receptive_cone(config, bias)


@pytest.mark.parametrize("alignment", ["natural", "interleaved"])
def test_candidates_follow_the_layout(alignment):
    plain = candidates(Layout(TASKS["addition"](), 7), 6)
    assert candidates(Layout(TASKS["addition"](), 7, alignment), 6) == plain
    assert candidates(Layout(TASKS["addition"](), 7, alignment, "reversed"), 6) == plain


def test_the_repeated_digit_of_interleaved_columns_is_a_candidate_in_every_column():
    found = candidates(Layout(TASKS["nx1"](), 7, "interleaved"), 6)
    offsets = {name: [t.offset for t in found if t.segment == name] for name in "ad"}
    assert offsets["d"] == offsets["a"]
    assert {-1, 0} <= set(offsets["d"])
    natural = candidates(Layout(TASKS["nx1"](), 7), 6)
    assert [str(track) for track in natural if track.segment == "d"] == ["d"]
