"""Training speed, against the same model made of `torch.nn`, and against the matrix peak.

Ours is the training step as `train` takes it, data and accelerate included. The baseline is the
step that a person would write by hand around `nn.TransformerDecoder`: the same problems, weights,
loss and optimizer, and no accelerate. Both run in one process, in alternating blocks of steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from lengthwise.bench.matmul import SIZES, peak
from lengthwise.bench.models import TorchTransformer, bench_config, hand_bias
from lengthwise.bench.results import Result, alternate
from lengthwise.bias import Causal
from lengthwise.config import Config
from lengthwise.run import Run
from lengthwise.shards import shard_threads
from lengthwise.training import Trainer


class Pair:
    """Our trainer and the baseline, with equal weights before the first step.

    Attributes:
        trainer: ours.
        baseline: the same model made of `torch.nn`; see there for `cheapest`.
    """

    def __init__(self, config: Config, calibrated: bool, cheapest: bool = True) -> None:
        heads = config.model.heads
        bias = hand_bias(config.task, heads) if calibrated else Causal(heads)
        # The trainer's steps write nothing, so that the folder need not exist.
        self.trainer = Trainer(config, Run(Path("bench"), config, bias), Accelerator(cpu=True))
        layout, batch = self.trainer.layout, config.training.batch_size
        self.baseline = TorchTransformer(self.trainer.bare, bias, layout, batch, cheapest)
        self.optimizer = torch.optim.Adam(
            self.baseline.parameters(),
            lr=config.training.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0

    def ours(self, steps: int) -> None:
        """Take steps with our trainer."""
        with shard_threads(self.trainer.shards):
            for _ in range(steps):
                self.trainer.one_step()

    def theirs(self, steps: int) -> None:
        """Take steps with the baseline."""
        for _ in range(steps):
            self.baseline_step()

    def baseline_step(self) -> torch.Tensor:
        """One step of the baseline on the problems that ours has at that step; its loss."""
        trainer = self.trainer
        batch = trainer.batches.train(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = trainer.schedule.learning_rate(self.step)
        logits = self.baseline(batch.source, batch.target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()


def step_flops(config: Config) -> int:
    """Floating-point operations of all matrix products in one training step of the dense model.

    For one problem with L rows and S source positions, width d, feed-forward f, and t tokens,
    forward takes per layer

    - self-attention: 2 L d (3 d) to project, 4 L L d to score and read, 2 L d d to join,
    - cross-attention: 2 L d d + 2 S d (2 d), 4 L S d, 2 L d d,
    - feed-forward: 4 L d f,

    and 2 L d t for the logits. Backward takes twice that: each product has two gradients. Products
    that a bias of lines makes unnecessary are counted nevertheless, so that equal steps have
    equal numbers.
    """
    layout = config.layout()
    rows, source, tokens = layout.target_length, layout.source_length, len(layout.vocabulary)
    d, f = config.model.width, config.model.feed_forward
    own = 2 * rows * d * 3 * d + 4 * rows * rows * d + 2 * rows * d * d
    cross = 2 * rows * d * d + 2 * source * d * 2 * d + 4 * rows * source * d + 2 * rows * d * d
    forward = config.model.layers * (own + cross + 4 * rows * d * f) + 2 * rows * d * tokens
    return 3 * forward * config.training.batch_size


def run(
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    tasks: Iterable[str] = ("addition", "successor"),
    steps: int = 50,
    sizes: Iterable[int] = SIZES,
) -> list[Result]:
    """Samples per second of the default settings, for both trainings of each task.

    Args:
        repeats: blocks of each side.
        on_progress: called with a few words before each measurement.
        tasks: names of tasks.
        steps: optimizer steps in a block.
        sizes: of the matrices that find the peak.
    """
    results, peaks, shares = [], [], []
    for task in tasks:
        for calibrated in (False, True):
            case = f"{task}, {'calibrated' if calibrated else 'vanilla'}"
            on_progress(f"train: {case}")
            # Others may slow the machine for a while, so the peak is measured again and again.
            peaks.append(peak(sizes, repeats)[0])
            config = bench_config(task, calibrated)
            pair, other = Pair(config, calibrated, cheapest=False), Pair(config, calibrated)
            ours, dense, cheapest = alternate(
                [
                    lambda p=pair: p.ours(steps),
                    lambda p=pair: p.theirs(steps),
                    lambda p=other: p.theirs(steps),
                ],
                repeats,
            )
            results += _results(case, config, steps, ours, dense, cheapest)
            shares.append((case, step_flops(config) * steps / statistics.median(ours) / 1e9))
    gflops = max(peaks)
    return results + [
        Result("train", f"{case}: matrix peak", 100 * own / gflops, "%", f"of {gflops:.0f} GFLOP/s")
        for case, own in shares
    ]


def _results(
    case: str,
    config: Config,
    steps: int,
    ours: list[float],
    dense: list[float],
    cheapest: list[float],
) -> list[Result]:
    batch = config.training.batch_size
    note = f"batch {batch}, blocks of {steps} steps in turn"

    def rate(name: str, side: list[float]) -> Result:
        return Result(
            "train", name, statistics.median(steps * batch / b for b in side), "samples/s", note
        )

    def ratio(name: str, side: list[float]) -> Result:
        found = [slow / fast for fast, slow in zip(ours, side, strict=True)]
        spread = f"pairs of blocks: {min(found):.2f} to {max(found):.2f}"
        return Result("train", name, statistics.median(found), "x", spread)

    return [
        rate(case, ours),
        rate(f"{case}: torch.nn", dense),
        ratio(f"{case}: ratio", dense),
        rate(f"{case}: torch.nn, cheapest masks", cheapest),
        ratio(f"{case}: ratio, cheapest masks", cheapest),
    ]
