"""A training step by width: attention along lines against dense attention, in time and in memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.bench.models import bench_config, hand_bias
from lengthwise.bench.results import Result, alternate, measured_process
from lengthwise.layout import Layout
from lengthwise.model import plan_attention
from lengthwise.model.attention import Path
from lengthwise.parts import make_model
from lengthwise.shards import backward, choose_shards, shard_threads
from lengthwise.tasks.sampling import generator, training_problems
from lengthwise.weights import FlatWeights

_PATHS: tuple[Path, ...] = ("lines", "dense")


def make_steps(width: int, batch: int, path: Path) -> Callable[[int], None]:
    """So many steps of the default addition model: forward, backward, Adam; on problems drawn once."""
    config = bench_config("addition", calibrated=True)
    task, bias = config.make_task(), hand_bias("addition", config.model.heads)
    layout = Layout(task, width)
    torch.manual_seed(config.seed)
    model = make_model(config).train()
    weights = FlatWeights(model.parameters())
    optimizer = torch.optim.Adam([weights.whole], fused=True)
    plan = plan_attention(bias, layout, config.model.layers, path=path)
    problems = training_problems(
        task, generator(0, "train"), batch, length=width - 1, width=width, carry_fraction=0.3
    )
    tokens = layout.batch(problems)
    shards = choose_shards(model, plan, batch, layout.target_length)

    def mean_loss(source: Tensor, target: Tensor) -> Tensor:
        logits = model(source, target[:, :-1], plan).logits
        return F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())

    def take(steps: int) -> None:
        with shard_threads(shards):
            for _ in range(steps):
                backward(mean_loss, tokens, weights, shards)
                optimizer.step()

    return take


def peak_memory(width: int, batch: int, path: Path) -> float:
    """Peak memory of a process that takes two steps, in MiB."""
    code = (
        f"from lengthwise.bench.lines import make_steps; make_steps({width}, {batch}, {path!r})(2)"
    )
    _, memory = measured_process(["-c", code])
    return memory


def run(
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    sizes: Iterable[tuple[int, int]] = ((128, 32), (1024, 4)),
    widths: Iterable[int] = (64, 1024, 4096),
) -> list[Result]:
    """Time of a step on both paths, and the memory of the lines path.

    Args:
        repeats: blocks of each side.
        on_progress: called with a few words before each measurement.
        sizes: widths in digits, and problems in a batch.
        widths: digits, for the memory of one problem at each.
    """
    results = []
    for width, batch in sizes:
        on_progress(f"lines: a step at {width} digits")
        steps = max(1, 16_384 // (width * batch))
        works = [make_steps(width, batch, path) for path in _PATHS]
        times = alternate([lambda w=work, n=steps: w(n) for work in works], repeats)
        note = f"batch {batch}, blocks of {steps} steps in turn"
        for path, own in zip(_PATHS, times, strict=True):
            value = 1e3 * statistics.median(own) / steps
            results.append(Result("lines", f"{width} digits, {path}", value, "ms/step", note))
        ratio = statistics.median(slow / fast for fast, slow in zip(*times, strict=True))
        results.append(Result("lines", f"{width} digits: ratio", ratio, "x", note))
    for width in widths:
        on_progress(f"lines: memory at {width} digits")
        peak = peak_memory(width, 4, "lines")
        note = "a process, torch included; batch 4"
        results.append(Result("lines", f"{width} digits, lines: memory", peak, "MiB", note))
    return results
