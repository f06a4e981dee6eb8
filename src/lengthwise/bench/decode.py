"""Greedy decoding speed by length, against decoding with `torch.nn`, which has no cache."""

from __future__ import annotations

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

_PATHS: tuple[Path, ...] = ("dense", "lines")


def decoders(
    length: int, batch: int = 16, *, baseline: bool = True
) -> tuple[Layout, dict[str, Callable[[], Tensor]]]:
    """Ours on both paths, and `torch.nn` if `baseline`, of an untrained model with the calibrated bias.

    Each decodes the same problems of one length to tokens `[problem, row]`, laid out as is returned. The
    model never writes the end token, so that every decoding runs for all rows.
    """
    config = bench_config("addition", calibrated=True)
    layout = config.layout(length + config.make_task().growth)
    bias = hand_bias(config.task, config.model.heads)
    torch.manual_seed(config.seed)
    model = make_model(config).eval()
    with torch.no_grad():
        model.to_logits.bias[layout.vocabulary.end] = -1e4
    source = layout.source(random_problems(layout, length, count=batch))
    found: dict[str, Callable[[], Tensor]] = {
        path: partial(greedy_decode, model, bias, layout, source, path) for path in _PATHS
    }
    if baseline:
        # In training mode, for torch's fast path of evaluation takes no float masks; no dropout.
        found["torch.nn"] = no_cache(TorchTransformer(model, bias, layout, batch), layout, source)
    return layout, found


def run(
    bench: Bench,
    *,
    lengths: Iterable[int] = (20, 60, 200, 1000),
    baseline_up_to: int = 60,
    batch: int = 16,
) -> None:
    """Tokens per second at each length; from 500 digits on at most 2 measurements.

    Args:
        lengths: digits of the operands.
        baseline_up_to: the longest problems that the baseline decodes too.
        batch: problems decoded at once.
    """
    for length in lengths:
        bench.say(f"{length} digits")
        layout, works = decoders(length, batch, baseline=length <= baseline_up_to)
        rounds = bench.repeats if length < 500 else min(bench.repeats, 2)
        times = alternate(works.values(), rounds)
        case, note = f"{length} digits", f"batch {batch}, {rounds} in turn"
        for name, own in zip(works, times, strict=True):
            rates = (batch * layout.target_length / spent for spent in own)
            bench.add(f"{case}, {name}", rates, "tokens/s", note)
            if length >= 500:
                bench.add(f"{case}, {name}: time", own, "s", note)
        if length <= baseline_up_to:
            found = ratios(times[-1], map(min, *times[:-1]))
            bench.add(f"{case}: ratio", found, "x", "the faster path; torch has no cache")
