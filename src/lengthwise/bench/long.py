"""Long answers: time and memory of decoding a hundred thousand digits, and a million.

The model is trained by the default pipeline, for how many passes parallel decoding takes depends on what it
has learned. Times by length are of decoding alone; those of a whole `lengthwise solve`, a process of its
own, count everything from Python's start to the last digit, and so does its peak memory.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lengthwise.bench.models import trained_run
from lengthwise.bench.results import Result, alternate, measured_process
from lengthwise.layout import Layout, digits_of
from lengthwise.model import Decode, Streams, decode_streams
from lengthwise.run import Run
from lengthwise.tasks import DIGITS, Transducer
from lengthwise.tasks.sampling import generator, suite_problems

# Digits that short problems are repeated to, so that their times are not too short to compare.
_ENOUGH = 20_000

WAYS: tuple[Decode, ...] = ("parallel", "sequential")


def random_problem(task: Transducer, layout: Layout, length: int, seed: int = 0) -> np.ndarray:
    """Digits `[1, operand, column]` of a uniform problem of this length."""
    rng = generator(seed, "test", length)
    return suite_problems(
        task, rng, 1, suite="uniform", length=length, width=layout.width, split="any"
    )


def write_out(task: Transducer, digits: np.ndarray) -> str:
    """A problem `[operand, column]` as an expression."""
    texts = iter(
        "".join(DIGITS[digit] for digit in own[::-1].tolist()).lstrip("0") or "0" for own in digits
    )
    return "".join(s.name if s.kind == "symbol" else next(texts) for s in task.segments)


def truth(run: Run, expression: str) -> str:
    """The right answer."""
    parts = run.parse(expression)
    layout = run.layout(max(len(part) for part in parts))
    return run.task.read(run.task.answer(digits_of(run.task, parts, layout.width))[0])


def measured_solve(run: Run, expression: str) -> tuple[float, float, str]:
    """Wall-clock seconds, peak memory in MiB, and the answer, of `lengthwise solve` in a process."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "expression", Path(folder) / "answer"
        given.write_text(expression + "\n")
        command = ["-m", "lengthwise", "solve", str(run.path), "--file", str(given)]
        with answer.open("wb") as out:
            spent, memory = measured_process(command, out.fileno())
        return spent, memory, answer.read_text().strip()


def decoder(run: Run, length: int, way: Decode, count: int) -> Callable[[], None]:
    """Decode one random problem, `count` times over."""
    layout = run.layout(length)
    source = list(layout.source_bytes(random_problem(run.task, layout, length)))

    def work() -> None:
        for _ in range(count):
            streams = Streams([layout], source)
            decode_streams(run.model, run.bias, streams, way)  # type: ignore[arg-type]  # of lines

    return work


def run(
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    lengths: Iterable[int] = (1_000, 10_000, 100_000),
    long: Iterable[int] = (100_000, 1_000_000),
    chain: int = 100_000,
    model: Run | None = None,
) -> list[Result]:
    """Time per digit by length, both ways; then whole commands.

    Args:
        repeats: measurements behind each median; at most 3 of those that take long.
        on_progress: called with a few words before each measurement.
        lengths: digits, for the time per digit.
        long: digits of random problems that the command answers.
        chain: digits of problems that are one carry chain.
        model: the run; by default an addition is trained.
    """
    trained = model or trained_run(on_progress)
    task, results = trained.task, []
    lengths = list(lengths)
    for way in WAYS:
        on_progress(f"long: {way}, {', '.join(f'{length:,}' for length in lengths)} digits in turn")
        rounds = repeats if way == "parallel" else min(repeats, 3)
        counts = [max(1, _ENOUGH // length) for length in lengths]
        works = [
            decoder(trained, length, way, count)
            for length, count in zip(lengths, counts, strict=True)
        ]
        times = alternate(works, rounds)
        note = f"batch 1, lengths in turn, median of {rounds}"
        digits = [length * count for length, count in zip(lengths, counts, strict=True)]
        each = [[1e6 * t / n for t in own] for own, n in zip(times, digits, strict=True)]
        for length, own in zip(lengths, each, strict=True):
            case = f"{length:,} digits, {way}: a digit"
            results.append(Result("long", case, statistics.median(own), "us", note))
        flat = statistics.median(
            last / first for first, last in zip(each[0], each[-1], strict=True)
        )
        case = f"{way}: time per digit, {lengths[-1]:,} to {lengths[0]:,} digits"
        results.append(Result("long", case, flat, "ratio", "1 is flat, less is faster"))
    cases = {
        f"{length:,} random digits": write_out(
            task, random_problem(task, trained.layout(length), length)[0]
        )
        for length in long
    }
    nines = DIGITS[task.base - 1] * chain
    if task.name == "addition":
        # The first guess is zeros, which 99...9 + 1 confirms at once; 99...9 + 0 refutes every one.
        cases |= {f"{chain:,} nines + 1": f"{nines}+1", f"{chain:,} nines + 0": f"{nines}+0"}
    else:
        cases[f"{chain:,} nines"] = nines
    for case, expression in cases.items():
        on_progress(f"long: {case}")
        rounds = min(repeats, 3)
        found = [measured_solve(trained, expression) for _ in range(rounds)]
        if {answer for _, _, answer in found} != {truth(trained, expression)}:
            raise RuntimeError(f"the model's answer to {case} is wrong, so its time means nothing")
        note = f"lengthwise solve, a process, median of {rounds}"
        seconds = statistics.median(one[0] for one in found)
        results.append(Result("long", f"{case}: time", seconds, "s", note))
        results.append(Result("long", f"{case}: memory", max(f[1] for f in found), "MiB", "peak"))
    return results
