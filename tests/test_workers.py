"""Evaluation and proof on several processes: the same as on one, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.errors import InputError, shorten
from lengthwise.evaluation import measure
from lengthwise.evaluation.shares import Question, _drawn
from lengthwise.problems.sizes import Size
from lengthwise.proof import Counterexample, prove, verify
from lengthwise.proof.shared import check_shared
from lengthwise.runs.elsewhere import from_values, to_values
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.workers import Workers


def same(found):
    """All that a proof says, but for its seconds."""
    values = found.to_dict()
    values.pop("seconds")
    return json.dumps(values)


def assert_same_scores(curve, other):
    """They say the same, but for their seconds; losses to rounding.

    Which contexts of a sheet are computed in one product depends on who met them first.
    """
    records, wanted = (
        [{**record, "seconds": 0} for record in found.records()] for found in (curve, other)
    )
    losses, others = ([record.pop("worst_loss") for record in each] for each in (records, wanted))
    assert records == wanted
    assert losses == pytest.approx(others, rel=1e-5, abs=2e-6)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A model of 29,000 contexts that is wrong in most of them: subtraction in base 4, as it is made."""
    settings = {"task": "subtraction", "base": 4, "device": "cpu", "data": {"length": 4}}
    settings["model"] = {"width": 32, "heads": 4, "layers": 2, "feed_forward": 64}
    config = make_config(settings).for_retraining()
    lines = [Line("a[c]", 0), Line("b[c]", 1), Line("answer[c-2]", 0)]
    bias = CalibratedBias(config.format, config.model.heads, lines)
    run = Run.create(tmp_path_factory.mktemp("untrained") / "run", config, bias)
    torch.manual_seed(0)
    run.save_model(make_model(config))
    return run


@pytest.fixture
def small_shares(monkeypatch):
    for module in ("prover", "shared"):
        monkeypatch.setattr(f"lengthwise.proof.{module}.SHARE", 1 << 12)


# --- the processes ---

# Work that is quick to load: a text without its middle.
SHORTEN = "lengthwise.workers.process:find", "lengthwise.errors:shorten"


def test_answers_come_in_the_order_of_the_shares():
    shares = [str(n) * 80 for n in range(40)]
    with Workers(3, lambda text: time.sleep(0.05) or shorten(text), *SHORTEN) as workers:
        assert list(workers.answers(shares)) == [shorten(text) for text in shares]
        pids = workers.pids
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.trains
def test_the_shares_of_a_killed_worker_are_done_by_another():
    shares, killed = [str(n) * 80 for n in range(30)], []

    def here(text):
        if len(killed) < 2:  # at any moment, the loading included
            os.kill(workers.pids[0], signal.SIGKILL)
            killed.append(workers.pids[0])
        time.sleep(0.1)
        return shorten(text)

    with Workers(2, here, *SHORTEN) as workers:
        assert list(workers.answers(shares)) == [shorten(text) for text in shares]
        assert workers.pids
        assert workers.pids[0] not in killed


def test_workers_that_die_again_and_again_are_one_clear_line():
    def here(text):
        # At once: a moment later it would have answered its share.
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers.pids[0], signal.SIGKILL)
        time.sleep(0.05)
        return text

    with Workers(2, here, *SHORTEN) as workers, pytest.raises(InputError) as raised:
        list(workers.answers(["text"] * 1000))
    assert str(raised.value) == (
        "a worker was killed by signal 9, 3 times over the same share; if memory is short, fewer --workers "
        "need less"
    )


def test_what_a_worker_raises_is_raised_here():
    work = "lengthwise.workers.process:find"
    raises = pytest.raises(InputError, match="'os:kill' names no work of lengthwise")
    with Workers(2, lambda name: time.sleep(0.1), work, work) as workers, raises:
        list(workers.answers(["os:kill"] * 100))
    raises = pytest.raises(RuntimeError, match="TypeError: object of type 'int' has no len")
    with Workers(2, lambda name: time.sleep(0.1), *SHORTEN) as workers, raises:
        list(workers.answers([5] * 100))


def test_workers_end_with_the_process_that_started_them(tmp_path):
    code = f"""
import os, signal
from lengthwise.workers import Workers
def here(text):
    print(workers.pids[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
with Workers(2, here, *{SHORTEN!r}) as workers:
    list(workers.answers(["text"] * 10))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while _runs(int(done.stdout)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(int(done.stdout))


def _runs(pid):
    """Whether a process is there that is more than a name (Linux)."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- proof ---


@pytest.mark.trains
def test_two_processes_find_what_one_finds(untrained, small_shares):
    one, two = prove(untrained), prove(untrained, workers=2)
    assert isinstance(one, Counterexample)
    assert one.contexts > 25_000
    assert one.drill
    assert same(two) == same(one)


@pytest.mark.slow
def test_two_processes_go_on_with_an_interrupted_proof_and_one_with_theirs(
    untrained, small_shares, tmp_path
):
    whole = same(prove(untrained))
    for first, second in ((1, 2), (2, 1)):
        file, calls = tmp_path / f"{first}.json", []

        def stop(done, total, calls=calls):
            calls.append(done)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prove(untrained, workers=first, progress=file, on_progress=stop)
        kept = json.loads(file.read_text())["found"]["contexts"]
        assert 0 < kept < 28_000
        seen = []
        again = prove(
            untrained,
            workers=second,
            progress=file,
            on_progress=lambda *told, seen=seen: seen.append(told[0]),
        )
        assert seen[0] > kept
        assert same(again) == whole


@pytest.mark.trains
def test_two_processes_prove_sheets_with_the_same_certificate(multiplication):
    one, two = prove(multiplication), lw.prove(multiplication, workers=2)
    assert one.proven
    assert same(two) == same(one)


@pytest.mark.trains
def test_two_processes_verify_a_certificate(tiny_abc, monkeypatch):
    run, asked = tiny_abc.calibrated, []

    def shared(run, share, workers, *rest):
        asked.append(workers)
        return check_shared(run, share, workers, *rest)

    monkeypatch.setattr("lengthwise.proof.prover.SHARE", 8)
    monkeypatch.setattr("lengthwise.proof.prover.check_shared", shared)
    certificate = prove(run)
    assert same(verify(certificate, run, workers=2)) == same(certificate)
    assert asked == [2]
    with pytest.raises(InputError, match="the certificate says contexts 7; proven is"):
        verify(dataclasses.replace(certificate, contexts=7), run, workers=2)


@pytest.mark.trains
def test_a_model_changed_in_memory_is_not_taken_for_the_one_in_its_folder(untrained):
    values, other = to_values(untrained), Run.open(untrained.path)
    assert same(prove(from_values(json.loads(json.dumps(values))))) == same(prove(untrained))
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(InputError, match="holds another model than the one asked about"):
        from_values(to_values(other))


# --- evaluation ---


@pytest.mark.trains
def test_two_processes_score_as_one(tiny_abc):
    for run in (tiny_abc.vanilla, tiny_abc.calibrated):
        asked = {"lengths": [4, 200, 3000], "samples": 70, "suites": ["uniform", "carry"]}
        one, shown = lw.evaluate(run, **asked), []
        two = lw.evaluate(run, **asked, workers=2, on_progress=shown.append)
        assert_same_scores(two, one)
        assert shown == two.scores
    assert {score.accuracy for score in one} == {1.0}


def test_problems_are_drawn_ahead_while_others_are_answered():
    """The second question's are there before the first's are all handed out, and only those."""
    drawn = []

    class Ask:
        def draw(self, question):
            drawn.append(question.size)
            return np.full((question.count, 1, 2), question.size, np.uint8), "test"

    questions = [Question("uniform", size, "answer", 5, 0, 2) for size in (3, 4, 5)]
    alone = [*_drawn(Ask(), questions)]
    assert drawn == [3, 4, 5]
    drawn.clear()
    with ThreadPoolExecutor(1) as ahead:
        shares = _drawn(Ask(), questions, ahead)
        ahead_of = [next(shares)]
        until = time.monotonic() + 20
        while len(drawn) < 2 and time.monotonic() < until:
            time.sleep(0.001)
        assert drawn == [3, 4]
        ahead_of += shares
    assert drawn == [3, 4, 5]
    assert [{**share, "seconds": 0} for share in ahead_of] == [
        {**share, "seconds": 0} for share in alone
    ]


@pytest.mark.trains
def test_two_processes_score_sheets_as_one(multiplication):
    sizes = [Size(3, 3), Size(6, 6), Size(20, 20)]
    one = measure(multiplication, sizes, samples=40)
    two = measure(multiplication, sizes, samples=40, workers=2)
    assert_same_scores(two, one)


@pytest.mark.trains
def test_what_was_scored_is_kept_where_workers_are_interrupted(tiny_abc):
    kept = []

    def stop(score):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(tiny_abc.calibrated, [4, 9], workers=2, on_progress=stop, keep=kept.append)
    assert [score.length for score in kept[0]] == [4]
