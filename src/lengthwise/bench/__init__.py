"""Benchmarks: how fast this machine runs lengthwise, and how fast the same model is in plain torch.

lengthwise bench                  all of them but scale, some minutes; gpu where there is one
lengthwise bench train --json     one of them, as JSON
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any

import torch

from lengthwise.arguments import as_choice
from lengthwise.bench.results import Bench, Report, Result, machine
from lengthwise.settings.config import InputError


def _run(name: str, bench: Bench, **sizes: Any) -> None:
    """Load a benchmark and run it: what one measures, memory too, holds nothing of the others."""
    import_module(f"lengthwise.bench.{name}").run(bench, **sizes)


_NAMES = (
    *("matmul", "train", "calibrate", "decode", "lines", "long", "solve", "sheets"),
    *("scale", "peers", "gpu"),
)
BENCHMARKS: dict[str, Callable[..., None]] = {name: partial(_run, name) for name in _NAMES}


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
    from lengthwise.bench import peers

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
