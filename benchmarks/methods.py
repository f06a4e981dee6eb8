"""What each method reaches in a fixed time of one thread, at the training length and past it.

Every run trains from 6 digits, `multiplication` from 3 x 3, until the time is up; what it is then is
evaluated, whatever its loss. One JSON line a run; runs that the file holds already are not done again.

    python benchmarks/methods.py --minutes 10 --workers 16 --out methods.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, in each worker

METHODS = (
    *("vanilla", "nope", "learned", "rope", "alibi", "alibi_cross", "t5", "shaw", "window"),
    *("coupling", "abacus", "randomized", "fire", "kerple_log", "kerple_power", "hard_alibi"),
)
ON_SHEETS = ("vanilla", "coupling", "abacus", "randomized")
LENGTHS, SIZES = (6, 8, 10, 20, 60), ("3x3", "4x4", "6x6", "10x10")
SETTINGS = {
    "device": "cpu",
    "training.until": "max_steps",
    "training.max_steps": 10_000_000,
    "training.evaluate_every": 500,
    "training.validation_problems": 256,
    "training.checkpoint_every": 1_000_000,
}


def train_for(seconds: float, task: str, method: str, seed: int, out: Path, settings: dict):
    """A run that was stopped after so many seconds, as it was then."""
    import torch

    import lengthwise as lw
    from lengthwise.runs.folder import CHECKPOINT
    from lengthwise.training.trainer import NotInterpolatedError

    torch.set_num_threads(1)
    # As a person would stop it, so that a checkpoint is written; what runs in the background ignores that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with suppress(KeyboardInterrupt):
        lw.train(task, method=method, seed=seed, out=out, set=settings, progress=False)
    signal.setitimer(signal.ITIMER_REAL, 0)
    step = torch.load(out / CHECKPOINT, weights_only=True)["step"]
    with suppress(NotInterpolatedError, lw.InputError):
        lw.train(task, out=out, resume=True, set={"training.max_steps": step}, progress=False)
    return lw.Run.open(out), step


def measure(task: str, method: str, seed: int, minutes: float, samples: int, more: dict) -> dict:
    """Train and evaluate one run; its row."""
    import lengthwise as lw

    with tempfile.TemporaryDirectory() as folder:
        settings = {**SETTINGS, **more}
        run, steps = train_for(60 * minutes, task, method, seed, Path(folder) / "run", settings)
        asked = {"sizes": SIZES} if run.config.is_sheet else {"lengths": LENGTHS}
        curve = lw.evaluate(run, samples=samples, progress=False, **asked)
        rows = run.metrics()
        return {
            **{"task": task, "method": method, "seed": seed, "minutes": minutes, "steps": steps},
            "seconds": round(rows[-1]["seconds"], 1) if rows else None,
            "validation": rows[-1]["exact_match"] if rows else None,
            "loss": rows[-1]["validation_loss"] if rows else None,
            "accuracy": {f"{s.suite} {s.size} {s.padding}": s.accuracy for s in curve.scores},
            "settings": more,
            **{"cpu": platform.processor() or platform.machine(), "lengthwise": lw.__version__},
        }


def main() -> None:
    """Run what is asked for, several at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each run")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    parser.add_argument("--tasks", nargs="+", default=["addition", "multiplication"])
    parser.add_argument("--methods", nargs="+", help="by default all that apply to a task")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=500, help="problems of each size and suite")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of every run")
    given = parser.parse_args()
    more = dict(text.split("=", 1) for text in given.set)
    text = given.out.read_text() if given.out.exists() else ""
    kinds = ("task", "method", "seed", "minutes", "settings")
    done = [[row[kind] for kind in kinds] for row in map(json.loads, text.splitlines())]
    jobs = [
        (task, method, seed)
        for seed in given.seeds
        for task in given.tasks
        for method in given.methods or (METHODS if task == "addition" else ON_SHEETS)
        if [task, method, seed, given.minutes, more] not in done
    ]
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        asked = given.minutes, given.samples, more
        running = {pool.submit(measure, *job, *asked): job for job in jobs}
        for future in as_completed(running):
            if future.exception() is not None:
                print(*running[future], repr(future.exception()), file=sys.stderr, flush=True)
                continue
            with given.out.open("a") as file:
                file.write(json.dumps(future.result()) + "\n")
            print(json.dumps(future.result()), flush=True)


if __name__ == "__main__":
    main()
