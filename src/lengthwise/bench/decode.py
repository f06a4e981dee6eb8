"""Greedy decoding speed by length, against decoding with `torch.nn`, which has no cache."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lengthwise.bench.models import TorchTransformer, bench_config, hand_bias, no_cache
from lengthwise.bench.results import Result, alternate
from lengthwise.layout import Layout
from lengthwise.model import greedy_decode
from lengthwise.model.attention import Path
from lengthwise.parts import make_model
from lengthwise.tasks.sampling import generator, suite_problems

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
        problems = suite_problems(
            task,
            generator(config.seed, "test"),
            batch,
            suite="uniform",
            length=length,
            width=self.layout.width,
            split="any",
        )
        self.source = self.layout.source(problems)

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
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    lengths: Iterable[int] = (20, 60, 200, 1000),
    baseline_up_to: int = 60,
    batch: int = _BATCH,
) -> list[Result]:
    """Tokens per second at each length.

    Args:
        repeats: measurements behind each median; at most 2 from 500 digits on.
        on_progress: called with a few words before each measurement.
        lengths: digits of the operands.
        baseline_up_to: the longest problems that the baseline decodes too.
        batch: problems decoded at once.
    """
    results = []
    for length in lengths:
        on_progress(f"decode: {length} digits")
        setup = Setup(length, batch)
        works: list[Callable[[], Tensor]] = [lambda s=setup, p=path: s.decode(p) for path in _PATHS]
        if length <= baseline_up_to:
            works.append(setup.baseline())
        rounds = repeats if length < 500 else min(repeats, 2)
        times = alternate(works, rounds)
        case, note = f"{length} digits", f"batch {batch}, {rounds} in turn"
        for name, own in zip((*_PATHS, "torch.nn"), times, strict=False):
            rate = setup.tokens / statistics.median(own)
            results.append(Result("decode", f"{case}, {name}", rate, "tokens/s", note))
            if length >= 500:
                seconds = statistics.median(own)
                results.append(Result("decode", f"{case}, {name}: time", seconds, "s", note))
        if length <= baseline_up_to:
            best = [slow / min(pair) for *pair, slow in zip(*times, strict=True)]
            ratio = statistics.median(best)
            results.append(
                Result(
                    "decode", f"{case}: ratio", ratio, "x", "the faster path; torch has no cache"
                )
            )
    return results
