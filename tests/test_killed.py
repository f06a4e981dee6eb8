"""SIGKILL at twenty moments, also amid a file that is written: the same bits at the end."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from killed_work import moments, start
from lengthwise.runs.folder import CERTIFICATE, CHECKPOINT, METRICS, PROGRESS, WEIGHTS
from sweep_helpers import SMALL, results

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")

_TRAINING = {
    "task": "successor",
    "data": {"length": 3},
    "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32, "dropout": 0.1},
    "training": {
        **{"batch_size": 16, "max_steps": 60, "evaluate_every": 20, "checkpoint_every": 5},
        **{
            "validation_problems": 32,
            "exact_match": 1.0,
            "loss": 1e-6,
            "keep_checkpoints_every": 15,
        },
    },
}
_SWEEP = {
    **SMALL,
    "grid": {"seed": [0, 1]},
    "settings": {**SMALL["settings"], "training": {"batch_size": 32, "max_steps": 60}},
    "prove": False,
}


def killed(work, tmp_path, prepare, outcome, halves, *given, least=15):
    """Do some work undisturbed, then killed at each moment and begun again: all come to the same."""
    whole = prepare(tmp_path / "whole")
    code, seconds = start(work, whole, None, *given)
    assert code == 0
    wanted = outcome(whole)
    events = json.loads(whole.with_suffix(".count").read_text())
    assert events > 20
    died = 0
    for number, moment in enumerate(moments(work, events, seconds, halves)):
        folder = prepare(tmp_path / f"{number}")
        code, _ = start(work, folder, moment, *given)
        assert code in (0, -signal.SIGKILL), moment
        died += code != 0
        code, _ = start(work, folder, None, *given)
        assert code == 0, moment
        assert outcome(folder) == wanted, moment
        shutil.rmtree(folder)
    assert died >= least  # those by the clock may come too late


def trained(folder):
    clock = ("seconds", "tokens_per_second")
    rows = [json.loads(row) for row in (folder / METRICS).read_text().splitlines()]
    kept = sorted((folder / "checkpoints").glob(f"*/{WEIGHTS}"))
    assert (folder / CHECKPOINT).exists()
    assert len(kept) == 4
    return (
        (folder / WEIGHTS).read_bytes(),
        [{key: value for key, value in row.items() if key not in clock} for row in rows],
        [path.read_bytes() for path in kept],
    )


@pytest.mark.slow
def test_a_training_killed_at_twenty_moments_ends_in_the_same_bits(tmp_path):
    killed("train", tmp_path, lambda folder: folder, trained, 25, _TRAINING)


@pytest.mark.slow
def test_a_proof_killed_at_twenty_moments_ends_in_the_same_certificate(tiny_abc, tmp_path):
    def prepare(folder):
        shutil.copytree(tiny_abc.calibrated.path, folder)
        (folder / CERTIFICATE).unlink(missing_ok=True)
        (folder / PROGRESS).unlink(missing_ok=True)
        return folder

    def proven(folder):
        assert not (folder / PROGRESS).exists()
        return json.loads((folder / CERTIFICATE).read_text()) | {"seconds": 0}

    killed("prove", tmp_path, prepare, proven, 4)


@pytest.mark.slow
def test_a_sweep_killed_at_twenty_moments_ends_in_the_same_table(tmp_path):
    killed("sweep", tmp_path, lambda folder: folder, results, 20, _SWEEP)


@pytest.mark.trains
def test_a_checkpoint_killed_half_way_leaves_the_one_before(tmp_path):
    code, _ = start("train", tmp_path / "run", ("half", 10), _TRAINING)
    assert code == -signal.SIGKILL
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    assert [*(tmp_path / "run").glob(f".{CHECKPOINT}.*.part")]  # what was begun; it is never read
    code, _ = start("train", tmp_path / "run", ("half", 2), _TRAINING)
    assert code == -signal.SIGKILL
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
