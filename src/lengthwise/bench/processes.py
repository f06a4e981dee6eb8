"""What a second process gains in a proof, an evaluation and a training; each has one thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from lengthwise.bench.results import Bench, seconds
from lengthwise.bias import CalibratedBias, Line
from lengthwise.evaluation import measure
from lengthwise.proof import prove
from lengthwise.runs.elsewhere import one_thread
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.workers import environment

# A cone three rows deep: in base 10 these lines make 7,494,300 contexts of subtraction.
_LINES = ("a[c]", "b[c]", "answer[c-2]")

# Starts two processes.
_TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def shared_work(bench: Bench, out: Path, *, base: int, samples: int) -> None:
    """A proof and an evaluation on one process and on two, turn by turn.

    The model is as it was made: that takes as long as of one that is right, and needs no training.

    Args:
        bench: the benchmark.
        out: a folder.
        base: of subtraction, which gives the proof its contexts.
        samples: problems of 100 digits in each of two suites.
    """
    settings = {"task": "subtraction", "base": base, "device": "cpu", "data": {"length": 1}}
    config = make_config(settings).for_retraining()
    lines = [Line(track, head) for head, track in enumerate(_LINES)]
    run = Run.create(out / "untrained", config, CalibratedBias("subtraction", 4, lines))
    torch.manual_seed(0)
    run.save_model(make_model(config))
    contexts = 0

    def proof(workers: int) -> None:
        nonlocal contexts
        contexts = prove(run, workers=workers).contexts

    works = {
        "a proof": proof,
        "an evaluation": lambda workers: measure(run, [100], samples=samples, workers=workers),
    }
    for name, work in works.items():
        spent = {}
        for workers in (1, 2):
            bench.say(f"{name} on {workers} of 2 processes")
            with one_thread():
                spent[workers] = seconds(lambda work=work, workers=workers: work(workers))
        note = f"{contexts:,} contexts" if name == "a proof" else f"2 x {samples:,} problems"
        bench.add(f"{name}, one process", spent[1], "s", f"{note}, a thread each")
        bench.add(f"{name}, two processes", spent[2], "s", f"{note}, its start included")
        bench.add(f"{name}, two to one", spent[1] / spent[2], "x", note)


def shared_training(bench: Bench, out: Path, *, steps: int) -> None:
    """Steps of a vanilla model, of default settings, on one process and on two of torchrun's.

    Args:
        bench: the benchmark.
        out: a folder.
        steps: of each training; the first quarter is not counted.
    """
    each = {}
    for name, command in (("one", ()), ("two", _TWO)):
        bench.say(f"steps of a vanilla model, {name} process{'es' * (name == 'two')}")
        path = out / f"steps-{name}"
        assigned = {"max_steps": steps, "evaluate_every": max(1, steps // 4), "until": "max_steps"}
        arguments = ["-m", "lengthwise", "train", "addition", "--device", "cpu", "--out", str(path)]
        for key, value in assigned.items():
            arguments += ["--set", f"training.{key}={value}"]
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            env={**environment(1), "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        rows = read_metrics(Run.open(path)) if path.exists() else []
        if len(rows) < 2:
            raise RuntimeError(f"a training did not end: {done.stderr[-2000:]}")
        each[name] = (rows[-1].seconds - rows[0].seconds) / (rows[-1].step - rows[0].step)
    note = "addition, default settings, a thread each"
    bench.add("a vanilla step, one process", 1000 * each["one"], "ms", note)
    bench.add("a vanilla step, two processes", 1000 * each["two"], "ms", f"{note}; gloo")
    bench.add("a vanilla step, two to one", each["one"] / each["two"], "x", note)
