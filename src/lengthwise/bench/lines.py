"""A training step by width: attention along lines against dense attention, in time and in memory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from lengthwise.bench.matmul import CPU
from lengthwise.bench.models import Steps
from lengthwise.bench.results import Bench, alternate, measured_process, ratios
from lengthwise.settings.config import make_config

_PATHS = ("lines", "dense")


def make_steps(width: int, batch: int, path: str) -> Steps:
    """Those of the default addition model with a bias of lines, at a width, along a path of attention."""
    sizes = [f"data.length={width - 1}", f"data.width={width}", f"training.batch_size={batch}"]
    config = make_config({"task": "addition", "attention": path, "device": "cpu"}, sizes)
    return Steps(config.for_retraining(), True, CPU, halves=True)


def run(
    bench: Bench,
    *,
    sizes: Iterable[tuple[int, int]] = ((128, 32), (1024, 4)),
    widths: Iterable[int] = (64, 1024, 4096),
) -> None:
    """Time of a step on both paths, and the memory of the lines path.

    Args:
        sizes: widths in digits, and problems in a batch.
        widths: digits, for the memory of one problem at each.
    """
    for width, batch in sizes:
        bench.say(f"a step at {width} digits")
        steps = max(1, 16_384 // (width * batch))
        works = [partial(make_steps(width, batch, path).take, steps) for path in _PATHS]
        times = alternate(works, bench.repeats)
        note = f"batch {batch}, blocks of {steps} steps in turn"
        for path, own in zip(_PATHS, times, strict=True):
            each = [1e3 * spent / steps for spent in own]
            bench.add(f"{width} digits, {path}", each, "ms/step", note)
        bench.add(f"{width} digits: ratio", ratios(times[1], times[0]), "x", note)
    for width in widths:
        bench.say(f"memory at {width} digits")
        steps = f"from lengthwise.bench.lines import make_steps; make_steps({width}, 4, 'lines').take(2)"
        _, peak = measured_process(["-c", steps])
        note = "a process that takes two steps, torch included; batch 4"
        bench.add(f"{width} digits, lines: memory", peak, "MiB", note)
