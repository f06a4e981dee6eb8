"""Greedy decoding speed by length, against decoding with `torch.nn`, which has no cache."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from lengthwise.bench.models import (
    TorchTransformer,
    bench_config,
    hand_bias,
    no_cache,
    random_problems,
)
from lengthwise.bench.results import Bench, alternate, ratios
from lengthwise.decoding.greedy import greedy_decode
from lengthwise.model.attention import Path
from lengthwise.problems.layout import Layout
from lengthwise.runs.parts import make_model

_BATCH = 16
_PATHS: tuple[Path, ...] = ("dense", "lines")


class Setup:
    """An untrained default model with the calibrated bias, and problems of one length.

    The model never writes the end token, so that every decoding runs for all rows.
    """

    def __init__(self, length: int, batch: int = _BATCH) -> None:
        config = bench_config("addition", calibrated=True)
        task = config.make_task()
        self.layout = Layout(task, length + task.growth)
        self.bias = hand_bias(config.task, config.model.heads)
        torch.manual_seed(config.seed)
        self.model = make_model(config).eval()
        with torch.no_grad():
            self.model.to_logits.bias[self.layout.vocabulary.end] = -1e4
        self.source = self.layout.source(random_problems(self.layout, length, count=batch))

    @property
    def tokens(self) -> int:
        """Tokens that one decoding writes."""
        return len(self.source) * self.layout.target_length

    def decode(self, path: Path) -> Tensor:
        """Ours."""
        return greedy_decode(self.model, self.bias, self.layout, self.source, path)

    def baseline(self) -> Callable[[], Tensor]:
        """A decoder made of `torch.nn`: every token takes a pass over all tokens before it."""
        # In training mode, for torch's fast path of evaluation takes no float masks; no dropout.
        model = TorchTransformer(self.model, self.bias, self.layout, len(self.source))
        return no_cache(model, self.layout, self.source)


def run(
    bench: Bench,
    *,
    lengths: Iterable[int] = (20, 60, 200, 1000),
    baseline_up_to: int = 60,
    batch: int = _BATCH,
) -> None:
    """Tokens per second at each length; from 500 digits on at most 2 measurements.

    Args:
        bench: the benchmark.
        lengths: digits of the operands.
        baseline_up_to: the longest problems that the baseline decodes too.
        batch: problems decoded at once.
    """
    for length in lengths:
        bench.say(f"{length} digits")
        setup = Setup(length, batch)
        works: list[Callable[[], Tensor]] = [partial(setup.decode, path) for path in _PATHS]
        if length <= baseline_up_to:
            works.append(setup.baseline())
        rounds = bench.repeats if length < 500 else min(bench.repeats, 2)
        times = alternate(works, rounds)
        case, note = f"{length} digits", f"batch {batch}, {rounds} in turn"
        for name, own in zip((*_PATHS, "torch.nn"), times, strict=False):
            spent = statistics.median(own)
            bench.add(f"{case}, {name}", setup.tokens / spent, "tokens/s", note)
            if length >= 500:
                bench.add(f"{case}, {name}: time", spent, "s", note)
        if length <= baseline_up_to:
            ratio = statistics.median(ratios(times[-1], map(min, *times[:-1])))
            bench.add(f"{case}: ratio", ratio, "x", "the faster path; torch has no cache")
