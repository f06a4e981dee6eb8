"""Long answers: time and memory of decoding a hundred thousand digits, and a million.

The model is trained by the default pipeline, for how many passes parallel decoding takes depends on what it
has learned. Times by length are of decoding alone; those of a whole `lengthwise solve`, a process of its
own, count everything from Python's start to the last digit, and so does its peak memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lengthwise.bench.models import random_problems, trained_run
from lengthwise.bench.results import Bench, alternate, measured_process, ratios
from lengthwise.decoding.any_rows import Streams
from lengthwise.decoding.greedy import Decode, decode_streams
from lengthwise.problems.worked import answer_to, expression_of
from lengthwise.runs.run import Run
from lengthwise.tasks import DIGITS

# Digits that short problems are repeated to, so that their times are not too short to compare.
_ENOUGH = 20_000

WAYS: tuple[Decode, ...] = ("parallel", "sequential")


def measured_solve(run: Run, expression: str) -> tuple[float, float, str]:
    """Wall-clock seconds, peak memory in MiB, and the answer, of `lengthwise solve` in a process."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "expression", Path(folder) / "answer"
        given.write_text(expression + "\n")
        command = ["-m", "lengthwise", "solve", str(run.path), "--file", str(given)]
        with answer.open("wb") as out:
            spent, memory = measured_process(command, out.fileno())
        return spent, memory, answer.read_text().strip()


def decoder(run: Run, length: int, count: int, way: Decode) -> Callable[[], None]:
    """Decode one random problem, `count` times over."""
    layout = run.layout(length)
    source = list(layout.source_bytes(random_problems(layout, length)))

    def work() -> None:
        for _ in range(count):
            streams = Streams([layout], source)
            decode_streams(run.model, run.bias, streams, way)  # type: ignore[arg-type]  # of lines

    return work


def run(
    bench: Bench,
    *,
    lengths: Sequence[int] = (1_000, 10_000, 100_000),
    long: Iterable[int] = (100_000, 1_000_000),
    chain: int = 100_000,
    model: Run | None = None,
) -> None:
    """Time per digit by length, both ways; then whole commands; at most 3 measurements of what takes long.

    Args:
        lengths: digits, for the time per digit.
        long: digits of random problems that the command answers.
        chain: digits of problems that are one carry chain.
        model: the run; by default an addition is trained.
    """
    bench.say("training an addition by the default pipeline")
    trained = model or trained_run()
    task, few = trained.task, min(bench.repeats, 3)
    for way in WAYS:
        bench.say(f"{way}, {', '.join(f'{length:,}' for length in lengths)} digits in turn")
        rounds = bench.repeats if way == "parallel" else few
        counts = [max(1, _ENOUGH // length) for length in lengths]
        works = [decoder(trained, *pair, way) for pair in zip(lengths, counts, strict=True)]
        note = f"batch 1, lengths in turn, median of {rounds}"
        each = []
        for own, length, count in zip(alternate(works, rounds), lengths, counts, strict=True):
            each.append([1e6 * spent / (length * count) for spent in own])
            bench.add(f"{length:,} digits, {way}: a digit", each[-1], "us", note)
        case = f"{way}: time per digit, {lengths[-1]:,} to {lengths[0]:,} digits"
        bench.add(case, ratios(each[-1], each[0]), "ratio", "1 is flat, less is faster")
    cases = {
        f"{length:,} random digits": expression_of(
            task, random_problems(trained.layout(length), length)[0], length
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
        bench.say(case)
        found = [measured_solve(trained, expression) for _ in range(few)]
        truth = answer_to(trained.task, trained.parse(expression))
        if {answer for _, _, answer in found} != {truth}:
            raise RuntimeError(f"the model's answer to {case} is wrong, so its time means nothing")
        note = f"lengthwise solve, a process, median of {few}"
        bench.add(f"{case}: time", (one[0] for one in found), "s", note)
        bench.add(f"{case}: memory", max(one[1] for one in found), "MiB", "peak")
