"""Small proven models of lists and tapes, as they are kept: proven again, and exhaustively right."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lengthwise.cli import entry
from lengthwise.decoding.sheets import decode_sheets
from lengthwise.problems.layout import digits_of
from lengthwise.problems.sizes import Size
from lengthwise.problems.wavefront import true_sheets
from lengthwise.proof import Certificate, prove
from lengthwise.runs.run import Run

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="module", params=["sorting", "turing_machine"])
def run(request, tmp_path_factory) -> Run:
    """A model kept as `samples/NAME`.

    Made by `lengthwise abc NAME --out A`, for `turing_machine` with `--set machine=universal`, and then
    `lengthwise train NAME --bias A/calibrated/bias.jsonl --until proven --set model.width=32 --set
    model.feed_forward=64`, for it with the same machine.
    """
    folder = tmp_path_factory.mktemp("samples") / request.param
    shutil.copytree(SAMPLES / request.param, folder)
    return Run.open(folder)


@pytest.mark.parametrize(
    "run", ["sorting", pytest.param("turing_machine", marks=pytest.mark.slow)], indirect=True
)
def test_they_are_proven_as_their_certificates_say(run):
    kept = Certificate.load(run.path / "certificate.json")
    proof = prove(run)
    assert isinstance(proof, Certificate)
    assert proof.contexts == kept.contexts == {"sorting": 1877, "turing_machine": 6343}[kept.task]
    assert proof.smallest_margin == pytest.approx(kept.smallest_margin, abs=1e-3)
    assert proof.claim == kept.claim


def test_all_small_problems_are_right(run):
    """All lists of four keys; all tapes of four cells, with the head wherever it may be at first."""
    task = run.task
    if task.name == "sorting":
        size, digits = Size(4, 4), np.array([*product(range(10), repeat=4)], np.uint8)[:, None]
    else:
        size = Size(4, 40)
        tapes = ("".join(tape) for tape in product(task.machine.symbols, repeat=4))
        digits = np.concatenate([digits_of(task, task.parse(tape), 40) for tape in tapes])
    layout = run.config.layout(size)
    written = decode_sheets(run.model, run.bias, layout, digits)
    truth = true_sheets(task, layout.parts(digits), **layout.limits)
    assert written.same_as(truth).all()
    if task.name == "sorting":
        for number in range(0, len(digits), 97):
            keys = sorted(digits[number, 0].tolist())
            assert task.answer(written.values(number)) == keys


@pytest.mark.trains
def test_a_program_runs_to_its_end(run, capsys):
    if run.task.name == "sorting":
        answer = run.solve("3,1,4,1,5,9,2,6,5,3,5,8,9,7,9,3", work=True)
        assert answer.answer == "1,1,2,3,3,3,4,5,5,5,6,7,8,9,9,9"
        return
    sheet = run.solve("xbb1b1bbb(q1)1c1c11111", work=True)
    assert sheet.answer == "xyy1y1yyy11111111111c1c11111"
    assert len(sheet.rows) == 519
    # From here the machine never halts.
    assert entry.run(["solve", str(run.path), "(q1)0"]) == 1
    said = capsys.readouterr().err
    assert "no answer: the model wrote no end within 4,096 rows" in said
    assert said.count("\n") == 1


def test_one_picture_is_drawn_of_one_sheet(run, capsys, tmp_path):
    expression = {"sorting": "2,1", "turing_machine": "(q3)x"}[run.task.name]
    path = tmp_path / "sheet.svg"
    assert entry.run(["solve", str(run.path), expression, "--picture", str(path)]) == 0
    assert "<svg" in path.read_text("utf-8")
    assert entry.run(["solve", str(run.path), expression, expression, "--picture", "x.png"]) == 2
    assert "--picture draws the sheet of one expression" in capsys.readouterr().err
