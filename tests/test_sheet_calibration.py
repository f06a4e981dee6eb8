"""What is captured of sheets: the lines that a model reads, each by what it costs to close it."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

import lengthwise as lw
from lengthwise.calibration import NoLinesError, SheetMaps, suffices
from lengthwise.calibration.sheets import _Reader, calibrate_sheets, capture_sheets
from lengthwise.cli import entry
from lengthwise.model.sheets import sheet_logits
from lengthwise.problems.sizes import Size
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config

FEW = ["calibration.problems=12"]
LINES = {"a[c]", "b[r]", "sheet[r-1,c+1].digit"}


@pytest.fixture
def copied(multiplication, tmp_path):
    """The proven run without what was captured and proven of it."""
    folder = shutil.copytree(multiplication.path, tmp_path / "run")
    for name in ("maps.safetensors", "certificate.json"):
        (folder / name).unlink()
    return folder


def test_of_a_model_of_lines_these_are_found_and_no_others(copied):
    run = Run.open(copied, set=FEW)
    maps = capture_sheets(run)
    assert (maps.exact_match, maps.problems) == (1.0, 12)
    assert {str(item.track) for item in maps.found} == LINES
    assert all(item.support == pytest.approx(1.0) for item in maps.found)
    assert all(item.need < 0.05 for item in maps.others)
    again = calibrate_sheets(maps)
    assert {str(line.track) for line in again.lines} == {*LINES, "last"}
    for item in maps.found:
        heads = {line.head for line in run.bias.lines if line.track == item.track}
        read = {head for head, share in enumerate(item.preference) if share > 0.01}
        assert read == heads


def test_lines_lead_where_each_sheet_has_them(multiplication):
    """Of sheets whose rows end in different places, as no right ones of one size do."""
    run, layout = multiplication, multiplication.config.layout(Size(3, 2))
    source, target = layout.batch(np.random.default_rng(0).integers(0, 10, (3, 2, 3), np.uint8))
    target[1, 3] = target[2, 5] = target[2, 6] = run.task.token(";")
    logits = _Reader(run, layout, source, target).forward({}).logits
    expected = sheet_logits(run.model, run.bias, layout, source, target, [], len(run.model.layers))
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-4)


def test_it_is_calibrated_by_the_command_too(copied, capsys, tmp_path):
    words = ["calibrate", str(copied), "--set", FEW[0], "--out", str(tmp_path / "bias.jsonl")]
    assert entry.run(words) == 0
    bias = lw.CalibratedBias.load(tmp_path / "bias.jsonl")
    assert {str(line.track) for line in bias.lines} == {*LINES, "last"}


@pytest.mark.trains
def test_lines_of_a_model_that_knows_nothing_come_with_a_warning(capsys, tmp_path):
    torch.manual_seed(0)
    config = make_config({"task": "multiplication", "base": 3, "device": "cpu"}, FEW)
    run = Run.create(tmp_path / "run", config, None)
    run.save_model(make_model(config))
    assert entry.run(["calibrate", str(run.path), "--out", str(tmp_path / "bias.jsonl")]) == 0
    told = "answers 0.0% of its training problems right; the lines of a model that does not"
    assert told in capsys.readouterr().err


def test_a_model_that_needs_no_line_is_one_clear_line(multiplication):
    maps = SheetMaps.load(multiplication.path / "maps.safetensors")
    none = dataclasses.replace(maps, found=(), others=maps.found + maps.others)
    with pytest.raises(NoLinesError, match=r"reads along a line\. Does the model interpolate"):
        lw.calibrate(none)


def test_the_fewest_lines_are_those_that_tell_every_symbol(multiplication):
    """Wherever among them one was found that is to spare."""
    maps = SheetMaps.load(multiplication.path / "maps.safetensors")
    needed = [item for item in maps.found if str(item.track) in LINES]
    spare = [
        item for item in (*maps.found, *maps.others) if str(item.track) == "sheet[r,c-1].carry"
    ]
    assert (len(needed), len(spare)) == (3, 1)
    for place in (0, 3):
        found = (*needed[:place], *spare, *needed[place:])
        bias = calibrate_sheets(dataclasses.replace(maps, found=found))
        assert {str(line.track) for line in bias.lines} == {*LINES, "last"}
    short = calibrate_sheets(dataclasses.replace(maps, found=tuple(needed[:2])))
    assert not suffices(maps, short)
    assert suffices(maps, calibrate_sheets(maps))
