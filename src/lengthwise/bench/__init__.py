"""Benchmarks: how fast this machine runs lengthwise, and how fast the same model is in plain torch.

lengthwise bench                  all of them but scale, some minutes; gpu where there is one
lengthwise bench train --json     one of them, as JSON
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from lengthwise.arguments import as_choice
from lengthwise.bench import (
    calibrate,
    decode,
    gpu,
    lines,
    long,
    matmul,
    peers,
    scale,
    sheets,
    solve,
    train,
)
from lengthwise.bench.results import Bench, Report, Result, machine
from lengthwise.settings.config import InputError

BENCHMARKS: dict[str, Callable[..., None]] = {
    module.__name__.rpartition(".")[2]: module.run
    for module in (
        *(matmul, train, calibrate, decode, lines, long, solve, sheets, scale, peers, gpu),
    )
}


def run_benchmarks(
    names: Iterable[str] = (),
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] | None = None,
) -> Report:
    """Run benchmarks one after the other.

    Args:
        names: names in `BENCHMARKS`; by default all of them but for `scale`, which takes a quarter of an
            hour, for `gpu` where there is none, and for `peers` where the libraries that it measures are
            not installed.
        repeats: measurements behind each median.
        on_progress: called with a few words before each measurement.

    Raises:
        InputError: for an unknown name, fewer than one repeat, `gpu` without a GPU, or `peers`
            without the libraries.
    """
    usual = {"gpu": torch.cuda.is_available(), "peers": peers.installed(), "scale": False}
    here = [name for name in BENCHMARKS if usual.get(name, True)]
    names = list(dict.fromkeys(names)) or here
    for name in names:
        as_choice("benchmark", name, BENCHMARKS)
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    benches = [Bench(name, repeats, on_progress) for name in names]
    for bench in benches:
        BENCHMARKS[bench.name](bench)
    return Report(machine(), [result for bench in benches for result in bench.results])


__all__ = ["BENCHMARKS", "Bench", "Report", "Result", "run_benchmarks"]
