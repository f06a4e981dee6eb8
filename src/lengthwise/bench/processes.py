"""What a second process gains in a proof, an evaluation and a training; each has one thread."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lengthwise.bench.results import Bench, ratios, seconds, wanted
from lengthwise.bias import CalibratedBias, Line
from lengthwise.evaluation import measure
from lengthwise.proof import prove
from lengthwise.runs.elsewhere import computing_with
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.workers import environment

# A cone three rows deep: in base 10 these lines make 7,494,300 contexts of subtraction.
_LINES = ("a[c]", "b[c]", "answer[c-2]")

# The batch of default settings, and a training for which one would take a second process.
_BATCH = 128
_LARGER = {"model.width": 128, "model.feed_forward": 512, "training.batch_size": 512}

# Starts two processes.
_TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def shared_work(bench: Bench, out: Path, *, base: int, samples: int) -> None:
    """A proof and an evaluation on one process and on two, turn by turn.

    The model is as it was made: that takes as long as of one that is right, and needs no training.

    Args:
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
            with computing_with(1):
                spent[workers] = seconds(lambda work=work, workers=workers: work(workers))
        note = f"{contexts:,} contexts" if name == "a proof" else f"2 x {samples:,} problems"
        bench.add(f"{name}, one process", spent[1], "s", f"{note}, a thread each")
        bench.add(f"{name}, two processes", spent[2], "s", f"{note}, its start included")
        ratio = spent[1] / spent[2]
        bench.add(f"{name}, two to one", ratio, "x", f"{wanted([ratio], least=1.6)}; {note}")


def shared_training(bench: Bench, out: Path, *, steps: int, turns: int) -> None:
    """Steps of a vanilla model on one process and on two of torchrun's, turn by turn; and its checkpoints.

    Half of a batch on one process is what two could reach that had nothing to tell each other.

    Args:
        out: a folder.
        steps: of each training; the first quarter is not counted. A quarter of them for a larger model and
            where every step is kept.
        turns: trainings of each kind.
    """
    fewer = max(4, steps // 4)
    kinds: dict[str, tuple[tuple[str, ...], int, dict[str, int]]] = {
        "one process": ((), steps, {}),
        "two processes": (_TWO, steps, {}),
        "half of the batch, one process": ((), steps, {"training.batch_size": _BATCH // 2}),
        "a checkpoint each": ((), fewer, {"training.checkpoint_every": 1}),
        "larger, one process": ((), fewer, _LARGER),
        "larger, two processes": (_TWO, fewer, _LARGER),
    }
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(turns):
        for kind, (command, count, settings) in kinds.items():
            bench.say(f"steps of a vanilla model, {kind}, turn {turn + 1} of {turns}")
            path = out / f"steps-{len(spent[kind])}-{kind.replace(' ', '-')}"
            spent[kind].append(_step(path, command, count, settings))
    notes = dict.fromkeys(kinds, "addition, default settings, a thread each")
    large = ", ".join(f"{key}={value}" for key, value in _LARGER.items())
    for kind in ("larger, one process", "larger, two processes"):
        notes[kind] = f"addition, {large}"
    for kind, found in spent.items():
        bench.add(f"a vanilla step, {kind}", (1000 * one for one in found), "ms", notes[kind])
    one = spent["one process"]
    case, found = "a vanilla step, two to one", ratios(one, spent["two processes"])
    bench.add(case, found, "x", wanted(found, least=1.5))
    found = ratios(one, spent["half of the batch, one process"])
    bench.add("a vanilla step, half of the batch to all", found, "x", "what two could reach")
    found = ratios(spent["larger, one process"], spent["larger, two processes"])
    bench.add("a larger step, two to one", found, "x", notes["larger, two processes"])
    every = make_config({"task": "addition"}).training.checkpoint_every
    shares = []
    for step, kept in zip(one, spent["a checkpoint each"], strict=True):
        shares.append(100 * max(0.0, kept - step) / (every * step + max(0.0, kept - step)))
    note = f"one every {every} steps, of all time; {wanted(shares, most=3)}"
    bench.add("checkpoints", shares, "%", note)


def _step(path: Path, command: Sequence[str], steps: int, settings: dict[str, int]) -> float:
    """Seconds of a step of a training that takes so many."""
    settings = {"training.evaluate_every": max(1, steps // 4), **settings}
    arguments = ["-m", "lengthwise", "train", "addition", "--device", "cpu", "--out", str(path)]
    arguments += ["--set", "training.until=max_steps", "--set", f"training.max_steps={steps}"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
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
    return (rows[-1].seconds - rows[0].seconds) / (rows[-1].step - rows[0].step)
